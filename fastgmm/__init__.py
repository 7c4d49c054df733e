"""Gaussian mixture models on compiled kernels."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from fastgmm import covariance, distributed, em, errors, functional, sources
from fastgmm.mixture import GaussianMixture
from fastgmm.version import VERSION

if TYPE_CHECKING:
    from pathlib import Path

__version__ = VERSION

__all__ = [
    "GaussianMixture",
    "__version__",
    "covariance",
    "distributed",
    "em",
    "errors",
    "functional",
    "load",
    "sources",
]

# Modules that load torch or matplotlib, or are seldom needed: imported when they are asked for.
_LAZY = ("autograd", "distributions", "io", "nn", "plot")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"fastgmm.{name}")
    raise AttributeError(f"module 'fastgmm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


def load(path: str | os.PathLike[str] | Path) -> GaussianMixture:
    """Read an estimator that :meth:`GaussianMixture.save` has written.

    Nothing in the file is executed, and everything is checked before anything is built.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    mixture : GaussianMixture

    Raises
    ------
    ModelFileError
        If the file is damaged, inconsistent or of an unknown format.
    OSError
        If it cannot be read.
    """
    from fastgmm.io import load as read

    return read(path)
