"""Random mixtures, rows and settings on every backend against the float64 oracle.

``python -m benchmarks.fuzz [--seconds 600] [--case SEED]``. What is drawn is in `cases.py`, how far
rounding may lead in `bounds.py` and `steps.py`, what is compared in `checks.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

# The oracle and the layouts of the tests; they know nothing of what is compared with them.
_TESTS = str(Path(__file__).resolve().parents[2] / "tests")
if _TESTS not in sys.path:
    sys.path.append(_TESTS)

from .campaign import run  # noqa: E402
from .report import figures, markdown  # noqa: E402

__all__ = ["figures", "markdown", "run"]
