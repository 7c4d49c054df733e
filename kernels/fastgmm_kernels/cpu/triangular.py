"""Factors of the precisions from covariances: what an M-step ends with, and a library's threads
would disturb the next pass with.

Lines are taken four at a time, of the lower factor L (Sigma = L L') and of the upper U = L^-T.
Both solve  X_ij L_jj' = A_ij - sum_t X_it L_jt'  for blocks of four by four: L itself with A the
covariance, U with A the identity.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import driver, embedded, kernel
from .products import add_products
from .simd import at, lanes
from .tile import block_range, row_stride, scratch


@embedded
def _remainder(x, i, lower, j, start, block):
    """block = minus the sum over columns from ``start`` to j of the products of four by four."""
    for place in range(16):
        block[place] = 0
    add_products(x, i, lower, j, start, j, block, 0, 4)
    for place in range(16):
        block[place] = -block[place]


@embedded
def _solve(block, lower, j, inverse, x, i):
    """Four by four of x at (i, j): block L_jj^-T."""
    for p in range(4):
        v0 = block[4 * p] * inverse[j]
        v1 = (block[4 * p + 1] - v0 * at(lower, j + 1, j)) * inverse[j + 1]
        v2 = block[4 * p + 2] - v0 * at(lower, j + 2, j) - v1 * at(lower, j + 2, j + 1)
        v2 *= inverse[j + 2]
        v3 = block[4 * p + 3] - v0 * at(lower, j + 3, j) - v1 * at(lower, j + 3, j + 1)
        v3 = (v3 - v2 * at(lower, j + 3, j + 2)) * inverse[j + 3]
        x[i + p, j], x[i + p, j + 1], x[i + p, j + 2], x[i + p, j + 3] = v0, v1, v2, v3


@embedded
def _factorise_four(block, lower, j, inverse):
    """The block on the diagonal of L; whether it is that of a positive definite matrix."""
    for q in range(4):
        pivot = block[5 * q]
        for r in range(q):
            pivot -= lower[j + q, j + r] ** 2
        if not 0 < pivot < np.inf:
            return False
        inverse[j + q] = 1 / np.sqrt(pivot)
        lower[j + q, j + q] = pivot * inverse[j + q]
        for p in range(q + 1, 4):
            value = block[4 * p + q]
            for r in range(q):
                value -= lower[j + p, j + r] * lower[j + q, j + r]
            lower[j + p, j + q] = value * inverse[j + q]
    return True


@kernel
def _factorise(covariances, k, lower, inverse, block):
    """L and the inverse of its diagonal; whether there is one."""
    n = covariances.shape[1]
    for i in range(0, lower.shape[0], 4):
        for j in range(0, i + 1, 4):
            _remainder(lower, i, lower, j, 0, block)
            for p in range(4):
                for q in range(4):
                    if i + p < n and j + q < n:
                        block[4 * p + q] += covariances[k, i + p, j + q]
                    elif i + p == j + q:
                        block[4 * p + q] += 1
            if j < i:
                _solve(block, lower, j, inverse, lower, i)
            elif not _factorise_four(block, lower, j, inverse):
                return False
    return True


@kernel
def _invert(lower, inverse, upper, block):
    """U = L^-T, lines of four from the diagonal on."""
    for i in range(0, lower.shape[0], 4):
        for j in range(i, lower.shape[0], 4):
            _remainder(upper, i, lower, j, i // lanes(upper) * lanes(upper), block)
            if j == i:
                for p in range(4):
                    block[5 * p] += 1
            _solve(block, lower, j, inverse, upper, i)


@driver
def inverse_cholesky(covariances, n_blocks, factors):
    """U_k (K, D, D), upper triangular with U_k U_k' the inverse of covariance k, all float64.

    Of the covariances (K, D, D) the lower triangles are read. Where one is not positive definite or
    not finite, its factor is NaN. Threads share ``n_blocks`` blocks of components.
    """
    n_components, n_features = covariances.shape[:2]
    for b in prange(n_blocks):
        padded = (n_features + 3) // 4 * 4
        columns = row_stride((n_features + 7) // 8 * 8, 8)
        lower, upper = scratch(padded, columns, factors), scratch(padded, columns, factors)
        inverse, block = np.empty(padded), np.empty(16)
        start, stop = block_range(b, n_blocks, n_components)
        for k in range(start, stop):
            # Columns that are not there yet are read with those that are, and must be 0.
            lower[:] = 0
            upper[:] = 0
            found = _factorise(covariances, k, lower, inverse, block)
            if found:
                _invert(lower, inverse, upper, block)
            for i in range(n_features):
                for j in range(n_features):
                    factors[k, i, j] = upper[i, j] if found else np.nan
