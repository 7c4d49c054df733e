"""The tied form of a structure: all components share one covariance.

The scatter of all rows splits into that within and that between components, and the sum does not
depend on the parameters. So a pass gives counts and means alone, and

    Sigma = (T - sum_k n_k (mu_k - c) (mu_k - c)') / n,

with T the scatter of the rows about c, computed once per fit. Statistics that bring second moments
summed over components (a start from labels, components very far apart) are taken at their word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastgmm.arrays import Array, namespace
from fastgmm.covariance.base import CovarianceStructure, Family
from fastgmm.covariance.diag import Variances
from fastgmm.linalg import (
    diagonal,
    gram,
    inverse_cholesky,
    inverse_gram,
    product,
    reversed_cholesky,
    symmetric,
    weighted_sum,
)

if TYPE_CHECKING:
    from fastgmm.statistics import SufficientStatistics


class Tied(CovarianceStructure):
    """One full covariance for all components."""

    name = "tied"
    family = "full"
    moments = "none"
    tied = True

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        return (n_features, n_features)

    def n_parameters(self, n_components: int, n_features: int) -> int:
        return n_features * (n_features + 1) // 2

    def maximise(
        self, statistics: SufficientStatistics, scatter: Array | None, reg_covar: float
    ) -> Array:
        if len(statistics.second):
            shares, shift = statistics.weights, statistics.shift
            within = statistics.second / statistics.counts.sum()
            within = within - product((shares[:, None] * shift).T, shift)
        else:
            scatter = _required(scatter)
            shares, offsets = statistics.offsets(scatter)
            within = scatter - product((shares[:, None] * offsets).T, offsets)
        variances = diagonal(within)
        variances += reg_covar
        return symmetric(within)

    def precisions_cholesky(self, covariances: Array) -> Array:
        return inverse_cholesky(covariances[None])[0]

    def factor_precisions(self, precisions: Array) -> Array:
        return reversed_cholesky(precisions[None])[0]

    def precisions(self, precisions_cholesky: Array) -> Array:
        return gram(precisions_cholesky)

    def covariances(self, precisions_cholesky: Array) -> Array:
        return inverse_gram(precisions_cholesky[None])[0]

    def log_determinants(self, precisions_cholesky: Array, n_features: int) -> Array:
        return namespace(precisions_cholesky).log(diagonal(precisions_cholesky)).sum()

    def covariance_matrix(self, covariances: Array, component: int, n_features: int) -> Array:
        return covariances

    def colour(self, covariances: Array, component: int, noise: Array) -> Array:
        return noise @ np.linalg.cholesky(covariances).T

    def spread(self, variances: Array, n_components: int) -> Array:
        return np.diag(variances)

    def replace(self, covariances: Array, mask: Array, other: Array) -> Array:
        return covariances


class TiedDiag(Variances):
    """One variance per feature, shared by all components."""

    name = "tied_diag"
    family: Family = "diag"
    moments = "none"
    tied = True

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        return (n_features,)

    def n_parameters(self, n_components: int, n_features: int) -> int:
        return n_features

    def maximise(
        self, statistics: SufficientStatistics, scatter: Array | None, reg_covar: float
    ) -> Array:
        if len(statistics.second):
            within = statistics.second / statistics.counts.sum()
            return within - weighted_sum(statistics.weights, statistics.shift**2) + reg_covar
        scatter = _required(scatter)
        shares, offsets = statistics.offsets(scatter)
        return scatter - weighted_sum(shares, offsets**2) + reg_covar

    def log_determinants(self, precisions_cholesky: Array, n_features: int) -> Array:
        return namespace(precisions_cholesky).log(precisions_cholesky).sum()

    def covariance_matrix(self, covariances: Array, component: int, n_features: int) -> Array:
        return np.diag(covariances)

    def colour(self, covariances: Array, component: int, noise: Array) -> Array:
        return noise * np.sqrt(covariances)

    def spread(self, variances: Array, n_components: int) -> Array:
        return variances.copy()

    def replace(self, covariances: Array, mask: Array, other: Array) -> Array:
        return covariances


class TiedSpherical(TiedDiag):
    """One variance for all components and features."""

    name = "tied_spherical"
    family = "spherical"

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        return ()

    def n_parameters(self, n_components: int, n_features: int) -> int:
        return 1

    def maximise(
        self, statistics: SufficientStatistics, scatter: Array | None, reg_covar: float
    ) -> Array:
        return super().maximise(statistics, scatter, reg_covar).mean()

    def log_determinants(self, precisions_cholesky: Array, n_features: int) -> Array:
        return n_features * namespace(precisions_cholesky).log(precisions_cholesky)

    def covariance_matrix(self, covariances: Array, component: int, n_features: int) -> Array:
        return covariances * np.eye(n_features)

    def spread(self, variances: Array, n_components: int) -> Array:
        return np.asarray(variances.mean())


def _required(scatter: Array | None) -> Array:
    if scatter is None:
        raise TypeError("a tied structure needs the scatter of the rows")
    return scatter
