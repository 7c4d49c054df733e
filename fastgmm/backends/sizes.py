"""Sizes of what the CPU kernels work on: tiles, blocks, windows."""

from __future__ import annotations

import numpy as np

from fastgmm.arrays import Array
from fastgmm.backends.parameters import padded
from fastgmm.model import MixtureModel
from fastgmm_kernels import cpu as kernels

# Bytes of a transposed tile: long inner loops pay more than the first-level cache does.
_TILE_BYTES = 128 * 1024
# Bytes of the log-probabilities of a span of rows, which stay in the first-level cache.
_SPAN_BYTES = 16 * 1024
# Bytes of the log-probabilities of a tile where all components may matter.
_LINES_BYTES = 1024 * 1024
# Rows of a tile at most; and of those whose moments are taken of all rows at once, four features
# at a time: what is added up across the lanes is then a smaller part.
TILE_ROWS = 512
LONG_TILE_ROWS = 1024
# Bytes of a chunk of rows that threads share, and its rows at most.
_CHUNK_BYTES = 32 * 1024 * 1024
_CHUNK_ROWS = 16384
# Bytes of the totals of all blocks of rows; blocks of fewer rows cost more to join than they gain.
TOTAL_BYTES = 48 * 1024 * 1024
_BLOCK_ROWS = 4096
BLOCKS = 64
# But for a few, of so many rows and operations at least, for threads to have something to share:
# four, or two where the totals of one would fill a cache.
_FEW_ROWS = 256
_BLOCK_WORK = 16_000_000
_SMALL_TOTALS = 1024 * 1024
# Feature from which a pass looks whether the exponents so far are large enough to stop.
EARLY = 0
# Centroids from which a step of k-means looks whether it may give one up early.
GUESS_COMPONENTS = 128
# Operations per row, and rows per component, from which rows are ordered by label: below, reading
# out of turn costs more than what may be skipped. And rows up to which their numbers fit.
ORDER_WORK = 20_000
ORDER_ROWS = 16
ORDER_MOST = np.iinfo(np.int32).max
# Rows that are ordered together: so many bytes, which stay in a cache, or so many per component.
_WINDOW_BYTES = 512 * 1024
_WINDOW_SHARE = 128


def tile(n_features: int, n_components: int, itemsize: int, longest: int = TILE_ROWS) -> int:
    """Rows per tile: a multiple of 64, at least 64 and at most ``longest``."""
    rows = min(
        _TILE_BYTES // (padded(n_features) * itemsize), _LINES_BYTES // (n_components * itemsize)
    )
    rows = min(rows, longest, kernels.largest_tile(itemsize))
    # With a cache line more (``row_stride``) no tile has a stride that is a power of two.
    return max(rows // 64 * 64, 64)


def span(n_components: int, itemsize: int) -> int:
    """Rows that all components visit, and that are normalised, before the next: whole strips."""
    strip: int = kernels.strip_rows(itemsize)
    return max(_SPAN_BYTES // (n_components * strip * itemsize), 1) * strip


def dense_share(model: MixtureModel) -> float:
    """Share of a tile's rows above which moments are taken of all of them, without a list.

    As measured: few features leave most lanes of a listed row empty; where they fill the registers
    exactly, or are many, a list costs no more than the whole tile.
    """
    n_features = model.n_features
    if model.structure.moments != "full":
        return min(max(n_features / 32, 0.15), 0.5)
    if n_features <= 8:
        return max(n_features / 32, 0.1)
    return 0.75 if 16 < n_features <= 64 else 1.0


def blocks(n_rows: int, n_components: int, width: int, moments: str) -> int:
    """Blocks of rows with totals of their own; 0 where threads had better share one set."""
    size = {"full": width * width, "diag": width, "none": 0}[moments] + width + 1
    # About two operations per number of the totals, for the exponent and for the moments.
    work = n_rows * n_components * (4 * size + 30)
    few = 4 if 8 * n_components * size <= _SMALL_TOTALS else 2
    few = min(few, work // _BLOCK_WORK, n_rows // _FEW_ROWS)
    wanted = max(min(n_rows // _BLOCK_ROWS, BLOCKS), few, 1)
    room = TOTAL_BYTES // (8 * n_components * size)
    # A power of two, which any small number of threads shares evenly.
    return 0 if room < min(wanted, 4) else 1 << (min(wanted, room).bit_length() - 1)


def windows(n_rows: int, row_bytes: int, n_components: int, blocks: int) -> int:
    """Parts of each block of rows that are ordered by themselves."""
    window = max(_WINDOW_BYTES // row_bytes, _WINDOW_SHARE * n_components)
    return max(n_rows // (blocks * window), 1)


def chunk(points: Array, tile: int) -> int:
    """Rows of a chunk that threads share, a multiple of the tile."""
    row = (len(points) + points.shape[1] + 8) * points.itemsize
    return max(min(_CHUNK_BYTES // row, _CHUNK_ROWS) // tile, 2) * tile


def kmeans_blocks(n_rows: int, n_components: int, width: int, tile: int) -> int:
    """Blocks of rows with sums of their own in a step of k-means."""
    tiles = -(-n_rows // tile)
    room = TOTAL_BYTES // (8 * n_components * (width + 1))
    return max(min(BLOCKS, tiles, room), min(4, tiles))
