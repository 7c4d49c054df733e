"""Start parameters: k-means, k-means++, random responsibilities, random rows, or given ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np

from fastgmm import covariance
from fastgmm.arrays import Array, like, to_numpy, working_dtype
from fastgmm.backends import Backend
from fastgmm.covariance import CovarianceStructure
from fastgmm.errors import DegenerateDataWarning
from fastgmm.jitter import mended, warn_restored
from fastgmm.kmeans import Assignment, kmeans, kmeans_plusplus
from fastgmm.kmeans_parallel import kmeans_parallel
from fastgmm.model import MixtureModel
from fastgmm.picks import new_key, random_rows, sample, uniforms
from fastgmm.sources import ArraySource, Chunk, Source
from fastgmm.statistics import SufficientStatistics, pairwise_sum

METHODS = ("kmeans", "k-means++", "random", "random_from_data", "k-means||")


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
    source: Source, structure: CovarianceStructure, about: Array, assignment: Assignment
) -> SufficientStatistics:
    """Statistics of all rows of a source under hard labels.

    Those of a tied structure have the second moments of the untied one, summed over components.
    """
    loose = structure
    if structure.tied:
        loose = covariance.get("full" if structure.family == "full" else "diag")
    statistics = source.total(
        lambda chunk: assignment.backend.accumulate_given(
            chunk.x, chunk.weight, loose, about, labels=assignment.labels(chunk)
        )
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
    n_components, key = len(about), new_key(random_state)
    batch = max(2_000_000 // n_components, 1)

    def part(chunk: Chunk, start: int) -> SufficientStatistics:
        x = chunk.x[start : start + batch]
        weight = None if chunk.weight is None else chunk.weight[start : start + batch]
        resp = uniforms(key, chunk.start + start, len(x), n_components)
        resp /= resp.sum(axis=1, keepdims=True)
        return backend.accumulate_given(x, weight, structure, about, resp=like(resp, x))

    return source.total(
        lambda chunk: pairwise_sum(part(chunk, s) for s in range(0, len(chunk.x), batch))
    )


def _centroids(
    source: Source,
    n_components: int,
    method: str,
    random_state: np.random.RandomState,
    backend: Backend,
) -> Array:
    """Rows to start from."""
    if method == "k-means||":
        return kmeans_parallel(source, n_components, random_state, backend)
    if method == "random_from_data":
        drawn = random_rows(source, n_components, random_state)
        alive = np.isfinite(drawn.keys)
        rows = drawn.rows[alive] if alive.any() else drawn.rows
        return backend.own(rows[np.resize(np.arange(len(rows)), n_components)])
    few = source
    if not (isinstance(few, ArraySource) and few.resident):
        few = sample(source, n_components, random_state, backend)
    return kmeans_plusplus(few, n_components, random_state, backend)


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
    method : {"kmeans", "k-means++", "random", "random_from_data", "k-means||"}
        "kmeans": clusters of Lloyd's algorithm; "k-means++", "k-means||" and "random_from_data":
        rows as means, with weights and covariances of the clusters around them; "random": random
        responsibilities. Where rows do not stay in memory "kmeans" and "k-means++" choose first
        centroids among a random sample of them; "k-means||" looks at all.
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
        found = statistics.means
    else:
        chosen = _centroids(source, n_components, method, random_state, backend)
        # All that share a fit begin at the same bits, whatever their processors make of them.
        centroids = own(source.agree(lambda: to_numpy(chosen)))
        assignment = Assignment(centroids, backend)
        if method == "kmeans":
            centroids, assignment = kmeans(source, centroids, backend, float(variance.mean()))
        statistics = _clustered(source, structure, centroids, assignment)
        found = statistics.means if method == "kmeans" else centroids
    weights = statistics.weights if weights is None else own(weights)
    means = found if means is None else own(means)
    if start.precisions is not None:
        given = (to_numpy(weights), to_numpy(means), start.precisions)
        return _with_precisions(*given, structure).map(own)
    covariances = structure.maximise(statistics, row_scatter, reg_covar)
    model = MixtureModel.factorised(weights, means, covariances, structure)
    dtype, context = working_dtype(source.dtype), "initialisation"
    advice = f"Increase reg_covar (now {reg_covar:g}) or reduce n_components."
    model, repaired = mended(model, reg_covar, dtype, statistics.counts, context, advice)
    if repaired:
        warn_restored(repaired, context, dtype, stacklevel=5)
        model = model.map(own)
    return model


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
