"""Range, sum and squares of each feature in one read of the rows."""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import driver, kernel
from .tile import block_range


@kernel
def _not_finite(x, first, last):
    count = 0
    for n in range(first, last):
        # Not a sum of x - x: additions may be put in another order, which leaves nothing of it.
        if not abs(x[n]) < np.inf:
            count += 1
    return count


@driver
def not_finite(x, out):
    """out (B,) int64 = numbers of NaN and infinities in blocks of a flat array."""
    n_blocks = out.shape[0]
    for block in prange(n_blocks):
        first, last = block_range(block, n_blocks, x.shape[0])
        out[block] = _not_finite(x, first, last)


@driver
def summarise(x, origin, sums, extremes):
    """Per block of rows: sums[0] of x - origin, sums[1] of its squares, extremes min and max.

    A row with NaN makes sums[0] NaN and one with infinity makes it infinite or NaN.
    """
    n_rows, n_features = x.shape
    n_blocks = sums.shape[1]
    for block in prange(n_blocks):
        first, last = block_range(block, n_blocks, n_rows)
        total, square = sums[0, block], sums[1, block]
        low, high = extremes[0, block], extremes[1, block]
        low[:] = np.inf
        high[:] = -np.inf
        for n in range(first, last):
            for d in range(n_features):
                value = np.float64(x[n, d])
                difference = value - origin[d]
                total[d] += difference
                square[d] += difference * difference
                low[d] = min(low[d], value)
                high[d] = max(high[d], value)
