"""Passes over the rows of many mixtures at once, and their backward passes.

Arrays have a leading dimension of B mixtures; their other dimensions are those of a single pass.
Threads take (mixture, tile) pairs, or (mixture, block of rows) pairs where there are sums, so that
many mixtures of one row are as welcome as one of many. The order of every sum depends on the sizes
alone.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .expect import largest, normalise
from .gradient import add_gradient, add_shared_cross, unwhiten, weigh
from .jit import driver, kernel
from .score import GROUP, fold_sum, log_sums
from .skip import STATES, SUM, begin_tile, settle_far, settle_top, whole_strips
from .structure import visit
from .tile import block_range, load_rows, scratch, tile_scratch

# Groups of pairs that threads take.
_GROUPS = 64


@driver
def batched_score(x, centre, whiten, means, factors, constants, reach, early, tile, out):
    """out[b, n] = log sum_k exp(lp_k(x_bn)), as :func:`score_samples` for each mixture b."""
    n_rows = x.shape[1]
    n_components, padded = means.shape[1:]
    n_tiles = (n_rows + tile - 1) // tile
    n_pairs = x.shape[0] * n_tiles
    columns, whitened = centre.shape[2], whiten.shape[1] > 0
    no_order = np.empty(0, np.int32)
    origin = np.zeros((1, padded), means.dtype)
    n_groups = min(_GROUPS, n_pairs)
    for group in prange(n_groups):
        rows, z, raw, lp = tile_scratch(tile, GROUP, columns, padded, whitened, out)
        state, masks = scratch(STATES, lp.shape[1], out), np.empty(GROUP, np.int64)
        first_pair, last_pair = block_range(group, n_groups, n_pairs)
        for pair in range(first_pair, last_pair):
            b = pair // n_tiles
            start = pair % n_tiles * tile
            n = min(tile, n_rows - start)
            load_rows(x[b], no_order, start, n, centre[b], whiten[b], origin, rows, raw, z)
            begin_tile(state, z, raw, n, largest(constants[b]))
            for k in range(0, n_components, GROUP):
                last = min(k + GROUP, n_components)
                masks[:] = 0
                visit(
                    z, means[b], factors[b], constants[b], reach[b], early, k, last, k, 0, n, state,
                    lp, masks,
                )  # fmt: skip
                fold_sum(lp, masks, last - k, n, state)
            log_sums(n, state)
            for t in range(n):
                out[b, start + t] = state[SUM, t]


@driver
def batched_per_component(x, centre, whiten, means, factors, constants, reach, tile, out):
    """out[b, n, k] = lp_k(x_bn). ``reach`` is infinite, so that nothing is skipped."""
    n_rows = x.shape[1]
    n_components, padded = means.shape[1:]
    n_tiles = (n_rows + tile - 1) // tile
    n_pairs = x.shape[0] * n_tiles
    columns, whitened = centre.shape[2], whiten.shape[1] > 0
    no_order = np.empty(0, np.int32)
    origin = np.zeros((1, padded), means.dtype)
    n_groups = min(_GROUPS, n_pairs)
    for group in prange(n_groups):
        rows, z, raw, lp = tile_scratch(tile, n_components, columns, padded, whitened, out)
        state, masks = scratch(STATES, lp.shape[1], out), np.empty(n_components, np.int64)
        first_pair, last_pair = block_range(group, n_groups, n_pairs)
        for pair in range(first_pair, last_pair):
            b = pair // n_tiles
            start = pair % n_tiles * tile
            n = min(tile, n_rows - start)
            load_rows(x[b], no_order, start, n, centre[b], whiten[b], origin, rows, raw, z)
            begin_tile(state, z, raw, n, largest(constants[b]))
            visit(
                z, means[b], factors[b], constants[b], reach[b], padded, 0, n_components, 0, 0, n,
                state, lp, masks,
            )  # fmt: skip
            for t in range(n):
                for k in range(n_components):
                    out[b, start + t, k] = lp[k, t]


@kernel
def _given_weights(given, start, n, whole, state, lp, masks):
    """Take the weights of a tile from ``given`` (N, K)."""
    for k in range(given.shape[1]):
        masks[k] = -1
        for t in range(n):
            lp[k, t] = given[start + t, k]
        for t in range(n, whole):
            lp[k, t] = 0
    for t in range(whole):
        state[SUM, t] = 1


@kernel
def _posterior_weights(
    z, means, factors, constants, reach, upstream, start, n, whole, state, lp, active, masks
):  # fmt: skip
    """Responsibilities of a tile; state[SUM] becomes what makes them weights."""
    n_components = means.shape[0]
    masks[:] = 0
    visit(
        z, means, factors, constants, reach, z.shape[0], 0, n_components, 0, 0, n, state, lp, masks
    )
    settle_top(0, n, state)
    settle_far(0, n, lp, masks, state)
    normalise(lp, active, n_components, masks, 0, n, state)
    for t in range(n):
        # A row that no component can reach pulls at nothing.
        total = state[SUM, t]
        state[SUM, t] = upstream[start + t] / total if total > 0 else total
    for t in range(n, whole):
        state[SUM, t] = 0


@driver
def batched_backward(
    x, upstream, given, centre, whiten, means, factors, constants, reach, splits, tile, with_x,
    with_moments, count, first, cross, shared_cross, dx,
):  # fmt: skip
    """Gradients of sum_n g_n log p(x_n), or of sum_nk G_nk lp_k(x_n), for every mixture.

    One of ``upstream`` (B, N), for g, and ``given`` (B, N, K), for G, has no mixtures. count
    (B S, K), first (B S, K, D') and cross, of shape (B S, K, D', D') or (B S, K, D'), are zero on
    entry, float64, one set for each of ``splits`` blocks of the rows of a mixture. Where rows are
    whitened cross is empty, and shared_cross, of shape (B S, 1, D', D') or (B S, 1, D'), gets the
    moments of the pull with the rows. dx (B, N, D) is written as -2 sum_k w A_k' y, if ``with_x``.
    """
    n_mixtures, n_rows, n_features = x.shape
    n_components, padded = means.shape[1:]
    n_pairs = n_mixtures * splits
    columns = centre.shape[2]
    shared = whiten.shape[1] > 0
    no_order = np.empty(0, np.int32)
    origin = np.zeros((1, padded), means.dtype)
    n_groups = min(_GROUPS, n_pairs)
    for group in prange(n_groups):
        rows, z, raw, lp = tile_scratch(tile, n_components, columns, padded, shared, means)
        stride = lp.shape[1]
        u, pull = scratch(padded, stride, means), scratch(padded, stride, means)
        active, masks = np.arange(n_components), np.empty(n_components, np.int64)
        state = scratch(STATES, stride, means)
        first_pair, last_pair = block_range(group, n_groups, n_pairs)
        for pair in range(first_pair, last_pair):
            b = pair // splits
            begin, end = block_range(pair % splits, splits, n_rows)
            for row in range(begin, end, tile):
                n = min(tile, end - row)
                whole = whole_strips(n, lp)
                load_rows(x[b], no_order, row, n, centre[b], whiten[b], origin, rows, raw, z)
                begin_tile(state, z, raw, n, largest(constants[b]))
                if given.shape[0] > 0:
                    _given_weights(given[b], row, n, whole, state, lp, masks)
                else:
                    _posterior_weights(
                        z, means[b], factors[b], constants[b], reach[b], upstream[b], row, n, whole,
                        state, lp, active, masks,
                    )  # fmt: skip
                pull[:] = 0
                for k in range(n_components):
                    if masks[k] != 0:
                        count[pair, k] += weigh(lp, k, masks[k], state, SUM, whole)
                        add_gradient(
                            z, means[b], factors[b], k, lp, k, whole, with_x, with_moments, u,
                            pull, first[pair], cross[pair],
                        )  # fmt: skip
                if shared and with_moments:
                    add_shared_cross(pull, raw, origin, whole, shared_cross[pair])
                if shared and with_x:
                    unwhiten(pull, whiten[b], whole, u)
                if with_x:
                    result = u if shared else pull
                    for t in range(n):
                        for d in range(n_features):
                            dx[b, row + t, d] = -2 * result[d, t]
