"""The readable truth: plain NumPy or torch in float64, every formula as it is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import logsumexp

from fastgmm.arrays import Array, cast, is_tensor, namespace, to_numpy, to_tensor, working_dtype
from fastgmm.backends.base import Backend, FeatureSummary, KMeansStep, settle_unreachable
from fastgmm.covariance import CovarianceStructure
from fastgmm.linalg import cross, symmetric
from fastgmm.model import MixtureModel
from fastgmm.statistics import SufficientStatistics


class ReferenceBackend(Backend):
    """Float64, one component at a time; it waits for the device where that reads better.

    Parameters
    ----------
    home : str or None
        The torch device of rows and parameters; None for NumPy arrays.
    """

    name = "reference"

    def __init__(self, home: str | None = None) -> None:
        self._home = home

    def rows(self, x: Array) -> Array:
        return cast(x, working_dtype(x.dtype))

    def own(self, x: Array) -> Array:
        x = to_numpy(x) if self._home is None else to_tensor(x, self._home)
        return cast(x, np.float64)

    def prepare(self, model: MixtureModel, dtype: Any) -> MixtureModel:
        return model

    def weighted_log_prob(self, prepared: MixtureModel, x: Array) -> Array:
        return _in_dtype_of(x, self._log_prob(prepared, x))

    def _log_prob(self, model: MixtureModel, x: Array) -> Array:
        x = cast(x, np.float64)
        constant = model.log_weights() + model.log_determinants()
        constant = constant - 0.5 * model.n_features * np.log(2 * np.pi)
        factors, family = model.precisions_cholesky, model.structure.family
        result = []
        for k, mean in enumerate(model.means):
            factor = factors if model.structure.tied else factors[k]
            with np.errstate(over="ignore"):
                difference = x - mean
                y = difference @ factor if family == "full" else difference * factor
                result.append(constant[k] - 0.5 * (y**2).sum(axis=1))
        return namespace(x).stack(result, axis=1)

    def score_samples(self, prepared: MixtureModel, x: Array) -> Array:
        return _in_dtype_of(x, _log_sum_exp(self._log_prob(prepared, x)))

    def predict(self, prepared: MixtureModel, x: Array) -> Array:
        log_prob = self._log_prob(prepared, x)
        labels = log_prob.argmax(axis=1)
        lost = namespace(x).isneginf(namespace(x).max(log_prob, axis=1))
        if lost.any():
            labels[lost] = settle_unreachable(prepared, x[lost])
        return labels

    def responsibilities(self, prepared: MixtureModel, x: Array, *, log: bool = False) -> Array:
        xp = namespace(x)
        log_prob = self._log_prob(prepared, x)
        top = xp.max(log_prob, axis=1, keepdims=True)
        lost = xp.isneginf(top[:, 0])
        # Less the largest first: their sum may be too large to hold the differences.
        log_resp = log_prob - xp.where(lost[:, None], 0.0, top)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_resp -= xp.log(xp.exp(log_resp).sum(axis=1, keepdims=True))
        if lost.any():
            log_resp[lost] = -np.inf
            log_resp[lost, settle_unreachable(prepared, x[lost])] = 0
        return _in_dtype_of(x, log_resp if log else xp.exp(log_resp))

    def accumulate(
        self,
        prepared: MixtureModel,
        x: Array,
        weight: Array | None,
        about: Array | None = None,
        order: Any = None,
    ) -> SufficientStatistics:
        norm = _log_sum_exp(self._log_prob(prepared, x))
        resp = self.responsibilities(prepared, cast(x, np.float64))
        about = prepared.means if about is None else about
        statistics = self.accumulate_given(x, weight, prepared.structure, about, resp=resp)
        v = _weights(x, weight)
        return replace(statistics, log_likelihood=v[v > 0] @ norm[v > 0])

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
        xp, x = namespace(x), cast(x, np.float64)
        v = _weights(x, weight)
        counts, first, second = [], [], []
        for k, point in enumerate(about):
            r = v * ((labels == k) if labels is not None else _required(resp)[:, k])
            difference = x - point
            counts.append(r.sum())
            first.append(cross(r, difference))
            if structure.moments == "full":
                second.append(symmetric(cross(r[:, None] * difference, difference)))
            elif structure.moments == "diag":
                second.append(cross(r, difference**2))
        total = xp.stack(second) if second else counts[0][None][:0]
        return SufficientStatistics(
            xp.stack(counts), xp.stack(first), total, about, 0.0, v.sum(), x.shape[0]
        )

    def summarise(self, x: Array) -> FeatureSummary:
        xp, x = namespace(x), cast(x, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            origin = x[0]
            mean = origin + (x - origin).mean(axis=0)
            variance = ((x - mean) ** 2).mean(axis=0)
        return FeatureSummary(x.shape[0], mean, variance, xp.min(x, axis=0), xp.max(x, axis=0))

    def kmeans_step(
        self, x: Array, weight: Array | None, centroids: Array, guess: Array | None = None
    ) -> KMeansStep:
        xp, x = namespace(x), cast(x, np.float64)
        v = _weights(x, weight)
        squared = xp.stack([((x - c) ** 2).sum(axis=1) for c in centroids], axis=1)
        labels = squared.argmin(axis=1)
        one_hot = _one_hot(labels, len(centroids)) * v[:, None]
        inertia = v @ xp.min(squared, axis=1)
        return KMeansStep(labels, one_hot.sum(axis=0), one_hot.T @ x, inertia)

    def closest(self, x: Array, point: Array, closest: Array | None) -> Array:
        squared = _in_dtype_of(x, ((cast(x, np.float64) - point) ** 2).sum(axis=1))
        if closest is None:
            return squared
        closest[:] = namespace(x).minimum(closest, squared)
        return closest

    def potentials(
        self, x: Array, weight: Array | None, candidates: Array, closest: Array
    ) -> Array:
        xp, v = namespace(x), _weights(x, weight)
        near = [xp.minimum(closest, self.closest(x, c, None)) for c in candidates]
        return xp.stack([v @ cast(distance, np.float64) for distance in near])[None]


def _in_dtype_of(x: Array, result: Array) -> Array:
    with np.errstate(over="ignore"):  # a row far from everything
        return cast(result, working_dtype(x.dtype))


def _weights(x: Array, weight: Array | None) -> Array:
    if weight is None:
        return namespace(x).ones_like(cast(x[:, 0], np.float64))
    return weight


def _log_sum_exp(log_prob: Array) -> Array:
    if is_tensor(log_prob):
        return log_prob.logsumexp(1)
    return logsumexp(log_prob, axis=1)


def _one_hot(labels: Array, n_components: int) -> Array:
    like = {"device": labels.device} if is_tensor(labels) else {}
    return labels[:, None] == namespace(labels).arange(n_components, **like)


def _required(resp: Array | None) -> Array:
    if resp is None:
        raise TypeError("either labels or responsibilities must be given")
    return resp
