"""Row tiles: centred, and transposed to (features, rows) so that inner loops run over rows."""

from __future__ import annotations

import numpy as np

from .full import transform
from .jit import allocating, kernel
from .shuffle import load_part, load_row, transpose
from .simd import REGISTER_BYTES, STRIP_REGISTERS, lanes, load, multiply, store, subtract


def strip_rows(itemsize):
    """Rows of a strip, the unit in which rows are skipped."""
    return STRIP_REGISTERS * REGISTER_BYTES // itemsize


def largest_tile(itemsize):
    """Rows of the largest tile: its strips are numbered by the bits of one word."""
    return 63 * strip_rows(itemsize)


@kernel
def centre_rows(x, order, start, n, centre, rows):
    """Write ``n`` rows less ``centre`` (1, C) to ``rows`` (n, C); both are zero from D on.

    Where ``order`` is not empty, row ``order[i]`` takes the place of row i.
    """
    n_features = x.shape[1]
    columns = rows.shape[1]
    if x.strides[1] == x.itemsize or n_features == 1:
        if columns == lanes(rows) and n_features < columns:
            # Without a loop over columns, which would cost more than the row.
            for t in range(n):
                source = np.intp(order[start + t]) if order.shape[0] > 0 else start + t
                part = load_part(x, source, 0, n_features)
                store(rows, t, 0, subtract(part, load(centre, 0, 0)))
            return
        for t in range(n):
            source = np.intp(order[start + t]) if order.shape[0] > 0 else start + t
            whole = n_features // lanes(rows) * lanes(rows)
            for c in range(0, whole, lanes(rows)):
                store(rows, t, c, subtract(load_row(x, source, c), load(centre, 0, c)))
            for c in range(whole, columns, lanes(rows)):
                part = load_part(x, source, c, n_features - c)
                store(rows, t, c, subtract(part, load(centre, 0, c)))
        return
    for t in range(n):
        source = np.intp(order[start + t]) if order.shape[0] > 0 else start + t
        for d in range(n_features):
            rows[t, d] = x[source, d] - centre[0, d]
        for d in range(n_features, columns):
            rows[t, d] = 0


@kernel
def load_rows(x, order, start, n, centre, whiten, origin, rows, raw, z):
    """Centred rows in ``rows`` as :func:`centre_rows` gives them, and in the columns of ``z``.

    ``whiten`` is applied to the columns: of shape (0, 0, 0) it is the identity, (1, 1, D') a
    diagonal, and else one lower triangular factor in panels as :func:`visit_full` takes them.
    There are D' features (D padded to a multiple of 4), and room for C. ``raw``, of the shape of
    ``z``, gets the columns before they are transformed, unless ``whiten`` is the identity;
    ``origin`` is (1, D') zeros. What columns beyond ``n`` hold is left open.
    """
    centre_rows(x, order, start, n, centre, rows)
    plain = raw if whiten.shape[0] > 0 else z
    width = lanes(rows)
    for t in range(0, n, width):
        for c in range(0, z.shape[0], width):
            transpose(rows, t, c, plain)
    if whiten.shape[1] > 1:
        transform(raw, origin, whiten, z, n)
    elif whiten.shape[0] == 1:
        for d in range(z.shape[0]):
            for t in range(0, n, width):
                store(z, d, t, multiply(load(raw, d, t), whiten[0, 0, d]))


@kernel
def row_stride(tile, itemsize):
    """Columns to allocate for a tile: one cache line more, so that rows do not share cache sets."""
    return np.int64(tile + 64 // itemsize)


@allocating
def scratch(lines, columns, like):
    """Uninitialised matrix of the dtype of ``like`` that begins with a cache line.

    A vector that crosses cache lines costs two accesses, and memory as it comes makes all of them
    cross.
    """
    step = REGISTER_BYTES // like.itemsize
    raw = np.empty(lines * columns + step, like.dtype)
    offset = (-raw.ctypes.data % REGISTER_BYTES) // like.itemsize
    return raw[offset : offset + lines * columns].reshape((lines, columns))


@allocating
def tile_scratch(tile, lines, columns, padded, whitened, like):
    """Scratch of a pass: rows, z and raw as :func:`load_rows` takes them, and lines of a tile."""
    stride = row_stride(tile, like.itemsize)
    rows, z = scratch(tile, columns, like), scratch(columns, stride, like)
    raw = scratch(columns if whitened else 0, stride, like)
    return rows, z[:padded], raw[:padded], scratch(lines, stride, like)


@kernel
def block_range(block, n_blocks, n_items):
    """First and last + 1 of the items of one of ``n_blocks`` nearly equal blocks."""
    return block * n_items // n_blocks, (block + 1) * n_items // n_blocks
