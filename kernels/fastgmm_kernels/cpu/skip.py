"""Which (strip of rows, component) pairs may be skipped, and what each row knows of itself.

A responsibility r of component k may be left out where r v B < eps w_k, with v the row's weight and
B a bound on its squared Mahalanobis distance: all that is left out together is below rounding of
the component's own count and moments. Since log p(x) is at least the largest log-probability met so
far (the top), that holds where

    q > reach_k - cut,   reach_k = constant_k - log(eps w_k),   cut = top - log(B v)

with q the exponent, a sum of squares: a part of it that is above the bound settles the pair.
For r > exp(-40) the squared distance is at most B = 81 + 2 (tallest - top), tallest the largest
constant; the logarithm of B is replaced by its tangent, which lies above it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from .jit import inlined, kernel
from .lanes import any_at_most
from .simd import (
    add,
    load_strip,
    maximum,
    multiply,
    raise_to,
    select_below,
    splat,
    store,
    strip_lanes,
    subtract,
    zero_strip,
)

# Lines of the state of a tile (STATES, stride): cut so far; what lies between the top and the cut;
# top and sum of the log-sum-exp; weight; bound on the squared distance; the largest log-probability
# of those that were not held against the cut.
CUT, SLACK, TOP, SUM, SHARE, BOUND, PEAK = 0, 1, 2, 3, 4, 5, 6
STATES = 7
_BASE = 81.0
_LOG_BASE = math.log(_BASE)
_TANGENT = 2 / _BASE
SLOPE = 1 + _TANGENT


def lowest(array):
    """Below any cut of a row that a component has met; not -inf, which would meet inf as NaN."""
    raise NotImplementedError("only for compiled callers")


@overload(lowest)
def _lowest(array):
    value = -1e38 if array.dtype == types.float32 else -1e300
    return lambda array: value


def _far(array):
    """Log-probability below which the rounding of the top may be a nat and more."""
    raise NotImplementedError("only for compiled callers")


@overload(_far)
def _compiled_far(array):
    value = -(2.0**22) if array.dtype == types.float32 else -(2.0**51)
    return lambda array: value


@kernel
def whole_strips(n, array):
    """``n`` rounded up to whole strips."""
    width = strip_lanes(array)
    return (n + width - 1) // width * width


@kernel
def strip_bits(begin, end, array):
    """The bits of a mask that stand for the strips of rows from ``begin`` to ``end``."""
    width = strip_lanes(array)
    return (1 << ((end + width - 1) // width)) - (1 << (begin // width))


@kernel
def begin_tile(state, z, raw, n, tallest):
    """No component met yet; columns beyond ``n`` are zero and match none."""
    slack = _LOG_BASE + _TANGENT * tallest
    for t in range(n):
        state[CUT, t] = lowest(state)
        state[SLACK, t] = slack
        state[TOP, t] = -np.inf
        state[PEAK, t] = -np.inf
        state[SUM, t] = 0
    for t in range(n, whole_strips(n, state)):
        state[CUT, t] = np.inf
        state[SLACK, t] = 0
        state[TOP, t] = 0
        state[PEAK, t] = 0
        state[SUM, t] = 0
        state[SHARE, t] = 0
        for d in range(z.shape[0]):
            z[d, t] = 0
        for d in range(raw.shape[0]):
            raw[d, t] = 0


@inlined
def within_reach(state, t, q, reach):
    """Whether any row of the strip at ``t`` may matter, given a part ``q`` of the exponents."""
    return any_at_most(add(q, load_strip(state, CUT, t)), reach)


@inlined
def _raise_cut(state, t, lp):
    """Take the log-probabilities of one more component into account."""
    cut = subtract(multiply(lp, SLOPE), load_strip(state, SLACK, t))
    raise_to(state, CUT, t, cut)


@inlined
def settle(q, constants, k, t, state, out, line):
    """Write the log-probabilities of a component that may matter to the strip."""
    lp = subtract(splat(q, constants[k]), q)
    store(out, line, t, lp)
    _raise_cut(state, t, lp)


@inlined
def settle_pair(q, p, constants, k, t, state, out, line):
    """Write the log-probabilities of components k and k + 1, whether they matter or not."""
    q, p = subtract(splat(q, constants[k]), q), subtract(splat(p, constants[k + 1]), p)
    store(out, line, t, q)
    store(out, line + 1, t, p)
    raise_to(state, PEAK, t, maximum(q, p))


@kernel
def settle_top(begin, end, state):
    """Bring what was met one at a time and in pairs together: the top and the cut of each row.

    The top is a rounding off the largest log-probability, which no result depends on, and -inf
    for a row that no component can reach. Where roundings are large, see :func:`settle_far`.
    """
    for t in range(begin, end, strip_lanes(state)):
        cut, slack = load_strip(state, CUT, t), load_strip(state, SLACK, t)
        top = multiply(add(cut, slack), 1 / SLOPE)
        nothing = splat(top, -np.inf)
        top = select_below(splat(top, lowest(state) / 2), cut, top, nothing)
        top = maximum(load_strip(state, PEAK, t), top)
        store(state, TOP, t, top)
        store(state, CUT, t, maximum(subtract(multiply(top, SLOPE), slack), cut))


@kernel
def settle_far(begin, end, lp, masks, state):
    """The largest log-probability itself as the top, for strips with rows far from everything.

    There a rounding of the top would be an exponent: infinite, or nothing at all.
    """
    for t in range(begin, end, strip_lanes(state)):
        if any_at_most(load_strip(state, TOP, t), _far(state)):
            top = splat(zero_strip(state), -np.inf)
            for k in range(masks.shape[0]):
                if masks[k] >> (t // strip_lanes(lp)) & 1:
                    top = maximum(load_strip(lp, k, t), top)
            store(state, TOP, t, top)
