"""Totals of blocks of rows: each block's thread clears and fills its own, all threads join them.

Arrays are C-contiguous with one entry of the first axis per block.
"""

from __future__ import annotations

from .jit import kernel
from .tile import block_range

# Parts that threads take where totals are joined together, and numbers from which they do.
PARTS = 32
MANY = 65_536


@kernel
def _clear(totals, block):
    if totals.size == 0:  # which cannot be reshaped
        return
    flat = totals.reshape(totals.size)
    length = totals.size // totals.shape[0]
    for i in range(block * length, (block + 1) * length):
        flat[i] = 0


@kernel
def _join(totals, part, n_parts):
    if totals.size == 0:
        return
    flat = totals.reshape(totals.size)
    length = totals.size // totals.shape[0]
    begin, end = block_range(part, n_parts, length)
    for start in range(length, totals.size, length):
        for i in range(begin, end):
            flat[i] += flat[start + i]


@kernel
def clear(count, first, second, block):
    """Zero the totals of a block."""
    _clear(count, block)
    _clear(first, block)
    _clear(second, block)


@kernel
def join(count, first, second, part, n_parts):
    """Add one part of the totals of all blocks, in their order, to those of the first."""
    _join(count, part, n_parts)
    _join(first, part, n_parts)
    _join(second, part, n_parts)
