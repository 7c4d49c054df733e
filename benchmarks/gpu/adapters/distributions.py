"""torch.distributions: MixtureSameFamily of Gaussians."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributions

from ...workloads import Parameters
from .base import Tensor, TensorAdapter


class TorchDistributions(TensorAdapter):
    name = "torch.distributions"
    package = "torch"
    tasks = frozenset({"score"})
    structures = frozenset({"full", "tied", "diag", "spherical"})
    note = "scores alone; by chunks of rows, for it forms (n, K, D) arrays"

    def __init__(
        self,
        parameters: Parameters,
        precision: str,
        device: torch.device,
        mode: str = "highest",
        reg_covar: float = 0.0,
    ) -> None:
        super().__init__(parameters, precision, device, mode, reg_covar)
        p = parameters
        means, covariances = self.tensor(p.means), self.tensor(p.covariances)
        components: Any
        if p.structure in ("full", "tied"):
            lower = torch.linalg.cholesky(covariances)
            components = distributions.MultivariateNormal(
                means, scale_tril=lower, validate_args=False
            )
        else:
            deviations = covariances.sqrt()
            if p.structure == "spherical":
                deviations = deviations[:, None]
            normal = distributions.Normal(means, deviations, validate_args=False)
            components = distributions.Independent(normal, 1, validate_args=False)
        weights = distributions.Categorical(self.tensor(p.weights), validate_args=False)
        self._mixture = distributions.MixtureSameFamily(weights, components, validate_args=False)

    def score(self, x: Tensor) -> Tensor:
        p = self.parameters
        chunks = self.chunks(x, p.n_components * p.n_features)
        return torch.cat([self._mixture.log_prob(rows) for rows in chunks])
