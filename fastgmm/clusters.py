"""Weights, means and covariances of clusters of rows, on the k-means kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastgmm import covariance
from fastgmm.backends import choose
from fastgmm.kmeans import kmeans, kmeans_plusplus
from fastgmm.sources import ArraySource

# The last two are one: zuko's name, and that of the estimator.
STRATEGIES = ("random", "kmeans", "kmeans++", "k-means++")


@dataclass(frozen=True, eq=False)
class Clusters:
    """What :func:`cluster` finds; float64, all positive (definite)."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    within: np.ndarray


def cluster(
    x: np.ndarray,
    n_components: int,
    strategy: str,
    iterations: int,
    random_state: np.random.RandomState,
) -> Clusters:
    """Cluster rows, and describe each cluster.

    Parameters
    ----------
    x : ndarray of shape (N, D)
        float32 or float64, finite, N > K.
    n_components : int
    strategy : {"random", "kmeans", "kmeans++", "k-means++"}
        Centres: random rows, rows far from each other, or these moved by Lloyd's algorithm.
    iterations : int
        Of Lloyd's algorithm.
    random_state : RandomState

    Returns
    -------
    clusters : Clusters
        weights (K,), means (K, D), covariances (K, D, D), and within (D, D), the covariance of
        rows about the mean of their cluster. A cluster of fewer than D + 1 rows has the last one
        too; an empty one keeps its centre, and counts as one row. A millionth of the mean variance
        is added to all diagonals.
    """
    backend, _ = choose("cpu")
    source = ArraySource(x)
    n_rows, n_features = x.shape
    variance = backend.summarise(x).variance
    if strategy == "random":
        centroids = source.take(random_state.choice(n_rows, n_components, replace=False))
    else:
        centroids = kmeans_plusplus(source, n_components, random_state, backend)
    if strategy == "kmeans":
        centroids, _ = kmeans(
            source, centroids, backend, float(variance.mean()), max_iter=iterations, tol=0.0
        )
    labels = backend.kmeans_step(x, None, centroids).labels
    full = covariance.get("full")
    statistics = backend.accumulate_given(x, None, full, centroids, labels=labels)
    counts, shift = statistics.counts, statistics.shift
    covariances = statistics.mean_second - shift[:, :, None] * shift[:, None, :]
    within = np.einsum("k,kij->ij", counts / n_rows, covariances)
    covariances = np.where((counts > n_features)[:, None, None], covariances, within)
    mean_variance = float(variance.mean())
    floor = 1e-6 * (mean_variance if mean_variance > 0 else 1.0) * np.eye(n_features)
    weights = np.maximum(counts, 1.0)
    return Clusters(weights / weights.sum(), statistics.means, covariances + floor, within + floor)
