"""Diagonal covariances: log p_k = c_k - |u_k * (z - m_k)|^2 with u_k = 1 / sqrt(2 variance)."""

from __future__ import annotations

from .jit import kernel


@kernel
def log_prob_diag(z, means, factors, constants, first, last, out, n):
    """out[k - first, t] = log(w_k p_k(row t)) for the components first <= k < last."""
    for k in range(first, last):
        mean, factor, row = means[k], factors[k], out[k - first]
        c = constants[k]
        for d in range(0, z.shape[0], 4):
            m0, m1, m2, m3 = mean[d], mean[d + 1], mean[d + 2], mean[d + 3]
            u0, u1, u2, u3 = factor[d], factor[d + 1], factor[d + 2], factor[d + 3]
            z0, z1, z2, z3 = z[d], z[d + 1], z[d + 2], z[d + 3]
            if d == 0:
                for t in range(n):
                    y0, y1 = u0 * (z0[t] - m0), u1 * (z1[t] - m1)
                    y2, y3 = u2 * (z2[t] - m2), u3 * (z3[t] - m3)
                    row[t] = c - (y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3)
            else:
                for t in range(n):
                    y0, y1 = u0 * (z0[t] - m0), u1 * (z1[t] - m1)
                    y2, y3 = u2 * (z2[t] - m2), u3 * (z3[t] - m3)
                    row[t] -= y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3


@kernel
def add_dense_diag(z, r, about, n, g, s, first, second):
    """Add the moments of the first ``n`` rows of a tile with responsibilities ``r``.

    Squares are added where ``second`` has room for them; tied structures need none.
    """
    squares = second.shape[0] > 0
    zero = z.dtype.type(0)
    for d in range(0, z.shape[0], 2):
        z0, z1 = z[d], z[d + 1]
        m0, m1 = about[d], about[d + 1]
        f0, f1, s0, s1 = zero, zero, zero, zero
        if squares:
            for t in range(n):
                w = r[t]
                a0, a1 = z0[t] - m0, z1[t] - m1
                b0, b1 = w * a0, w * a1
                f0 += b0
                f1 += b1
                s0 += b0 * a0
                s1 += b1 * a1
            second[d] += s0
            second[d + 1] += s1
        else:
            for t in range(n):
                w = r[t]
                f0 += w * (z0[t] - m0)
                f1 += w * (z1[t] - m1)
        first[0, d] += f0
        first[0, d + 1] += f1


@kernel
def add_gathered_diag(g, s, n, first, second):
    """Add the moments of ``n`` gathered rows.

    ``g`` (D', columns) holds s (z - about) with s (1, columns) the root of the responsibility:
    first (1, D') += g s', second += g g where it has room.
    """
    squares = second.shape[0] > 0
    zero = g.dtype.type(0)
    for d in range(g.shape[0]):
        row = g[d]
        f, q = zero, zero
        for t in range(n):
            f += s[0, t] * row[t]
            q += row[t] * row[t]
        first[0, d] += f
        if squares:
            second[d] += q
