"""Studies beside the rows, each a module with the same three functions.

``run(budget, say)`` gives plain JSON values, ``markdown(result)`` text, ``figures(result)`` a
dictionary of matplotlib figures.
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = ("scaling", "memory", "likelihood", "fuzz")


def load(name: str) -> ModuleType:
    """The module of a study."""
    if name not in NAMES:
        raise ValueError(f"studies: {', '.join(NAMES)}; got {name}")
    return importlib.import_module(f"benchmarks.{name}")
