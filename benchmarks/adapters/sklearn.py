"""scikit-learn's GaussianMixture and KMeans, on arrays and on tensors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..workloads import Array
from .base import Adapter, Device, Fitted


class ScikitLearn(Adapter):
    name = "scikit-learn"
    package = "scikit-learn"
    tasks = frozenset({"score", "predict", "fit", "kmeans"})
    structures = frozenset({"full", "tied", "diag", "spherical"})
    extra_passes = 1
    note = (
        "a fit ends with one more E-step; float32 rows are computed in float32; tensors by"
        " array_api_dispatch"
    )

    @classmethod
    def cannot(cls, task: str, structure: str, precision: str, device: Device = None) -> str | None:
        if device is not None and task == "kmeans":
            return "scikit-learn's KMeans takes no tensors"
        # scipy reads it when it is first imported
        if device is not None and os.environ.get("SCIPY_ARRAY_API") != "1":
            return "scikit-learn takes tensors with SCIPY_ARRAY_API=1 in the environment alone"
        return super().cannot(task, structure, precision, device)

    def prepare(self) -> None:
        from sklearn.mixture import GaussianMixture

        p = self.parameters
        self._arguments: dict[str, Any] = {
            "n_components": p.n_components,
            "covariance_type": p.structure,
            "tol": 0.0,
            "reg_covar": self.reg_covar,
            "weights_init": self.own(p.weights),
            "means_init": self.own(p.means),
            "precisions_init": self.own(p.precisions),
        }
        if self.device is not None:
            # all of the start is given; k-means, the default, refuses tensors
            self._arguments["init_params"] = "random"
        self._class = GaussianMixture
        self._scorer = GaussianMixture(p.n_components, covariance_type=p.structure)
        self._scorer.weights_ = self.own(p.weights)
        self._scorer.means_ = self.own(p.means)
        self._scorer.covariances_ = self.own(p.covariances)
        self._scorer.precisions_cholesky_ = self.own(p.precisions_cholesky)

    def score(self, x: Any) -> Any:
        with self._settings():
            return self._scorer.score_samples(x)

    def predict(self, x: Any) -> Any:
        with self._settings():
            return self._scorer.predict(x)

    def fit(self, x: Any, n_iter: int) -> Fitted:
        with self._settings():
            model = self._class(max_iter=n_iter, **self._arguments).fit(x)
        return self.fitted(model.weights_, model.means_, model.covariances_, int(model.n_iter_))

    def kmeans(self, x: Array, n_iter: int) -> Array:
        from sklearn.cluster import KMeans

        start = self.own(self.parameters.means)
        model = KMeans(
            len(start), init=start, n_init=1, max_iter=n_iter, tol=0.0, algorithm="lloyd"
        )
        with self._settings():
            model.fit(x)
        if model.n_iter_ != n_iter:
            raise RuntimeError(f"no label changed after {model.n_iter_} of {n_iter} iterations")
        return np.asarray(model.cluster_centers_)

    @contextmanager
    def _settings(self) -> Iterator[None]:
        from sklearn import config_context
        from sklearn.exceptions import ConvergenceWarning

        dispatch = self.device is not None
        with warnings.catch_warnings(), config_context(array_api_dispatch=dispatch):
            # tol = 0 never converges, by intention
            warnings.simplefilter("ignore", ConvergenceWarning)
            yield
