"""Cholesky factors, and those of the inverses: what an M-step ends with.

Lines are taken four at a time, of the lower factor L (Sigma = L L') and below them of the upper
U = L^-T. For blocks of four by four both solve

    X_ij L_jj' = A_ij - sum_t X_it L_jt',

L itself with A the covariance, U with A the identity.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import driver, kernel
from .products import add_products
from .simd import at, lanes
from .tile import block_range, row_stride, scratch


@kernel
def _solve(block, lines, i, j, inverse):
    """Four by four of the lines at (i, j): block L_jj^-T."""
    l10 = at(lines, j + 1, j)
    l20, l21 = at(lines, j + 2, j), at(lines, j + 2, j + 1)
    l30, l31, l32 = at(lines, j + 3, j), at(lines, j + 3, j + 1), at(lines, j + 3, j + 2)
    for p in range(4):
        v0 = block[4 * p] * inverse[j]
        v1 = (block[4 * p + 1] - v0 * l10) * inverse[j + 1]
        v2 = (block[4 * p + 2] - v0 * l20 - v1 * l21) * inverse[j + 2]
        v3 = (block[4 * p + 3] - v0 * l30 - v1 * l31 - v2 * l32) * inverse[j + 3]
        lines[i + p, j], lines[i + p, j + 1] = v0, v1
        lines[i + p, j + 2], lines[i + p, j + 3] = v2, v3


@kernel
def _factorise_four(block, lines, j, inverse):
    """L_jj; whether it is that of a positive definite matrix."""
    for q in range(4):
        for p in range(q, 4):
            value = block[4 * p + q]
            for r in range(q):
                value -= lines[j + p, j + r] * lines[j + q, j + r]
            if p == q:
                if not 0 < value < np.inf:
                    return False
                inverse[j + q] = 1 / np.sqrt(value)
            lines[j + p, j + q] = value * inverse[j + q]
    return True


@kernel
def _factorise(matrices, k, lines, n_lines, inverse, block):
    """L and below it U, in lines that are zero before; whether there are any."""
    n, padded = matrices.shape[1], inverse.shape[0]
    for i in range(0, n_lines, 4):
        # Line 0 of U is line ``padded``; its first numbers are those on the diagonal.
        first = max(i - padded, 0)
        for j in range(first, min(i + 4, padded), 4):
            for place in range(16):
                block[place] = 0
            # What is not there yet is 0, and may be read with the rest of a vector.
            start = first // lanes(lines) * lanes(lines)
            add_products(lines, i, lines, j, start, j, block, 0, 4)
            for p in range(4):
                for q in range(4):
                    value = 1.0 if p == q and (i == j or i == j + padded) else 0.0
                    if i + p < n and j + q < n:
                        value = matrices[k, i + p, j + q]
                    block[4 * p + q] = value - block[4 * p + q]
            if i != j:
                _solve(block, lines, i, j, inverse)
            elif not _factorise_four(block, lines, j, inverse):
                return False
    return True


@driver
def cholesky(matrices, invert, n_blocks, factors):
    """L_k (K, D, D), lower triangular with L_k L_k' matrix k, all float64.

    With ``invert`` U_k = L_k^-T, upper triangular with U_k U_k' the inverse of matrix k. Of the
    matrices (K, D, D) the lower triangles are read. Where one is not positive definite or not
    finite, its factor is NaN. Threads share ``n_blocks`` blocks of matrices.
    """
    n_matrices, n = matrices.shape[:2]
    padded = (n + 3) // 4 * 4
    columns = row_stride((n + 7) // 8 * 8, 8)
    n_lines = 2 * padded if invert else padded
    first = padded if invert else 0
    for b in prange(n_blocks):
        lines = scratch(n_lines, columns, factors)
        inverse, block = np.empty(padded), np.empty(16)
        start, stop = block_range(b, n_blocks, n_matrices)
        for k in range(start, stop):
            for i in range(n_lines):
                for j in range(columns):
                    lines[i, j] = 0
            found = _factorise(matrices, k, lines, n_lines, inverse, block)
            for i in range(n):
                for j in range(n):
                    factors[k, i, j] = lines[first + i, j] if found else np.nan
