"""Sufficient statistics of an E-step: what a pass over rows gives, and the only thing it gives.

They add. Threads, chunks of a file, batches, devices and machines all contribute by addition.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from fastgmm.errors import InputError


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """Weighted moments of rows by component, float64.

    With responsibilities r_nk, row weights v_n and reference points a_k:
    counts_k = sum v r, first_k = sum v r (x - a_k), second_k = sum v r (x - a_k)(x - a_k)'
    or its diagonal.

    Parameters
    ----------
    counts : ndarray of shape (K,)
    first : ndarray of shape (K, D)
    second : ndarray of shape (K, D, D), (K, D) or (0,)
        For tied structures empty, or summed over components: (D, D) or (D,).
    about : ndarray of shape (K, D)
        The reference points: the means of the E-step, so that nothing cancels.
    log_likelihood : float
        Weighted sum of the rows' log-likelihoods in nats.
    weight : float
        Sum of the row weights.
    n_rows : int
        Rows seen.

    Notes
    -----
    Sufficient statistics of exponential families: Dempster, Laird and Rubin (1977), section 2.
    """

    counts: np.ndarray
    first: np.ndarray
    second: np.ndarray
    about: np.ndarray
    log_likelihood: float
    weight: float
    n_rows: int

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        if not isinstance(other, SufficientStatistics):
            return NotImplemented
        if self.second.shape != other.second.shape or not np.array_equal(self.about, other.about):
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

    def to_buffer(self) -> np.ndarray:
        """Return all sums in one flat float64 array, which adds as the statistics do.

        Returns
        -------
        buffer : ndarray of shape (3 + K + K D + second.size,)
        """
        scalars = np.array([self.log_likelihood, self.weight, float(self.n_rows)])
        parts = (scalars, self.counts, self.first.ravel(), self.second.ravel())
        return np.concatenate(parts)

    def from_buffer(self, buffer: np.ndarray) -> SufficientStatistics:
        """Return statistics of the shape and reference points of these with other sums.

        Parameters
        ----------
        buffer : ndarray
            As :meth:`to_buffer` gives, after any additions.

        Returns
        -------
        statistics : SufficientStatistics

        Raises
        ------
        InputError
            If the buffer has another length.
        """
        sizes = np.cumsum([3, self.counts.size, self.first.size, self.second.size])
        if buffer.shape != (sizes[-1],):
            raise InputError(f"expected a buffer of shape ({sizes[-1]},); got {buffer.shape}.")
        scalars, counts, first, second = np.split(buffer, sizes[:-1])
        return SufficientStatistics(
            counts.copy(),
            first.reshape(self.first.shape).copy(),
            second.reshape(self.second.shape).copy(),
            self.about,
            float(scalars[0]),
            float(scalars[1]),
            round(float(scalars[2])),
        )

    def empty(self) -> np.ndarray:
        """Mask (K,) of the components that no row belongs to."""
        return ~(self.counts > 0)

    def shift(self) -> np.ndarray:
        """Change of the means (K, D): first / counts, 0 for empty components."""
        return _divide(self.first, self.counts)

    def mean_second(self) -> np.ndarray:
        """Second moments per row of the component, 0 for empty components."""
        return _divide(self.second, self.counts)

    def means(self) -> np.ndarray:
        """The new means (K, D); empty components stay where they are."""
        return self.about + self.shift()

    def weights(self) -> np.ndarray:
        """Shares of the components (K,), which sum to 1."""
        return self.counts / self.counts.sum()

    def offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """Shares (K,) and new means less their weighted mean (K, D)."""
        shares = self.weights()
        means = self.means()
        # Differences first: the mean of large means would lose their small differences.
        relative = means - means[0]
        return shares, relative - shares @ relative


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


def _divide(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    alive = counts > 0
    safe = np.where(alive, counts, 1.0).reshape((-1,) + (1,) * (sums.ndim - 1))
    mask = alive.reshape(safe.shape)
    return np.where(mask, sums / safe, 0.0)
