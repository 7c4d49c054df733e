"""Totals of blocks of rows: each block's thread clears and fills its own, all threads join them.

Arrays are C-contiguous with one entry of the first axis per block.
"""

from __future__ import annotations

from numba import prange

from .jit import driver, kernel


@kernel
def _clear(totals, block):
    if totals.size == 0:  # which cannot be reshaped
        return
    flat = totals.reshape(totals.size)
    length = totals.size // totals.shape[0]
    for i in range(block * length, (block + 1) * length):
        flat[i] = 0


@kernel
def clear(count, first, second, block):
    """Zero the totals of a block."""
    _clear(count, block)
    _clear(first, block)
    _clear(second, block)


@driver
def join_totals(count, first, second, triangle, counts, sums, squares):
    """Add the totals of all blocks in their order, without the padding.

    count (B, K), first (B, K, C) and second (B, K, L, C) give counts (K,), sums (K, D) and
    squares (K, M, D). With ``triangle`` the lines of ``second`` end at the diagonal, and what lies
    beyond is mirrored.
    """
    n_blocks, n_components = count.shape
    n_lines, n_features = squares.shape[1], sums.shape[1]
    for line in prange(n_components * (1 + n_lines)):
        k, i = line // (1 + n_lines), line % (1 + n_lines) - 1
        if i < 0:
            counts[k] = count[0, k]
            for j in range(n_features):
                sums[k, j] = first[0, k, j]
            for block in range(1, n_blocks):
                counts[k] += count[block, k]
                for j in range(n_features):
                    sums[k, j] += first[block, k, j]
        else:
            end = i + 1 if triangle else n_features
            for j in range(end):
                squares[k, i, j] = second[0, k, i, j]
            for block in range(1, n_blocks):
                for j in range(end):
                    squares[k, i, j] += second[block, k, i, j]
            if triangle:
                for j in range(i):
                    squares[k, j, i] = squares[k, i, j]
