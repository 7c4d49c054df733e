"""The Mahalanobis products of a full-covariance pass alone, by np.matmul."""

from __future__ import annotations

import numpy as np

from ..workloads import Array
from .base import Adapter


class MatMul(Adapter):
    """x @ [U_1 ... U_K] on chunks of rows into one reused buffer; nothing else is computed.

    It is a yardstick and not an implementation: a lower bound of the time that any code needs
    which forms the whitened rows by matrix products, before centring, squares, exp and sums.
    """

    name = "np.matmul"
    package = "numpy"
    tasks = frozenset({"score"})
    structures = frozenset({"full"})
    on_devices = False
    yardstick = True
    note = "a yardstick: the products alone, twice the arithmetic of the triangle"
    #: rows per product, the fastest of 64 to 4096 at K D = 2048
    chunk = 1024

    def prepare(self) -> None:
        u = self.own(self.parameters.precisions_cholesky)
        # One wide product per chunk: faster than K narrow ones, so the fairer yardstick.
        self._factors = np.ascontiguousarray(np.concatenate(list(u), axis=1))
        self._buffer = np.empty((self.chunk, self._factors.shape[1]), dtype=self.precision)

    def score(self, x: Array) -> Array:
        """Run the products; the (N,) result is zeros and only fills the interface."""
        for i in range(0, len(x), self.chunk):
            rows = x[i : i + self.chunk]
            np.matmul(rows, self._factors, out=self._buffer[: len(rows)])
        return np.zeros(len(x))
