"""One variance per component."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastgmm.arrays import Array, namespace
from fastgmm.covariance.diag import Variances

if TYPE_CHECKING:
    from fastgmm.statistics import SufficientStatistics


class Spherical(Variances):
    """sigma_k^2 is the mean over features of the variances of the diagonal structure."""

    name = "spherical"
    family = "spherical"
    moments = "diag"

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        return (n_components,)

    def n_parameters(self, n_components: int, n_features: int) -> int:
        return n_components

    def maximise(
        self, statistics: SufficientStatistics, scatter: Array | None, reg_covar: float
    ) -> Array:
        return (statistics.mean_second - statistics.shift**2).mean(axis=1) + reg_covar

    def log_determinants(self, precisions_cholesky: Array, n_features: int) -> Array:
        return n_features * namespace(precisions_cholesky).log(precisions_cholesky)

    def covariance_matrix(self, covariances: Array, component: int, n_features: int) -> Array:
        return covariances[component] * np.eye(n_features)

    def colour(self, covariances: Array, component: int, noise: Array) -> Array:
        return noise * np.sqrt(covariances[component])

    def spread(self, variances: Array, n_components: int) -> Array:
        return np.full(n_components, variances.mean())

    def replace(self, covariances: Array, mask: Array, other: Array) -> Array:
        return namespace(mask).where(mask, other, covariances)
