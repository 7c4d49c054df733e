"""The E-step of one tile: which components matter to which strips, and responsibilities."""

from __future__ import annotations

import math

import numpy as np

from .exp import exp
from .jit import kernel
from .lanes import count_bits
from .shuffle import append_where
from .simd import (
    add,
    load_strip,
    maximum,
    multiply,
    select_below,
    splat,
    store,
    strip_lanes,
    subtract,
    zero_strip,
)
from .skip import (
    BOUND,
    CUT,
    SHARE,
    SLACK,
    SLOPE,
    SUM,
    TOP,
    begin_tile,
    lowest,
    whole_strips,
)
from .structure import visit
from .tile import load_rows

# Rows whose sums of exponentials are multiplied before one logarithm is taken: each is at most the
# number of components, so that the product stays far below the largest float64.
_LOGS = 16


@kernel
def largest(constants):
    """The largest constant, or 0 where no component has a weight."""
    tallest = constants[0]
    for k in range(constants.shape[0]):
        tallest = max(tallest, constants[k])
    return tallest if tallest > -np.inf else constants.dtype.type(0)


@kernel
def visit_all(
    z, means, factors, constants, reach, early, first, last, n, state, lp, active, masks
):  # fmt: skip
    """Log-probabilities of a tile under every component that may matter to a strip of it.

    Components first <= k < last are visited before the others. Line a of ``lp`` is that of
    component active[a] in the strips of masks[a], which may be none. Returns the number of lines;
    there is room for one more than components.
    """
    n_components = means.shape[0]
    line = visit(
        z, means, factors, constants, reach, early, first, last, n, state, lp, 0, active, masks
    )
    line = visit(
        z, means, factors, constants, reach, early, 0, first, n, state, lp, line, active, masks
    )
    return visit(
        z, means, factors, constants, reach, early, last, n_components, n, state, lp, line, active,
        masks,
    )  # fmt: skip


@kernel
def top_by_cut(n, state):
    """Work the top out from the cut, which has followed it; -inf for a row that none can reach.

    It is a rounding off the largest log-probability, which no result depends on.
    """
    for t in range(0, n, strip_lanes(state)):
        cut = load_strip(state, CUT, t)
        top = multiply(add(cut, load_strip(state, SLACK, t)), 1 / SLOPE)
        nothing = splat(top, -np.inf)
        store(state, TOP, t, select_below(splat(top, lowest(state) / 2), cut, top, nothing))


@kernel
def top_by_lines(lp, masks, n_active, n, state):
    """The largest log-probability itself."""
    for t in range(0, n, strip_lanes(lp)):
        top = load_strip(state, TOP, t)
        for a in range(n_active):
            if masks[a] >> (t // strip_lanes(lp)) & 1:
                top = maximum(load_strip(lp, a, t), top)
        store(state, TOP, t, top)


@kernel
def normalise(lp, masks, n_active, n, state):
    """Replace lp by exp(lp - top); state[SUM] is the sum of a row."""
    for t in range(0, n, strip_lanes(lp)):
        top = load_strip(state, TOP, t)
        # A row that no component can reach: any finite reference will do.
        reference = select_below(splat(top, -np.inf), top, top, zero_strip(lp))
        total = zero_strip(lp)
        for a in range(n_active):
            if masks[a] >> (t // strip_lanes(lp)) & 1:
                e = exp(subtract(load_strip(lp, a, t), reference))
                store(lp, a, t, e)
                total = add(total, e)
        store(state, SUM, t, total)


@kernel
def _log_likelihood(state, n, weighted):
    """Weighted sum of the log-likelihoods of the tile's rows."""
    total = 0.0
    if weighted:
        for t in range(n):
            if state[SHARE, t] > 0:
                value = np.float64(state[SUM, t])
                total += state[SHARE, t] * (state[TOP, t] + math.log(value))
        return total
    top = 0.0
    for t in range(n):
        top += state[TOP, t]
    for start in range(0, n, _LOGS):
        product = 1.0
        for t in range(start, min(start + _LOGS, n)):
            product *= state[SUM, t]
        total += math.log(product)
    return top + total


@kernel
def expect(
    x, order, hint, weight, centre, whiten, means, factors, constants, reach, early, tallest,
    row, n, origin, rows, raw, z, state, lp, active, masks,
):  # fmt: skip
    """E-step of the tile of ``n`` rows from ``row``: its weighted log-likelihood, and lines used.

    Line a of ``lp`` gets the responsibilities, not yet divided by their sum (state[SUM]), of
    component active[a] in the strips of masks[a].
    """
    load_rows(x, order, row, n, centre, whiten, origin, rows, raw, z)
    begin_tile(state, z, raw, n, tallest)
    weighted = weight.shape[0] > 0
    ordered = order.shape[0] > 0
    first, last = 0, 0
    if ordered:
        # A tile on the edge of a window has no range of labels.
        first, last = hint[order[row]], hint[order[row + n - 1]] + 1
        last = max(first, last)
    for t in range(n):
        source = np.intp(order[row + t]) if ordered else row + t
        state[SHARE, t] = weight[source] if weighted else 1
    if weighted:
        for t in range(n):
            state[SLACK, t] += math.log(max(state[SHARE, t], state.dtype.type(1)))
    n_active = visit_all(
        z, means, factors, constants, reach, early, first, last, n, state, lp, active, masks
    )
    top_by_cut(n, state)
    normalise(lp, masks, n_active, n, state)
    total = _log_likelihood(state, n, weighted)
    for t in range(n):
        # A row that no component can reach keeps log-likelihood -inf and no responsibilities.
        above = state[SUM, t]
        state[SUM, t] = state[SHARE, t] / above if above > 0 else above
        state[BOUND, t] = 81 + 2 * max(tallest - state[TOP, t], state.dtype.type(0))
    for t in range(n, whole_strips(n, state)):
        state[SUM, t] = 0
        state[BOUND, t] = -np.inf
    return total, n_active


@kernel
def label_rows(lp, active, masks, n_active, n, order, row, labels, best):
    """labels[row] = the component with the largest responsibility; the first line wins a tie.

    The first line of ``best`` is scratch.
    """
    if n_active == 0:
        return
    for t in range(0, n, strip_lanes(lp)):
        top = zero_strip(lp)
        line = top
        for a in range(n_active):
            if masks[a] >> (t // strip_lanes(lp)) & 1:
                value = load_strip(lp, a, t)
                line = select_below(top, value, splat(top, a), line)
                top = maximum(value, top)
        store(best, 0, t, line)
    for t in range(n):
        k = np.int32(active[np.intp(best[0, t])])
        labels[np.intp(order[row + t]) if order.shape[0] > 0 else row + t] = k


@kernel
def list_kept(lp, a, mask, n, state, threshold, offset, kept, index, share):
    """List the rows of which line ``a`` matters, plus ``offset``, and their responsibilities.

    ``kept`` rows are in the lists before, which have room for a vector more than rows; returns
    their new number.
    """
    for t in range(0, n, strip_lanes(lp)):
        if mask >> (t // strip_lanes(lp)) & 1:
            r = multiply(load_strip(lp, a, t), load_strip(state, SUM, t))
            key = multiply(r, load_strip(state, BOUND, t))
            kept = append_where(index, share, kept, offset + t, r, key, threshold)
    return kept


@kernel
def clear_others(lp, a, mask, n):
    """Zero line ``a`` in the strips that are not in the mask."""
    if mask == (1 << (n // strip_lanes(lp))) - 1:
        return
    for t in range(0, n, strip_lanes(lp)):
        if not mask >> (t // strip_lanes(lp)) & 1:
            store(lp, a, t, zero_strip(lp))


@kernel
def count_pairs(masks, n_active):
    """Number of (strip, component) pairs that were not skipped."""
    total = 0
    for a in range(n_active):
        total += count_bits(np.uint64(masks[a]))
    return total
