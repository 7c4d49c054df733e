"""One variance per component and feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastgmm.arrays import Array, namespace
from fastgmm.covariance.base import CovarianceStructure

if TYPE_CHECKING:
    from fastgmm.statistics import SufficientStatistics


class Variances(CovarianceStructure):
    """What structures without covariances between features have in common."""

    def precisions_cholesky(self, covariances: Array) -> Array:
        xp = namespace(covariances)
        usable = (covariances > 0) & xp.isfinite(covariances)
        return 1.0 / xp.sqrt(xp.where(usable, covariances, xp.nan))

    def factor_precisions(self, precisions: Array) -> Array:
        return namespace(precisions).sqrt(precisions)

    def precisions(self, precisions_cholesky: Array) -> Array:
        return precisions_cholesky**2

    def covariances(self, precisions_cholesky: Array) -> Array:
        return precisions_cholesky**-2.0


class Diag(Variances):
    """sigma_kd^2 = s_kd / n_k - d_kd^2: moments about the current means, d_k their change."""

    name = "diag"
    family = "diag"
    moments = "diag"

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        return (n_components, n_features)

    def n_parameters(self, n_components: int, n_features: int) -> int:
        return n_components * n_features

    def maximise(
        self, statistics: SufficientStatistics, scatter: Array | None, reg_covar: float
    ) -> Array:
        return statistics.mean_second - statistics.shift**2 + reg_covar

    def log_determinants(self, precisions_cholesky: Array, n_features: int) -> Array:
        return namespace(precisions_cholesky).log(precisions_cholesky).sum(axis=1)

    def covariance_matrix(self, covariances: Array, component: int, n_features: int) -> Array:
        return np.diag(covariances[component])

    def colour(self, covariances: Array, component: int, noise: Array) -> Array:
        return noise * np.sqrt(covariances[component])

    def spread(self, variances: Array, n_components: int) -> Array:
        return np.repeat(variances[None], n_components, axis=0)

    def replace(self, covariances: Array, mask: Array, other: Array) -> Array:
        return namespace(mask).where(mask[:, None], other, covariances)
