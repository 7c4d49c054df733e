"""Structures that do not mix features: diagonal, spherical, and every tied form after whitening.

Diagonal: log p_k = c_k - |u_k * z - m_k|^2 with u_k = 1 / sqrt(2 variance) and m_k the scaled mean:
one rounding for both steps, which is that of the scaled mean itself. Spherical:
log p_k = c_k - s_k |z - m_k|^2.
"""

from __future__ import annotations

from numba.extending import overload

from .jit import embedded, inlined, kernel
from .simd import at, fma, load_strip, multiply, strip_lanes, subtract, zero_strip
from .skip import settle, settle_pair, strip_bits, within_reach


@inlined
def _square_diag(x, means, factors, k, i, q):
    y = fma(x, at(factors, k, i), at(means, k, i))
    return fma(y, y, q)


@inlined
def _square_spherical(x, means, factors, k, i, q):
    y = subtract(x, at(means, k, i))
    return fma(y, y, q)


def _square(x, means, factors, k, i, q):
    """Add the square of feature ``i`` to q."""
    raise NotImplementedError("only for compiled callers")


@overload(_square, inline="always")
def _compiled_square(x, means, factors, k, i, q):
    function = _square_diag if factors.ndim == 2 else _square_spherical
    return lambda x, means, factors, k, i, q: function(x, means, factors, k, i, q)


def _exponent(q, factors, k):
    """The exponent, given the sum of squares."""
    raise NotImplementedError("only for compiled callers")


@overload(_exponent, inline="always")
def _compiled_exponent(q, factors, k):
    if factors.ndim == 2:
        return lambda q, factors, k: q
    return lambda q, factors, k: multiply(q, factors[k])


@embedded
def _visit_one(z, means, factors, constants, reach, early, k, line, begin, end, state, out, mask):
    """One component, which stops at feature ``early`` or later; returns its mask."""
    bit = 1 << (begin // strip_lanes(z))
    for t in range(begin, end, strip_lanes(z)):
        q = zero_strip(z)
        alive = True
        for i in range(0, z.shape[0], 4):
            q = _square(load_strip(z, i, t), means, factors, k, i, q)
            q = _square(load_strip(z, i + 1, t), means, factors, k, i + 1, q)
            q = _square(load_strip(z, i + 2, t), means, factors, k, i + 2, q)
            q = _square(load_strip(z, i + 3, t), means, factors, k, i + 3, q)
            if i >= early or i + 4 == z.shape[0]:
                alive = within_reach(state, t, _exponent(q, factors, k), reach[k])
                if not alive:
                    break
        if alive:
            settle(_exponent(q, factors, k), constants, k, t, state, out, line)
            mask |= bit
        bit <<= 1
    return mask


@embedded
def _visit_two(z, means, factors, constants, k, line, begin, end, state, out):
    """Components k and k + 1 on two lines: what is loaded of the rows serves both."""
    for t in range(begin, end, strip_lanes(z)):
        q = zero_strip(z)
        p = q
        for i in range(0, z.shape[0], 4):
            x = load_strip(z, i, t)
            q = _square(x, means, factors, k, i, q)
            p = _square(x, means, factors, k + 1, i, p)
            x = load_strip(z, i + 1, t)
            q = _square(x, means, factors, k, i + 1, q)
            p = _square(x, means, factors, k + 1, i + 1, p)
            x = load_strip(z, i + 2, t)
            q = _square(x, means, factors, k, i + 2, q)
            p = _square(x, means, factors, k + 1, i + 2, p)
            x = load_strip(z, i + 3, t)
            q = _square(x, means, factors, k, i + 3, q)
            p = _square(x, means, factors, k + 1, i + 3, p)
        q, p = _exponent(q, factors, k), _exponent(p, factors, k + 1)
        settle_pair(q, p, constants, k, t, state, out, line)


@kernel
def visit_axes(
    z, means, factors, constants, reach, early, first, last, base, begin, end, state, out, masks
):
    """As :func:`visit_full`; where none is expected to stop early two at a time, without a test.

    There most components matter to some row of a strip.
    """
    k = first
    if early >= z.shape[0]:
        bits = strip_bits(begin, end, z)
        while k + 1 < last:
            _visit_two(z, means, factors, constants, k, k - base, begin, end, state, out)
            masks[k - base] |= bits
            masks[k + 1 - base] |= bits
            k += 2
    while k < last:
        masks[k - base] = _visit_one(
            z, means, factors, constants, reach, early, k, k - base, begin, end, state, out,
            masks[k - base],
        )  # fmt: skip
        k += 1
