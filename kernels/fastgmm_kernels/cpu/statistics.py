"""The fused E-step and sufficient statistics: rows are read once, tile by tile.

For a tile of rows: log-probabilities under the components that may matter, normalisation, and for
each component the list of rows that do, and their moments.

``accumulate`` gives each thread blocks of rows with totals of their own, which ``join_totals``
adds up. Where totals are too large for that, ``accumulate_shared`` has one set, and the threads
share first the tiles and then the components of each chunk of rows. Either way blocks, chunks and
the order of every sum depend on the sizes alone: the same input gives the same bits at any number
of threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .expect import (
    clear_others,
    count_pairs,
    largest,
    list_kept,
    log_likelihood_of,
    respond_rows,
    visit_tile,
)
from .jit import driver, kernel
from .lanes import sum_lanes
from .listed import list_pairs, share_pairs
from .order import read_ahead
from .simd import lanes, load
from .skip import STATES, whole_strips
from .structure import add_dense, add_rows
from .tile import block_range, centre_rows, row_stride, scratch, tile_scratch
from .totals import clear

# Groups of tiles that threads take within a shared chunk.
_GROUPS = 32
# Rows of a component that are listed before their moments are taken, where rows are few per tile.
_CAPACITY = 1024
# Tiles, or a component's, that are taken as a whole after one in which too many rows were listed.
_DENSE_TILES = 16
# Pairs of a row and a component that are few: an eighth of all, and at most so many per row.
_FEW = 8
_FEW_PER_ROW = 16
# Numbers that may be written beyond the end of a list.
_ROOM = 16


@kernel
def _add_moments(
    n, lp, masks, mass, state, thresholds, dense_share, dense, rows, z, about, listed, index, share,
    g, dense_g, count, first, second,
):  # fmt: skip
    """Add what a tile says of its components.

    dense[k] counts down the tiles that are still taken as a whole after one in which most rows
    mattered; then the rows are listed again.
    """
    whole = whole_strips(n, lp)
    n_listed = 0
    for k in range(masks.shape[0]):
        if masks[k] == 0:
            continue
        if dense[k] == 0:
            kept = list_kept(lp, k, masks[k], n, state, thresholds[k], 0, 0, index, share)
            if kept <= dense_share * n:
                if kept > 0:
                    part = lp.dtype.type(0)
                    for i in range(kept):
                        part += share[i]
                    count[k] += part
                    add_rows(rows, index, share, kept, about, k, g, first, second)
                continue
            dense[k] = _DENSE_TILES
        dense[k] -= 1
        clear_others(lp, k, masks[k], whole)
        count[k] += sum_lanes(load(mass, k, 0))
        listed[n_listed] = k
        n_listed += 1
    add_dense(z, lp, listed, n_listed, about, whole, dense_g, first, second)


@kernel
def _add_pairs(starts, index, share, rows, about, g, count, first, second):
    """Add the moments of the listed pairs of rows and components."""
    for k in range(starts.shape[0] - 1):
        begin, end = starts[k], starts[k + 1]
        if end > begin:
            part = share.dtype.type(0)
            for i in range(begin, end):
                part += share[i]
            count[k] += part
            add_rows(
                rows, index[begin:end], share[begin:end], end - begin, about, k, g, first, second
            )


@driver
def accumulate(
    x, order, labels, weight, centre, whiten, means, factors, constants, reach, early, span,
    thresholds, about, tile, windows, dense_share, label, fresh, count, first, second,
    log_likelihood, visited,
):  # fmt: skip
    """Sufficient statistics of one E-step.

    ``order`` is empty, or gives the rows of each window in the order of their ``labels``, which
    then say which components to visit first; each block has ``windows``. With ``label`` the rows'
    new labels are written there. ``weight`` is empty or (N,), with mean 1 (``thresholds`` are
    relative to it).
    count (B, K), first (B, K, C) and second (B, K, ...), float64, are the totals, one set per block
    of rows: with ``fresh`` they are cleared first, else added to. log_likelihood (B,) and visited
    (B,), the number of (strip, component) pairs that were not skipped, are zero on entry.
    """
    n_rows = x.shape[0]
    n_components, padded = means.shape
    columns, whitened = about.shape[1], whiten.shape[0] > 0
    n_blocks = count.shape[0]
    dtype = means.dtype
    stride = row_stride(tile, means.itemsize)
    step = lanes(about)
    tallest = largest(constants)
    origin = np.zeros((1, padded), dtype)
    for block in prange(n_blocks):
        rows, z, raw, lp = tile_scratch(tile, n_components, columns, padded, whitened, about)
        plain = raw if whitened else z
        g = scratch(tile, columns, about)
        dense_g = scratch(padded + 1 if dense_share < 1 else 0, stride, about)
        state = scratch(STATES, stride, about)
        mass = scratch(n_components, step, about)
        active, masks = np.empty(n_components, np.int64), np.empty(n_components, np.int64)
        index, share = np.empty(tile + _ROOM, np.int32), np.empty(tile + _ROOM, dtype)
        dense = np.zeros(n_components, np.int64)
        room = tile * (min(n_components // _FEW, _FEW_PER_ROW) + 1) + _ROOM
        starts, pairs = np.empty(n_components + 1, np.int64), np.empty(room, np.int32)
        shares = scratch(1, room, about)
        many = 0
        if fresh:
            clear(count, first, second, block)
        counts, sums, squares = count[block], first[block], second[block]
        for window in range(block * windows, (block + 1) * windows):
            begin, end = block_range(window, n_blocks * windows, n_rows)
            if order.shape[0] > 0:
                read_ahead(x, begin, end, share)
            for row in range(begin, end, tile):
                n = min(tile, end - row)
                few = label == 0 and many == 0 and n_components >= _FEW
                visit_tile(
                    x, order, labels, weight, centre, whiten, means, factors, constants, reach,
                    early, span, tallest, label, not few, row, n, origin, rows, raw, z, state, lp,
                    active, masks, mass,
                )  # fmt: skip
                visited[block] += count_pairs(masks)
                many = max(many - 1, 0)
                if few:
                    limit = n * min(n_components // _FEW, _FEW_PER_ROW)
                    total = list_pairs(lp, masks, n, state, constants, reach, limit, starts, pairs)
                    if total > limit:
                        few, many = False, _DENSE_TILES
                        respond_rows(
                            lp, masks, 0, n, n, tallest, False, order, row, labels, state, active,
                            mass,
                        )  # fmt: skip
                if few:
                    share_pairs(lp, starts, pairs, n, state, shares)
                    _add_pairs(starts, pairs, shares[0], rows, about, g, counts, sums, squares)
                else:
                    _add_moments(
                        n, lp, masks, mass, state, thresholds, dense_share, dense, rows, plain,
                        about, active, index, share, g, dense_g, counts, sums, squares,
                    )  # fmt: skip
                log_likelihood[block] += log_likelihood_of(state, n, weight.shape[0] > 0)


@kernel
def _add_chunk(
    k, n_tiles, size, tile, masks, lp, state, thresholds, rows, about, index, share, g, first,
    second,
):  # fmt: skip
    """Moments of component ``k`` over the tiles of a chunk; returns the mass."""
    count = 0.0
    kept = 0
    for i in range(n_tiles):
        n = min(tile, size - i * tile)
        if masks[i, k] != 0:
            kept = list_kept(
                lp[i], k, masks[i, k], n, state[i], thresholds[k], i * tile, kept, index, share
            )
        if kept > 0 and (kept + tile + _ROOM > len(index) or i == n_tiles - 1):
            part = lp.dtype.type(0)
            for j in range(kept):
                part += share[j]
            count += part
            add_rows(rows, index, share, kept, about, k, g, first, second)
            kept = 0
    return count


@driver
def accumulate_shared(
    x, order, labels, weight, centre, whiten, means, factors, constants, reach, early, span,
    thresholds, about, tile, chunk, label, fresh, count, first, second, log_likelihood, visited,
):  # fmt: skip
    """As :func:`accumulate`, with B = 1: threads share the tiles, then the components, of a chunk.

    ``chunk`` is in rows; ``log_likelihood`` and ``visited`` have one place per tile.
    """
    n_rows = x.shape[0]
    n_components, padded = means.shape
    columns = about.shape[1]
    dtype = means.dtype
    stride = row_stride(tile, means.itemsize)
    width = min(chunk // tile, (n_rows + tile - 1) // tile)
    rows = scratch(width * tile, columns, about)
    lp = scratch(width * n_components, stride, about).reshape((width, n_components, stride))
    state = scratch(width * STATES, stride, about).reshape((width, STATES, stride))
    masks = np.empty((width, n_components), np.int64)
    origin = np.zeros((1, padded), dtype)
    step = lanes(about)
    tallest = largest(constants)
    if fresh:
        clear(count, first, second, 0)
    sums, squares = first[0], second[0]
    for start in range(0, n_rows, width * tile):
        size = min(width * tile, n_rows - start)
        n_tiles = (size + tile - 1) // tile
        n_groups = min(_GROUPS, n_tiles)
        for group in prange(n_groups):
            z = scratch(columns, stride, about)[:padded]
            raw = scratch(columns if whiten.shape[0] > 0 else 0, stride, about)[:padded]
            active, mass = np.empty(n_components, np.int64), scratch(n_components, step, about)
            tile_0, tile_1 = block_range(group, n_groups, n_tiles)
            for i in range(tile_0, tile_1):
                row = start + i * tile
                n = min(tile, size - i * tile)
                visit_tile(
                    x, order, labels, weight, centre, whiten, means, factors, constants, reach,
                    early, span, tallest, label, True, row, n, origin,
                    rows[i * tile : i * tile + n], raw, z, state[i], lp[i], active, masks[i], mass,
                )  # fmt: skip
                log_likelihood[row // tile] = log_likelihood_of(state[i], n, weight.shape[0] > 0)
                visited[row // tile] = count_pairs(masks[i])
        for k in prange(n_components):
            capacity = min(width * tile, max(2 * tile, _CAPACITY))
            index = np.empty(capacity + _ROOM, np.int32)
            share = np.empty(capacity + _ROOM, dtype)
            g = scratch(capacity, columns, about)
            count[0, k] += _add_chunk(
                k, n_tiles, size, tile, masks, lp, state, thresholds, rows, about, index, share,
                g, sums, squares,
            )  # fmt: skip


@kernel
def _list_by_label(labels, weight, row, n, places, index, share):
    """Sort the rows of a tile by label: those of k are index[places[k]:places[k + 1]]."""
    places[:] = 0
    for t in range(n):
        places[labels[row + t] + 1] += 1
    for k in range(1, places.shape[0]):
        places[k] += places[k - 1]
    for t in range(n):
        k = labels[row + t]
        index[places[k]] = t
        share[places[k]] = weight[row + t] if weight.shape[0] > 0 else 1
        places[k] += 1
    for k in range(places.shape[0] - 1, 0, -1):
        places[k] = places[k - 1]
    places[0] = 0


@driver
def accumulate_given(
    x, labels, given, weight, centre, about, tile, count, first, second,
):  # fmt: skip
    """Sufficient statistics of given hard labels (N,), or of given responsibilities (N, K).

    One of ``labels`` and ``given`` is empty. Other arguments as in :func:`accumulate`.
    """
    n_rows = x.shape[0]
    n_components, columns = about.shape
    n_blocks = count.shape[0]
    dtype = about.dtype
    no_order = np.empty(0, np.int32)
    for block in prange(n_blocks):
        begin, end = block_range(block, n_blocks, n_rows)
        rows, g = scratch(tile, columns, about), scratch(tile, columns, about)
        index, share = np.empty(tile + _ROOM, np.int32), np.empty(tile + _ROOM, dtype)
        clear(count, first, second, block)
        counts, sums, squares = count[block], first[block], second[block]
        places = np.empty(n_components + 1, np.int64)
        for row in range(begin, end, tile):
            n = min(tile, end - row)
            centre_rows(x, no_order, row, n, centre, rows)
            if labels.shape[0] > 0:
                _list_by_label(labels, weight, row, n, places, index, share)
            for k in range(n_components):
                first_place, last = 0, n
                if labels.shape[0] > 0:
                    first_place, last = places[k], places[k + 1]
                else:
                    for t in range(n):
                        index[t] = t
                        share[t] = given[row + t, k]
                        share[t] *= weight[row + t] if weight.shape[0] > 0 else 1
                if last > first_place:
                    part = dtype.type(0)
                    for i in range(first_place, last):
                        part += share[i]
                    counts[k] += part
                    add_rows(
                        rows, index[first_place:last], share[first_place:last],
                        last - first_place, about, k, g, sums, squares,
                    )  # fmt: skip
