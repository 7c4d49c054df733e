"""oneDAL's EM for Gaussian mixtures, through daal4py."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np

from ..workloads import Array
from .base import Adapter, Fitted

_STORAGE = {"full": "full", "diag": "diagonal"}
_FPTYPE = {"float32": "float", "float64": "double"}


class OneDAL(Adapter):
    name = "oneDAL"
    package = "scikit-learn-intelex"
    tasks = frozenset({"fit"})
    structures = frozenset(_STORAGE)
    on_devices = False
    note = "em_gmm: full and diagonal, no scoring; regularises ill-conditioned covariances alone"

    @classmethod
    def missing(cls) -> str | None:
        if importlib.util.find_spec("daal4py") is None:
            return "daal4py (in the package scikit-learn-intelex) is not installed"
        return None

    def prepare(self) -> None:
        p = self.parameters
        self._daal4py = importlib.import_module("daal4py")
        self._weights, self._means = self.own(p.weights[None]), self.own(p.means)
        covariances = self.own(p.covariances)
        if p.structure == "diag":
            covariances = covariances[:, None]  # it wants one (1, D) table per component
        self._covariances = list(covariances)

    def fit(self, x: Array, n_iter: int) -> Fitted:
        structure = self.parameters.structure
        algorithm = self._daal4py.em_gmm(
            nComponents=self.parameters.n_components,
            fptype=_FPTYPE[self.precision],
            maxIterations=n_iter,
            accuracyThreshold=0.0,
            regularizationFactor=self.reg_covar,
            covarianceStorage=_STORAGE[structure],
        )
        result = algorithm.compute(x, self._weights, self._means, self._covariances)
        covariances = np.stack([np.asarray(c) for c in result.covariances])
        if structure == "diag":
            covariances = covariances[:, 0]
        # A threshold of 0 still stops when the goal no longer changes, so the count is read back.
        count = int(result.nIterations[0, 0])
        return self.fitted(result.weights.ravel(), result.means, covariances, count)
