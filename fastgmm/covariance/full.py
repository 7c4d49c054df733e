"""One covariance matrix per component."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastgmm.arrays import Array, namespace
from fastgmm.covariance.base import CovarianceStructure
from fastgmm.linalg import (
    diagonal,
    gram,
    inverse_cholesky,
    inverse_gram,
    reversed_cholesky,
)

if TYPE_CHECKING:
    from fastgmm.statistics import SufficientStatistics


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
        second, shift = statistics.mean_second, statistics.shift
        covariances = second - shift[:, :, None] * shift[:, None, :]
        variances = diagonal(covariances)
        variances += reg_covar
        return covariances

    def precisions_cholesky(self, covariances: Array) -> Array:
        return inverse_cholesky(covariances)

    def factor_precisions(self, precisions: Array) -> Array:
        return reversed_cholesky(precisions)

    def precisions(self, precisions_cholesky: Array) -> Array:
        return gram(precisions_cholesky)

    def covariances(self, precisions_cholesky: Array) -> Array:
        return inverse_gram(precisions_cholesky)

    def log_determinants(self, precisions_cholesky: Array, n_features: int) -> Array:
        return namespace(precisions_cholesky).log(diagonal(precisions_cholesky)).sum(axis=1)

    def covariance_matrix(self, covariances: Array, component: int, n_features: int) -> Array:
        return covariances[component]

    def colour(self, covariances: Array, component: int, noise: Array) -> Array:
        return noise @ np.linalg.cholesky(covariances[component]).T

    def spread(self, variances: Array, n_components: int) -> Array:
        return np.repeat(np.diag(variances)[None], n_components, axis=0)

    def replace(self, covariances: Array, mask: Array, other: Array) -> Array:
        return namespace(mask).where(mask[:, None, None], other, covariances)
