"""scikit-learn's GaussianMixture and KMeans."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..workloads import Array, Parameters
from .base import Adapter, Fitted


class ScikitLearn(Adapter):
    name = "scikit-learn"
    package = "scikit-learn"
    tasks = frozenset({"score", "fit", "kmeans"})
    structures = frozenset({"full", "tied", "diag", "spherical"})
    extra_passes = 1
    note = "a fit ends with one more E-step; float32 rows are computed in float32"

    def __init__(self, parameters: Parameters, precision: str, reg_covar: float = 0.0) -> None:
        super().__init__(parameters, precision, reg_covar)
        from sklearn.mixture import GaussianMixture

        p = parameters
        self._arguments: dict[str, Any] = {
            "n_components": p.n_components,
            "covariance_type": p.structure,
            "tol": 0.0,
            "reg_covar": reg_covar,
            "weights_init": p.weights.astype(precision),
            "means_init": p.means.astype(precision),
            "precisions_init": p.precisions.astype(precision),
        }
        self._class = GaussianMixture
        self._scorer = GaussianMixture(p.n_components, covariance_type=p.structure)
        self._scorer.weights_ = p.weights.astype(precision)
        self._scorer.means_ = p.means.astype(precision)
        self._scorer.covariances_ = p.covariances.astype(precision)
        self._scorer.precisions_cholesky_ = p.precisions_cholesky.astype(precision)

    def score(self, x: Array) -> Array:
        return np.asarray(self._scorer.score_samples(x))

    def predict(self, x: Array) -> Array:
        return np.asarray(self._scorer.predict(x))

    def fit(self, x: Array, n_iter: int) -> Fitted:
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            # tol = 0 never converges, by intention
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = self._class(max_iter=n_iter, **self._arguments).fit(x)
        return Fitted(
            Parameters(self.parameters.structure, model.weights_, model.means_, model.covariances_),
            int(model.n_iter_),
        )

    def kmeans(self, x: Array, n_iter: int) -> Array:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        start = self.parameters.means.astype(self.precision)
        model = KMeans(
            len(start), init=start, n_init=1, max_iter=n_iter, tol=0.0, algorithm="lloyd"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return np.asarray(model.fit(x).cluster_centers_)
