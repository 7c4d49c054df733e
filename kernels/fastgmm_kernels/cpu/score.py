"""Passes that give something per row: log-likelihood, label, responsibilities."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from .exp import exp
from .expect import largest, normalise, top_by_lines
from .jit import driver, kernel, ordered
from .lanes import bits_above, lowest_bit
from .log import log
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
from .skip import STATES, SUM, TOP, begin_tile
from .structure import visit
from .tile import block_range, load_rows, scratch, tile_scratch

# Blocks of rows that threads take; fixed, so that results do not depend on the threads.
_BLOCKS = 64
# Components whose log-probabilities are formed before they are folded into the running sum.
GROUP = 16


@kernel
def fold_sum(lp, masks, n_lines, n, state):
    """One step of the online log-sum-exp: log-likelihood so far = top + log(sum)."""
    strips = 0
    for a in range(n_lines):
        strips |= masks[a]
    for t in range(0, n, strip_lanes(lp)):
        if strips >> (t // strip_lanes(lp)) & 1:
            before = load_strip(state, TOP, t)
            top = before
            for a in range(n_lines):
                if masks[a] >> (t // strip_lanes(lp)) & 1:
                    top = maximum(load_strip(lp, a, t), top)
            store(state, TOP, t, top)
            # A row that every component so far puts at -inf: any finite reference will do.
            reference = select_below(splat(top, -np.inf), top, top, zero_strip(lp))
            total = multiply(load_strip(state, SUM, t), exp(subtract(before, reference)))
            for a in range(n_lines):
                if masks[a] >> (t // strip_lanes(lp)) & 1:
                    total = add(total, exp(subtract(load_strip(lp, a, t), reference)))
            store(state, SUM, t, total)


@kernel
def log_sums(n, state):
    """Replace state[SUM] by the logarithm of the whole sum, top + log(sum)."""
    for t in range(0, n, strip_lanes(state)):
        total = log(load_strip(state, SUM, t))
        store(state, SUM, t, add(load_strip(state, TOP, t), total))


@driver
def score_samples(x, centre, whiten, means, factors, constants, reach, early, tile, out):
    """out[n] = log sum_k w_k p_k(x_n), by one online log-sum-exp."""
    n_rows = x.shape[0]
    n_components, padded = means.shape
    n_tiles = (n_rows + tile - 1) // tile
    n_blocks = min(_BLOCKS, n_tiles)
    tallest = largest(constants)
    columns, whitened = centre.shape[1], whiten.shape[0] > 0
    no_order = np.empty(0, np.int32)
    origin = np.zeros((1, padded), means.dtype)
    for block in prange(n_blocks):
        rows, z, raw, lp = tile_scratch(tile, GROUP, columns, padded, whitened, means)
        state, masks = scratch(STATES, lp.shape[1], means), np.empty(GROUP, np.int64)
        tile_0, tile_1 = block_range(block, n_blocks, n_tiles)
        for i in range(tile_0, tile_1):
            start = i * tile
            n = min(tile, n_rows - start)
            load_rows(x, no_order, start, n, centre, whiten, origin, rows, raw, z)
            begin_tile(state, z, raw, n, tallest)
            for k in range(0, n_components, GROUP):
                last = min(k + GROUP, n_components)
                masks[:] = 0
                visit(
                    z, means, factors, constants, reach, early, k, last, k, 0, n, state, lp, masks
                )
                fold_sum(lp, masks, last - k, n, state)
            log_sums(n, state)
            for t in range(n):
                out[start + t] = state[SUM, t]


@kernel
def _fold_label(lp, a, mask, k, n, state, label):
    """Label the rows whose largest log-probability so far is that of component k."""
    for t in range(0, n, strip_lanes(state)):
        if mask >> (t // strip_lanes(lp)) & 1:
            top, value = load_strip(state, TOP, t), load_strip(lp, a, t)
            bits = bits_above(value, top)
            store(state, TOP, t, maximum(value, top))
            while bits != 0:
                label[t + lowest_bit(bits)] = k
                bits &= bits - np.uint64(1)


@driver
def predict(x, centre, whiten, means, factors, constants, reach, early, tile, best_out, label_out):
    """label_out[n] = argmax_k w_k p_k(x_n), the first wins a tie; best_out[n] its logarithm."""
    n_rows = x.shape[0]
    n_components, padded = means.shape
    n_tiles = (n_rows + tile - 1) // tile
    n_blocks = min(_BLOCKS, n_tiles)
    tallest = largest(constants)
    columns, whitened = centre.shape[1], whiten.shape[0] > 0
    no_order = np.empty(0, np.int32)
    origin = np.zeros((1, padded), means.dtype)
    for block in prange(n_blocks):
        rows, z, raw, lp = tile_scratch(tile, GROUP, columns, padded, whitened, means)
        state, masks = scratch(STATES, lp.shape[1], means), np.empty(GROUP, np.int64)
        label = np.empty(lp.shape[1], np.int64)
        tile_0, tile_1 = block_range(block, n_blocks, n_tiles)
        for i in range(tile_0, tile_1):
            start = i * tile
            n = min(tile, n_rows - start)
            load_rows(x, no_order, start, n, centre, whiten, origin, rows, raw, z)
            begin_tile(state, z, raw, n, tallest)
            label[:] = 0
            for k in range(0, n_components, GROUP):
                last = min(k + GROUP, n_components)
                masks[:] = 0
                visit(
                    z, means, factors, constants, reach, early, k, last, k, 0, n, state, lp, masks
                )
                for a in range(last - k):
                    _fold_label(lp, a, masks[a], k + a, n, state, label)
            for t in range(n):
                label_out[start + t] = label[t]
                best_out[start + t] = state[TOP, t]


@ordered
def _less(value, top, shift):
    """The value less the top first: both together may be too large to hold the shift."""
    return (value - top) - shift


@driver
def per_component(
    x, centre, whiten, means, factors, constants, reach, early, tile, mode, norm_out, out
):
    """out[n, k]: 0 weighted log-probabilities, 1 responsibilities, 2 their logarithms.

    norm_out[n] is the row's log-likelihood, in modes 1 and 2. ``reach`` is infinite, so that
    nothing is skipped.
    """
    n_rows = x.shape[0]
    n_components, padded = means.shape
    n_tiles = (n_rows + tile - 1) // tile
    n_blocks = min(_BLOCKS, n_tiles)
    tallest = largest(constants)
    columns, whitened = centre.shape[1], whiten.shape[0] > 0
    no_order = np.empty(0, np.int32)
    origin = np.zeros((1, padded), means.dtype)
    for block in prange(n_blocks):
        rows, z, raw, lp = tile_scratch(tile, n_components, columns, padded, whitened, means)
        active, masks = np.arange(n_components), np.empty(n_components, np.int64)
        state = scratch(STATES, lp.shape[1], means)
        tile_0, tile_1 = block_range(block, n_blocks, n_tiles)
        for i in range(tile_0, tile_1):
            start = i * tile
            n = min(tile, n_rows - start)
            load_rows(x, no_order, start, n, centre, whiten, origin, rows, raw, z)
            begin_tile(state, z, raw, n, tallest)
            masks[:] = 0
            visit(
                z, means, factors, constants, reach, early, 0, n_components, 0, 0, n, state, lp,
                masks,
            )  # fmt: skip
            if mode != 1:
                for t in range(n):
                    row = out[start + t]
                    for k in range(n_components):
                        row[k] = lp[k, t]
            if mode == 0:
                norm_out[start : start + n] = 0
                continue
            top_by_lines(lp, n_components, n, state)
            normalise(lp, active, n_components, masks, 0, n, state)
            for t in range(n):
                row = out[start + t]
                top, total = state[TOP, t], state[SUM, t]
                norm_out[start + t] = top + math.log(total) if total > 0 else top
                if mode == 1:
                    scale = 1 / total if total > 0 else total
                    for k in range(n_components):
                        row[k] = lp[k, t] * scale
                else:
                    # A row out of reach of all components is settled by the caller.
                    shift = math.log(total) if total > 0 else total
                    level = top if top > -np.inf else 0
                    for k in range(n_components):
                        row[k] = _less(row[k], level, shift)
