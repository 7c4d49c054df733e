"""gmmx, on JAX."""

from __future__ import annotations

import os
from typing import Any

import torch

from ...adapters import Fitted
from ...workloads import Parameters
from .base import Tensor, TensorAdapter


class Gmmx(TensorAdapter):
    name = "gmmx"
    package = "gmmx"
    tasks = frozenset({"score", "fit"})
    structures = frozenset({"full", "diag"})
    precisions = frozenset({"float32"})
    compiles_lengths = True
    memory_counted = False
    note = (
        "float32 products in full precision; a whole fit is one compiled program; memory comes from"
        " the driver and is not kept"
    )

    @classmethod
    def absent(cls, device: torch.device) -> str | None:
        # else JAX takes most of the memory at once and keeps it, and the others run short
        os.environ.setdefault("XLA_PYTHON_CLIENT_ALLOCATOR", "platform")
        import jax

        if device.type == "cuda" and jax.default_backend() != "gpu":
            return "the installed JAX knows no GPU"
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
        import gmmx
        import jax

        self._jax, self._gmmx = jax, gmmx
        p = parameters
        means, covariances, weights = (
            self._array(self.tensor(a)) for a in (p.means, p.covariances, p.weights)
        )
        self._start = gmmx.GaussianMixtureModelJax.from_squeezed(
            means, covariances, weights, p.structure
        )

    def _array(self, tensor: Tensor) -> Any:
        return self._jax.numpy.from_dlpack(tensor)

    def score(self, x: Tensor) -> Tensor:
        with self._jax.default_matmul_precision("highest"):
            scores = self._start.score_samples(self._array(x)).block_until_ready()
        return torch.from_dlpack(scores).reshape(-1)

    def fit(self, x: Tensor, n_iter: int) -> Fitted:
        fitter = self._gmmx.EMFitter(max_iter=n_iter, tol=0.0, reg_covar=self.reg_covar)
        with self._jax.default_matmul_precision("highest"):
            result = fitter.fit(x=self._array(x), gmm=self._start)
        found = result.gmm
        arrays = (found.weights_numpy, found.means_numpy, found.covariances.values_numpy)
        return self.fitted(*(torch.tensor(a) for a in arrays), n_iter=int(result.n_iter))
