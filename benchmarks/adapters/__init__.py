"""One adapter per implementation; add a class to `ADAPTERS` to add an implementation."""

from __future__ import annotations

from .base import Adapter, Fitted, TensorAdapter
from .distributions import TorchDistributions, Zuko
from .fastgmm import FastGMM, Reference, VisitingAll
from .gmmx import Gmmx
from .matmul import MatMul
from .onedal import OneDAL
from .plain import PlainTorch
from .pomegranate import Pomegranate
from .sklearn import ScikitLearn
from .torchgmm import TorchGMM

#: in the order in which they are checked, timed and shown
ADAPTERS: tuple[type[Adapter], ...] = (
    FastGMM,
    ScikitLearn,
    OneDAL,
    PlainTorch,
    TorchDistributions,
    TorchGMM,
    Gmmx,
    Pomegranate,
    Zuko,
    Reference,
    MatMul,
)

__all__ = [
    "ADAPTERS",
    "Adapter",
    "FastGMM",
    "Fitted",
    "MatMul",
    "OneDAL",
    "PlainTorch",
    "Reference",
    "ScikitLearn",
    "TensorAdapter",
    "VisitingAll",
    "by_name",
]


def by_name(name: str) -> type[Adapter]:
    """The adapter with this name."""
    return next(adapter for adapter in ADAPTERS if adapter.name == name)
