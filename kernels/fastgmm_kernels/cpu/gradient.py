"""Gradients of a tile: weighted residuals, their moments, and what they pull back to the rows.

With e = z - m_k, y = A_k e and weights w (upstream times responsibility), a component adds

    first_k += sum w y,   cross_k += sum w y e',   pull += w A_k' y,

from which all derivatives of sum_n w_n log p_k(x_n) follow. Where the rows are whitened A_k is a
number, and the cross moments are taken once of the pull.
"""

from __future__ import annotations

from numba.extending import overload

from .full import four_features
from .jit import kernel
from .lanes import add_totals, sum_lanes
from .simd import (
    add,
    at,
    fma,
    in_panel,
    lanes,
    load,
    load_strip,
    multiply,
    splat,
    store,
    strip_lanes,
    subtract,
    zero,
    zero_strip,
)


@kernel
def weigh(lp, line, mask, state, row, n):
    """Multiply a line by state[row] in the strips of the mask, and clear the others; the sum."""
    total = zero_strip(lp)
    for t in range(0, n, strip_lanes(lp)):
        w = zero_strip(lp)
        if mask >> (t // strip_lanes(lp)) & 1:
            w = multiply(load_strip(lp, line, t), load_strip(state, row, t))
        store(lp, line, t, w)
        total = add(total, w)
    return sum_lanes(total)


@kernel
def _add_first(u, k, n, first):
    """first[k] += sums of the lines of ``u``."""
    for a in range(0, u.shape[0], 4):
        f0 = zero(u)
        f1, f2, f3 = f0, f0, f0
        for t in range(0, n, lanes(u)):
            f0, f1 = add(f0, load(u, a, t)), add(f1, load(u, a + 1, t))
            f2, f3 = add(f2, load(u, a + 2, t)), add(f3, load(u, a + 3, t))
        add_totals(first, k * first.shape[1] + a, f0, f1, f2, f3)


@kernel
def add_cross_full(u, z, means, k, n, cross):
    """cross[k] += u (z - means[k])', in 4 x 4 blocks on and below the diagonal."""
    nothing = zero(u)
    columns = cross.shape[2]
    for a in range(0, u.shape[0], 4):
        for b in range(0, a + 4, 4):
            s00, s01, s02, s03 = nothing, nothing, nothing, nothing
            s10, s11, s12, s13 = nothing, nothing, nothing, nothing
            s20, s21, s22, s23 = nothing, nothing, nothing, nothing
            s30, s31, s32, s33 = nothing, nothing, nothing, nothing
            for t in range(0, n, lanes(u)):
                v0 = subtract(load(z, b, t), at(means, k, b))
                v1 = subtract(load(z, b + 1, t), at(means, k, b + 1))
                v2 = subtract(load(z, b + 2, t), at(means, k, b + 2))
                v3 = subtract(load(z, b + 3, t), at(means, k, b + 3))
                w = load(u, a, t)
                s00, s01 = fma(w, v0, s00), fma(w, v1, s01)
                s02, s03 = fma(w, v2, s02), fma(w, v3, s03)
                w = load(u, a + 1, t)
                s10, s11 = fma(w, v0, s10), fma(w, v1, s11)
                s12, s13 = fma(w, v2, s12), fma(w, v3, s13)
                w = load(u, a + 2, t)
                s20, s21 = fma(w, v0, s20), fma(w, v1, s21)
                s22, s23 = fma(w, v2, s22), fma(w, v3, s23)
                w = load(u, a + 3, t)
                s30, s31 = fma(w, v0, s30), fma(w, v1, s31)
                s32, s33 = fma(w, v2, s32), fma(w, v3, s33)
            start = (k * cross.shape[1] + a) * columns + b
            add_totals(cross, start, s00, s01, s02, s03)
            add_totals(cross, start + columns, s10, s11, s12, s13)
            add_totals(cross, start + 2 * columns, s20, s21, s22, s23)
            add_totals(cross, start + 3 * columns, s30, s31, s32, s33)


@kernel
def pull_full(u, factors, k, n, pull):
    """pull += factors[k]' u, four features of a strip of rows at a time."""
    for b in range(0, u.shape[0], 4):
        for t in range(0, n, strip_lanes(u)):
            p0, p1 = load_strip(pull, b, t), load_strip(pull, b + 1, t)
            p2, p3 = load_strip(pull, b + 2, t), load_strip(pull, b + 3, t)
            for a in range(b, u.shape[0], 4):
                place = a * (a + 4) // 8 + b
                for i in range(4):
                    v = load_strip(u, a + i, t)
                    p0 = fma(v, in_panel(factors, k, place, i), p0)
                    p1 = fma(v, in_panel(factors, k, place + 1, i), p1)
                    p2 = fma(v, in_panel(factors, k, place + 2, i), p2)
                    p3 = fma(v, in_panel(factors, k, place + 3, i), p3)
            store(pull, b, t, p0)
            store(pull, b + 1, t, p1)
            store(pull, b + 2, t, p2)
            store(pull, b + 3, t, p3)


@kernel
def _add_full(z, means, factors, k, lp, line, n, with_x, with_moments, u, pull, first, cross):
    """Full factors: weighted residuals first, then their products."""
    for j in range(0, z.shape[0], 4):
        for t in range(0, n, strip_lanes(z)):
            w = load_strip(lp, line, t)
            a, b, c, d = four_features(z, means, factors, k, j, t)
            store(u, j, t, multiply(a, w))
            store(u, j + 1, t, multiply(b, w))
            store(u, j + 2, t, multiply(c, w))
            store(u, j + 3, t, multiply(d, w))
    if with_moments:
        _add_first(u, k, n, first)
        add_cross_full(u, z, means, k, n, cross)
    if with_x:
        pull_full(u, factors, k, n, pull)


def _entry(factors, k, i):
    """Entry of a diagonal factor (K, D'), or the number of a spherical one (K,)."""
    raise NotImplementedError("only for compiled callers")


@overload(_entry, inline="always")
def _compiled_entry(factors, k, i):
    if factors.ndim == 2:
        return lambda factors, k, i: at(factors, k, i)
    return lambda factors, k, i: factors[k]


def _residual(z, means, factors, k, i, t):
    """y = A (z - m) of a feature; the factor of a spherical structure, a square, is left out."""
    raise NotImplementedError("only for compiled callers")


@overload(_residual, inline="always")
def _compiled_residual(z, means, factors, k, i, t):
    if factors.ndim == 2:
        return lambda z, means, factors, k, i, t: fma(
            load(z, i, t), at(factors, k, i), at(means, k, i)
        )
    return lambda z, means, factors, k, i, t: subtract(load(z, i, t), at(means, k, i))


@kernel
def _add_diag(z, means, factors, k, lp, line, n, with_x, with_moments, u, pull, first, cross):
    """Diagonal and spherical factors: four features at a time, nothing is kept between.

    Cross moments are sum w y^2, which lacks a factor of the diagonal.
    """
    squares = cross.shape[0] > 0
    for i in range(0, z.shape[0], 4):
        f0 = zero(z)
        f1, f2, f3 = f0, f0, f0
        s0, s1, s2, s3 = f0, f0, f0, f0
        b0, b1 = _entry(factors, k, i), _entry(factors, k, i + 1)
        b2, b3 = _entry(factors, k, i + 2), _entry(factors, k, i + 3)
        for t in range(0, n, lanes(z)):
            w = load(lp, line, t)
            e0 = _residual(z, means, factors, k, i, t)
            e1 = _residual(z, means, factors, k, i + 1, t)
            e2 = _residual(z, means, factors, k, i + 2, t)
            e3 = _residual(z, means, factors, k, i + 3, t)
            u0, u1 = multiply(e0, w), multiply(e1, w)
            u2, u3 = multiply(e2, w), multiply(e3, w)
            f0, f1, f2, f3 = add(f0, u0), add(f1, u1), add(f2, u2), add(f3, u3)
            s0, s1, s2, s3 = fma(u0, e0, s0), fma(u1, e1, s1), fma(u2, e2, s2), fma(u3, e3, s3)
            store(pull, i, t, fma(u0, b0, load(pull, i, t)))
            store(pull, i + 1, t, fma(u1, b1, load(pull, i + 1, t)))
            store(pull, i + 2, t, fma(u2, b2, load(pull, i + 2, t)))
            store(pull, i + 3, t, fma(u3, b3, load(pull, i + 3, t)))
        add_totals(first, k * first.shape[1] + i, f0, f1, f2, f3)
        if squares:
            add_totals(cross, k * cross.shape[1] + i, s0, s1, s2, s3)


@kernel
def add_cross_diag(u, z, n, cross):
    """cross[0] += the diagonal of u z'."""
    for i in range(0, u.shape[0], 4):
        s0 = zero(u)
        s1, s2, s3 = s0, s0, s0
        for t in range(0, n, lanes(u)):
            s0 = fma(load(u, i, t), load(z, i, t), s0)
            s1 = fma(load(u, i + 1, t), load(z, i + 1, t), s1)
            s2 = fma(load(u, i + 2, t), load(z, i + 2, t), s2)
            s3 = fma(load(u, i + 3, t), load(z, i + 3, t), s3)
        add_totals(cross, i, s0, s1, s2, s3)


def add_gradient(
    z, means, factors, k, lp, line, n, with_x, with_moments, u, pull, first, cross
):  # fmt: skip
    """Add what the weights lp[line] say of component ``k``; ``n`` is a number of whole strips."""
    raise NotImplementedError("only for compiled callers")


@overload(add_gradient)
def _add_gradient(
    z, means, factors, k, lp, line, n, with_x, with_moments, u, pull, first, cross
):  # fmt: skip
    function = _add_full if factors.ndim == 3 else _add_diag

    def run(z, means, factors, k, lp, line, n, with_x, with_moments, u, pull, first, cross):
        return function(
            z, means, factors, k, lp, line, n, with_x, with_moments, u, pull, first, cross
        )

    return run


def add_shared_cross(u, raw, origin, n, cross):
    """Cross moments of the pull with the rows before whitening, for a shared factor."""
    raise NotImplementedError("only for compiled callers")


@overload(add_shared_cross)
def _add_shared_cross(u, raw, origin, n, cross):
    if cross.ndim == 3:
        return lambda u, raw, origin, n, cross: add_cross_full(u, raw, origin, 0, n, cross)
    return lambda u, raw, origin, n, cross: add_cross_diag(u, raw, n, cross)


@kernel
def unwhiten(pull, whiten, n, out):
    """out = whiten' pull, with ``whiten`` as :func:`load_rows` takes it."""
    for d in range(pull.shape[0]):
        for t in range(0, n, strip_lanes(pull)):
            if whiten.shape[1] > 1:
                store(out, d, t, zero_strip(pull))
            else:
                scale = splat(zero_strip(pull), whiten[0, 0, d])
                store(out, d, t, multiply(load_strip(pull, d, t), scale))
    if whiten.shape[1] > 1:
        pull_full(pull, whiten, 0, n, out)
