"""How much memory this process has, and had at most."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from pathlib import Path


def release() -> None:
    """Give freed memory back, so that scratch of the warm-up does not hide that of the case."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def resident() -> int:
    """Bytes resident now (Linux), else the highest so far."""
    return status("VmRSS") or peak()


def peak() -> int:
    """Bytes resident at the highest, since the last reset where one is possible."""
    found = status("VmHWM")
    if found:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> bool:
    """Set the kernel's high-water mark to what is resident now; False where that is not offered."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def status(field: str) -> int:
    """Bytes that Linux tells of this process under a name, 0 where it does not."""
    told = Path("/proc/self/status")
    if not told.exists():
        return 0
    line = next((t for t in told.read_text().splitlines() if t.startswith(field)), "")
    return int(line.split()[1]) * 1024 if line else 0
