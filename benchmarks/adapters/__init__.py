"""One adapter per implementation; add a class to `ADAPTERS` to add an implementation."""

from __future__ import annotations

from .base import Adapter, Fitted
from .fastgmm import FastGMM
from .matmul import MatMul
from .onedal import OneDAL
from .sklearn import ScikitLearn

ADAPTERS: tuple[type[Adapter], ...] = (FastGMM, ScikitLearn, OneDAL, MatMul)

__all__ = ["ADAPTERS", "Adapter", "FastGMM", "Fitted", "MatMul", "OneDAL", "ScikitLearn", "by_name"]


def by_name(name: str) -> type[Adapter]:
    """The adapter with this name."""
    return next(adapter for adapter in ADAPTERS if adapter.name == name)
