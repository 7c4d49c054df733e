"""Where rows come from: anything that yields chunks of rows, as often as it is asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Chunk:
    """Rows (n, D), float32 or float64, with their weights (n,) float64 or None; ``start`` is the
    number of the first row within the source."""

    x: np.ndarray
    weight: np.ndarray | None
    start: int


class Source(ABC):
    """Re-iterable chunks of rows.

    Weights are scaled so that their mean over all rows is 1; what depends on their scale is
    multiplied by ``weight_scale``.
    """

    n_rows: int
    n_features: int
    dtype: np.dtype
    weight_scale: float = 1.0

    @abstractmethod
    def __iter__(self) -> Iterator[Chunk]:
        """Yield the chunks from the first row on; may be called any number of times."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows of the given numbers, (n, D) float64."""
