"""Where rows come from: anything that yields chunks of rows, as often as it is asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np

from fastgmm.arrays import Array, like
from fastgmm.statistics import pairwise_sum

T = TypeVar("T")


@dataclass(frozen=True)
class Chunk:
    """Rows (n, D) with their weights (n,) float64 or None, both of one kind and on one device;
    ``start`` is the number of the first row within the source."""

    x: Array
    weight: Array | None
    start: int


def _total(part: Callable[[Chunk], T], chunks: Iterable[Chunk]) -> T:
    return pairwise_sum(part(chunk) for chunk in chunks)  # type: ignore[type-var]


def counted(chunk: Chunk, start: int, scale: float) -> Chunk:
    """A chunk of a part of the rows as one of all.

    Parameters
    ----------
    chunk : Chunk
    start : int
        The number of the part's first row.
    scale : float
        The mean of all weights; rows without one have 1.

    Returns
    -------
    chunk : Chunk
    """
    weight = chunk.weight
    if weight is None and scale != 1.0:
        weight = like(np.full(len(chunk.x), 1.0 / scale), chunk.x)
    return replace(chunk, weight=weight, start=start + chunk.start)


class Source(ABC):
    """Re-iterable chunks of rows, and how what is learnt from them is added up.

    Weights are scaled so that their mean over all rows is 1; what depends on their scale is
    multiplied by ``weight_scale``. ``dtype`` is that of the rows, NumPy's or torch's.

    A pass is ``fold`` of a function of chunks, or ``total`` of a function of one chunk. Who brings
    another engine overrides ``fold``, or ``pool`` where each of several processes has rows of its
    own.

    Attributes
    ----------
    resident : bool
        Whether the rows stay in memory from pass to pass, so that a few bytes that are remembered
        of each row cost little beside them.
    shared : bool
        Whether it stands for the rows of other processes too, which a fit alone can use.
    leader : bool
        Whether this process writes for all that share the fit.
    given : dtype
        In which the rows came, as far as it is known.
    home : str or None
        The torch device of the rows as they come; None for NumPy arrays.
    names : tuple of str or None
        Names of the features.
    own : callable
        As :meth:`fastgmm.backends.Backend.own`, for sums that come from other processes.
    """

    n_rows: int
    n_features: int
    dtype: Any
    weight_scale: float = 1.0
    resident: bool = False
    shared: bool = False
    given: Any = None
    leader: bool = True
    home: str | None = None
    names: tuple[str, ...] | None = None
    own: Callable[[Array], Array]

    @property
    def homes(self) -> tuple[str | None, ...]:
        """The homes of all rows, where they differ; ``home`` is the first."""
        return (self.home,)

    @abstractmethod
    def __iter__(self) -> Iterator[Chunk]:
        """Yield the chunks from the first row on; may be called any number of times."""

    def fold(self, run: Callable[[Iterable[Chunk]], T]) -> T:
        """Sum of a function of chunks that follow one another, over all of them.

        Parameters
        ----------
        run : callable
            Goes once through the chunks that it is given, some or all, and keeps none. What it
            returns adds, and does not depend on which chunks were given together.

        Returns
        -------
        total : as ``run`` gives
        """
        return run(self)

    def total(self, part: Callable[[Chunk], T]) -> T:
        """Sum of a function of one chunk, over all of them.

        Parameters
        ----------
        part : callable
            What it returns adds; no chunk is kept.

        Returns
        -------
        total : as ``part`` gives
        """
        return self.fold(partial(_total, part))

    def pool(self, value: T) -> T:
        """Sum of a value that each process that shares the fit has of its own rows."""
        return value

    def anywhere(self, flag: bool) -> bool:
        """Whether a flag is set in any process that shares the fit."""
        return flag

    def agree(self, make: Callable[[], T]) -> T:
        """What a function gives in the process that leads, in all that share the fit."""
        return make()

    def place(self, where: Callable[[Array], Array]) -> None:  # noqa: B027
        """Have rows brought to where they are computed.

        Parameters
        ----------
        where : callable
            As :meth:`fastgmm.backends.Backend.rows`.
        """

    def scale_weights(self, scale: float) -> None:
        """Divide weights as given by ``scale``, their mean, in the passes that follow."""
        self.weight_scale = scale

    def close(self) -> None:  # noqa: B027
        """End a pass that was left before its end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.close()
