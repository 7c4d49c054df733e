"""pomegranate's GeneralMixtureModel of Normal components."""

from __future__ import annotations

import math
from typing import Any

from .base import Fitted, TensorAdapter

_NAMES = {"full": "full", "diag": "diag", "spherical": "sphere"}


class Pomegranate(TensorAdapter):
    name = "pomegranate"
    package = "pomegranate"
    tasks = frozenset({"score", "predict", "fit"})
    structures = frozenset(_NAMES)
    precisions = frozenset({"float32"})  # it casts the rows' weights
    note = "one object per component: kernels and waits are counted by K"

    def prepare(self) -> None:
        self._scorer: Any = None

    def _model(self, n_iter: int = 1) -> Any:
        import torch
        from pomegranate.distributions import Normal
        from pomegranate.gmm import GeneralMixtureModel

        p = self.parameters
        dtype = getattr(torch, self.precision)
        means, covariances = torch.tensor(p.means), torch.tensor(p.covariances)
        if p.structure == "spherical":
            # It wants the shape of the means, and sets all of a line to one number.
            covariances = covariances[:, None].expand(means.shape)
        components = [
            Normal(m.to(dtype), c.to(dtype).clone(), covariance_type=_NAMES[p.structure])
            for m, c in zip(means, covariances, strict=True)
        ]
        weights = torch.tensor(p.weights, dtype=dtype)
        # It stops where the improvement is below tol.
        model = GeneralMixtureModel(components, weights, max_iter=n_iter, tol=-math.inf)
        return model.to(self.device)

    def _fixed(self) -> Any:
        if self._scorer is None:
            self._scorer = self._model()
        return self._scorer

    def score(self, x: Any) -> Any:
        return self._fixed().log_probability(self.rows(x))

    def predict(self, x: Any) -> Any:
        return self._fixed().predict(self.rows(x))

    def fit(self, x: Any, n_iter: int) -> Fitted:
        import torch

        model = self._model(n_iter).fit(self.rows(x))
        components = model.distributions
        means = torch.stack([c.means for c in components])
        covariances = torch.stack([c.covs for c in components])
        if self.parameters.structure == "spherical":
            covariances = covariances[:, 0]
        return self.fitted(model.priors, means, covariances, n_iter)
