"""gmmx, on JAX."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from typing import Any

from .base import Device, Fitted, TensorAdapter


class Gmmx(TensorAdapter):
    name = "gmmx"
    package = "gmmx"
    tasks = frozenset({"score", "predict", "fit"})
    structures = frozenset({"full", "diag"})
    precisions = frozenset({"float32"})
    compiles_shapes = True
    memory_counted = False
    # passes of others have hung after XLA had run in the same process
    own_process = True
    note = (
        "in a process of its own; float32 products in full precision; a whole fit is one compiled"
        " program; on a GPU its memory comes from the driver and is not kept"
    )

    @classmethod
    def cannot(cls, task: str, structure: str, precision: str, device: Device = None) -> str | None:
        reason = super().cannot(task, structure, precision, device)
        on_gpu = getattr(device, "type", "cpu") == "cuda"
        # what JAX itself looks for; it is imported in a process of its own alone
        if reason is None and on_gpu and not entry_points(group="jax_plugins"):
            return "the installed JAX knows no GPU"
        return reason

    def prepare(self) -> None:
        # else JAX takes most of a GPU's memory at once and keeps it, and the others run short
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        import gmmx
        import jax

        self._jax, self._gmmx = jax, gmmx
        p = self.parameters
        means, covariances, weights = (
            self.rows(self.own(a)) for a in (p.means, p.covariances, p.weights)
        )
        self._start = gmmx.GaussianMixtureModelJax.from_squeezed(
            means, covariances, weights, p.structure
        )

    def rows(self, x: Any) -> Any:
        if isinstance(x, self._jax.Array):
            return x
        return self._jax.numpy.from_dlpack(super().rows(x))

    def score(self, x: Any) -> Any:
        return self._result(self._start.score_samples, x)

    def predict(self, x: Any) -> Any:
        return self._result(self._start.predict, x)

    def _result(self, call: Any, x: Any) -> Any:
        import torch

        with self._jax.default_matmul_precision("highest"):
            found = call(self.rows(x)).block_until_ready()
        return torch.from_dlpack(found).reshape(-1)

    def fit(self, x: Any, n_iter: int) -> Fitted:
        fitter = self._gmmx.EMFitter(max_iter=n_iter, tol=0.0, reg_covar=self.reg_covar)
        with self._jax.default_matmul_precision("highest"):
            result = fitter.fit(x=self.rows(x), gmm=self._start)
        found = result.gmm
        return self.fitted(
            found.weights_numpy,
            found.means_numpy,
            found.covariances.values_numpy,
            n_iter=int(result.n_iter),
        )
