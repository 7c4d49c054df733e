"""k-means: assignment with centroid sums, and the potentials of k-means++ candidates."""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import driver, kernel
from .score import fold_best
from .spherical import log_prob_spherical
from .tile import block_range, load_tile, row_stride

_GROUP = 16


@driver
def kmeans_step(x, weight, centre, centroids, tile, labels, count, sums, inertia):
    """Assign each row to its nearest centroid and sum the rows of each.

    ``labels`` (N,) int32 is written; count (B, K), sums (B, K, D') and inertia (B,) are zero on
    entry, float64, one set per block of rows. Sums are of the centred rows.
    """
    n_rows = x.shape[0]
    n_components, padded = centroids.shape
    n_tiles = (n_rows + tile - 1) // tile
    n_blocks = count.shape[0]
    dtype = centroids.dtype
    stride = row_stride(tile, centroids.itemsize)
    one = np.ones(n_components, dtype)
    zero = np.zeros(n_components, dtype)
    for block in prange(n_blocks):
        z = np.empty((padded, stride), dtype)
        none = np.empty((0, 0), dtype)
        lp = np.empty((_GROUP, stride), dtype)
        best = np.empty(tile, dtype)
        label = np.empty(tile, np.int32)
        tile_0, tile_1 = block_range(block, n_blocks, n_tiles)
        for i in range(tile_0, tile_1):
            start = i * tile
            n = min(tile, n_rows - start)
            load_tile(x, start, n, centre, none, none, z)
            best[:] = -np.inf
            label[:] = 0
            for k in range(0, n_components, _GROUP):
                last = min(k + _GROUP, n_components)
                log_prob_spherical(z, centroids, one, zero, k, last, lp, n)
                fold_best(lp, k, last - k, n, best, label)
            for t in range(n):
                k = label[t]
                w = weight[start + t] if weight.shape[0] > 0 else 1.0
                labels[start + t] = k
                inertia[block] -= w * best[t]
                count[block, k] += w
                row = sums[block, k]
                for d in range(padded):
                    row[d] += w * z[d, t]


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
    for part in prange(n_parts):
        z = np.empty((padded, stride), dtype)
        none = np.empty((0, 0), dtype)
        q = np.empty(tile, dtype)
        first, last = block_range(part, n_parts, n_rows)
        for start in range(first, last, tile):
            n = min(tile, last - start)
            load_tile(x, start, n, centre, none, none, z)
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
    for block in prange(n_blocks):
        z = np.empty((padded, stride), dtype)
        none = np.empty((0, 0), dtype)
        q = np.empty(tile, dtype)
        tile_0, tile_1 = block_range(block, n_blocks, n_tiles)
        for i in range(tile_0, tile_1):
            start = i * tile
            n = min(tile, n_rows - start)
            load_tile(x, start, n, centre, none, none, z)
            _squared_distances(z, candidates, 0, n, q)
            for t in range(n):
                closest[start + t] = min(closest[start + t], q[t])
