"""The E-step of one tile: which components matter to which strips, and responsibilities."""

from __future__ import annotations

import math

import numpy as np

from .exp import exp
from .jit import kernel
from .lanes import count_bits, fold, sum_wide
from .log import log
from .shuffle import append_where
from .simd import (
    add,
    at,
    divide,
    fma,
    load,
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
    SHARE,
    SLACK,
    SUM,
    TOP,
    begin_tile,
    settle_far,
    settle_top,
    strip_bits,
    whole_strips,
)
from .structure import visit
from .tile import load_rows


@kernel
def largest(constants):
    """The largest constant, or 0 where no component has a weight."""
    tallest = constants[0]
    for k in range(constants.shape[0]):
        tallest = max(tallest, constants[k])
    return tallest if tallest > -np.inf else constants.dtype.type(0)


@kernel
def _visit_all(
    z, means, factors, constants, reach, early, first, last, begin, end, state, lp, masks
):
    """Log-probabilities of rows under every component that may matter to a strip of them.

    Components first <= k < last are visited before the others; line k of ``lp`` is that of k.
    """
    n_components = means.shape[0]
    # A call costs more than a few components.
    if last > first:
        visit(
            z, means, factors, constants, reach, early, first, last, 0, begin, end, state, lp,
            masks,
        )  # fmt: skip
    if first > 0:
        visit(z, means, factors, constants, reach, early, 0, first, 0, begin, end, state, lp, masks)
    visit(
        z, means, factors, constants, reach, early, last, n_components, 0, begin, end, state, lp,
        masks,
    )  # fmt: skip


@kernel
def _list_active(masks, bits, active):
    """List the components that matter to any of the strips in ``bits``; returns their number."""
    count = 0
    for k in range(masks.shape[0]):
        active[count] = k
        count += masks[k] & bits != 0
    return count


@kernel
def top_by_lines(lp, n_lines, n, state):
    """The largest log-probability itself."""
    for t in range(0, n, strip_lanes(lp)):
        top = load_strip(state, TOP, t)
        for a in range(n_lines):
            top = maximum(load_strip(lp, a, t), top)
        store(state, TOP, t, top)


@kernel
def normalise(lp, active, n_active, masks, begin, end, state):
    """Replace the active lines of lp by exp(lp - top); state[SUM] is the sum of a row."""
    for t in range(begin, end, strip_lanes(lp)):
        top = load_strip(state, TOP, t)
        # A row that no component can reach: any finite reference will do.
        reference = select_below(splat(top, -np.inf), top, top, zero_strip(lp))
        total = zero_strip(lp)
        for i in range(n_active):
            k = active[i]
            if masks[k] >> (t // strip_lanes(lp)) & 1:
                e = exp(subtract(load_strip(lp, k, t), reference))
                store(lp, k, t, e)
                total = add(total, e)
        store(state, SUM, t, total)


@kernel
def _share_out(lp, active, n_active, masks, begin, end, tallest, state, mass):
    """Turn exponentials into responsibilities times the row's weight; sets state[BOUND].

    A row that no component can reach has none. Their sums are added to the lanes of mass[k].
    """
    for t in range(begin, end, strip_lanes(lp)):
        nothing = zero_strip(lp)
        total = load_strip(state, SUM, t)
        scale = divide(load_strip(state, SHARE, t), total)
        scale = select_below(nothing, total, scale, nothing)
        for i in range(n_active):
            k = active[i]
            if masks[k] >> (t // strip_lanes(lp)) & 1:
                r = multiply(load_strip(lp, k, t), scale)
                store(lp, k, t, r)
                store(mass, k, 0, add(load(mass, k, 0), fold(r)))
        above = maximum(subtract(splat(total, tallest), load_strip(state, TOP, t)), 0)
        store(state, BOUND, t, fma(above, 2, splat(total, 81)))


@kernel
def log_likelihood_of(state, n, weighted):
    """Weighted sum of the log-likelihoods of the tile's rows, by state[TOP] and state[SUM]."""
    total = 0.0
    if weighted:
        for t in range(n):
            if state[SHARE, t] > 0:
                value = np.float64(state[SUM, t])
                total += state[SHARE, t] * (state[TOP, t] + math.log(value))
        return total
    whole = n // strip_lanes(state) * strip_lanes(state)
    for t in range(0, whole, strip_lanes(state)):
        total += sum_wide(load_strip(state, TOP, t))
        total += sum_wide(log(load_strip(state, SUM, t)))
    for t in range(whole, n):
        total += state[TOP, t] + math.log(state[SUM, t])
    return total


@kernel
def visit_tile(
    x, order, labels, weight, centre, whiten, means, factors, constants, reach, early, span,
    tallest, label, respond, row, n, origin, rows, raw, z, state, lp, active, masks, mass,
):  # fmt: skip
    """Load the tile of ``n`` rows from ``row``, and visit all components.

    Line k of ``lp`` gets the log-probabilities of component k in the strips of masks[k], which may
    be none; state[TOP] gets the largest of each row. With ``respond`` they are turned into
    responsibilities, as :func:`respond_rows` does. All components visit ``span`` rows, a number of
    strips, before the next. ``labels`` are those of the order; with ``label``, which needs
    ``respond``, the new ones are written there.
    """
    load_rows(x, order, row, n, centre, whiten, origin, rows, raw, z)
    begin_tile(state, z, raw, n, tallest)
    weighted = weight.shape[0] > 0
    ordered = order.shape[0] > 0
    first, last = 0, 0
    if ordered:
        # A tile on the edge of a window has no range of labels.
        first, last = labels[order[row]], labels[order[row + n - 1]] + 1
        last = max(first, last)
    for t in range(n):
        source = np.intp(order[row + t]) if ordered else row + t
        state[SHARE, t] = weight[source] if weighted else 1
    if weighted:
        for t in range(n):
            state[SLACK, t] += math.log(max(state[SHARE, t], state.dtype.type(1)))
    masks[:] = 0
    mass[:] = 0
    for begin in range(0, n, span):
        end = min(begin + span, n)
        _visit_all(
            z, means, factors, constants, reach, early, first, last, begin, end, state, lp, masks
        )
        settle_top(begin, end, state)
        settle_far(begin, end, lp, masks, state)
        if respond:
            respond_rows(
                lp, masks, begin, end, n, tallest, label, order, row, labels, state, active, mass
            )


@kernel
def respond_rows(lp, masks, begin, end, n, tallest, label, order, row, labels, state, active, mass):
    """Turn the log-probabilities of rows into responsibilities times weights.

    Sets state[SUM] and state[BOUND]; no row beyond ``n`` is within its bound. The sums over rows
    are added to the lanes of mass[k].
    """
    n_active = _list_active(masks, strip_bits(begin, end, lp), active)
    normalise(lp, active, n_active, masks, begin, end, state)
    if label:
        _label_rows(lp, active, n_active, masks, begin, end, order, row, labels, state)
    _share_out(lp, active, n_active, masks, begin, end, tallest, state, mass)
    for t in range(n, whole_strips(end, state)):
        state[BOUND, t] = -np.inf


@kernel
def _label_rows(lp, active, n_active, masks, begin, end, order, row, labels, state):
    """Write the number of the component with the largest exponential, for an order of the rows.

    Numbers pass through state[BOUND], which is free until then.
    """
    for t in range(begin, end, strip_lanes(lp)):
        top = zero_strip(lp)
        label = top
        for i in range(n_active):
            k = active[i]
            if masks[k] >> (t // strip_lanes(lp)) & 1:
                value = load_strip(lp, k, t)
                label = select_below(top, value, splat(top, k), label)
                top = maximum(value, top)
        store(state, BOUND, t, label)
    for t in range(begin, end):
        target = np.intp(order[row + t]) if order.shape[0] > 0 else row + t
        labels[target] = np.int32(state[BOUND, t])


@kernel
def list_kept(lp, k, mask, n, state, threshold, offset, kept, index, share):
    """List the rows of which component k matters, plus ``offset``, and their responsibilities.

    ``kept`` rows are in the lists before, which have room for a vector more than rows; returns
    their new number.
    """
    before = kept
    for t in range(0, n, strip_lanes(lp)):
        if mask >> (t // strip_lanes(lp)) & 1:
            key = multiply(load_strip(lp, k, t), load_strip(state, BOUND, t))
            kept = append_where(index, kept, offset + t, key, threshold)
    for i in range(before, kept):
        share[i] = at(lp, k, index[i] - offset)
    return kept


@kernel
def clear_others(lp, k, mask, n):
    """Zero line ``k`` in the strips that are not in the mask."""
    if mask == strip_bits(0, n, lp):
        return
    for t in range(0, n, strip_lanes(lp)):
        if not mask >> (t // strip_lanes(lp)) & 1:
            store(lp, k, t, zero_strip(lp))


@kernel
def count_pairs(masks):
    """Number of (strip, component) pairs that were not skipped."""
    total = 0
    for k in range(masks.shape[0]):
        total += count_bits(np.uint64(masks[k]))
    return total
