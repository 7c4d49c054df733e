"""Moments of one component over the rows that matter to it."""

from __future__ import annotations

import numpy as np

from .jit import kernel
from .structure import add_moments

_GATHER = 256  # rows that wait for their products


@kernel
def moments(k, tile_0, tile_1, z, resp, index, kept, about, first, second):
    """Add the moments about ``about`` of component ``k`` over a range of tiles; returns its count.

    Each row is scaled by the root of its responsibility, so that one buffer serves both sides of
    the outer product. Rows of several tiles are gathered before the products are taken.
    """
    padded = z.shape[1]
    g = np.empty((padded, _GATHER + 16), z.dtype)
    s = np.empty(_GATHER, z.dtype)
    waiting = 0
    count = 0.0
    for i in range(tile_0, tile_1):
        n = kept[k, i]
        dense = n < 0
        n = abs(n)
        done = 0
        while done < n:
            take = min(n - done, _GATHER - waiting)
            r = resp[i, k, done : done + take]
            part = z.dtype.type(0)
            for t in range(take):
                part += r[t]
                s[waiting + t] = np.sqrt(r[t])
            count += part
            if dense:
                for d in range(padded):
                    m = about[d]
                    source = z[i, d, done : done + take]
                    target = g[d, waiting : waiting + take]
                    for t in range(take):
                        target[t] = s[waiting + t] * (source[t] - m)
            else:
                rows = index[i, k, done : done + take]
                for d in range(padded):
                    m = about[d]
                    source = z[i, d]
                    target = g[d, waiting : waiting + take]
                    for t in range(take):
                        target[t] = s[waiting + t] * (source[rows[t]] - m)
            waiting += take
            done += take
            if waiting == _GATHER:
                add_moments(g, s, waiting, first, second)
                waiting = 0
    if waiting > 0:
        add_moments(g, s, waiting, first, second)
    return count
