"""The readable truth: plain NumPy in float64, every formula as it is written."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

from fastgmm.backends.base import Array, Backend, FeatureSummary, KMeansStep, settle_unreachable
from fastgmm.covariance import CovarianceStructure
from fastgmm.model import MixtureModel
from fastgmm.statistics import SufficientStatistics


class ReferenceBackend(Backend):
    """NumPy, float64, one component at a time."""

    name = "reference"

    def prepare(self, model: MixtureModel, dtype: Any) -> MixtureModel:
        return model

    def weighted_log_prob(self, prepared: MixtureModel, x: Array) -> Array:
        return self._log_prob(prepared, x).astype(x.dtype)

    def _log_prob(self, model: MixtureModel, x: Array) -> Array:
        x = x.astype(np.float64)
        constant = model.log_weights() + model.log_determinants()
        constant = constant - 0.5 * model.n_features * np.log(2 * np.pi)
        factors, family = model.precisions_cholesky, model.structure.family
        result = np.empty((x.shape[0], model.n_components))
        for k, mean in enumerate(model.means):
            factor = factors if model.structure.tied else factors[k]
            with np.errstate(over="ignore"):
                difference = x - mean
                y = difference @ factor if family == "full" else difference * factor
                result[:, k] = constant[k] - 0.5 * (y**2).sum(axis=1)
        return result

    def score_samples(self, prepared: MixtureModel, x: Array) -> Array:
        return logsumexp(self._log_prob(prepared, x), axis=1).astype(x.dtype)

    def predict(self, prepared: MixtureModel, x: Array) -> Array:
        log_prob = self._log_prob(prepared, x)
        labels = log_prob.argmax(axis=1)
        lost = np.isneginf(log_prob.max(axis=1))
        if lost.any():
            labels[lost] = settle_unreachable(prepared, x[lost])
        return labels

    def responsibilities(self, prepared: MixtureModel, x: Array, *, log: bool = False) -> Array:
        log_prob = self._log_prob(prepared, x)
        top = log_prob.max(axis=1, keepdims=True)
        lost = np.isneginf(top[:, 0])
        top[lost] = 0
        # Less the largest first: their sum may be too large to hold the differences.
        log_resp = log_prob - top
        with np.errstate(divide="ignore", invalid="ignore"):
            log_resp -= np.log(np.exp(log_resp).sum(axis=1, keepdims=True))
        if lost.any():
            log_resp[lost] = -np.inf
            log_resp[lost, settle_unreachable(prepared, x[lost])] = 0
        return (log_resp if log else np.exp(log_resp)).astype(x.dtype)

    def accumulate(
        self,
        prepared: MixtureModel,
        x: Array,
        weight: Array | None,
        about: Array | None = None,
        order: Any = None,
    ) -> SufficientStatistics:
        norm = logsumexp(self._log_prob(prepared, x), axis=1)
        resp = self.responsibilities(prepared, x.astype(np.float64))
        about = prepared.means if about is None else about
        statistics = self.accumulate_given(x, weight, prepared.structure, about, resp=resp)
        v = np.ones(x.shape[0]) if weight is None else weight
        log_likelihood = float(v[v > 0] @ norm[v > 0])
        return statistics + SufficientStatistics(
            np.zeros_like(statistics.counts),
            np.zeros_like(statistics.first),
            np.zeros_like(statistics.second),
            about,
            log_likelihood,
            0.0,
            0,
        )

    def accumulate_given(
        self,
        x: Array,
        weight: Array | None,
        structure: CovarianceStructure,
        about: Array,
        *,
        labels: Array | None = None,
        resp: Array | None = None,
    ) -> SufficientStatistics:
        x = x.astype(np.float64)
        n_components, n_features = about.shape
        v = np.ones(x.shape[0]) if weight is None else weight
        counts = np.empty(n_components)
        first = np.empty((n_components, n_features))
        shapes = {
            "full": (n_components, n_features, n_features),
            "diag": (n_components, n_features),
            "none": (0,),
        }
        second = np.empty(shapes[structure.moments])
        for k in range(n_components):
            r = v * ((labels == k) if labels is not None else _required(resp)[:, k])
            difference = x - about[k]
            counts[k] = r.sum()
            first[k] = r @ difference
            if structure.moments == "full":
                second[k] = (r[:, None] * difference).T @ difference
            elif structure.moments == "diag":
                second[k] = r @ difference**2
        return SufficientStatistics(counts, first, second, about, 0.0, float(v.sum()), x.shape[0])

    def summarise(self, x: Array) -> FeatureSummary:
        x = x.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            origin = x[0]
            mean = origin + (x - origin).mean(axis=0)
            variance = ((x - mean) ** 2).mean(axis=0)
        return FeatureSummary(x.shape[0], mean, variance, x.min(axis=0), x.max(axis=0))

    def kmeans_step(
        self, x: Array, weight: Array | None, centroids: Array, guess: Array | None = None
    ) -> KMeansStep:
        x = x.astype(np.float64)
        v = np.ones(x.shape[0]) if weight is None else weight
        squared = np.stack([((x - c) ** 2).sum(axis=1) for c in centroids], axis=1)
        labels = squared.argmin(axis=1)
        one_hot = (labels[:, None] == np.arange(len(centroids))) * v[:, None]
        inertia = float(v @ squared[np.arange(len(x)), labels])
        return KMeansStep(labels, one_hot.sum(axis=0), one_hot.T @ x, inertia)

    def closest(self, x: Array, point: Array, closest: Array | None) -> Array:
        squared = ((x.astype(np.float64) - point) ** 2).sum(axis=1).astype(x.dtype)
        return squared if closest is None else np.minimum(closest, squared, out=closest)

    def potentials(
        self, x: Array, weight: Array | None, candidates: Array, closest: Array
    ) -> Array:
        v = np.ones(x.shape[0]) if weight is None else weight
        return np.array([[v @ self.closest(x, c, closest.copy()) for c in candidates]])


def _required(resp: Array | None) -> Array:
    if resp is None:
        raise TypeError("either labels or responsibilities must be given")
    return resp
