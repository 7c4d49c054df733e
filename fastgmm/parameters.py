"""Checks of parameters that users give: weights, means, precisions, covariances."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgmm.arrays import is_tensor, to_numpy
from fastgmm.covariance import CovarianceStructure
from fastgmm.errors import InputError, SingularCovarianceError
from fastgmm.linalg import cholesky
from fastgmm.sources.items import floating, readable

# Differences of mirrored entries, relative to the roots of their variances, that count as rounding.
_ASYMMETRY = 1e-5


def _array(value: Any, name: str) -> np.ndarray:
    value = to_numpy(value) if is_tensor(value) else readable(value, f"The parameter '{name}'")
    array = floating(np.asarray(value), f"The parameter '{name}'")
    if not np.all(np.isfinite(array)):
        place = np.argwhere(~np.isfinite(np.atleast_1d(array)))[0]
        raise InputError(
            f"The parameter '{name}' must be finite; it contains NaN or infinity, first at "
            f"component {place[0]} (index {tuple(place.tolist())})."
        )
    return array


def _shape(array: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    if array.shape != shape:
        raise InputError(
            f"The parameter '{name}' should have the shape of {shape}, but got {array.shape}"
        )


def check_weights(weights: Any, n_components: int) -> np.ndarray:
    """Weights (K,) in [0, 1] with sum 1."""
    weights = _array(weights, "weights")
    _shape(weights, (n_components,), "weights")
    if weights.min() < 0 or weights.max() > 1:
        # Which is called minimum and which maximum is scikit-learn's text.
        raise InputError(
            "The parameter 'weights' should be in the range [0, 1], but got max value "
            f"{weights.min():.5f}, min value {weights.max():.5f}"
        )
    tolerance = 1e-6 if weights.dtype == np.float32 else 1e-8
    if abs(1.0 - float(weights.sum(dtype=np.float64))) > tolerance:
        raise InputError(
            "The parameter 'weights' should be normalized, but got sum(weights) = "
            f"{weights.sum():.5f} (off by {float(weights.sum(dtype=np.float64)) - 1:.1e})"
        )
    return weights


def exact_weights(weights: Any, n_components: int) -> np.ndarray:
    """Checked weights (K,) in float64, where the sum of those in float32 would be off by more."""
    weights = check_weights(weights, n_components)
    exact = weights.astype(np.float64)
    return exact / exact.sum() if weights.dtype == np.float32 else exact


def check_means(means: Any, n_components: int, n_features: int) -> np.ndarray:
    """Means (K, D)."""
    means = _array(means, "means")
    _shape(means, (n_components, n_features), "means")
    return means


def check_matrices(
    value: Any,
    structure: CovarianceStructure,
    n_components: int,
    n_features: int,
    kind: str = "precision",
) -> np.ndarray:
    """Precisions or covariances of the structure's shape, symmetric and positive definite.

    Those that rounding has left a little asymmetric are made symmetric.
    """
    name = f"{structure.name} {kind}"
    array = _array(value, name)
    _shape(array, structure.shape(n_components, n_features), name)
    if structure.family != "full":
        if np.any(array <= 0):
            raise SingularCovarianceError(f"'{name}' should be positive{_first(array <= 0)}")
        return array
    stack = array if array.ndim == 3 else array[None]
    scale = np.sqrt(np.abs(np.einsum("kii->ki", stack)))
    other = np.swapaxes(stack, 1, 2)
    # Relative to the variances: what is small depends on the units.
    limit = _ASYMMETRY * scale[:, :, None] * scale[:, None, :]
    symmetric = (np.abs(stack - other) <= limit).all(axis=(1, 2))
    stack = stack / 2 + other / 2
    bad = ~symmetric | np.isnan(cholesky(stack.astype(np.float64))).any(axis=(1, 2))
    if bad.any():
        where = "" if structure.tied else _first(bad)
        raise SingularCovarianceError(f"'{name}' should be symmetric, positive-definite{where}")
    return stack.reshape(array.shape)


def check_factors(
    value: Any, structure: CovarianceStructure, n_components: int, n_features: int
) -> np.ndarray:
    """Cholesky factors of precisions: upper triangular with a positive diagonal, or positive."""
    name = f"{structure.name} precisions_cholesky"
    array = _array(value, name)
    _shape(array, structure.shape(n_components, n_features), name)
    if structure.family == "full":
        stack = array if array.ndim == 3 else array[None]
        if np.any(np.tril(stack, -1)):
            raise InputError(f"'{name}' should be upper triangular: precision = U U'.")
        bad = (np.einsum("kii->ki", stack) <= 0).any(axis=1)
    else:
        bad = array <= 0
    if np.any(bad):
        raise SingularCovarianceError(
            f"'{name}' should have a positive diagonal{'' if structure.tied else _first(bad)}"
        )
    return array


def _first(bad: np.ndarray) -> str:
    """Name the first component that is bad."""
    rows = np.atleast_1d(bad).reshape(len(np.atleast_1d(bad)), -1).any(axis=1)
    return f" (component {int(rows.argmax())})"
