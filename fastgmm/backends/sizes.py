"""Sizes of what the CPU kernels work on: tiles, blocks, windows, totals."""

from __future__ import annotations

import numpy as np

from fastgmm.arrays import Array
from fastgmm.backends.parameters import padded
from fastgmm.covariance import CovarianceStructure
from fastgmm.model import MixtureModel
from fastgmm_kernels import cpu as kernels

# Bytes of a transposed tile: long inner loops pay more than the first-level cache does.
_TILE_BYTES = 128 * 1024
# Bytes of the log-probabilities of a tile where all components may matter.
_LINES_BYTES = 1024 * 1024
# Bytes of a chunk of rows that threads share, and its rows at most.
_CHUNK_BYTES = 32 * 1024 * 1024
_CHUNK_ROWS = 16384
# Bytes of the totals of all blocks of rows; blocks of fewer rows cost more to join than they gain.
TOTAL_BYTES = 48 * 1024 * 1024
_BLOCK_ROWS = 4096
BLOCKS = 64
# Feature from which a pass looks whether the exponents so far are large enough to stop.
EARLY = 0
# Centroids from which a step of k-means looks whether it may give one up early.
GUESS_COMPONENTS = 128
# Operations per row, and rows per component, from which rows are ordered by label: below, reading
# out of turn costs more than what may be skipped.
ORDER_WORK = 20_000
ORDER_ROWS = 16
# Rows that are ordered together: so many bytes, which stay in a cache, or so many per component.
_WINDOW_BYTES = 512 * 1024
_WINDOW_SHARE = 128


def tile(n_features: int, n_components: int, itemsize: int) -> int:
    """Rows per tile: a multiple of 64 between 64 and 512."""
    rows = min(
        _TILE_BYTES // (padded(n_features) * itemsize), _LINES_BYTES // (n_components * itemsize)
    )
    return max(min(rows // 64 * 64, 512, kernels.largest_tile(itemsize)), 64)


def dense_share(model: MixtureModel) -> float:
    """Share of a tile's rows above which moments are taken of all of them, without a list.

    As measured: few features leave most lanes of a listed row empty; where they fill the registers
    exactly, or are many, a list costs no more than the whole tile.
    """
    n_features = model.n_features
    if model.structure.moments != "full":
        return float(np.clip(n_features / 32, 0.15, 0.5))
    if n_features <= 8:
        return max(n_features / 32, 0.1)
    return 0.75 if 16 < n_features <= 64 else 1.0


def blocks(n_rows: int, n_components: int, width: int, moments: str) -> int:
    """Blocks of rows with totals of their own; 0 where threads had better share one set."""
    size = {"full": width * width, "diag": width, "none": 0}[moments] + width + 1
    wanted = max(min(n_rows // _BLOCK_ROWS, BLOCKS), 1)
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


def totals(
    blocks: int, points: Array, n_features: int, structure: CovarianceStructure
) -> tuple[Array, Array, Array]:
    """Zeroed counts, first and second moments of every block."""
    n_components, width = points.shape
    lines = -(-n_features // 8) * 8
    last = {"full": (lines, width), "diag": (width,), "none": (0,)}[structure.moments]
    return (
        np.zeros((blocks, n_components)),
        np.zeros((blocks, n_components, width)),
        np.zeros((blocks, n_components, *last)),
    )


def collect(
    count: Array, first: Array, second: Array, n_features: int, structure: CovarianceStructure
) -> tuple[Array, Array, Array]:
    """Add the blocks in order, drop the padding, mirror the triangle."""
    sums = np.ascontiguousarray(first.sum(axis=0)[:, :n_features])
    if structure.moments == "none":
        return count.sum(axis=0), sums, np.empty(0)
    squares = second.sum(axis=0) if len(second) > 1 else second[0]
    if structure.moments == "diag":
        return count.sum(axis=0), sums, np.ascontiguousarray(squares[:, :n_features])
    squares = squares[:, :n_features, :n_features]
    lower = np.tril(squares, -1)
    squares = lower + np.swapaxes(lower, 1, 2) + squares * np.eye(n_features)
    return count.sum(axis=0), sums, squares
