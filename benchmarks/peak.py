"""The fused-multiply-add peak of all threads: registers alone, no memory.

In the kernels' own vectors, for a compiler left to itself takes half of the widest registers.
"""

from __future__ import annotations

import time
from typing import Any

import numba
import numpy as np

from fastgmm_kernels.cpu import REGISTER_BYTES
from fastgmm_kernels.cpu.simd import fma, lanes, load, store

#: chains that do not wait for each other: two instructions a cycle, four or five cycles each
_CHAINS = 12


@numba.njit(parallel=True)
def _multiply_adds(values: Any, factor: Any, sweeps: int) -> None:
    """values <- values * factor + factor in every lane of _CHAINS vectors, ``sweeps`` times."""
    for t in numba.prange(values.shape[0]):
        w = lanes(values)
        a, b, c = load(values, t, 0), load(values, t, w), load(values, t, 2 * w)
        d, e, f = load(values, t, 3 * w), load(values, t, 4 * w), load(values, t, 5 * w)
        g, h, i = load(values, t, 6 * w), load(values, t, 7 * w), load(values, t, 8 * w)
        j, k, m = load(values, t, 9 * w), load(values, t, 10 * w), load(values, t, 11 * w)
        for _ in range(sweeps):
            a, b, c = fma(a, factor, factor), fma(b, factor, factor), fma(c, factor, factor)
            d, e, f = fma(d, factor, factor), fma(e, factor, factor), fma(f, factor, factor)
            g, h, i = fma(g, factor, factor), fma(h, factor, factor), fma(i, factor, factor)
            j, k, m = fma(j, factor, factor), fma(k, factor, factor), fma(m, factor, factor)
        store(values, t, 0, a), store(values, t, w, b), store(values, t, 2 * w, c)
        store(values, t, 3 * w, d), store(values, t, 4 * w, e), store(values, t, 5 * w, f)
        store(values, t, 6 * w, g), store(values, t, 7 * w, h), store(values, t, 8 * w, i)
        store(values, t, 9 * w, j), store(values, t, 10 * w, k), store(values, t, 11 * w, m)


def fma_peak(precision: str, seconds: float = 0.3, tries: int = 5) -> float:
    """Best FLOP/s of all threads that Numba would use, counting 2 per multiply-add."""
    dtype = np.dtype(precision)
    threads = numba.get_num_threads()
    values = np.zeros((threads, _CHAINS * REGISTER_BYTES // dtype.itemsize), dtype)
    factor = dtype.type(0.5)
    _multiply_adds(values, factor, 1)
    sweeps, best = 100_000, 0.0
    for _ in range(tries):
        begin = time.perf_counter()
        _multiply_adds(values, factor, sweeps)
        elapsed = time.perf_counter() - begin
        best = max(best, 2.0 * values.size * sweeps / elapsed)
        sweeps = max(100_000, int(sweeps * seconds / tries / elapsed))
    return best
