"""Sufficient statistics of an E-step: what a pass over rows gives, and the only thing it gives.

They add. Threads, chunks of a file, batches, devices and machines all contribute by addition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import numpy as np

from fastgmm.arrays import Array, copied, namespace, read
from fastgmm.errors import InputError
from fastgmm.linalg import diagonal, weighted_sum


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """Weighted moments of rows by component, float64: NumPy arrays, or tensors on one device.

    With responsibilities r_nk, row weights v_n and reference points a_k:
    counts_k = sum v r, first_k = sum v r (x - a_k), second_k = sum v r (x - a_k)(x - a_k)'
    or its diagonal.

    Parameters
    ----------
    counts : array of shape (K,)
    first : array of shape (K, D)
    second : array of shape (K, D, D), (K, D) or (0,)
        For tied structures empty, or summed over components: (D, D) or (D,). For spherical ones
        the sum over features counts; where no more is known, features have equal shares of it.
    about : array of shape (K, D)
        The reference points: the means of the E-step, so that nothing cancels.
    log_likelihood : float, or tensor of shape ()
        Weighted sum of the rows' log-likelihoods in nats.
    weight : float, or tensor of shape ()
        Sum of the row weights.
    n_rows : int
        Rows seen.

    Notes
    -----
    Sufficient statistics of exponential families: Dempster, Laird and Rubin (1977), section 2.
    """

    counts: Array
    first: Array
    second: Array
    about: Array
    log_likelihood: Any
    weight: Any
    n_rows: int

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        if not isinstance(other, SufficientStatistics):
            return NotImplemented
        if self.second.shape != other.second.shape or not _equal(self.about, other.about):
            raise InputError(
                "statistics add only if they are moments about the same points; got shapes "
                f"{self.first.shape} and {other.first.shape}, second moments "
                f"{self.second.shape} and {other.second.shape}."
            )
        return SufficientStatistics(
            self.counts + other.counts,
            self.first + other.first,
            self.second + other.second,
            self.about,
            self.log_likelihood + other.log_likelihood,
            self.weight + other.weight,
            self.n_rows + other.n_rows,
        )

    def scale(self, factor: float) -> SufficientStatistics:
        """Multiply every sum by ``factor``: the same rows with other weights.

        Parameters
        ----------
        factor : float

        Returns
        -------
        statistics : SufficientStatistics
        """
        return replace(
            self,
            counts=self.counts * factor,
            first=self.first * factor,
            second=self.second * factor,
            log_likelihood=self.log_likelihood * factor,
            weight=self.weight * factor,
        )

    def map(self, function: Callable[[Array], Array]) -> SufficientStatistics:
        """Apply a function to each of the arrays, for instance to take them to another device.

        Parameters
        ----------
        function : callable

        Returns
        -------
        statistics : SufficientStatistics
        """
        names = ("counts", "first", "second", "about")
        return replace(self, **{name: function(getattr(self, name)) for name in names})

    def to_buffer(self) -> Array:
        """Return all sums in one flat float64 array, which adds as the statistics do.

        Returns
        -------
        buffer : array of shape (3 + K + K D + second.size,)
            On the device of the statistics.
        """
        xp, counts = namespace(self.counts), self.counts
        scalars = (self.log_likelihood, self.weight, self.n_rows)
        heads = [xp.zeros_like(counts[:1]) + value for value in scalars]
        return xp.concat([*heads, counts, self.first.reshape(-1), self.second.reshape(-1)])

    def from_buffer(self, buffer: Array) -> SufficientStatistics:
        """Return statistics of the shape and reference points of these with other sums.

        Parameters
        ----------
        buffer : array
            As :meth:`to_buffer` gives, after any additions.

        Returns
        -------
        statistics : SufficientStatistics

        Raises
        ------
        InputError
            If the buffer has another length.
        """
        shapes = [tuple(part.shape) for part in (self.counts, self.first, self.second)]
        ends = list(accumulate([3, *map(math.prod, shapes)]))
        if tuple(buffer.shape) != (ends[-1],):
            raise InputError(f"expected a buffer of shape ({ends[-1]},); got {buffer.shape}.")
        buffer = copied(buffer)
        log_likelihood, weight, n_rows = read(*buffer[:3])
        counts, first, second = (
            buffer[start:end].reshape(shape)
            for start, end, shape in zip(ends[:-1], ends[1:], shapes, strict=True)
        )
        return SufficientStatistics(
            counts, first, second, self.about, log_likelihood, weight, round(n_rows)
        )

    @cached_property
    def empty(self) -> Array:
        """Mask (K,) of the components that no row belongs to."""
        return ~(self.counts > 0)

    @cached_property
    def _divisor(self) -> Array:
        """Counts by which sums may be divided: what no row belongs to becomes 0."""
        return namespace(self.counts).where(self.empty, float("inf"), self.counts)

    def _mean(self, sums: Array) -> Array:
        return sums / self._divisor.reshape((-1,) + (1,) * (sums.ndim - 1))

    @cached_property
    def shift(self) -> Array:
        """Change of the means (K, D): first / counts, 0 for empty components."""
        return self._mean(self.first)

    @cached_property
    def mean_second(self) -> Array:
        """Second moments per row of the component, 0 for empty components."""
        return self._mean(self.second)

    @cached_property
    def means(self) -> Array:
        """The new means (K, D); empty components stay where they are."""
        return self.about + self.shift

    @cached_property
    def weights(self) -> Array:
        """Shares of the components (K,), which sum to 1; NaN where no row belongs to any."""
        with np.errstate(invalid="ignore"):
            return self.counts / self.counts.sum()

    def offsets(self, scatter: Array) -> tuple[Array, Array]:
        """Shares (K,) and new means less their weighted mean (K, D).

        Parameters
        ----------
        scatter : array of shape (D, D) or (D,)
            Of all rows: of features that do not vary the means do not differ, but for rounding.
        """
        # Differences first: the mean of large means would lose their small differences. The point
        # that they are from need not be exact, but lies among components that have rows.
        relative = self.means - weighted_sum(self.weights, self.means)
        offsets = relative - weighted_sum(self.weights, relative)
        varies = (diagonal(scatter) if scatter.ndim == 2 else scatter) > 0
        return self.weights, namespace(offsets).where(varies, offsets, 0.0)


class _Addable(Protocol):
    def __add__(self, other: Any, /) -> Any: ...


_T = TypeVar("_T", bound=_Addable)


def pairwise_sum(items: Iterable[_T]) -> _T:
    """Add items in a balanced tree: rounding grows with the logarithm of their number.

    Parameters
    ----------
    items : iterable
        At least one; only about log2 of their number are held at a time.

    Returns
    -------
    total : as the items
    """
    # As a binary counter: one partial sum of 2^level items for each bit that is set.
    partial: list[tuple[int, _T]] = []
    for item in items:
        level, total = 0, item
        while partial and partial[-1][0] == level:
            total = partial.pop()[1] + total
            level += 1
        partial.append((level, total))
    if not partial:
        raise InputError("there are no rows: the source gave no chunk.")
    total = partial.pop()[1]
    while partial:
        total = partial.pop()[1] + total
    return total


def _equal(a: Array, b: Array) -> bool:
    # Parts of one pass share their points: to compare numbers would wait for the device.
    return a is b or (a.shape == b.shape and bool((a == b).all()))
