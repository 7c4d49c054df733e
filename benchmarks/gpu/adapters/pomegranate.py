"""pomegranate's GeneralMixtureModel of Normal components."""

from __future__ import annotations

import math
from typing import Any

import torch

from ...adapters import Fitted
from .base import Tensor, TensorAdapter

_NAMES = {"full": "full", "diag": "diag", "spherical": "sphere"}


class Pomegranate(TensorAdapter):
    name = "pomegranate"
    package = "pomegranate"
    tasks = frozenset({"score", "fit"})
    structures = frozenset(_NAMES)
    precisions = frozenset({"float32"})  # it casts the rows' weights
    note = "one object per component: kernels and waits are counted by K"

    def _model(self, n_iter: int = 1) -> Any:
        from pomegranate.distributions import Normal
        from pomegranate.gmm import GeneralMixtureModel

        p = self.parameters
        means, covariances = torch.tensor(p.means), torch.tensor(p.covariances)
        if p.structure == "spherical":
            # It wants the shape of the means, and sets all of a line to one number.
            covariances = covariances[:, None].expand(means.shape)
        components = [
            Normal(m.to(self.dtype), c.to(self.dtype).clone(), covariance_type=_NAMES[p.structure])
            for m, c in zip(means, covariances, strict=True)
        ]
        weights = torch.tensor(p.weights, dtype=self.dtype)
        # It stops where the improvement is below tol.
        model = GeneralMixtureModel(components, weights, max_iter=n_iter, tol=-math.inf)
        return model.to(self.device)

    def score(self, x: Tensor) -> Tensor:
        if not hasattr(self, "_scorer"):
            self._scorer = self._model()
        return self._scorer.log_probability(x)

    def fit(self, x: Tensor, n_iter: int) -> Fitted:
        model = self._model(n_iter).fit(x)
        components = model.distributions
        means = torch.stack([c.means for c in components])
        covariances = torch.stack([c.covs for c in components])
        if self.parameters.structure == "spherical":
            covariances = covariances[:, 0]
        return self.fitted(model.priors, means, covariances, n_iter)
