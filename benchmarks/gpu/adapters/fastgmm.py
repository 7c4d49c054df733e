"""fastgmm on tensors, through its public estimator."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from fastgmm.sources import ArraySource

from ...adapters import FastGMM as OnHost
from ...adapters import Fitted
from ...workloads import Array, Parameters
from ..rows import MODES
from .base import Tensor, TensorAdapter, to_host


class FastGMM(TensorAdapter):
    name = "fastgmm"
    package = "fastgmm"
    tasks = frozenset({"score", "fit", "kmeans"})
    structures = frozenset({"full", "tied", "diag", "spherical"})
    modes = MODES["float32"]
    #: the backend for tensors on the CPU: "cpu" for Numba, "interpreter" for Triton's
    host_backend = "cpu"

    @classmethod
    def version(cls) -> str | None:
        return OnHost.version()

    def __init__(
        self,
        parameters: Parameters,
        precision: str,
        device: torch.device,
        mode: str = "highest",
        reg_covar: float = 0.0,
    ) -> None:
        super().__init__(parameters, precision, device, mode, reg_covar)
        from fastgmm import GaussianMixture

        p = parameters
        self._where = "cuda" if device.type == "cuda" else self.host_backend
        settings: dict[str, Any] = {"device": self._where, "precision": mode}
        self._arguments: dict[str, Any] = {
            "n_components": p.n_components,
            "covariance_type": p.structure,
            "tol": 0.0,
            "reg_covar": reg_covar,
            "weights_init": p.weights,
            "means_init": p.means,
            "precisions_init": p.precisions,
            **settings,
        }
        self._class = GaussianMixture
        self._scorer = GaussianMixture.from_parameters(
            p.weights, p.means, p.covariances, covariance_type=p.structure, **settings
        )

    def score(self, x: Tensor) -> Tensor:
        return self._scorer.score_samples(x)

    def fit(self, x: Tensor, n_iter: int) -> Fitted:
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            # tol = 0 never converges, by intention
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = self._class(max_iter=n_iter, **self._arguments).fit(x)
        return self.fitted(model.weights_, model.means_, model.covariances_, int(model.n_iter_))

    def kmeans(self, x: Tensor, n_iter: int) -> Array:
        from fastgmm.backends import choose
        from fastgmm.kmeans import kmeans

        backend, _ = choose(self._where, str(x.device), self.mode)
        source = _CountedPasses(backend.rows(x))
        start = backend.own(self.parameters.means)
        # variance scales the tolerance only, which is 0
        centres, _ = kmeans(source, start, backend, 1.0, max_iter=n_iter, tol=0.0)
        if source.passes != n_iter:
            raise RuntimeError(f"no label changed after {source.passes} of {n_iter} iterations")
        return to_host(torch.as_tensor(centres))


class _CountedPasses(ArraySource):
    """Rows that know how often they were read: k-means ends where no label changes."""

    passes = 0

    def __iter__(self) -> Any:
        self.passes += 1
        return super().__iter__()
