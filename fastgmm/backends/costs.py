"""Work and traffic of the GPU kernels, counted: what a launch must do, by its sizes.

Floating-point operations of products and of the inner loops; what each row costs once per component
beside them (an exponential, a comparison) is left out, and so are addresses. Bytes are those of the
blocks that programs read, most of which the caches serve.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastgmm.backends.launch import Launch
from fastgmm_kernels.gpu import TILE, UNROLL, blocks_of


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


def expect_product(
    n_padded: int, n_components: int, width: int, itemsize: int, launch: Launch
) -> Cost:
    """Per pair: 2 D' of the product, 2 to take each block of features off, 2 for the squares.

    A tile is read once where it stays in registers, else once for |z|^2 and with every block of
    components, as the means are. What is evaluated again by differences depends on the data.
    """
    whole = -(-n_components // UNROLL) * UNROLL
    block, size = blocks_of(whole, width, launch)
    n_blocks = -(-whole // block)
    pairs = n_padded * n_blocks * block
    rows = n_padded * width * (1 if size == width else 1 + n_blocks)
    means = n_padded // launch.rows * n_blocks * block * width
    return Cost(2 * pairs * width, 2 * pairs * (1 + width // size), itemsize * (rows + means))


def moments_full(n_rows: int, n_components: int, width: int, itemsize: int, launch: Launch) -> Cost:
    """Per component and pair of blocks: 2 b^2 per row; differences, their shares and sums, counts.

    The shares are read, and both blocks, which are one where there is no other.
    """
    size, n_blocks = _blocks(width, launch)
    n, read = -(-n_rows // TILE) * TILE, 1 if size == width else 2
    pairs = n * n_components * n_blocks
    return Cost(
        2 * pairs * size**2,
        pairs * ((2 + read) * size + 1),
        itemsize * pairs * (read * size + 1),
    )


def moments_product(
    n_rows: int, n_components: int, width: int, itemsize: int, launch: Launch
) -> Cost:
    """Per pair: 2 D' of the product; sums of shares beside it are left out.

    Rows are read per block of components, shares per block of features, sums of squares per tile.
    """
    whole = -(-n_components // UNROLL) * UNROLL
    block, size = blocks_of(whole, width, launch)
    n, padded = -(-n_rows // TILE) * TILE, -(-whole // block) * block
    n_features = width // size
    numbers = n * padded * n_features + n * padded // block * width
    numbers += n // TILE * padded * n_features
    return Cost(2 * n * padded * width, 0, itemsize * numbers)


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


def pull_full(n_rows: int, n_components: int, width: int, itemsize: int, launch: Launch) -> Cost:
    """Per component: 2 D'^2 per row; for each pair of blocks the difference and its share anew.

    Rows, points and the precision are read with every pair of blocks, shares with every column.
    """
    size = min(width & -width, launch.features)
    n_blocks, n_tiles = width // size, -(-n_rows // launch.rows)
    pairs = n_tiles * launch.rows * n_components
    numbers = pairs * n_blocks * (1 + width)
    numbers += n_tiles * n_components * width * (n_blocks + width)
    return Cost(2 * pairs * width**2, 2 * pairs * width * n_blocks, itemsize * numbers)


def pull_diag(
    n_rows: int, n_components: int, width: int, itemsize: int, launch: Launch, *, precisions: bool
) -> Cost:
    """Per pair and feature: difference, share, sum, and the precision where it is not 1."""
    size = min(width & -width, launch.features)
    n_tiles = -(-n_rows // launch.rows)
    n = n_tiles * launch.rows
    numbers = n * width + n * n_components * (width // size)
    numbers += n_tiles * n_components * width * (2 if precisions else 1)
    return Cost(0, (4 if precisions else 3) * n * n_components * width, itemsize * numbers)


def few_score(n_pairs: int, n_features: int, itemsize: int, *, full: bool) -> Cost:
    """Per (component, row) pair, over features padded to a power of two: difference and square.

    Triangles take D steps, each a product and a difference per feature and a line of the factor.
    """
    d, width = n_features, _power(n_features)
    factor = d * (width + 1) if full else width
    operations = n_pairs * width * (2 + 2 * d if full else 2)
    return Cost(0, operations, itemsize * n_pairs * (2 * width + factor + 1))


def few_backward(n_pairs: int, n_features: int, itemsize: int, *, full: bool) -> Cost:
    """The solve of :func:`few_score` and its transpose; per step and feature two operations more,
    for the gradient by the factor, which is read again."""
    d, width = n_features, _power(n_features)
    factor = d * (width + 1) if full else width
    operations = n_pairs * width * (3 + 6 * d if full else 5)
    return Cost(0, operations, itemsize * n_pairs * (2 * width + 2 * factor + 1))


def colour_rows(n_rows: int, n_features: int, itemsize: int, launch: Launch) -> Cost:
    """Per row: a product and a sum for each entry of the triangle, in whole blocks of columns."""
    size = min(_power(n_features), launch.features)
    ends = (min(start + size, n_features) for start in range(0, n_features, size))
    n = -(-n_rows // launch.rows) * launch.rows
    n_blocks, steps = -(-n_features // size), sum(ends)
    numbers = n * (n_blocks * size + steps * (1 + size))
    return Cost(0, 2 * n * steps * size, 8 * n * n_blocks + itemsize * numbers)


def _power(n: int) -> int:
    """The power of two from ``n`` on."""
    return 1 << (n - 1).bit_length()
