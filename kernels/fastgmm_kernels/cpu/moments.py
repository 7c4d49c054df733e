"""Moments of one component over the rows that matter to it."""

from __future__ import annotations

import numpy as np

from .jit import kernel
from .structure import add_dense, add_gathered

# Bytes of gathered rows that wait for their products: long inner loops pay most.
_GATHER_BYTES = 64 * 1024


@kernel
def gather_width(padded, itemsize):
    """Rows that are gathered before their products are taken."""
    return min(max(_GATHER_BYTES // (padded * itemsize) // 16 * 16, 64), 512)


@kernel
def dense_moments(z, resp, kept, about, g, s, count, first, second):
    """Add the moments of one tile to the components that take it as it is, and tick them off.

    Tile by tile, because the tile is still in the cache from the E-step.
    """
    for k in range(kept.shape[0]):
        n = -kept[k]
        if n > 0:
            part = z.dtype.type(0)
            for t in range(n):
                part += resp[k, t]
            count[k] += part
            add_dense(z, resp, k, about, n, g, s, first, second)
            kept[k] = 0


@kernel
def moments(k, tile_0, tile_1, z, resp, index, kept, about, first, second):
    """Add the moments about ``about`` of component ``k`` over a range of tiles; returns its count.

    Tiles of which most rows matter are taken as they are. Otherwise the rows of several tiles are
    gathered, each scaled by the root of its responsibility so that one buffer serves both sides
    of the outer product, before the products are taken.
    """
    padded = z.shape[1]
    width = gather_width(padded, z.itemsize)
    # A cache line more than the rows, so that lines do not share cache sets.
    g = np.empty((padded, width + 64 // z.itemsize), z.dtype)
    s = np.empty((1, width), z.dtype)
    dense_g, dense_s = np.empty_like(g), np.empty_like(s)
    waiting = 0
    count = 0.0
    for i in range(tile_0, tile_1):
        n = kept[i, k]
        if n == 0:
            continue
        r = resp[i, k]
        part = z.dtype.type(0)
        for t in range(abs(n)):
            part += r[t]
        count += part
        if n < 0:
            add_dense(z[i], resp[i], k, about, -n, dense_g, dense_s, first, second)
            continue
        done = 0
        while done < n:
            take = min(n - done, width - waiting)
            # Slices, because an index such as waiting + t might wrap around, which no vector can.
            root = s[0, waiting : waiting + take]
            share = r[done : done + take]
            rows = index[i, k, done : done + take]
            for t in range(take):
                root[t] = np.sqrt(share[t])
            for d in range(padded):
                m = about[k, d]
                source = z[i, d]
                target = g[d, waiting : waiting + take]
                for t in range(take):
                    target[t] = root[t] * (source[rows[t]] - m)
            waiting += take
            done += take
            if waiting == width:
                add_gathered(g, s, waiting, k, first, second)
                waiting = 0
    if waiting > 0:
        add_gathered(g, s, waiting, k, first, second)
    return count
