"""Spherical covariances, and every tied form after whitening: log p_k = c_k - s_k |z - m_k|^2."""

from __future__ import annotations

from .jit import inlined, kernel
from .simd import fma, lanes, load, splat, store, subtract, zero_like


@inlined
def _square(m, x, q):
    """q + (x - m)^2."""
    e = subtract(x, splat(m))
    return fma(e, e, q)


@inlined
def _finish(out, row, t, c, s, q):
    store(out, row, t, fma(splat(-s), q, splat(c)))


@kernel
def log_prob_spherical(z, means, factors, constants, first, last, out, n):
    """out[k - first, t] = log(w_k p_k(row t)) for the components first <= k < last.

    Four components and four vectors of rows at a time, their sums in registers; where fewer
    components are left the last is repeated. Up to 4 vectors of columns beyond ``n`` are read and
    written.
    """
    width = lanes(z)
    zero = splat(zero_like(z))
    for k in range(first, last, 4):
        k1, k2, k3 = min(k + 1, last - 1), min(k + 2, last - 1), min(k + 3, last - 1)
        for t in range(0, n, 4 * width):
            t1, t2, t3 = t + width, t + 2 * width, t + 3 * width
            a0, a1, a2, a3 = zero, zero, zero, zero
            b0, b1, b2, b3 = zero, zero, zero, zero
            c0, c1, c2, c3 = zero, zero, zero, zero
            d0, d1, d2, d3 = zero, zero, zero, zero
            for i in range(z.shape[0]):
                x0, x1, x2, x3 = load(z, i, t), load(z, i, t1), load(z, i, t2), load(z, i, t3)
                m = means[k, i]
                a0, a1 = _square(m, x0, a0), _square(m, x1, a1)
                a2, a3 = _square(m, x2, a2), _square(m, x3, a3)
                m = means[k1, i]
                b0, b1 = _square(m, x0, b0), _square(m, x1, b1)
                b2, b3 = _square(m, x2, b2), _square(m, x3, b3)
                m = means[k2, i]
                c0, c1 = _square(m, x0, c0), _square(m, x1, c1)
                c2, c3 = _square(m, x2, c2), _square(m, x3, c3)
                m = means[k3, i]
                d0, d1 = _square(m, x0, d0), _square(m, x1, d1)
                d2, d3 = _square(m, x2, d2), _square(m, x3, d3)
            c, s = constants[k], factors[k]
            _finish(out, k - first, t, c, s, a0)
            _finish(out, k - first, t1, c, s, a1)
            _finish(out, k - first, t2, c, s, a2)
            _finish(out, k - first, t3, c, s, a3)
            c, s = constants[k1], factors[k1]
            _finish(out, k1 - first, t, c, s, b0)
            _finish(out, k1 - first, t1, c, s, b1)
            _finish(out, k1 - first, t2, c, s, b2)
            _finish(out, k1 - first, t3, c, s, b3)
            c, s = constants[k2], factors[k2]
            _finish(out, k2 - first, t, c, s, c0)
            _finish(out, k2 - first, t1, c, s, c1)
            _finish(out, k2 - first, t2, c, s, c2)
            _finish(out, k2 - first, t3, c, s, c3)
            c, s = constants[k3], factors[k3]
            _finish(out, k3 - first, t, c, s, d0)
            _finish(out, k3 - first, t1, c, s, d1)
            _finish(out, k3 - first, t2, c, s, d2)
            _finish(out, k3 - first, t3, c, s, d3)
