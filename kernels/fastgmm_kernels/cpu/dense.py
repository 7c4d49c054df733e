"""Moments of all rows of a tile, rows in the lanes: where most responsibilities matter.

Then no list is needed, and no lane is empty however few the features."""

from __future__ import annotations

import numpy as np

from .jit import embedded, inlined, kernel
from .lanes import add_totals
from .products import add_products
from .simd import (
    STRIP_REGISTERS,
    add,
    at,
    fma,
    lanes,
    load,
    multiply,
    splat,
    store,
    subtract,
    zero,
)

# Sixteen sums take more registers than machines with sixteen of them have.
_ROOM_FOR_TWO = STRIP_REGISTERS == 4


@inlined
def _moments(w, x, about, k, a, f, s):
    """f + w (x - about) and s + w (x - about)^2 of feature ``a``."""
    e = subtract(x, at(about, k, a))
    b = multiply(w, e)
    return add(f, b), fma(b, e, s)


@embedded
def _add_squares(z, resp, about, k, a, n, first, second):
    """First moments and squares of four features."""
    f0 = zero(z)
    f1, f2, f3 = f0, f0, f0
    s0, s1, s2, s3 = f0, f0, f0, f0
    for t in range(0, n, lanes(z)):
        w = load(resp, k, t)
        f0, s0 = _moments(w, load(z, a, t), about, k, a, f0, s0)
        f1, s1 = _moments(w, load(z, a + 1, t), about, k, a + 1, f1, s1)
        f2, s2 = _moments(w, load(z, a + 2, t), about, k, a + 2, f2, s2)
        f3, s3 = _moments(w, load(z, a + 3, t), about, k, a + 3, f3, s3)
    place = k * first.shape[1] + a
    add_totals(first, place, f0, f1, f2, f3)
    add_totals(second, place, s0, s1, s2, s3)


@embedded
def _add_squares_of_two(z, resp, about, k, m, a, n, first, second):
    """As :func:`_add_squares` for components k and m: what is loaded of the rows serves both."""
    f0 = zero(z)
    f1, f2, f3, g0, g1, g2, g3 = f0, f0, f0, f0, f0, f0, f0
    s0, s1, s2, s3, t0, t1, t2, t3 = f0, f0, f0, f0, f0, f0, f0, f0
    for t in range(0, n, lanes(z)):
        w = load(resp, k, t)
        x0, x1, x2, x3 = load(z, a, t), load(z, a + 1, t), load(z, a + 2, t), load(z, a + 3, t)
        f0, s0 = _moments(w, x0, about, k, a, f0, s0)
        f1, s1 = _moments(w, x1, about, k, a + 1, f1, s1)
        f2, s2 = _moments(w, x2, about, k, a + 2, f2, s2)
        f3, s3 = _moments(w, x3, about, k, a + 3, f3, s3)
        w = load(resp, m, t)
        g0, t0 = _moments(w, x0, about, m, a, g0, t0)
        g1, t1 = _moments(w, x1, about, m, a + 1, g1, t1)
        g2, t2 = _moments(w, x2, about, m, a + 2, g2, t2)
        g3, t3 = _moments(w, x3, about, m, a + 3, g3, t3)
    place = k * first.shape[1] + a
    add_totals(first, place, f0, f1, f2, f3)
    add_totals(second, place, s0, s1, s2, s3)
    place = m * first.shape[1] + a
    add_totals(first, place, g0, g1, g2, g3)
    add_totals(second, place, t0, t1, t2, t3)


@embedded
def _add_first(z, resp, about, k, a, n, first):
    """First moments of four features."""
    f0 = zero(z)
    f1, f2, f3 = f0, f0, f0
    for t in range(0, n, lanes(z)):
        w = load(resp, k, t)
        f0 = fma(w, subtract(load(z, a, t), at(about, k, a)), f0)
        f1 = fma(w, subtract(load(z, a + 1, t), at(about, k, a + 1)), f1)
        f2 = fma(w, subtract(load(z, a + 2, t), at(about, k, a + 2)), f2)
        f3 = fma(w, subtract(load(z, a + 3, t), at(about, k, a + 3)), f3)
    add_totals(first, k * first.shape[1] + a, f0, f1, f2, f3)


@kernel
def add_dense_diag(z, resp, listed, n_listed, about, n, g, first, second):
    """Add the moments of ``n`` rows to those of the listed components.

    resp[k] are the responsibilities of component k; ``n`` is a number of whole strips. Squares are
    added where ``second`` (K, C) has room. Four features at a time, which stay in the first cache
    while all components pass by.
    """
    if second.shape[1] == 0:
        for a in range(0, z.shape[0], 4):
            for i in range(n_listed):
                _add_first(z, resp, about, listed[i], a, n, first)
        return
    paired = n_listed // 2 * 2 if _ROOM_FOR_TWO else 0
    for a in range(0, z.shape[0], 4):
        for i in range(0, paired, 2):
            _add_squares_of_two(z, resp, about, listed[i], listed[i + 1], a, n, first, second)
        for i in range(paired, n_listed):
            _add_squares(z, resp, about, listed[i], a, n, first, second)


@kernel
def _add_diagonal(g, root, a, n, k, first, second):
    """Moments of four features among themselves, and their first moments."""
    nothing = zero(g)
    f0, f1, f2, f3 = nothing, nothing, nothing, nothing
    s00, s10, s11 = nothing, nothing, nothing
    s20, s21, s22 = nothing, nothing, nothing
    s30, s31, s32, s33 = nothing, nothing, nothing, nothing
    for t in range(0, n, lanes(g)):
        v0, v1, v2, v3 = load(g, a, t), load(g, a + 1, t), load(g, a + 2, t), load(g, a + 3, t)
        w = load(g, root, t)
        f0, f1, f2, f3 = fma(w, v0, f0), fma(w, v1, f1), fma(w, v2, f2), fma(w, v3, f3)
        s00, s10, s20, s30 = fma(v0, v0, s00), fma(v1, v0, s10), fma(v2, v0, s20), fma(v3, v0, s30)
        s11, s21, s31 = fma(v1, v1, s11), fma(v2, v1, s21), fma(v3, v1, s31)
        s22, s32 = fma(v2, v2, s22), fma(v3, v2, s32)
        s33 = fma(v3, v3, s33)
    columns = second.shape[2]
    start = (k * second.shape[1] + a) * columns + a
    add_totals(first, k * columns + a, f0, f1, f2, f3)
    add_totals(second, start, s00, nothing, nothing, nothing)
    add_totals(second, start + columns, s10, s11, nothing, nothing)
    add_totals(second, start + 2 * columns, s20, s21, s22, nothing)
    add_totals(second, start + 3 * columns, s30, s31, s32, s33)


@kernel
def add_dense_full(z, resp, listed, n_listed, about, n, g, first, second):
    """As :func:`add_dense_diag`, with ``second`` (K, R, C): triangle of 4 x 4 blocks.

    ``g`` (D' + 1, columns) is scratch for the rows times the root of their responsibility.
    """
    width = lanes(z)
    padded = z.shape[0]
    for i in range(n_listed):
        k = listed[i]
        for t in range(n):
            g[padded, t] = np.sqrt(resp[k, t])
        for d in range(padded):
            m = splat(zero(z), at(about, k, d))
            for t in range(0, n, width):
                store(g, d, t, multiply(subtract(load(z, d, t), m), load(g, padded, t)))
        for a in range(0, padded, 4):
            place = (k * second.shape[1] + a) * second.shape[2]
            for b in range(0, a, 4):
                add_products(g, a, g, b, 0, n, second, place + b, second.shape[2])
            _add_diagonal(g, padded, a, n, k, first, second)
