"""k-means: assignment with centroid sums, and the potentials of k-means++ candidates."""

from __future__ import annotations

import numpy as np
from numba import prange, types
from numba.extending import overload

from .jit import driver, inlined, kernel
from .lanes import add_to, any_at_most, sum_lanes
from .simd import (
    at,
    fma,
    lanes,
    load,
    load_strip,
    minimum,
    multiply,
    select_below,
    splat,
    store,
    strip_lanes,
    subtract,
    zero,
    zero_strip,
)
from .skip import whole_strips
from .tile import block_range, load_rows, row_stride, scratch


@inlined
def _square(z, centroids, k, i, t, q):
    """q + (z - c)^2 of feature ``i``."""
    x = subtract(load_strip(z, i, t), at(centroids, k, i))
    return fma(x, x, q)


def _eps(array):
    """Spacing of the numbers of the array's dtype at 1."""
    raise NotImplementedError("only for compiled callers")


@overload(_eps)
def _compiled_eps(array):
    value = 2.0**-23 if array.dtype == types.float32 else 2.0**-52
    return lambda array: value


@kernel
def _bound(rows, centroids, labels, start, n, best):
    """best[2] = a little more than the squared distance from the centroid of an earlier label."""
    width = lanes(rows)
    slack = 1 + 4 * rows.shape[1] * _eps(rows)
    for t in range(n):
        k = np.intp(labels[start + t])
        total = zero(rows)
        for c in range(0, rows.shape[1], width):
            x = subtract(load(rows, t, c), load(centroids, k, c))
            total = fma(x, x, total)
        best[2, t] = sum_lanes(total) * slack


@kernel
def _nearest(z, centroids, n, guessed, best):
    """best[0] = squared distance of the nearest centroid, best[1] = its number; the first wins.

    With ``guessed`` a centroid is given up for a strip when a part of the features puts all its
    rows beyond best[2], within which each has a centroid.
    """
    for t in range(0, n, strip_lanes(z)):
        label = zero_strip(z)
        least = splat(label, np.inf)
        for k in range(centroids.shape[0]):
            q = zero_strip(z)
            alive = True
            for i in range(0, z.shape[0], 4):
                q = _square(z, centroids, k, i, t, q)
                q = _square(z, centroids, k, i + 1, t, q)
                q = _square(z, centroids, k, i + 2, t, q)
                q = _square(z, centroids, k, i + 3, t, q)
                # After 4, 8, 16, ... features.
                if guessed and (i & (i + 4)) == 0:
                    limit = minimum(load_strip(best, 2, t), least)
                    alive = any_at_most(subtract(q, limit), 0)
                    if not alive:
                        break
            if alive:
                label = select_below(q, least, splat(q, k), label)
                least = minimum(q, least)
        store(best, 0, t, least)
        store(best, 1, t, label)


@driver
def kmeans_step(
    x, weight, centre, centroids, n_padded, guessed, tile, labels, count, sums, inertia
):  # fmt: skip
    """Assign each row to its nearest centroid and sum the rows of each.

    ``centroids`` (K, C) is zero from D on; ``n_padded`` is D padded to a multiple of 4. ``labels``
    (N,) int32 is written; with ``guessed`` it holds earlier labels, which spare work where
    centroids have moved little. count (B, K), sums (B, K, C) and inertia (B,) are zero on entry,
    float64, one set per block of rows. Sums are of the centred rows.
    """
    n_rows = x.shape[0]
    n_tiles = (n_rows + tile - 1) // tile
    n_blocks = count.shape[0]
    dtype = centroids.dtype
    stride = row_stride(tile, centroids.itemsize)
    none = np.empty((0, 0, 0), dtype)
    columns = centre.shape[1]
    no_order = np.empty(0, np.int32)
    origin = np.zeros((1, n_padded), dtype)
    for block in prange(n_blocks):
        z, raw = scratch(columns, stride, centroids)[:n_padded], scratch(0, stride, centroids)
        rows = scratch(tile, columns, centroids)
        best = scratch(3, stride, centroids)
        counts, totals = count[block], sums[block]
        tile_0, tile_1 = block_range(block, n_blocks, n_tiles)
        for i in range(tile_0, tile_1):
            start = i * tile
            n = min(tile, n_rows - start)
            load_rows(x, no_order, start, n, centre, none, origin, rows, raw, z)
            if guessed:
                # Columns beyond the last row match nothing.
                best[2, n:] = -1
                for d in range(n_padded):
                    for t in range(n, whole_strips(n, z)):
                        z[d, t] = 0
                _bound(rows, centroids, labels, start, n, best)
            _nearest(z, centroids, n, guessed, best)
            for t in range(n):
                k = np.intp(best[1, t])
                w = weight[start + t] if weight.shape[0] > 0 else 1.0
                labels[start + t] = k
                inertia[block] += w * best[0, t]
                counts[k] += w
                for c in range(0, columns, lanes(rows)):
                    add_to(totals, k * columns + c, multiply(load(rows, t, c), dtype.type(w)))


@kernel
def _squared_distances(z, candidates, c, n, out):
    for t in range(n):
        out[t] = 0
    for d in range(z.shape[0]):
        m = candidates[c, d]
        row = z[d]
        for t in range(n):
            difference = row[t] - m
            out[t] += difference * difference


@driver
def candidate_potentials(x, weight, centre, candidates, tile, closest, potential):
    """potential[p, c] = sum over the rows of part p of w min(closest, |x - candidate c|^2)."""
    n_rows = x.shape[0]
    n_candidates, padded = candidates.shape
    n_parts = potential.shape[0]
    dtype = candidates.dtype
    stride = row_stride(tile, candidates.itemsize)
    columns = centre.shape[1]
    no_order = np.empty(0, np.int32)
    origin = np.zeros((1, padded), dtype)
    for part in prange(n_parts):
        z = scratch(columns, stride, candidates)[:padded]
        rows = scratch(tile, columns, candidates)
        none, raw = np.empty((0, 0, 0), dtype), scratch(0, stride, candidates)
        q = np.empty(tile, dtype)
        first, last = block_range(part, n_parts, n_rows)
        for start in range(first, last, tile):
            n = min(tile, last - start)
            load_rows(x, no_order, start, n, centre, none, origin, rows, raw, z)
            for c in range(n_candidates):
                _squared_distances(z, candidates, c, n, q)
                total = 0.0
                for t in range(n):
                    w = weight[start + t] if weight.shape[0] > 0 else 1.0
                    total += w * min(q[t], closest[start + t])
                potential[part, c] += total


@driver
def update_closest(x, centre, candidates, tile, closest):
    """closest = min(closest, |x - candidate 0|^2), in place."""
    n_rows = x.shape[0]
    padded = candidates.shape[1]
    n_tiles = (n_rows + tile - 1) // tile
    dtype = candidates.dtype
    stride = row_stride(tile, candidates.itemsize)
    n_blocks = min(64, n_tiles)
    columns = centre.shape[1]
    no_order = np.empty(0, np.int32)
    origin = np.zeros((1, padded), dtype)
    for block in prange(n_blocks):
        z = scratch(columns, stride, candidates)[:padded]
        rows = scratch(tile, columns, candidates)
        none, raw = np.empty((0, 0, 0), dtype), scratch(0, stride, candidates)
        q = np.empty(tile, dtype)
        tile_0, tile_1 = block_range(block, n_blocks, n_tiles)
        for i in range(tile_0, tile_1):
            start = i * tile
            n = min(tile, n_rows - start)
            load_rows(x, no_order, start, n, centre, none, origin, rows, raw, z)
            _squared_distances(z, candidates, 0, n, q)
            for t in range(n):
                closest[start + t] = min(closest[start + t], q[t])
