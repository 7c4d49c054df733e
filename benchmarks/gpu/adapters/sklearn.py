"""scikit-learn's GaussianMixture on torch tensors."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch

from ...adapters import Fitted
from ...workloads import Parameters
from .base import Tensor, TensorAdapter


class ScikitLearn(TensorAdapter):
    name = "scikit-learn"
    package = "scikit-learn"
    tasks = frozenset({"score", "fit"})
    structures = frozenset({"full", "tied", "diag", "spherical"})
    extra_passes = 1
    note = "array_api_dispatch; a fit ends with one more E-step; its KMeans takes no tensors"

    @classmethod
    def absent(cls, device: torch.device) -> str | None:
        # scipy reads it when it is first imported
        if os.environ.get("SCIPY_ARRAY_API") != "1":
            return "scikit-learn takes tensors with SCIPY_ARRAY_API=1 in the environment alone"
        return None

    def __init__(
        self,
        parameters: Parameters,
        precision: str,
        device: torch.device,
        mode: str = "highest",
        reg_covar: float = 0.0,
    ) -> None:
        super().__init__(parameters, precision, device, mode, reg_covar)
        from sklearn.mixture import GaussianMixture

        p = parameters
        self._arguments: dict[str, Any] = {
            "n_components": p.n_components,
            "covariance_type": p.structure,
            "tol": 0.0,
            "reg_covar": reg_covar,
            # all of the start is given; k-means, the default, refuses tensors
            "init_params": "random",
            "weights_init": self.tensor(p.weights),
            "means_init": self.tensor(p.means),
            "precisions_init": self.tensor(p.precisions),
        }
        self._class = GaussianMixture
        self._scorer = GaussianMixture(p.n_components, covariance_type=p.structure)
        self._scorer.weights_ = self.tensor(p.weights)
        self._scorer.means_ = self.tensor(p.means)
        self._scorer.covariances_ = self.tensor(p.covariances)
        self._scorer.precisions_cholesky_ = self.tensor(p.precisions_cholesky)

    def score(self, x: Tensor) -> Tensor:
        from sklearn import config_context

        with config_context(array_api_dispatch=True):
            return self._scorer.score_samples(x)

    def fit(self, x: Tensor, n_iter: int) -> Fitted:
        from sklearn import config_context
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings(), config_context(array_api_dispatch=True):
            # tol = 0 never converges, by intention
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = self._class(max_iter=n_iter, **self._arguments).fit(x)
        return self.fitted(model.weights_, model.means_, model.covariances_, int(model.n_iter_))
