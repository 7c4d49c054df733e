"""Mixtures of torch.distributions and of zuko."""

from __future__ import annotations

import importlib
from typing import Any

from .base import TensorAdapter


class TorchDistributions(TensorAdapter):
    name = "torch.distributions"
    package = "torch"
    tasks = frozenset({"score"})
    structures = frozenset({"full", "tied", "diag", "spherical"})
    note = "MixtureSameFamily: scores alone; by chunks of rows, for it forms (n, K, D) arrays"

    def prepare(self) -> None:
        from torch import distributions, linalg

        p = self.parameters
        means, covariances = self.own(p.means), self.own(p.covariances)
        components: Any
        if p.structure in ("full", "tied"):
            lower = linalg.cholesky(covariances)
            components = distributions.MultivariateNormal(
                means, scale_tril=lower, validate_args=False
            )
        else:
            deviations = covariances.sqrt()
            if p.structure == "spherical":
                deviations = deviations[:, None]
            normal = distributions.Normal(means, deviations, validate_args=False)
            components = distributions.Independent(normal, 1, validate_args=False)
        self._mixture = self._mix(components, self.own(p.weights))

    def _mix(self, components: Any, weights: Any) -> Any:
        from torch import distributions

        categories = distributions.Categorical(weights, validate_args=False)
        return distributions.MixtureSameFamily(categories, components, validate_args=False)

    def score(self, x: Any) -> Any:
        import torch

        p = self.parameters
        chunks = self.chunks(self.rows(x), p.n_components * p.n_features)
        return torch.cat([self._mixture.log_prob(rows) for rows in chunks])


class Zuko(TorchDistributions):
    name = "zuko"
    package = "zuko"
    note = "distributions.Mixture of torch's components: scores alone; fits by gradient, not by EM"

    def _mix(self, components: Any, weights: Any) -> Any:
        return importlib.import_module("zuko.distributions").Mixture(components, weights.log())
