"""One adapter per implementation; add a class to `ADAPTERS` to add an implementation."""

from __future__ import annotations

from .base import TensorAdapter
from .distributions import TorchDistributions
from .fastgmm import FastGMM
from .gmmx import Gmmx
from .plain import PlainTorch
from .pomegranate import Pomegranate
from .sklearn import ScikitLearn
from .torchgmm import TorchGMM

ADAPTERS: tuple[type[TensorAdapter], ...] = (
    FastGMM,
    TorchDistributions,
    PlainTorch,
    ScikitLearn,
    TorchGMM,
    Gmmx,
    Pomegranate,
)

__all__ = ["ADAPTERS", "FastGMM", "TensorAdapter"]
