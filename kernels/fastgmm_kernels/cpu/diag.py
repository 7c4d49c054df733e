"""Diagonal covariances: log p_k = c_k - |u_k * (z - m_k)|^2 with u_k = 1 / sqrt(2 variance)."""

from __future__ import annotations

from .jit import kernel


@kernel
def log_prob_diag(z, means, factors, constants, first, last, y, out, n):
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
def add_moments_diag(g, s, n, first, second):
    """Add the moments of ``n`` gathered rows to the float64 totals.

    ``g`` holds s (z - about) with s the root of the responsibility: first += g s, second += g g
    where ``second`` has room for it (tied structures need none).
    """
    squares = second.shape[0] > 0
    zero = g.dtype.type(0)
    for d in range(0, g.shape[0], 4):
        p0, p1, p2, p3 = g[d], g[d + 1], g[d + 2], g[d + 3]
        f0, f1, f2, f3 = zero, zero, zero, zero
        s0, s1, s2, s3 = zero, zero, zero, zero
        if squares:
            for t in range(n):
                w = s[t]
                a0, a1, a2, a3 = p0[t], p1[t], p2[t], p3[t]
                f0 += w * a0
                f1 += w * a1
                f2 += w * a2
                f3 += w * a3
                s0 += a0 * a0
                s1 += a1 * a1
                s2 += a2 * a2
                s3 += a3 * a3
            second[d] += s0
            second[d + 1] += s1
            second[d + 2] += s2
            second[d + 3] += s3
        else:
            for t in range(n):
                w = s[t]
                f0 += w * p0[t]
                f1 += w * p1[t]
                f2 += w * p2[t]
                f3 += w * p3[t]
        first[d] += f0
        first[d + 1] += f1
        first[d + 2] += f2
        first[d + 3] += f3
