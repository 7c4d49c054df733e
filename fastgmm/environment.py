"""What fastgmm runs on: versions, processor, threads, GPU. ``fastgmm info`` prints it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy",
    "numba",
    "llvmlite",
    "scipy",
    "scikit-learn",
    "safetensors",
    "matplotlib",
    "pyarrow",
    "torch",
    "triton",
)
SIMD = (
    "sse4.2",
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512dq",
    "avx512bw",
    "avx512vl",
    "avx512bf16",
    "avx512fp16",
    "neon",
    "fullfp16",
    "sve",
    "sve2",
    "bf16",
)

__all__ = ["as_text", "describe"]


def describe() -> dict[str, Any]:
    """Collect the facts that a bug report needs.

    Returns
    -------
    dict
        Plain strings, numbers, lists and dicts, in reading order; it can go to JSON as it is.
        torch is imported only where it is installed, to ask it for the GPUs.
    """
    return {
        "fastgmm": _version("fastgmm") or _own_version(),
        "python": _python(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu": _cpu(),
        "threads": _threads(),
        "cache": _cache(),
        "gpu": _gpu(),
    }


def as_text(facts: Mapping[str, Any]) -> str:
    """Lay the facts out in two columns."""
    lines: list[tuple[str, str]] = []

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for inner, item in value.items():
                add(f"{name} {inner}" if name != "packages" else inner, item)
        elif isinstance(value, (list, tuple)):
            lines.append((name, " ".join(map(str, value)) or "none"))
        elif value is None:
            lines.append((name, "not installed" if name in PACKAGES else "unknown"))
        elif isinstance(value, bool):
            lines.append((name, "yes" if value else "no"))
        else:
            lines.append((name, str(value)))

    for name, value in facts.items():
        add(name, value)
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _python() -> str:
    text = f"{platform.python_version()} ({platform.python_implementation()})"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        # An extension that does not know such builds switches the lock on when it is imported.
        on = getattr(sys, "_is_gil_enabled", lambda: True)()
        text += f", free-threaded build, GIL {'on' if on else 'off'}"
    return text


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _own_version() -> str:
    import fastgmm

    return f"{fastgmm.__version__} (not installed, run from {Path(fastgmm.__file__).parent.parent})"


def _cpu() -> dict[str, Any]:
    from llvmlite import binding as llvm

    features = llvm.get_host_cpu_features()
    return {
        "model": _cpu_model(),
        "llvm name": llvm.get_host_cpu_name(),
        "simd": [name for name in SIMD if features.get(name)],
        "logical cores": os.cpu_count(),
        "usable cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }


def _cpu_model() -> str | None:
    try:
        if sys.platform == "linux":
            for line in (
                Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
            ):
                if line.lower().startswith("model name"):
                    return line.partition(":")[2].strip()
        elif sys.platform == "darwin":
            found = subprocess.run(
                ["sysctl", "-n", "machdep.cpu.brand_string"],
                capture_output=True,
                text=True,
                timeout=5,
                check=False,
            )
            return found.stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        pass  # a report with a hole is better than none
    return platform.processor() or platform.machine() or None


def _threads() -> dict[str, Any]:
    numba: Any = importlib.import_module("numba")  # most of it is not typed

    try:
        # Asking for the number starts the pool; only then is the layer decided.
        facts: dict[str, Any] = {"numba": numba.get_num_threads(), "layer": numba.threading_layer()}
    except ValueError as error:
        facts = {"numba": None, "layer": f"none ({error})"}
    facts["svml"] = bool(numba.config.USING_SVML)
    facts["environment"] = [
        f"{name}={os.environ[name]}"
        for name in sorted(os.environ)
        if name.startswith(("NUMBA_", "OMP_", "MKL_", "OPENBLAS_"))
    ]
    return facts


def _cache() -> str:
    """Where compiled kernels are kept: Numba takes the first of these that can be written."""
    numba: Any = importlib.import_module("numba")  # most of it is not typed

    if numba.config.CACHE_DIR:
        return str(numba.config.CACHE_DIR)
    spec = importlib.util.find_spec("fastgmm_kernels")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        folder = Path(place) / "cpu" / "__pycache__"
        if os.access(folder if folder.exists() else folder.parent, os.W_OK):
            return str(folder)
    return "numba's folder in the user's cache, if that can be written"


def _gpu() -> dict[str, Any]:
    """Name the GPUs, or say why there is none."""
    if importlib.util.find_spec("torch") is None:
        return {"devices": [], "reason": "torch is not installed"}
    try:
        torch = importlib.import_module("torch")
    except (
        ImportError,
        OSError,
    ) as error:  # a broken installation: a missing library of the driver, for example
        return {
            "devices": [],
            "reason": f"torch cannot be imported: {' '.join(str(error).split())}",
        }
    if torch.version.cuda is None:
        return {"devices": [], "reason": f"torch {torch.__version__} was built without CUDA"}
    if not torch.cuda.is_available():
        return {
            "devices": [],
            "reason": f"torch {torch.__version__} finds no usable GPU or driver",
        }
    found = []
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        found.append(
            f"cuda:{i} {about.name}, {about.total_memory / 2**30:.0f} GiB, "
            f"compute capability {about.major}.{about.minor};"
        )
    reason = (
        "triton is not installed"
        if importlib.util.find_spec("triton") is None
        else f"CUDA {torch.version.cuda}"
    )
    return {"devices": found, "reason": reason}
