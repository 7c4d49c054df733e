"""One covariance matrix per component."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lapack

from fastgmm.covariance.base import Array, CovarianceStructure

if TYPE_CHECKING:
    from fastgmm.statistics import SufficientStatistics


def inverse_factor(covariances: Array) -> Array:
    """U = L^-T for a stack of covariances L L'."""
    lower = np.linalg.cholesky(covariances)
    upper = np.zeros_like(lower)
    for k, factor in enumerate(lower):
        upper[k] = lapack.dtrtri(factor, lower=1)[0].T
    return upper


def factor_precision(precisions: Array) -> Array:
    """Upper triangular U with U U' = precision.

    Reversing rows and columns turns the wanted upper factor into an ordinary lower one.
    """
    return np.ascontiguousarray(np.linalg.cholesky(precisions[:, ::-1, ::-1])[:, ::-1, ::-1])


def symmetric(matrices: Array) -> Array:
    """The symmetric part of a stack: rounding must not show on one side only."""
    return (matrices + np.swapaxes(matrices, -1, -2)) / 2


def product(upper: Array) -> Array:
    """U U' for a stack of factors."""
    return symmetric(upper @ np.swapaxes(upper, -1, -2))


def invert_factor(upper: Array) -> Array:
    """Covariances U^-T U^-1 for a stack of factors of precisions."""
    inverse = np.zeros_like(upper)
    for k, factor in enumerate(upper):
        inverse[k] = lapack.dtrtri(factor, lower=0)[0]
    return symmetric(np.swapaxes(inverse, -1, -2) @ inverse)


class Full(CovarianceStructure):
    """Sigma_k = S_k / n_k - d_k d_k', with moments about the current means and d_k their change."""

    name = "full"
    family = "full"
    moments = "full"

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        return (n_components, n_features, n_features)

    def n_parameters(self, n_components: int, n_features: int) -> int:
        return n_components * n_features * (n_features + 1) // 2

    def maximise(
        self, statistics: SufficientStatistics, scatter: Array | None, reg_covar: float
    ) -> Array:
        second, shift = statistics.mean_second(), statistics.shift()
        covariances = second - shift[:, :, None] * shift[:, None, :]
        diagonal = np.einsum("kii->ki", covariances)
        diagonal += reg_covar
        return symmetric(covariances)

    def precisions_cholesky(self, covariances: Array) -> Array:
        return inverse_factor(covariances)

    def factor_precisions(self, precisions: Array) -> Array:
        return factor_precision(precisions)

    def precisions(self, precisions_cholesky: Array) -> Array:
        return product(precisions_cholesky)

    def covariances(self, precisions_cholesky: Array) -> Array:
        return invert_factor(precisions_cholesky)

    def log_determinants(self, precisions_cholesky: Array, n_features: int) -> Array:
        return np.log(np.einsum("kii->ki", precisions_cholesky)).sum(axis=1)

    def covariance_matrix(self, covariances: Array, component: int, n_features: int) -> Array:
        return covariances[component]

    def colour(self, covariances: Array, component: int, noise: Array) -> Array:
        return noise @ np.linalg.cholesky(covariances[component]).T

    def spread(self, variances: Array, n_components: int) -> Array:
        return np.repeat(np.diag(variances)[None], n_components, axis=0)

    def replace(self, covariances: Array, mask: Array, other: Array) -> Array:
        return np.where(mask[:, None, None], other, covariances)
