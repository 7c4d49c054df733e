"""Responsibilities of the pairs that matter alone, where they are few: no line is normalised.

Which they are is read off the log-probabilities, once the largest of each row is known (see
``skip``); exponentials are taken of the list.
"""

from __future__ import annotations

from .exp import exp
from .jit import kernel
from .shuffle import append_where
from .simd import (
    at,
    divide,
    lanes,
    load,
    load_strip,
    select_below,
    store,
    strip_lanes,
    subtract,
    zero_strip,
)
from .skip import BOUND, CUT, SHARE, SUM, TOP


@kernel
def list_pairs(lp, masks, n, state, constants, reach, limit, starts, index):
    """List the rows that matter to each component: index[starts[k]:starts[k + 1]] for k.

    Returns how many, or some number above ``limit``; then the lists are of no use. There is room
    for ``limit``, a tile and a vector.
    """
    total = 0
    for k in range(masks.shape[0]):
        starts[k] = total
        mask = masks[k]
        if mask != 0 and total <= limit:
            least = constants[k] - reach[k]
            for t in range(0, n, strip_lanes(lp)):
                if mask >> (t // strip_lanes(lp)) & 1:
                    key = subtract(load_strip(lp, k, t), load_strip(state, CUT, t))
                    total = append_where(index, total, t, key, least)
    starts[masks.shape[0]] = total
    return total


@kernel
def share_pairs(lp, starts, index, n, state, share):
    """share[0, i] = responsibility times weight of the pair i of the lists; sets state[SUM]."""
    for t in range(0, n, strip_lanes(lp)):
        store(state, SUM, t, zero_strip(lp))
    total = starts[starts.shape[0] - 1]
    for k in range(starts.shape[0] - 1):
        for i in range(starts[k], starts[k + 1]):
            share[0, i] = at(lp, k, index[i]) - at(state, TOP, index[i])
    for i in range(0, total, lanes(lp)):
        store(share, 0, i, exp(load(share, 0, i)))
    for i in range(total):
        state[SUM, index[i]] += share[0, i]
    for t in range(0, n, strip_lanes(lp)):
        nothing, above = zero_strip(lp), load_strip(state, SUM, t)
        scale = divide(load_strip(state, SHARE, t), above)
        store(state, BOUND, t, select_below(nothing, above, scale, nothing))
    for i in range(total):
        share[0, i] *= at(state, BOUND, index[i])
