"""fastgmm on the CPU, through its public estimator."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..workloads import Array, Parameters
from .base import Adapter, Fitted


class FastGMM(Adapter):
    name = "fastgmm"
    package = "fastgmm"
    tasks = frozenset({"score", "fit", "kmeans"})
    structures = frozenset({"full", "tied", "diag", "spherical"})
    note = "device='cpu'"

    @classmethod
    def version(cls) -> str | None:
        # A checkout that is on the path without being installed is as good.
        try:
            import fastgmm
        except ModuleNotFoundError:
            return None
        return getattr(fastgmm, "__version__", None)

    def __init__(
        self,
        parameters: Parameters,
        precision: str,
        reg_covar: float = 0.0,
        *,
        skip: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(parameters, precision, reg_covar)
        from fastgmm import GaussianMixture

        self._skip = skip
        p = parameters
        self._arguments: dict[str, Any] = {
            "n_components": p.n_components,
            "covariance_type": p.structure,
            "tol": 0.0,
            "reg_covar": reg_covar,
            "weights_init": p.weights.astype(precision),
            "means_init": p.means.astype(precision),
            "precisions_init": p.precisions.astype(precision),
            "device": "cpu",
            **settings,
        }
        self._class = GaussianMixture
        self._scorer = GaussianMixture.from_parameters(
            p.weights, p.means, p.covariances, covariance_type=p.structure, device="cpu"
        )

    def score(self, x: Array) -> Array:
        return np.asarray(self._scorer.score_samples(x))

    def predict(self, x: Array) -> Array:
        return np.asarray(self._scorer.predict(x))

    def fit(self, x: Array, n_iter: int) -> Fitted:
        from sklearn.exceptions import ConvergenceWarning

        if not self._skip:
            return self._fit_visiting_all(x, n_iter)
        with warnings.catch_warnings():
            # tol = 0 never converges, by intention
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = self._class(max_iter=n_iter, **self._arguments).fit(x)
        return Fitted(
            Parameters(self.parameters.structure, model.weights_, model.means_, model.covariances_),
            int(model.n_iter_),
        )

    def _fit_visiting_all(self, x: Array, n_iter: int) -> Fitted:
        """The same loop on a backend that leaves nothing out, which no argument asks for."""
        from fastgmm import covariance
        from fastgmm.backends.cpu import CPUBackend
        from fastgmm.em import fit
        from fastgmm.model import MixtureModel
        from fastgmm.sources import ArraySource

        p = self.parameters
        start = MixtureModel.from_covariances(
            p.weights, p.means, p.covariances, covariance.get(p.structure)
        )
        result = fit(
            ArraySource(x),
            start,
            tol=0.0,
            max_iter=n_iter,
            reg_covar=self.reg_covar,
            backend=CPUBackend(skip=False),
        )
        m = result.model
        return Fitted(Parameters(p.structure, m.weights, m.means, m.covariances), result.n_iter)

    def kmeans(self, x: Array, n_iter: int) -> Array:
        from fastgmm.backends import choose
        from fastgmm.kmeans import kmeans
        from fastgmm.sources import ArraySource

        backend, _ = choose("cpu")
        start = self.parameters.means
        # variance scales the tolerance only, which is 0
        centres, _ = kmeans(ArraySource(x), start, backend, 1.0, max_iter=n_iter, tol=0.0)
        return centres
