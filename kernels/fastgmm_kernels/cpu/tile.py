"""Row tiles: centred, transposed to (features, rows) so that inner loops run over rows."""

from __future__ import annotations

import numpy as np

from .full import store_transformed
from .jit import kernel


@kernel
def load_tile(x, start, n, centre, whiten, raw, z):
    """Write ``n`` rows of ``x`` from ``start``, less ``centre``, to the columns of ``z``.

    ``whiten`` (D', D') is applied to each row: (0, 0) is the identity, (1, D') a diagonal and
    (D', D') a lower triangular matrix. Features up to D' (D padded to a multiple of 4) are zero.
    ``raw`` is scratch of the shape of ``z``, used by the triangular case alone.
    """
    n_features = x.shape[1]
    padded = z.shape[0]
    triangular = whiten.shape[0] > 1
    target = raw if triangular else z
    for t in range(n):
        for d in range(n_features):
            target[d, t] = x[start + t, d] - centre[d]
    for d in range(n_features, padded):
        for t in range(n):
            target[d, t] = 0
    if triangular:
        store_transformed(raw, whiten, z, n)
    elif whiten.shape[0] == 1:
        for d in range(n_features):
            scale = whiten[0, d]
            row = z[d]
            for t in range(n):
                row[t] *= scale


@kernel
def block_range(block, n_blocks, n_items):
    """First and last + 1 of the items of one of ``n_blocks`` nearly equal blocks."""
    return block * n_items // n_blocks, (block + 1) * n_items // n_blocks


@kernel
def row_stride(tile, itemsize):
    """Columns to allocate for a tile: one cache line more, so that rows do not share cache sets."""
    return np.int64(tile + 64 // itemsize)
