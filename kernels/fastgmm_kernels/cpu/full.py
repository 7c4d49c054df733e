"""Full covariances: the triangle of each factor in 4 x 4 blocks, rows in the inner loop.

With A_k = U_k' / sqrt(2) (lower triangular) and y = A_k (z - m_k), log p_k = c_k - y'y.
"""

from __future__ import annotations

import numpy as np

from .jit import kernel


@kernel
def _below_diagonal(z, mean, factor, j, y, n):
    """y[0:4] = factor[j:j+4, 0:j] (z[0:j] - mean[0:j])."""
    y0, y1, y2, y3 = y[0], y[1], y[2], y[3]
    for i in range(0, j, 4):
        a00, a01, a02, a03 = factor[j, i], factor[j, i + 1], factor[j, i + 2], factor[j, i + 3]
        a10, a11 = factor[j + 1, i], factor[j + 1, i + 1]
        a12, a13 = factor[j + 1, i + 2], factor[j + 1, i + 3]
        a20, a21 = factor[j + 2, i], factor[j + 2, i + 1]
        a22, a23 = factor[j + 2, i + 2], factor[j + 2, i + 3]
        a30, a31 = factor[j + 3, i], factor[j + 3, i + 1]
        a32, a33 = factor[j + 3, i + 2], factor[j + 3, i + 3]
        m0, m1, m2, m3 = mean[i], mean[i + 1], mean[i + 2], mean[i + 3]
        z0, z1, z2, z3 = z[i], z[i + 1], z[i + 2], z[i + 3]
        if i == 0:
            for t in range(n):
                d0, d1, d2, d3 = z0[t] - m0, z1[t] - m1, z2[t] - m2, z3[t] - m3
                y0[t] = a00 * d0 + a01 * d1 + a02 * d2 + a03 * d3
                y1[t] = a10 * d0 + a11 * d1 + a12 * d2 + a13 * d3
                y2[t] = a20 * d0 + a21 * d1 + a22 * d2 + a23 * d3
                y3[t] = a30 * d0 + a31 * d1 + a32 * d2 + a33 * d3
        else:
            for t in range(n):
                d0, d1, d2, d3 = z0[t] - m0, z1[t] - m1, z2[t] - m2, z3[t] - m3
                y0[t] += a00 * d0 + a01 * d1 + a02 * d2 + a03 * d3
                y1[t] += a10 * d0 + a11 * d1 + a12 * d2 + a13 * d3
                y2[t] += a20 * d0 + a21 * d1 + a22 * d2 + a23 * d3
                y3[t] += a30 * d0 + a31 * d1 + a32 * d2 + a33 * d3


@kernel
def store_transformed(z, factor, out, n):
    """out = factor z for a lower triangular factor."""
    padded = z.shape[0]
    zero = np.zeros(padded, z.dtype)
    for j in range(0, padded, 4):
        y = out[j : j + 4]
        if j == 0:
            y[:, :n] = 0
        _below_diagonal(z, zero, factor, j, y, n)
        for b in range(4):
            for i in range(b + 1):
                a = factor[j + b, j + i]
                source = z[j + i]
                target = out[j + b]
                for t in range(n):
                    target[t] += a * source[t]


@kernel
def _one_component(z, mean, factor, constant, y, out, n):
    """out[t] = constant - |factor (z[:, t] - mean)|^2."""
    y0, y1, y2, y3 = y[0], y[1], y[2], y[3]
    for j in range(0, z.shape[0], 4):
        a00 = factor[j, j]
        a10, a11 = factor[j + 1, j], factor[j + 1, j + 1]
        a20, a21, a22 = factor[j + 2, j], factor[j + 2, j + 1], factor[j + 2, j + 2]
        a30, a31 = factor[j + 3, j], factor[j + 3, j + 1]
        a32, a33 = factor[j + 3, j + 2], factor[j + 3, j + 3]
        m0, m1, m2, m3 = mean[j], mean[j + 1], mean[j + 2], mean[j + 3]
        z0, z1, z2, z3 = z[j], z[j + 1], z[j + 2], z[j + 3]
        if j == 0:
            for t in range(n):
                d0, d1, d2, d3 = z0[t] - m0, z1[t] - m1, z2[t] - m2, z3[t] - m3
                b0 = a00 * d0
                b1 = a10 * d0 + a11 * d1
                b2 = a20 * d0 + a21 * d1 + a22 * d2
                b3 = a30 * d0 + a31 * d1 + a32 * d2 + a33 * d3
                out[t] = constant - (b0 * b0 + b1 * b1 + b2 * b2 + b3 * b3)
        else:
            _below_diagonal(z, mean, factor, j, y, n)
            for t in range(n):
                d0, d1, d2, d3 = z0[t] - m0, z1[t] - m1, z2[t] - m2, z3[t] - m3
                b0 = y0[t] + a00 * d0
                b1 = y1[t] + a10 * d0 + a11 * d1
                b2 = y2[t] + a20 * d0 + a21 * d1 + a22 * d2
                b3 = y3[t] + a30 * d0 + a31 * d1 + a32 * d2 + a33 * d3
                out[t] -= b0 * b0 + b1 * b1 + b2 * b2 + b3 * b3


@kernel
def log_prob_full(z, means, factors, constants, first, last, y, out, n):
    """out[k - first, t] = log(w_k p_k(row t)) for the components first <= k < last."""
    for k in range(first, last):
        _one_component(z, means[k], factors[k], constants[k], y, out[k - first], n)


@kernel
def add_gathered_full(g, s, n, first, second):
    """Add the moments of ``n`` gathered rows to the float64 totals (triangle of 4 x 4 blocks).

    ``g`` holds s (z - about) with s the root of the responsibility: first += g s, second += g g'.
    """
    padded = g.shape[0]
    zero = g.dtype.type(0)
    for a in range(0, padded, 4):
        p0, p1, p2, p3 = g[a], g[a + 1], g[a + 2], g[a + 3]
        f0, f1, f2, f3 = zero, zero, zero, zero
        for t in range(n):
            w = s[t]
            f0 += w * p0[t]
            f1 += w * p1[t]
            f2 += w * p2[t]
            f3 += w * p3[t]
        first[a] += f0
        first[a + 1] += f1
        first[a + 2] += f2
        first[a + 3] += f3
        for b in range(0, a + 4, 4):
            q0, q1, q2, q3 = g[b], g[b + 1], g[b + 2], g[b + 3]
            s00, s01, s02, s03 = zero, zero, zero, zero
            s10, s11, s12, s13 = zero, zero, zero, zero
            s20, s21, s22, s23 = zero, zero, zero, zero
            s30, s31, s32, s33 = zero, zero, zero, zero
            for t in range(n):
                u0, u1, u2, u3 = p0[t], p1[t], p2[t], p3[t]
                v0, v1, v2, v3 = q0[t], q1[t], q2[t], q3[t]
                s00 += u0 * v0
                s01 += u0 * v1
                s02 += u0 * v2
                s03 += u0 * v3
                s10 += u1 * v0
                s11 += u1 * v1
                s12 += u1 * v2
                s13 += u1 * v3
                s20 += u2 * v0
                s21 += u2 * v1
                s22 += u2 * v2
                s23 += u2 * v3
                s30 += u3 * v0
                s31 += u3 * v1
                s32 += u3 * v2
                s33 += u3 * v3
            row = second[a]
            row[b] += s00
            row[b + 1] += s01
            row[b + 2] += s02
            row[b + 3] += s03
            row = second[a + 1]
            row[b] += s10
            row[b + 1] += s11
            row[b + 2] += s12
            row[b + 3] += s13
            row = second[a + 2]
            row[b] += s20
            row[b + 1] += s21
            row[b + 2] += s22
            row[b + 3] += s23
            row = second[a + 3]
            row[b] += s30
            row[b + 1] += s31
            row[b + 2] += s32
            row[b + 3] += s33


@kernel
def add_dense_full(z, r, about, n, g, s, first, second):
    """Add the moments of the first ``n`` rows of a tile with responsibilities ``r``.

    ``g`` and ``s`` are scratch for the scaled rows.
    """
    width = s.shape[0]
    for start in range(0, n, width):
        take = min(width, n - start)
        part = r[start : start + take]
        for t in range(take):
            s[t] = np.sqrt(part[t])
        for d in range(z.shape[0]):
            m = about[d]
            source = z[d, start : start + take]
            target = g[d]
            for t in range(take):
                target[t] = s[t] * (source[t] - m)
        add_gathered_full(g, s, take, first, second)
