"""Diagonal covariances: log p_k = c_k - |u_k * (z - m_k)|^2 with u_k = 1 / sqrt(2 variance)."""

from __future__ import annotations

from .jit import inlined, kernel
from .simd import (
    add,
    add_totals,
    fma,
    lanes,
    load,
    multiply,
    splat,
    store,
    subtract,
    zero_like,
)


@inlined
def _square(m, u, x, q):
    """q + (u (x - m))^2."""
    y = multiply(subtract(x, splat(m)), splat(u))
    return fma(y, y, q)


@inlined
def _finish(out, row, t, c, q):
    store(out, row, t, subtract(splat(c), q))


@kernel
def log_prob_diag(z, means, factors, constants, first, last, out, n):
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
                m, u = means[k, i], factors[k, i]
                a0, a1 = _square(m, u, x0, a0), _square(m, u, x1, a1)
                a2, a3 = _square(m, u, x2, a2), _square(m, u, x3, a3)
                m, u = means[k1, i], factors[k1, i]
                b0, b1 = _square(m, u, x0, b0), _square(m, u, x1, b1)
                b2, b3 = _square(m, u, x2, b2), _square(m, u, x3, b3)
                m, u = means[k2, i], factors[k2, i]
                c0, c1 = _square(m, u, x0, c0), _square(m, u, x1, c1)
                c2, c3 = _square(m, u, x2, c2), _square(m, u, x3, c3)
                m, u = means[k3, i], factors[k3, i]
                d0, d1 = _square(m, u, x0, d0), _square(m, u, x1, d1)
                d2, d3 = _square(m, u, x2, d2), _square(m, u, x3, d3)
            c = constants[k]
            _finish(out, k - first, t, c, a0)
            _finish(out, k - first, t1, c, a1)
            _finish(out, k - first, t2, c, a2)
            _finish(out, k - first, t3, c, a3)
            c = constants[k1]
            _finish(out, k1 - first, t, c, b0)
            _finish(out, k1 - first, t1, c, b1)
            _finish(out, k1 - first, t2, c, b2)
            _finish(out, k1 - first, t3, c, b3)
            c = constants[k2]
            _finish(out, k2 - first, t, c, c0)
            _finish(out, k2 - first, t1, c, c1)
            _finish(out, k2 - first, t2, c, c2)
            _finish(out, k2 - first, t3, c, c3)
            c = constants[k3]
            _finish(out, k3 - first, t, c, d0)
            _finish(out, k3 - first, t1, c, d1)
            _finish(out, k3 - first, t2, c, d2)
            _finish(out, k3 - first, t3, c, d3)


@kernel
def _add_squares(z, r, k, a, about, n, first, second):
    """First moments and squares of four features; ``n`` is a number of whole vectors."""
    zero = splat(zero_like(z))
    m0, m1 = splat(about[k, a]), splat(about[k, a + 1])
    m2, m3 = splat(about[k, a + 2]), splat(about[k, a + 3])
    f0, f1, f2, f3 = zero, zero, zero, zero
    s0, s1, s2, s3 = zero, zero, zero, zero
    for t in range(0, n, lanes(z)):
        w = load(r, k, t)
        e0, e1 = subtract(load(z, a, t), m0), subtract(load(z, a + 1, t), m1)
        e2, e3 = subtract(load(z, a + 2, t), m2), subtract(load(z, a + 3, t), m3)
        b0, b1, b2, b3 = multiply(w, e0), multiply(w, e1), multiply(w, e2), multiply(w, e3)
        f0, f1, f2, f3 = add(f0, b0), add(f1, b1), add(f2, b2), add(f3, b3)
        s0, s1, s2, s3 = fma(b0, e0, s0), fma(b1, e1, s1), fma(b2, e2, s2), fma(b3, e3, s3)
    add_totals(first, k * z.shape[0] + a, f0, f1, f2, f3)
    add_totals(second, k * z.shape[0] + a, s0, s1, s2, s3)


@kernel
def _add_first(z, r, k, a, about, n, first):
    """First moments of four features, as :func:`_add_squares`."""
    zero = splat(zero_like(z))
    m0, m1 = splat(about[k, a]), splat(about[k, a + 1])
    m2, m3 = splat(about[k, a + 2]), splat(about[k, a + 3])
    f0, f1, f2, f3 = zero, zero, zero, zero
    for t in range(0, n, lanes(z)):
        w = load(r, k, t)
        f0 = fma(w, subtract(load(z, a, t), m0), f0)
        f1 = fma(w, subtract(load(z, a + 1, t), m1), f1)
        f2 = fma(w, subtract(load(z, a + 2, t), m2), f2)
        f3 = fma(w, subtract(load(z, a + 3, t), m3), f3)
    add_totals(first, k * z.shape[0] + a, f0, f1, f2, f3)


@kernel
def add_dense_diag(z, resp, k, about, n, g, s, first, second):
    """Add the moments of the first ``n`` rows of a tile with responsibilities ``resp[k]``.

    Squares are added where ``second`` (K, D') has room for them; tied structures need none.
    Columns up to the next whole vector are overwritten with zeros.
    """
    width = lanes(z)
    whole = (n + width - 1) // width * width
    for t in range(n, whole):
        resp[k, t] = 0
        for d in range(z.shape[0]):
            z[d, t] = 0
    for a in range(0, z.shape[0], 4):
        if second.shape[1] > 0:
            _add_squares(z, resp, k, a, about, whole, first, second)
        else:
            _add_first(z, resp, k, a, about, whole, first)


@kernel
def add_gathered_diag(g, s, n, k, first, second):
    """Add the moments of ``n`` gathered rows.

    ``g`` (D', columns) holds s (z - about) with s (1, columns) the root of the responsibility:
    first[k] += g s', second[k] += g g where it has room.
    """
    squares = second.shape[1] > 0
    zero = g.dtype.type(0)
    for d in range(g.shape[0]):
        row = g[d]
        f, q = zero, zero
        for t in range(n):
            f += s[0, t] * row[t]
            q += row[t] * row[t]
        first[k, d] += f
        if squares:
            second[k, d] += q
