"""Where rows come from: anything that yields chunks of rows, as often as it is asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastgmm.arrays import Array


@dataclass(frozen=True)
class Chunk:
    """Rows (n, D) with their weights (n,) float64 or None, both of one kind and on one device;
    ``start`` is the number of the first row within the source."""

    x: Array
    weight: Array | None
    start: int


class Source(ABC):
    """Re-iterable chunks of rows.

    Weights are scaled so that their mean over all rows is 1; what depends on their scale is
    multiplied by ``weight_scale``. ``dtype`` is that of the rows, NumPy's or torch's.
    """

    n_rows: int
    n_features: int
    dtype: Any
    weight_scale: float = 1.0

    @abstractmethod
    def __iter__(self) -> Iterator[Chunk]:
        """Yield the chunks from the first row on; may be called any number of times."""

    @abstractmethod
    def take(self, rows: Array) -> Array:
        """The rows of the given numbers, (n, D) float64, of the kind of the rows."""
