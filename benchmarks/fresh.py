"""A module of the benchmarks in a process of its own, whose last line is JSON."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def environment(**more: str) -> dict[str, str]:
    """The environment in which a checkout that is not installed is found."""
    paths = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}


def run(
    module: str,
    arguments: list[str],
    seconds: float | None = None,
    *,
    launcher: Sequence[str] = (),
    **more: str,
) -> dict[str, Any]:
    """What the module printed, or why it did not, as the entry "failed".

    ``launcher`` is put before it on Python's command line, ``more`` into the environment.
    """
    try:
        found = subprocess.run(
            [sys.executable, *launcher, "-m", module, *arguments],
            cwd=ROOT,
            env=environment(**more),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"stopped after {seconds:.0f} s"}
    if found.returncode != 0:
        lines = found.stderr.strip().splitlines() or ["without text"]
        return {"failed": f"ended with {found.returncode}: {lines[-1][:200]}"}
    return dict(json.loads(found.stdout.splitlines()[-1]))


def limit_memory(most: float) -> None:
    """Let allocations of this process fail beyond so many bytes, before the system swaps."""
    # data alone: address space is reserved freely by thread stacks and JAX
    resource.setrlimit(resource.RLIMIT_DATA, (int(most), resource.RLIM_INFINITY))
