"""Full covariances: the triangle of each factor by four features and four vectors of rows.

With A_k = U_k' / sqrt(2) (lower triangular) and y = A_k (z - m_k), log p_k = c_k - y'y.
"""

from __future__ import annotations

import numpy as np

from .jit import inlined, kernel
from .simd import add_totals, fma, lanes, load, splat, store, subtract, zero_like


@inlined
def _four_features(z, mean, factor, j, t, width):
    """Four features of factor (z - mean) for four vectors of rows from column ``t``.

    The sums stay in registers over the inner product: 16 fused multiply-adds for 4 vectors of rows
    and 4 entries of the factor.
    """
    zero = splat(zero_like(mean))
    a0, a1, a2, a3 = zero, zero, zero, zero
    b0, b1, b2, b3 = zero, zero, zero, zero
    c0, c1, c2, c3 = zero, zero, zero, zero
    d0, d1, d2, d3 = zero, zero, zero, zero
    for i in range(j):
        m = splat(mean[i])
        x0, x1 = subtract(load(z, i, t), m), subtract(load(z, i, t + width), m)
        x2 = subtract(load(z, i, t + 2 * width), m)
        x3 = subtract(load(z, i, t + 3 * width), m)
        f = splat(factor[j, i])
        a0, a1, a2, a3 = fma(f, x0, a0), fma(f, x1, a1), fma(f, x2, a2), fma(f, x3, a3)
        f = splat(factor[j + 1, i])
        b0, b1, b2, b3 = fma(f, x0, b0), fma(f, x1, b1), fma(f, x2, b2), fma(f, x3, b3)
        f = splat(factor[j + 2, i])
        c0, c1, c2, c3 = fma(f, x0, c0), fma(f, x1, c1), fma(f, x2, c2), fma(f, x3, c3)
        f = splat(factor[j + 3, i])
        d0, d1, d2, d3 = fma(f, x0, d0), fma(f, x1, d1), fma(f, x2, d2), fma(f, x3, d3)
    # The block on the diagonal: its upper entries are zero.
    for i in range(4):
        m = splat(mean[j + i])
        x0, x1 = subtract(load(z, j + i, t), m), subtract(load(z, j + i, t + width), m)
        x2 = subtract(load(z, j + i, t + 2 * width), m)
        x3 = subtract(load(z, j + i, t + 3 * width), m)
        if i == 0:
            f = splat(factor[j, j])
            a0, a1, a2, a3 = fma(f, x0, a0), fma(f, x1, a1), fma(f, x2, a2), fma(f, x3, a3)
        if i <= 1:
            f = splat(factor[j + 1, j + i])
            b0, b1, b2, b3 = fma(f, x0, b0), fma(f, x1, b1), fma(f, x2, b2), fma(f, x3, b3)
        if i <= 2:
            f = splat(factor[j + 2, j + i])
            c0, c1, c2, c3 = fma(f, x0, c0), fma(f, x1, c1), fma(f, x2, c2), fma(f, x3, c3)
        f = splat(factor[j + 3, j + i])
        d0, d1, d2, d3 = fma(f, x0, d0), fma(f, x1, d1), fma(f, x2, d2), fma(f, x3, d3)
    return a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3


@kernel
def store_transformed(z, factor, out, n):
    """out = factor z for a lower triangular factor; up to 4 vectors of columns beyond ``n``."""
    width = lanes(z)
    origin = np.zeros(z.shape[0], z.dtype)
    for t in range(0, n, 4 * width):
        for j in range(0, z.shape[0], 4):
            a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = _four_features(
                z, origin, factor, j, t, width
            )
            store(out, j, t, a0)
            store(out, j, t + width, a1)
            store(out, j, t + 2 * width, a2)
            store(out, j, t + 3 * width, a3)
            store(out, j + 1, t, b0)
            store(out, j + 1, t + width, b1)
            store(out, j + 1, t + 2 * width, b2)
            store(out, j + 1, t + 3 * width, b3)
            store(out, j + 2, t, c0)
            store(out, j + 2, t + width, c1)
            store(out, j + 2, t + 2 * width, c2)
            store(out, j + 2, t + 3 * width, c3)
            store(out, j + 3, t, d0)
            store(out, j + 3, t + width, d1)
            store(out, j + 3, t + 2 * width, d2)
            store(out, j + 3, t + 3 * width, d3)


@kernel
def _one_component(z, mean, factor, constant, out, row, n):
    """out[row, t] = constant - |factor (z[:, t] - mean)|^2."""
    width = lanes(z)
    zero = splat(zero_like(mean))
    top = splat(constant)
    for t in range(0, n, 4 * width):
        q0, q1, q2, q3 = zero, zero, zero, zero
        for j in range(0, z.shape[0], 4):
            a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = _four_features(
                z, mean, factor, j, t, width
            )
            q0, q1, q2, q3 = fma(a0, a0, q0), fma(a1, a1, q1), fma(a2, a2, q2), fma(a3, a3, q3)
            q0, q1, q2, q3 = fma(b0, b0, q0), fma(b1, b1, q1), fma(b2, b2, q2), fma(b3, b3, q3)
            q0, q1, q2, q3 = fma(c0, c0, q0), fma(c1, c1, q1), fma(c2, c2, q2), fma(c3, c3, q3)
            q0, q1, q2, q3 = fma(d0, d0, q0), fma(d1, d1, q1), fma(d2, d2, q2), fma(d3, d3, q3)
        store(out, row, t, subtract(top, q0))
        store(out, row, t + width, subtract(top, q1))
        store(out, row, t + 2 * width, subtract(top, q2))
        store(out, row, t + 3 * width, subtract(top, q3))


@kernel
def log_prob_full(z, means, factors, constants, first, last, out, n):
    """out[k - first, t] = log(w_k p_k(row t)) for the components first <= k < last.

    Up to 4 vectors of columns beyond ``n`` are read and written.
    """
    for k in range(first, last):
        _one_component(z, means[k], factors[k], constants[k], out, k - first, n)


@kernel
def _add_diagonal(g, s, a, whole, k, first, second):
    """Moments of four features among themselves, and their first moments."""
    width = lanes(g)
    zero = splat(zero_like(g))
    f0, f1, f2, f3 = zero, zero, zero, zero
    s00, s10, s11 = zero, zero, zero
    s20, s21, s22 = zero, zero, zero
    s30, s31, s32, s33 = zero, zero, zero, zero
    for t in range(0, whole, width):
        v0, v1, v2, v3 = load(g, a, t), load(g, a + 1, t), load(g, a + 2, t), load(g, a + 3, t)
        w = load(s, 0, t)
        f0, f1, f2, f3 = fma(w, v0, f0), fma(w, v1, f1), fma(w, v2, f2), fma(w, v3, f3)
        s00, s10, s20, s30 = fma(v0, v0, s00), fma(v1, v0, s10), fma(v2, v0, s20), fma(v3, v0, s30)
        s11, s21, s31 = fma(v1, v1, s11), fma(v2, v1, s21), fma(v3, v1, s31)
        s22, s32 = fma(v2, v2, s22), fma(v3, v2, s32)
        s33 = fma(v3, v3, s33)
    padded = g.shape[0]
    start = (k * padded + a) * padded
    add_totals(first, k * padded + a, f0, f1, f2, f3)
    add_totals(second, start + a, s00, zero, zero, zero)
    add_totals(second, start + 1 * padded + a, s10, s11, zero, zero)
    add_totals(second, start + 2 * padded + a, s20, s21, s22, zero)
    add_totals(second, start + 3 * padded + a, s30, s31, s32, s33)


@kernel
def _add_below(g, a, b, whole, k, second):
    """Moments of four features with four others: sums over rows stay in registers."""
    width = lanes(g)
    zero = splat(zero_like(g))
    s00, s01, s02, s03 = zero, zero, zero, zero
    s10, s11, s12, s13 = zero, zero, zero, zero
    s20, s21, s22, s23 = zero, zero, zero, zero
    s30, s31, s32, s33 = zero, zero, zero, zero
    for t in range(0, whole, width):
        v0, v1, v2, v3 = load(g, b, t), load(g, b + 1, t), load(g, b + 2, t), load(g, b + 3, t)
        u = load(g, a, t)
        s00, s01, s02, s03 = fma(u, v0, s00), fma(u, v1, s01), fma(u, v2, s02), fma(u, v3, s03)
        u = load(g, a + 1, t)
        s10, s11, s12, s13 = fma(u, v0, s10), fma(u, v1, s11), fma(u, v2, s12), fma(u, v3, s13)
        u = load(g, a + 2, t)
        s20, s21, s22, s23 = fma(u, v0, s20), fma(u, v1, s21), fma(u, v2, s22), fma(u, v3, s23)
        u = load(g, a + 3, t)
        s30, s31, s32, s33 = fma(u, v0, s30), fma(u, v1, s31), fma(u, v2, s32), fma(u, v3, s33)
    padded = g.shape[0]
    start = (k * padded + a) * padded
    add_totals(second, start + b, s00, s01, s02, s03)
    add_totals(second, start + 1 * padded + b, s10, s11, s12, s13)
    add_totals(second, start + 2 * padded + b, s20, s21, s22, s23)
    add_totals(second, start + 3 * padded + b, s30, s31, s32, s33)


@kernel
def add_gathered_full(g, s, n, k, first, second):
    """Add the moments of ``n`` gathered rows to the float64 totals (triangle of 4 x 4 blocks).

    ``g`` (D', columns) holds s (z - about) with s (1, columns) the root of the responsibility:
    first[k] += g s', second[k] (D', D') += g g'. Columns up to the next whole vector are zeroed.
    """
    padded = g.shape[0]
    width = lanes(g)
    whole = (n + width - 1) // width * width
    for t in range(n, whole):
        s[0, t] = 0
        for d in range(padded):
            g[d, t] = 0
    for a in range(0, padded, 4):
        for b in range(0, a, 4):
            _add_below(g, a, b, whole, k, second)
        _add_diagonal(g, s, a, whole, k, first, second)


@kernel
def add_dense_full(z, resp, k, about, n, g, s, first, second):
    """Add the moments of the first ``n`` rows of a tile with responsibilities ``resp[k]``.

    ``g`` and ``s`` are scratch for the scaled rows.
    """
    width = s.shape[1] // lanes(z) * lanes(z)
    for start in range(0, n, width):
        take = min(width, n - start)
        part = resp[k, start : start + take]
        root = s[0]
        for t in range(take):
            root[t] = np.sqrt(part[t])
        for d in range(z.shape[0]):
            m = about[k, d]
            source = z[d, start : start + take]
            target = g[d]
            for t in range(take):
                target[t] = root[t] * (source[t] - m)
        add_gathered_full(g, s, take, k, first, second)
