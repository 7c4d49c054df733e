"""Where and with what a figure was measured."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .adapters import ADAPTERS

_PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "threadpoolctl")
#: variables of the environment by which mathematical libraries choose other code than their own
#: choice for this processor, or other threads
_CHOICES = (
    "OPENBLAS_", "GOTO_", "BLIS_", "MKL_", "DNNL_", "ONEDNN_", "ATEN_", "NPY_", "OMP_",
    "KMP_AFFINITY", "KMP_BLOCKTIME", "NUMBA_CPU_", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER",
)  # fmt: skip


def strays() -> str | None:
    """A package that is not the one of this checkout, whose commit the results would carry."""
    import fastgmm
    import fastgmm_kernels

    root = Path(__file__).resolve().parent.parent
    for package in (fastgmm, fastgmm_kernels):
        found = Path(str(package.__file__)).resolve().parent
        if root not in found.parents:
            return f"{package.__name__} in {found}"
    return None


def _named(argument: str) -> str:
    """An argument without the folders of this machine."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def provenance() -> dict[str, Any]:
    """CPU, threads, versions, commit and date, as plain JSON values."""
    import numba
    from threadpoolctl import threadpool_info

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "command": " ".join(map(_named, sys.orig_argv[1:])),
        "cpu": cpu_model(),
        "cores": cores(),
        "load_average_at_end": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "threads": {
            "numba": numba.get_num_threads(),
            "pools": [
                {
                    key: pool.get(key)
                    for key in ("internal_api", "version", "architecture", "num_threads")
                }
                for pool in threadpool_info()
            ],
        },
        "environment": overrides(os.environ),
        "versions": {
            **{adapter.name: adapter.version() for adapter in ADAPTERS},
            **{name: _version(name) for name in _PACKAGES},
        },
    }


def overrides(environment: Mapping[str, str]) -> dict[str, str]:
    """What is set there that makes a library slower or faster than users have it."""
    return {name: environment[name] for name in sorted(environment) if name.startswith(_CHOICES)}


def set_by_hand(origin: Mapping[str, Any]) -> str:
    """The same as text, from what :func:`provenance` gave; empty where nothing is set."""
    return ", ".join(f"{name}={value}" for name, value in origin.get("environment", {}).items())


def numpy_blas() -> str:
    """The BLAS of NumPy and the processors that its products are written for."""
    import numpy  # noqa: F401  (so that its library is loaded)
    from threadpoolctl import threadpool_info

    for pool in threadpool_info():
        if pool["user_api"] == "blas" and "numpy" in pool["filepath"]:
            return f"{pool['internal_api']} {pool.get('architecture')}"
    return "another BLAS"


def commit() -> str:
    """The commit of the checkout, with a mark when files differ from it."""
    folder = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields: dict[str, str] = {}
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
        name = fields.get("model name", platform.machine())
        if "cpu family" in fields:
            name += f" (family {fields['cpu family']}, model {fields.get('model', '?')})"
        return name
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
