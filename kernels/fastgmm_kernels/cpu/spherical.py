"""Spherical covariances, and every tied form after whitening: log p_k = c_k - s_k |z - m_k|^2."""

from __future__ import annotations

from .jit import embedded, inlined, kernel
from .simd import at, fma, load_strip, multiply, strip_lanes, subtract, zero_strip
from .skip import settle, settle_pair, within_reach


@inlined
def _square(x, means, k, i, q):
    """q + (x - m)^2 of feature ``i``."""
    y = subtract(x, at(means, k, i))
    return fma(y, y, q)


@embedded
def _visit_one(z, means, factors, constants, reach, early, k, n, state, out, line):
    """One component, which stops at feature ``early`` or later; returns the strips that matter."""
    mask, bit = 0, 1
    for t in range(0, n, strip_lanes(z)):
        q = zero_strip(z)
        alive = True
        for i in range(0, z.shape[0], 4):
            q = _square(load_strip(z, i, t), means, k, i, q)
            q = _square(load_strip(z, i + 1, t), means, k, i + 1, q)
            q = _square(load_strip(z, i + 2, t), means, k, i + 2, q)
            q = _square(load_strip(z, i + 3, t), means, k, i + 3, q)
            if i >= early or i + 4 == z.shape[0]:
                alive = within_reach(state, t, multiply(q, factors[k]), reach[k])
                if not alive:
                    break
        if alive:
            settle(multiply(q, factors[k]), constants, k, t, state, out, line)
            mask |= bit
        bit <<= 1
    return mask


@embedded
def _visit_two(z, means, factors, constants, reach, k, n, state, out, line, masks):
    """Components k and k + 1 on two lines: what is loaded of the rows serves both."""
    masks[line], masks[line + 1] = 0, 0
    bit = 1
    for t in range(0, n, strip_lanes(z)):
        q = zero_strip(z)
        p = q
        for i in range(0, z.shape[0], 4):
            x = load_strip(z, i, t)
            q = _square(x, means, k, i, q)
            p = _square(x, means, k + 1, i, p)
            x = load_strip(z, i + 1, t)
            q = _square(x, means, k, i + 1, q)
            p = _square(x, means, k + 1, i + 1, p)
            x = load_strip(z, i + 2, t)
            q = _square(x, means, k, i + 2, q)
            p = _square(x, means, k + 1, i + 2, p)
            x = load_strip(z, i + 3, t)
            q = _square(x, means, k, i + 3, q)
            p = _square(x, means, k + 1, i + 3, p)
        settle_pair(
            multiply(q, factors[k]),
            multiply(p, factors[k + 1]),
            constants,
            reach,
            k,
            t,
            bit,
            state,
            out,
            line,
            masks,
        )
        bit <<= 1


@kernel
def visit_spherical(
    z, means, factors, constants, reach, early, first, last, n, state, out, line, active, masks
):  # fmt: skip
    """As :func:`visit_full`; two components at a time where none is expected to stop early."""
    k = first
    if early >= z.shape[0]:
        while k + 1 < last:
            _visit_two(z, means, factors, constants, reach, k, n, state, out, line, masks)
            active[line], active[line + 1] = k, k + 1
            line += 2 * ((masks[line] | masks[line + 1]) != 0)
            k += 2
    while k < last:
        mask = _visit_one(z, means, factors, constants, reach, early, k, n, state, out, line)
        active[line], masks[line] = k, mask
        line += mask != 0
        k += 1
    return line
