"""The fused E-step and sufficient statistics: rows are read once, chunk by chunk.

For a chunk of rows: (1) tiles: log-probabilities, normalisation, and for each component the list
of rows whose responsibility matters; (2) components: moments over the lists.

``accumulate`` gives each thread blocks of rows with totals of their own and joins the threads
once. Where totals are too large for that, ``accumulate_shared`` has one set, and the threads share
first the tiles and then the components of each chunk. Either way blocks, chunks and the order of
every sum depend on the sizes alone: the same input gives the same bits at any number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import driver, kernel
from .moments import dense_moments, gather_width, moments
from .score import normalise
from .structure import log_prob
from .tile import block_range, load_tile, row_stride

# Groups of tiles that threads take within a shared chunk.
_GROUPS = 32
# Rows that are looked at together before any of them is taken one by one.
_STRIDE = 32


@kernel
def _keep(values, rows, n, scale, threshold, bound, dense_share):
    """Scale ``values[:n]`` and compact it to what matters.

    Row t may be dropped when r bound_t < threshold. Returns the number kept; where that is more
    than ``dense_share`` of the rows, all stay in place and the result is -n.
    """
    kept = np.int32(0)
    for t in range(n):
        r = values[t] * scale[t]
        values[t] = r
        kept += np.int32(1) if r * bound[t] >= threshold else np.int32(0)
    if kept == 0:
        return 0
    if kept > dense_share * n:
        return -n
    kept = 0
    for start in range(0, n, _STRIDE):
        last = min(start + _STRIDE, n)
        part, limit = values[start:last], bound[start:last]
        any_kept = np.int32(0)
        for t in range(last - start):
            any_kept += np.int32(1) if part[t] * limit[t] >= threshold else np.int32(0)
        if any_kept > 0:
            for t in range(start, last):
                r = values[t]
                values[kept] = r
                rows[kept] = t
                kept += 1 if r * bound[t] >= threshold else 0
    return kept


@kernel
def _expect(
    x, weight, centre, whiten, means, factors, constants, thresholds, dense_share,
    row, n, z, lp, index, kept, scratch,
):  # fmt: skip
    """E-step of the tile of ``n`` rows from ``row``; returns its weighted log-likelihood.

    Responsibilities replace the log-probabilities in ``lp`` (K, tile); ``kept`` (K,) and ``index``
    (K, tile) say which of them matter. ``scratch`` is (5 + D', tile).
    """
    n_components, padded = means.shape
    load_tile(x, row, n, centre, whiten, scratch[5 : 5 + padded], z)
    log_prob(z, means, factors, constants, 0, n_components, lp, n)
    top, norm, scale, bound, share = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    normalise(lp, n_components, n, top, norm, scale)
    tallest = -np.inf
    for k in range(n_components):
        tallest = max(tallest, constants[k])
    if weight.shape[0] > 0:
        for t in range(n):
            share[t] = weight[row + t]
    else:
        share[:n] = 1
    # A loop of its own: beside stores, whether it is vectorised (which orders the sum) would
    # depend on a check for overlap, and so on where the arrays lie.
    total = 0.0
    for t in range(n):
        total += share[t] * norm[t] if share[t] > 0 else 0.0
    for t in range(n):
        scale[t] *= share[t]
        # Squared distance = 2 (c_k - norm - log r), at most this for r > exp(-40).
        bound[t] = 81 + 2 * max(tallest - norm[t], 0.0)
    for k in range(n_components):
        kept[k] = _keep(lp[k], index[k], n, scale, thresholds[k], bound, dense_share)
    return total


@driver
def accumulate(
    x, weight, centre, whiten, means, factors, constants, thresholds, about,
    tile, chunk, dense_share, count, first, second, log_likelihood,
):  # fmt: skip
    """Sufficient statistics of one E-step.

    ``weight`` is empty or (N,), with mean 1 (``thresholds`` are relative to it).
    count (B, K), first (B, K, D'), second (B, K, ...) and log_likelihood (B,) are zero on entry,
    float64, one set per block of rows; D' is D padded to a multiple of 4.
    """
    n_rows = x.shape[0]
    n_components, padded = means.shape
    n_blocks = count.shape[0]
    dtype = means.dtype
    stride = row_stride(tile, means.itemsize)
    for block in prange(n_blocks):
        begin, end = block_range(block, n_blocks, n_rows)
        width = min(chunk // tile, (end - begin + tile - 1) // tile)
        z = np.empty((width, padded, stride), dtype)
        resp = np.empty((width, n_components, stride), dtype)
        index = np.empty((width, n_components, stride), np.int16)
        kept = np.empty((width, n_components), np.int32)
        scratch = np.empty((5 + padded, stride), dtype)
        g = np.empty((padded, gather_width(padded, means.itemsize) + 16), dtype)
        s = np.empty((1, g.shape[1] - 16), dtype)
        for start in range(begin, end, width * tile):
            size = min(width * tile, end - start)
            n_tiles = (size + tile - 1) // tile
            for i in range(n_tiles):
                n = min(tile, size - i * tile)
                log_likelihood[block] += _expect(
                    x, weight, centre, whiten, means, factors, constants, thresholds, dense_share,
                    start + i * tile, n, z[i], resp[i], index[i], kept[i], scratch,
                )  # fmt: skip
                dense_moments(
                    z[i], resp[i], kept[i], about, g, s, count[block], first[block], second[block]
                )
            for k in range(n_components):
                count[block, k] += moments(
                    k, 0, n_tiles, z, resp, index, kept, about, first[block], second[block],
                )  # fmt: skip


@driver
def accumulate_shared(
    x, weight, centre, whiten, means, factors, constants, thresholds, about,
    tile, chunk, dense_share, count, first, second, log_likelihood,
):  # fmt: skip
    """As :func:`accumulate`, with B = 1: threads share the tiles, then the components, of a chunk.

    ``log_likelihood`` has one place per tile.
    """
    n_rows = x.shape[0]
    n_components, padded = means.shape
    dtype = means.dtype
    stride = row_stride(tile, means.itemsize)
    width = min(chunk // tile, (n_rows + tile - 1) // tile)
    z = np.empty((width, padded, stride), dtype)
    resp = np.empty((width, n_components, stride), dtype)
    index = np.empty((width, n_components, stride), np.int16)
    kept = np.empty((width, n_components), np.int32)
    for start in range(0, n_rows, width * tile):
        size = min(width * tile, n_rows - start)
        n_tiles = (size + tile - 1) // tile
        n_groups = min(_GROUPS, n_tiles)
        for group in prange(n_groups):
            scratch = np.empty((5 + padded, stride), dtype)
            tile_0, tile_1 = block_range(group, n_groups, n_tiles)
            for i in range(tile_0, tile_1):
                row = start + i * tile
                n = min(tile, size - i * tile)
                log_likelihood[row // tile] = _expect(
                    x, weight, centre, whiten, means, factors, constants, thresholds, dense_share,
                    row, n, z[i], resp[i], index[i], kept[i], scratch,
                )  # fmt: skip
        for k in prange(n_components):
            count[0, k] += moments(k, 0, n_tiles, z, resp, index, kept, about, first[0], second[0])


@driver
def accumulate_given(
    x, weight, labels, given, centre, about, tile, chunk, count, first, second,
):  # fmt: skip
    """Sufficient statistics of given hard labels (N,), or of given responsibilities (N, K).

    One of ``labels`` and ``given`` is empty. Other arguments as in :func:`accumulate`.
    """
    n_rows = x.shape[0]
    n_components, padded = about.shape
    n_blocks = count.shape[0]
    dtype = about.dtype
    stride = row_stride(tile, about.itemsize)
    for block in prange(n_blocks):
        begin, end = block_range(block, n_blocks, n_rows)
        width = min(chunk // tile, (end - begin + tile - 1) // tile)
        none = np.empty((0, 0), dtype)
        z = np.empty((width, padded, stride), dtype)
        resp = np.empty((width, n_components, stride), dtype)
        index = np.empty((width, n_components, stride), np.int16)
        kept = np.empty((width, n_components), np.int32)
        for start in range(begin, end, width * tile):
            size = min(width * tile, end - start)
            n_tiles = (size + tile - 1) // tile
            for i in range(n_tiles):
                row = start + i * tile
                n = min(tile, size - i * tile)
                load_tile(x, row, n, centre, none, none, z[i])
                kept[i, :] = 0 if labels.shape[0] > 0 else -n
                for t in range(n):
                    w = dtype.type(weight[row + t]) if weight.shape[0] > 0 else dtype.type(1)
                    if labels.shape[0] > 0:
                        k = labels[row + t]
                        position = kept[i, k]
                        resp[i, k, position] = w
                        index[i, k, position] = t
                        kept[i, k] += 1
                    else:
                        for k in range(n_components):
                            resp[i, k, t] = w * given[row + t, k]
            for k in range(n_components):
                count[block, k] += moments(
                    k, 0, n_tiles, z, resp, index, kept, about, first[block], second[block],
                )  # fmt: skip
