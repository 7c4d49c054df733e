"""Start parameters: k-means, k-means++, random responsibilities, random rows, or given ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np

from fastgmm import covariance
from fastgmm.arrays import Array, like, to_numpy
from fastgmm.backends import Backend
from fastgmm.covariance import CovarianceStructure
from fastgmm.errors import DegenerateDataWarning
from fastgmm.kmeans import assign, kmeans, kmeans_plusplus
from fastgmm.model import MixtureModel
from fastgmm.sources import Chunk, Source
from fastgmm.statistics import SufficientStatistics, pairwise_sum

METHODS = ("kmeans", "k-means++", "random", "random_from_data")


@dataclass(frozen=True, eq=False)
class Start:
    """Given start parameters; what is None comes from the method.

    Parameters
    ----------
    weights : ndarray of shape (K,) or None
    means : ndarray of shape (K, D) or None
    precisions : ndarray of the structure's shape, or None
    """

    weights: np.ndarray | None = None
    means: np.ndarray | None = None
    precisions: np.ndarray | None = None

    def complete(self) -> bool:
        """Whether nothing is left to a method."""
        return not (self.weights is None or self.means is None or self.precisions is None)


def _clustered(
    source: Source,
    backend: Backend,
    structure: CovarianceStructure,
    about: Array,
    labels: Array,
) -> SufficientStatistics:
    """Statistics of all rows of a source under hard labels (N,).

    Those of a tied structure have the second moments of the untied one, summed over components.
    """
    loose = structure
    if structure.tied:
        loose = covariance.get("full" if structure.family == "full" else "diag")
    statistics = pairwise_sum(
        backend.accumulate_given(
            c.x, c.weight, loose, about, labels=labels[c.start : c.start + len(c.x)]
        )
        for c in source
    )
    if structure.tied:
        return replace(statistics, second=statistics.second.sum(axis=0))
    return statistics


def _random_statistics(
    source: Source,
    backend: Backend,
    structure: CovarianceStructure,
    about: Array,
    random_state: np.random.RandomState,
) -> SufficientStatistics:
    """Statistics under uniform random responsibilities, drawn in batches of bounded size."""
    n_components = len(about)
    batch = max(2_000_000 // n_components, 1)

    def part(chunk: Chunk, start: int) -> SufficientStatistics:
        x = chunk.x[start : start + batch]
        weight = None if chunk.weight is None else chunk.weight[start : start + batch]
        resp = random_state.uniform(size=(len(x), n_components))
        resp /= resp.sum(axis=1, keepdims=True)
        return backend.accumulate_given(x, weight, structure, about, resp=like(resp, x))

    return pairwise_sum(part(c, s) for c in source for s in range(0, len(c.x), batch))


def initial_model(
    source: Source,
    n_components: int,
    structure: CovarianceStructure,
    *,
    method: str,
    random_state: np.random.RandomState,
    backend: Backend,
    mean: np.ndarray,
    variance: np.ndarray,
    reg_covar: float,
    start: Start,
    row_scatter: Array | None = None,
) -> MixtureModel:
    """Start parameters for EM.

    Parameters
    ----------
    source : Source
    n_components : int
    structure : CovarianceStructure
    method : {"kmeans", "k-means++", "random", "random_from_data"}
        "kmeans": clusters of Lloyd's algorithm; "k-means++" and "random_from_data": rows as
        means, with weights and covariances of the clusters around them; "random": random
        responsibilities.
    random_state : RandomState
        The only source of randomness.
    backend : Backend
    mean, variance : ndarray of shape (D,)
        Of the rows.
    reg_covar : float
    start : Start
        Given parameters, which replace those of the method.
    row_scatter : array, optional
        For tied structures, which cannot start from random responsibilities without.

    Returns
    -------
    model : MixtureModel
        The backend's own.
    """
    own, means, weights = backend.own, start.means, start.weights
    if means is not None:
        means = _separate(means, variance, random_state)
    if start.complete() and means is not None and weights is not None:
        return _with_precisions(weights, means, start.precisions, structure).map(own)
    if method == "random":
        about = own(np.repeat(mean[None], n_components, axis=0))
        statistics = _random_statistics(source, backend, structure, about, random_state)
        found = statistics.means()
    else:
        if method == "random_from_data":
            centroids = own(source.take(_random_rows(source, n_components, random_state)))
        else:
            centroids = kmeans_plusplus(source, n_components, random_state, backend)
        if method == "kmeans":
            centroids, labels = kmeans(source, centroids, backend, float(variance.mean()))
        else:
            labels = assign(source, centroids, backend)
        statistics = _clustered(source, backend, structure, centroids, labels)
        found = statistics.means() if method == "kmeans" else centroids
    weights = statistics.weights() if weights is None else own(weights)
    means = found if means is None else own(means)
    if start.precisions is not None:
        given = (to_numpy(weights), to_numpy(means), start.precisions)
        return _with_precisions(*given, structure).map(own)
    covariances = structure.maximise(statistics, row_scatter, reg_covar)
    return MixtureModel.from_covariances(
        weights,
        means,
        covariances,
        structure,
        counts=statistics.counts,
        context="initialisation",
        advice=f"Increase reg_covar (now {reg_covar:g}) or reduce n_components.",
    )


def _random_rows(
    source: Source, n_components: int, random_state: np.random.RandomState
) -> np.ndarray:
    """Distinct row numbers, drawn by weight; rows of weight 0 only where there are no others."""
    if all(chunk.weight is None for chunk in source):
        return random_state.choice(source.n_rows, size=n_components, replace=False)
    weight = np.concatenate([to_numpy(c.weight) for c in source if c.weight is not None])
    alive = int((weight > 0).sum())
    share = weight / weight.sum()
    rows = random_state.choice(source.n_rows, size=min(n_components, alive), replace=False, p=share)
    return np.resize(rows, n_components)


def _with_precisions(
    weights: np.ndarray,
    means: np.ndarray,
    precisions: np.ndarray | None,
    structure: CovarianceStructure,
) -> MixtureModel:
    factors = structure.factor_precisions(np.asarray(precisions, np.float64))
    covariances = structure.covariances(factors)
    return MixtureModel(
        np.asarray(weights, np.float64),
        np.asarray(means, np.float64),
        covariances,
        factors,
        structure,
    )


def _separate(
    means: np.ndarray, variance: np.ndarray, random_state: np.random.RandomState
) -> np.ndarray:
    """Perturb means that are given twice: EM would never tell their components apart."""
    means = np.asarray(means, np.float64)
    _, first = np.unique(means, axis=0, return_index=True)
    repeated = np.setdiff1d(np.arange(len(means)), first)
    if len(repeated) == 0:
        return means
    warnings.warn(
        f"means_init: components {repeated.tolist()} repeat the mean of another component; "
        "they are moved by about a thousandth of the standard deviation of the data.",
        DegenerateDataWarning,
        stacklevel=2,
    )
    means = means.copy()
    noise = random_state.standard_normal((len(repeated), means.shape[1]))
    means[repeated] += 1e-3 * np.sqrt(variance) * noise
    return means
