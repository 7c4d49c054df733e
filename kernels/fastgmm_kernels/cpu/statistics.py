"""The fused E-step and sufficient statistics: rows are read once, chunk by chunk.

Per chunk of rows: (1) threads take tiles: log-probabilities, normalisation, and for each component
the list of rows whose responsibility matters; (2) threads take components: moments over the lists.
Work is shared over components, so there is one set of totals however many threads there are
(``splits`` sets where components are few), and every sum has a fixed order: the same input gives
the same bits at any number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import driver, kernel
from .moments import moments
from .score import normalise
from .structure import log_prob
from .tile import block_range, load_tile, row_stride

# Groups of tiles that threads take within a chunk.
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


@driver
def accumulate(
    x, weight, centre, whiten, means, factors, constants, thresholds, about,
    tile, chunk, dense_share, count, first, second, log_likelihood,
):  # fmt: skip
    """Sufficient statistics of one E-step.

    ``weight`` is empty or (N,), with mean 1 (``thresholds`` are relative to it).
    count (S, K), first (S, K, D'), second (S, K, ...) and log_likelihood (tiles,) are zero on
    entry, float64; D' is D padded to a multiple of 4.
    """
    n_rows = x.shape[0]
    n_components, padded = means.shape
    n_splits = count.shape[0]
    dtype = means.dtype
    stride = row_stride(tile, means.itemsize)
    width = min(chunk, (n_rows + tile - 1) // tile * tile)
    z = np.empty((width // tile, padded, stride), dtype)
    resp = np.empty((width // tile, n_components, stride), dtype)
    index = np.empty((width // tile, n_components, stride), np.int16)
    kept = np.empty((n_components, width // tile), np.int32)
    tallest = -np.inf
    for k in range(n_components):
        tallest = max(tallest, constants[k])
    for start in range(0, n_rows, width):
        size = min(width, n_rows - start)
        n_tiles = (size + tile - 1) // tile
        n_groups = min(_GROUPS, n_tiles)
        for group in prange(n_groups):
            raw = np.empty((padded if whiten.shape[0] > 1 else 0, stride), dtype)
            y = np.empty((4, stride), dtype)
            top = np.empty(tile, dtype)
            norm = np.empty(tile, dtype)
            scale = np.empty(tile, dtype)
            bound = np.empty(tile, dtype)
            tile_0, tile_1 = block_range(group, n_groups, n_tiles)
            for i in range(tile_0, tile_1):
                offset = i * tile
                n = min(tile, size - offset)
                row = start + offset
                load_tile(x, row, n, centre, whiten, raw, z[i])
                lp = resp[i]
                log_prob(z[i], means, factors, constants, 0, n_components, y, lp, n)
                normalise(lp, n_components, n, top, norm, scale)
                total = 0.0
                for t in range(n):
                    w = dtype.type(weight[row + t]) if weight.shape[0] > 0 else dtype.type(1)
                    total += w * norm[t] if w > 0 else 0.0
                    scale[t] *= w
                    # Squared distance = 2 (c_k - norm - log r), at most this for r > exp(-40).
                    bound[t] = 81 + 2 * max(tallest - norm[t], 0.0)
                log_likelihood[row // tile] = total
                for k in range(n_components):
                    kept[k, i] = _keep(lp[k], index[i, k], n, scale, thresholds[k], bound,
                                       dense_share)  # fmt: skip
        for item in prange(n_components * n_splits):
            k = item % n_components
            split = item // n_components
            tile_0, tile_1 = block_range(split, n_splits, n_tiles)
            count[split, k] += moments(k, tile_0, tile_1, z, resp, index, kept, about[k],
                                       first[split, k], second[split, k])  # fmt: skip


@driver
def accumulate_given(
    x, weight, labels, given, centre, about, tile, chunk, count, first, second,
):  # fmt: skip
    """Sufficient statistics of given hard labels (N,), or of given responsibilities (N, K).

    One of ``labels`` and ``given`` is empty. Other arguments as in :func:`accumulate`.
    """
    n_rows = x.shape[0]
    n_components, padded = about.shape
    n_splits = count.shape[0]
    dtype = about.dtype
    no_whitening = np.empty((0, 0), dtype)
    width = min(chunk, (n_rows + tile - 1) // tile * tile)
    stride = row_stride(tile, about.itemsize)
    z = np.empty((width // tile, padded, stride), dtype)
    resp = np.empty((width // tile, n_components, stride), dtype)
    index = np.empty((width // tile, n_components, stride), np.int16)
    kept = np.empty((n_components, width // tile), np.int32)
    for start in range(0, n_rows, width):
        size = min(width, n_rows - start)
        n_tiles = (size + tile - 1) // tile
        for i in prange(n_tiles):
            offset = i * tile
            n = min(tile, size - offset)
            row = start + offset
            load_tile(x, row, n, centre, no_whitening, no_whitening, z[i])
            kept[:, i] = 0
            for t in range(n):
                w = dtype.type(weight[row + t]) if weight.shape[0] > 0 else dtype.type(1)
                if labels.shape[0] > 0:
                    k = labels[row + t]
                    position = kept[k, i]
                    resp[i, k, position] = w
                    index[i, k, position] = t
                    kept[k, i] += 1
                else:
                    for k in range(n_components):
                        resp[i, k, t] = w * given[row + t, k]
            if labels.shape[0] == 0:
                kept[:, i] = -n
        for item in prange(n_components * n_splits):
            k = item % n_components
            split = item // n_components
            tile_0, tile_1 = block_range(split, n_splits, n_tiles)
            count[split, k] += moments(k, tile_0, tile_1, z, resp, index, kept, about[k],
                                       first[split, k], second[split, k])  # fmt: skip
