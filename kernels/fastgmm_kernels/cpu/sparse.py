"""Moments of listed rows: features in the lanes, sums of products in registers.

Rows are read as they lie, line by line, so that no gather by feature is needed, and the sums are
added to the float64 totals without crossing lanes: a list may be short.
"""

from __future__ import annotations

import numpy as np

from .jit import inlined, kernel
from .lanes import add_to
from .simd import (
    add,
    at,
    fma,
    lanes,
    lanes_of,
    load,
    load_like,
    multiply,
    store,
    subtract,
    zero,
    zero_half,
)

# Bytes of scaled rows, which all blocks of products read again, and their rows at least.
_SCALED_BYTES = 48 * 1024
_SCALED_ROWS = 32


@inlined
def _scaled(rows, row, c, m, root, g, i, f):
    """Write root (row - m) to g[i]; returns f + root^2 (row - m)."""
    v = multiply(subtract(load(rows, row, c), m), root)
    store(g, i, c, v)
    return fma(v, root, f)


@kernel
def _scale_rows(rows, index, share, n, about, k, g, first):
    """g[i] = s_i (row - about[k]) with s_i the root of the share; adds sum s_i g[i] to first[k]."""
    for i in range(n):
        share[i] = np.sqrt(share[i])
    for c in range(0, rows.shape[1], lanes(rows)):
        m = load(about, k, c)
        f0 = zero(rows)
        f1, f2, f3 = f0, f0, f0
        for i in range(0, n - 3, 4):
            f0 = _scaled(rows, index[i], c, m, share[i], g, i, f0)
            f1 = _scaled(rows, index[i + 1], c, m, share[i + 1], g, i + 1, f1)
            f2 = _scaled(rows, index[i + 2], c, m, share[i + 2], g, i + 2, f2)
            f3 = _scaled(rows, index[i + 3], c, m, share[i + 3], g, i + 3, f3)
        for i in range(n // 4 * 4, n):
            f0 = _scaled(rows, index[i], c, m, share[i], g, i, f0)
        add_to(first, k * rows.shape[1] + c, add(add(f0, f1), add(f2, f3)))


@kernel
def _add_eight(g, n, a, c, start, second, nothing):
    """Products of eight features from ``a`` with those from ``c`` that a vector takes."""
    s0, s1, s2, s3 = nothing, nothing, nothing, nothing
    s4, s5, s6, s7 = nothing, nothing, nothing, nothing
    for i in range(n):
        v = load_like(nothing, g, i, c)
        s0, s1 = fma(v, at(g, i, a), s0), fma(v, at(g, i, a + 1), s1)
        s2, s3 = fma(v, at(g, i, a + 2), s2), fma(v, at(g, i, a + 3), s3)
        s4, s5 = fma(v, at(g, i, a + 4), s4), fma(v, at(g, i, a + 5), s5)
        s6, s7 = fma(v, at(g, i, a + 6), s6), fma(v, at(g, i, a + 7), s7)
    columns = g.shape[1]
    place = start + a * columns + c
    add_to(second, place, s0)
    add_to(second, place + columns, s1)
    add_to(second, place + 2 * columns, s2)
    add_to(second, place + 3 * columns, s3)
    add_to(second, place + 4 * columns, s4)
    add_to(second, place + 5 * columns, s5)
    add_to(second, place + 6 * columns, s6)
    add_to(second, place + 7 * columns, s7)


@kernel
def add_rows_full(rows, index, share, n, about, k, g, first, second):
    """Add the moments of ``n`` listed rows with shares r to first[k] (C) and second[k] (R, C).

    ``rows`` (..., C) is zero beyond D; R is D padded to a multiple of 8. Of the second moments the
    lower triangle is formed, in blocks. ``g`` (n, C) is scratch, and ``share`` is overwritten.
    """
    nothing, wide = zero(g), zero_half(g)
    start = k * second.shape[1] * second.shape[2]
    step = max(_SCALED_BYTES // (g.shape[1] * g.itemsize), _SCALED_ROWS)
    for begin in range(0, n, step):
        count = min(step, n - begin)
        end = begin + count
        _scale_rows(rows, index[begin:end], share[begin:end], count, about, k, g, first)
        for a in range(0, second.shape[1], 8):
            c = 0
            while c < a + 8:
                if c + lanes(g) < a + 8:
                    _add_eight(g, count, a, c, start, second, wide)
                    c += lanes_of(wide)
                else:
                    _add_eight(g, count, a, c, start, second, nothing)
                    c += lanes(g)


@inlined
def _squares(rows, row, c, m, r, f, s):
    """f + r (row - m) and s + r (row - m)^2."""
    e = subtract(load(rows, row, c), m)
    b = multiply(e, r)
    return add(f, b), fma(b, e, s)


@kernel
def add_rows_diag(rows, index, share, n, about, k, g, first, second):
    """As :func:`add_rows_full`, with squares alone, or no second moments where there is no room."""
    squares = second.shape[1] > 0
    for c in range(0, rows.shape[1], lanes(rows)):
        m = load(about, k, c)
        f0 = zero(rows)
        f1, f2, f3 = f0, f0, f0
        s0, s1, s2, s3 = f0, f0, f0, f0
        for i in range(0, n - 3, 4):
            f0, s0 = _squares(rows, index[i], c, m, share[i], f0, s0)
            f1, s1 = _squares(rows, index[i + 1], c, m, share[i + 1], f1, s1)
            f2, s2 = _squares(rows, index[i + 2], c, m, share[i + 2], f2, s2)
            f3, s3 = _squares(rows, index[i + 3], c, m, share[i + 3], f3, s3)
        if n % 4 > 0:
            # As one more step of four, without weight where there is no row: a loop of unknown
            # length would cost more than all rows of a short list.
            i, last = n // 4 * 4, n - 1
            j, k1, k2 = i, min(i + 1, last), min(i + 2, last)
            f0, s0 = _squares(rows, index[j], c, m, share[j], f0, s0)
            f1, s1 = _squares(rows, index[k1], c, m, share[k1] * (i + 1 < n), f1, s1)
            f2, s2 = _squares(rows, index[k2], c, m, share[k2] * (i + 2 < n), f2, s2)
        place = k * rows.shape[1] + c
        add_to(first, place, add(add(f0, f1), add(f2, f3)))
        if squares:
            add_to(second, place, add(add(s0, s1), add(s2, s3)))
