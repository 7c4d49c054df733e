"""The fused-multiply-add peak of all threads, measured by a small Numba loop."""

from __future__ import annotations

import time
from typing import Any

import numba
import numpy as np

from .workloads import Array

#: multiply-adds per element between a load and a store
_DEGREE = 16
#: elements per thread: small enough for any first-level cache
_LENGTH = 512


@numba.njit(parallel=True, fastmath={"contract"})
def _horner(values: Array, factor: Any, sweeps: int) -> None:
    """values <- values * factor + factor, _DEGREE times per element and sweep."""
    for thread in numba.prange(values.shape[0]):
        row = values[thread]
        for _ in range(sweeps):
            for j in range(row.shape[0]):
                y = row[j]
                # Independent elements: the compiler fills the vector lanes, the processor
                # overlaps the chains. "contract" alone keeps it from folding them.
                for _ in range(_DEGREE):
                    y = y * factor + factor
                row[j] = y


def fma_peak(precision: str, seconds: float = 0.3, tries: int = 5) -> float:
    """Best FLOP/s of all threads that Numba would use, counting 2 per multiply-add."""
    dtype = np.dtype(precision)
    threads = numba.get_num_threads()
    values = np.zeros((threads, _LENGTH), dtype=dtype)
    factor = dtype.type(0.5)
    _horner(values, factor, 1)
    sweeps, best = 1000, 0.0
    for _ in range(tries):
        begin = time.perf_counter()
        _horner(values, factor, sweeps)
        elapsed = time.perf_counter() - begin
        best = max(best, 2.0 * threads * _LENGTH * _DEGREE * sweeps / elapsed)
        sweeps = max(1000, int(sweeps * seconds / tries / elapsed))
    return best
