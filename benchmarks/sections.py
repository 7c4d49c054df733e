"""Studies beside the rows, each a module with the same three functions.

``run(budget, say)`` gives plain JSON values, ``markdown(result)`` text, ``figures(result)`` a
dictionary of matplotlib figures.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

NAMES = ("scaling", "memory", "likelihood", "fuzz")


def load(name: str) -> ModuleType | None:
    """The module of a study, None where it is not there."""
    if name not in NAMES or importlib.util.find_spec(f"benchmarks.{name}") is None:
        return None
    return importlib.import_module(f"benchmarks.{name}")


def run(name: str, budget: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The result of a study, or why there is none."""
    module = load(name)
    if module is None:
        return {"absent": f"benchmarks/{name}.py is not there"}
    found: dict[str, Any] = module.run(budget, say)
    return found
