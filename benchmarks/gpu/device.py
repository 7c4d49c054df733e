"""The device: what it is, waiting for it, and what it was seen to do."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

#: names of the driver's and the runtime's calls in a profile
_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "hipLaunchKernel", "hipModuleLaunchKernel")
_WAITS = ("Synchronize",)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def facts(device: torch.device) -> dict[str, Any]:
    """Name, capability, memory, driver and software of the device, as plain JSON values."""
    found: dict[str, Any] = {
        "type": device.type,
        "name": str(device),
        "cuda": torch.version.cuda,
        "versions": {name: _version(name) for name in ("torch", "triton", "numpy")},
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "driver": _driver(),
        }
    return found


def free(device: torch.device) -> None:
    """Give back what nobody holds, so that other allocators can have it; raises what went wrong."""
    gc.collect()
    synchronise(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak_memory(device: torch.device, call: Callable[[], object]) -> int | None:
    """Bytes that torch allocated at most during a call, beyond what was there before."""
    if device.type != "cuda":
        call()
        return None
    synchronise(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    synchronise(device)
    return torch.cuda.max_memory_allocated(device) - before


def count_calls(device: torch.device, fit: Callable[[int], object]) -> dict[str, float] | None:
    """Kernel launches and waits of the host per iteration, from the profiles of two fits.

    None where the profiler sees nothing, as on a host or where the driver does not let it.
    """
    if device.type != "cuda":
        return None
    short, long = (_profile(device, fit, n) for n in (2, 4))
    if not long["launches"]:
        return None
    return {name: (long[name] - short[name]) / 2 for name in long}


def _profile(device: torch.device, fit: Callable[[int], object], n_iter: int) -> dict[str, int]:
    from torch.profiler import ProfilerActivity, profile

    synchronise(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as run:
        fit(n_iter)
    counts = {"launches": 0, "waits": 0}
    for event in run.key_averages():
        if event.key.startswith(_LAUNCHES):
            counts["launches"] += event.count
        elif event.key.endswith(_WAITS):
            counts["waits"] += event.count
    return counts


def _driver() -> str | None:
    """The driver's version, as its own tool tells it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.split("\n")[0].strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
