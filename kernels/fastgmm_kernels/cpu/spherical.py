"""Spherical covariances, and every tied form after whitening: log p_k = c_k - s_k |z - m_k|^2."""

from __future__ import annotations

from .jit import kernel


@kernel
def log_prob_spherical(z, means, factors, constants, first, last, out, n):
    """out[k - first, t] = log(w_k p_k(row t)) for the components first <= k < last."""
    padded = z.shape[0]
    for k in range(first, last):
        mean, row = means[k], out[k - first]
        c, s = constants[k], factors[k]
        for d in range(0, padded, 4):
            m0, m1, m2, m3 = mean[d], mean[d + 1], mean[d + 2], mean[d + 3]
            z0, z1, z2, z3 = z[d], z[d + 1], z[d + 2], z[d + 3]
            if d == 0:
                for t in range(n):
                    y0, y1, y2, y3 = z0[t] - m0, z1[t] - m1, z2[t] - m2, z3[t] - m3
                    row[t] = c - s * (y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3)
            else:
                for t in range(n):
                    y0, y1, y2, y3 = z0[t] - m0, z1[t] - m1, z2[t] - m2, z3[t] - m3
                    row[t] -= s * (y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3)
