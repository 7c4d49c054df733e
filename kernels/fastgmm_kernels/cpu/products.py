"""Products of lines with lines, four by four: sums over columns that stay in registers."""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import driver, kernel
from .lanes import add_totals
from .simd import fma, lanes, load, zero
from .tile import row_stride, scratch


@kernel
def add_products(a, i, b, j, start, stop, totals, place, step):
    """Add the products of lines i to i + 3 of ``a`` with lines j to j + 3 of ``b`` to ``totals``.

    They are summed over the columns from ``start`` to ``stop``, rounded up to whole vectors. That
    of lines i + p and j + q belongs to number place + p step + q of ``totals``, contiguous float64.
    """
    nothing = zero(a)
    s00, s01, s02, s03 = nothing, nothing, nothing, nothing
    s10, s11, s12, s13 = nothing, nothing, nothing, nothing
    s20, s21, s22, s23 = nothing, nothing, nothing, nothing
    s30, s31, s32, s33 = nothing, nothing, nothing, nothing
    for t in range(start, stop, lanes(a)):
        v0, v1, v2, v3 = load(b, j, t), load(b, j + 1, t), load(b, j + 2, t), load(b, j + 3, t)
        u = load(a, i, t)
        s00, s01, s02, s03 = fma(u, v0, s00), fma(u, v1, s01), fma(u, v2, s02), fma(u, v3, s03)
        u = load(a, i + 1, t)
        s10, s11, s12, s13 = fma(u, v0, s10), fma(u, v1, s11), fma(u, v2, s12), fma(u, v3, s13)
        u = load(a, i + 2, t)
        s20, s21, s22, s23 = fma(u, v0, s20), fma(u, v1, s21), fma(u, v2, s22), fma(u, v3, s23)
        u = load(a, i + 3, t)
        s30, s31, s32, s33 = fma(u, v0, s30), fma(u, v1, s31), fma(u, v2, s32), fma(u, v3, s33)
    add_totals(totals, place, s00, s01, s02, s03)
    add_totals(totals, place + step, s10, s11, s12, s13)
    add_totals(totals, place + 2 * step, s20, s21, s22, s23)
    add_totals(totals, place + 3 * step, s30, s31, s32, s33)


@driver
def product(a, b, out):
    """out (I, J) = a (I, T) b (T, J), all float64."""
    (n_lines, n_terms), n_columns = a.shape, out.shape[1]
    columns = row_stride((n_terms + 7) // 8 * 8, 8)
    padded = (n_columns + 3) // 4 * 4
    right = scratch(padded, columns, out)
    for j in prange(padded):
        right[j] = 0
        if j < n_columns:
            for t in range(n_terms):
                right[j, t] = b[t, j]
    for i in prange((n_lines + 3) // 4):
        left = scratch(4, columns, out)
        totals = np.zeros(4 * padded)
        left[:] = 0
        n = min(n_lines - 4 * i, 4)
        for p in range(n):
            for t in range(n_terms):
                left[p, t] = a[4 * i + p, t]
        for j in range(0, padded, 4):
            add_products(left, 0, right, j, 0, n_terms, totals, j, padded)
        for p in range(n):
            for j in range(n_columns):
                out[4 * i + p, j] = totals[p * padded + j]
