"""Float64 totals of the CPU kernels, to which chunk after chunk of rows is added."""

from __future__ import annotations

import numpy as np

from fastgmm.arrays import Array
from fastgmm.covariance import CovarianceStructure
from fastgmm.statistics import SufficientStatistics
from fastgmm.threads import threads
from fastgmm_kernels import cpu as kernels

# Chunks that are added one after another: rounding grows with their number, so that longer runs
# are cut, and their sums added in a tree.
_CHUNKS = 64
# Operations that it takes to read a total: threads pay from 65,536 totals on.
_COST = 64.0


class Totals:
    """Counts, first and second moments of every block of rows.

    Parameters
    ----------
    n_blocks : int
        As :func:`fastgmm.backends.sizes.blocks` gives: 0 where threads share one set.
    points : array of shape (K, C)
        The points of the moments, as the kernels take them.
    n_features : int
    structure : CovarianceStructure

    Attributes
    ----------
    count, first, second : arrays of shape (B, K), (B, K, C), (B, K, ...)
        What the kernels add to. Nothing is in them before the first chunk.
    fresh : bool
        Whether that is still to come.
    """

    def __init__(
        self, n_blocks: int, points: Array, n_features: int, structure: CovarianceStructure
    ) -> None:
        n_components, width = points.shape
        self.n_blocks, self.n_features = n_blocks, n_features
        self._moments = structure.moments
        self._lines = {"full": -(-n_features // 8) * 8, "diag": 1, "none": 0}[self._moments]
        last = {"full": (self._lines, width), "diag": (width,), "none": (0,)}[self._moments]
        blocks = max(n_blocks, 1)
        self.count = np.empty((blocks, n_components))
        self.first = np.empty((blocks, n_components, width))
        self.second = np.empty((blocks, n_components, *last))
        self._n_chunks = self._n_rows = 0
        self._log_likelihood = self._weight = 0.0

    @property
    def fresh(self) -> bool:
        """Whether no chunk has been added."""
        return self._n_chunks == 0

    def take(self, n_blocks: int) -> bool:
        """Whether a chunk that would have so many blocks of its own can be added to these."""
        alike = n_blocks == self.n_blocks or 0 < n_blocks == self.n_blocks // 2
        return alike and self._n_chunks < _CHUNKS

    def added(self, n_rows: int, weight: Array | None, log_likelihood: float = 0.0) -> None:
        """Take note of a chunk that a kernel has added."""
        self._n_chunks += 1
        self._n_rows += n_rows
        self._weight += float(n_rows) if weight is None else float(weight.sum())
        self._log_likelihood += log_likelihood

    def statistics(self, about: Array) -> SufficientStatistics:
        """Join the blocks: moments about points of the caller's, (K, D)."""
        n_components, width = self.first.shape[1:]
        second = self.second.reshape(len(self.count), n_components, self._lines, width)
        full = self._moments == "full"
        lines = self.n_features if full else self._lines
        counts = np.empty(n_components)
        sums = np.empty((n_components, self.n_features))
        squares = np.empty((n_components, lines, self.n_features))
        kernels.join_totals(
            self.count, self.first, second, full, counts, sums, squares,
            threads=threads(_COST * (self.first.size + self.second.size)),
        )  # fmt: skip
        shapes = {"full": squares.shape, "diag": sums.shape, "none": (0,)}
        return SufficientStatistics(
            counts,
            sums,
            squares.reshape(shapes[self._moments]),
            about,
            self._log_likelihood,
            self._weight,
            self._n_rows,
        )
