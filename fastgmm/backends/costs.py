"""Work and traffic of the GPU kernels, counted: what a launch must do, by its sizes.

Floating-point operations of products and of the inner loops; what each row costs once per component
beside them (an exponential, a comparison) is left out, and so are addresses. Bytes are those of the
blocks that programs read, most of which the caches serve.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastgmm.backends.launch import Launch
from fastgmm_kernels.gpu import TILE, UNROLL


@dataclass(frozen=True)
class Cost:
    """Of one launch: operations on the matrix unit and off it, and bytes read and written."""

    products: int
    operations: int
    bytes: int


def _blocks(width: int, launch: Launch) -> tuple[int, int]:
    """Features of a block, and blocks of the lower triangle."""
    size = min(width & -width, launch.features)
    n = width // size
    return size, n * (n + 1) // 2


def load_rows(n_padded: int, width: int, itemsize: int, rowsize: int) -> Cost:
    """z = x - centre: rows are read as stored and written in the precision of the pass."""
    return Cost(0, n_padded * width, n_padded * width * (itemsize + rowsize))


def expect_full(
    n_padded: int, n_components: int, width: int, itemsize: int, launch: Launch
) -> Cost:
    """Per tile of r rows and component: 2 r b^2 for each block of the triangle, b differences for
    each, and the squares of the result.

    A tile is read once where it stays in registers, else with every block; the factor is read by
    every tile.
    """
    size, n_blocks = _blocks(width, launch)
    pairs = n_padded * n_components
    held = size == width
    rows = n_padded * width if held else pairs * n_blocks * size
    factors = n_padded // launch.rows * n_components * n_blocks * size * (size + 1)
    return Cost(
        2 * pairs * n_blocks * size**2,
        pairs * (n_blocks * size + width),
        itemsize * (rows + factors),
    )


def expect_small(n_padded: int, n_components: int, n_features: int, itemsize: int) -> Cost:
    """Per pair: D differences, D (D + 1) / 2 products, D (D - 1) / 2 sums, D squares added."""
    d = n_features
    return Cost(
        0, n_padded * n_components * (d + d * (d + 1) // 2 + d * (d - 1) // 2 + 2 * d),
        n_padded * d * itemsize,
    )  # fmt: skip


def expect_diag(n_padded: int, n_components: int, n_features: int, itemsize: int) -> Cost:
    """Per pair and feature: difference, scale, square, sum. Rows are read per UNROLL components."""
    whole = -(-n_components // UNROLL) * UNROLL
    pairs = n_padded * whole * n_features
    return Cost(0, 4 * pairs, itemsize * pairs // UNROLL)


def expect_spherical(n_padded: int, n_components: int, n_features: int, itemsize: int) -> Cost:
    """Per pair and feature: difference, square, sum."""
    whole = -(-n_components // UNROLL) * UNROLL
    pairs = n_padded * whole * n_features
    return Cost(0, 3 * pairs, itemsize * pairs // UNROLL)


def moments_full(n_rows: int, n_components: int, width: int, itemsize: int, launch: Launch) -> Cost:
    """Per component and pair of blocks: 2 b^2 per row; both blocks and the shares are read."""
    size, n_blocks = _blocks(width, launch)
    n = -(-n_rows // TILE) * TILE
    pairs = n * n_components * n_blocks
    return Cost(2 * pairs * size**2, 3 * pairs * size, itemsize * pairs * (2 * size + 1))


def moments_diag(
    n_rows: int, n_components: int, width: int, itemsize: int, launch: Launch, *, second: bool
) -> Cost:
    """Per pair and feature: difference, share, sum, and for second moments one product and sum."""
    size = min(width & -width, launch.features)
    n, whole = -(-n_rows // TILE) * TILE, -(-n_components // UNROLL) * UNROLL
    pairs = n * whole
    operations = pairs * width * (5 if second else 3) + pairs * (width // size)
    loads = pairs // UNROLL * width + pairs * (width // size)
    return Cost(0, operations, itemsize * loads)
