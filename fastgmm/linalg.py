"""Linear algebra for either kind of array: what array namespaces lack."""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

from fastgmm.arrays import Array, is_tensor, namespace
from fastgmm.threads import threads
from fastgmm_kernels import cpu as kernels

_ROWS = 128
# Stacks are cut into so many parts, whatever the number of threads.
_PARTS = 16
# Multiplications up to which no BLAS takes threads, which spin on beside the pass that follows.
_QUIET = 200_000


def contiguous(x: Array) -> Array:
    """``x`` in C order."""
    return x.contiguous() if is_tensor(x) else np.ascontiguousarray(x)


def diagonal(matrices: Array) -> Array:
    """The diagonals of a stack (..., D, D) as a view (..., D), to read and to write."""
    if is_tensor(matrices):
        return matrices.diagonal(dim1=-2, dim2=-1)
    return np.einsum("...ii->...i", matrices)


def symmetric(matrices: Array) -> Array:
    """The symmetric part of a stack: rounding must not show on one side only."""
    return (matrices + matrices.mT) / 2


def running_sum(x: Array) -> Array:
    """Running sums along the last axis, in the same order at every call."""
    if not is_tensor(x) or x.ndim > 1:
        return x.cumsum(-1)
    # On CUDA a single line is summed by blocks that race each other, several lines are not.
    return x.expand(2, len(x)).cumsum(-1)[0]


def cross(a: Array, b: Array) -> Array:
    """a' b for N rows (N, I) or (N,) and (N, J); rounding does not grow with N."""
    if not is_tensor(a):
        return a.T @ b
    if a.ndim == 1:
        return cross(a[:, None], b)[0]
    # A library may add all rows in turn to one number; sums over few rows add up in a tree.
    whole = len(a) - len(a) % _ROWS
    left, right = (rows[:whole].reshape(-1, _ROWS, rows.shape[1]) for rows in (a, b))
    return (left.mT @ right).sum(axis=0) + a[whole:].mT @ b[whole:]


def weighted_sum(weights: Array, rows: Array) -> Array:
    """sum_k w_k x_k of rows (K, D)."""
    return weights @ rows if is_tensor(rows) else np.einsum("k,kd->d", weights, rows)


def product(a: Array, b: Array) -> Array:
    """a b for two matrices, float64; what is large stays on our own threads."""
    if is_tensor(a) or (work := len(a) * b.size) < _QUIET:
        return a @ b
    out = np.empty((len(a), b.shape[1]))
    kernels.product(a, np.require(b, None, ["C", "A", "W"]), out, threads=threads(2.0 * work))
    return out


def cholesky(matrices: Array) -> Array:
    """Lower Cholesky factors of a stack (K, D, D); NaN where one is not positive definite."""
    if not is_tensor(matrices):
        return _factors(matrices, invert=False)
    xp = namespace(matrices)
    lower, info = xp.linalg.cholesky_ex(matrices)
    return xp.where((info == 0)[..., None, None], lower, xp.nan)


def _factors(matrices: np.ndarray, *, invert: bool) -> np.ndarray:
    """Cholesky factors L of a stack, or L^-T.

    Every M-step ends here: not with LAPACK, whose threads spin on beside the next pass.
    """
    n, d = matrices.shape[:2]
    factors = np.empty((n, d, d))
    # What four lines cost besides their products counts for small matrices.
    work = float(n) * d * d * (d + 100)
    kernels.cholesky(matrices, invert, min(n, _PARTS), factors, threads=threads(work))
    return factors


def inverse_transposed(factors: Array, *, lower: bool) -> Array:
    """A^-T for a stack of triangular matrices A (K, D, D), in C order."""
    if is_tensor(factors):
        xp = namespace(factors)
        eye = xp.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device)
        inverse = xp.linalg.solve_triangular(factors, eye.expand_as(factors), upper=not lower)
        return contiguous(inverse.mT)
    result = np.zeros_like(factors)
    for k, factor in enumerate(factors):
        # What LAPACK gives is in Fortran order: transposed it is copied line by line.
        result[k] = lapack.dtrtri(factor, lower=int(lower))[0].T
    return result


def inverse_cholesky(covariances: Array) -> Array:
    """U = L^-T for a stack of covariances L L'; NaN where one is not positive definite."""
    if is_tensor(covariances):
        return inverse_transposed(cholesky(covariances), lower=True)
    return _factors(covariances, invert=True)


def reversed_cholesky(precisions: Array) -> Array:
    """Upper triangular U with U U' = precision, for a stack; NaN where there is none.

    Reversing rows and columns turns the wanted upper factor into an ordinary lower one.
    """
    flip, axes = namespace(precisions).flip, (-2, -1)
    return contiguous(flip(cholesky(flip(precisions, axis=axes)), axis=axes))


def gram(upper: Array) -> Array:
    """U U' for a stack of factors."""
    return symmetric(upper @ upper.mT)


def inverse_gram(upper: Array) -> Array:
    """Covariances U^-T U^-1 for a stack of factors of precisions."""
    inverse = contiguous(inverse_transposed(upper, lower=False).mT)
    return symmetric(inverse.mT @ inverse)
