"""The tests that need a device, before anything is timed on it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


def run(limit: float) -> dict[str, Any]:
    """Run ``pytest -m gpu`` for at most ``limit`` seconds; its last line and what failed."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rfE", "--tb=line", "tests"]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    begin = time.monotonic()
    stopped = False
    with tempfile.TemporaryFile("w+") as output:
        try:
            subprocess.run(
                command,
                cwd=_ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            stopped = True
        output.seek(0)
        lines = [line.strip() for line in output if line.strip()]
    summary = lines[-1] if lines else "no output"
    return {
        "summary": f"stopped after {limit:.0f} s at: {summary}" if stopped else summary,
        "stopped": stopped,
        "failed": [line for line in lines if line.startswith(("FAILED", "ERROR"))][:50],
        "seconds": time.monotonic() - begin,
    }
