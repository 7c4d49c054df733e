"""k-means and k-means++ on our kernels, over any source of rows."""

from __future__ import annotations

import numpy as np

from fastgmm.backends import Backend
from fastgmm.sources import Source

_MAX_ITER = 300
_TOL = 1e-4


def kmeans_plusplus(
    source: Source,
    n_clusters: int,
    random_state: np.random.RandomState,
    backend: Backend,
) -> np.ndarray:
    """Choose rows as centroids, far from each other, by greedy k-means++.

    Each next centroid is the best of 2 + log K rows drawn with probability proportional to weight
    times squared distance from the nearest centroid so far.

    Parameters
    ----------
    source : Source
    n_clusters : int
        At most the number of rows.
    random_state : RandomState
    backend : Backend

    Returns
    -------
    centroids : ndarray of shape (K, D)
        Float64. Rows repeat only where there are fewer than K distinct ones.

    Notes
    -----
    Arthur and Vassilvitskii (2007), k-means++: the advantages of careful seeding, section 5.
    """
    n_candidates = 2 + int(np.log(n_clusters))
    chunks = list(source)
    totals = np.array([float(len(c.x)) if c.weight is None else c.weight.sum() for c in chunks])
    first = _draw_weighted(chunks, totals, random_state)
    centroids = np.empty((n_clusters, source.n_features))
    centroids[0] = source.take(np.array([first]))[0]
    closest = [backend.closest(c.x, centroids[0], None) for c in chunks]
    parts = [
        backend.potentials(c.x, c.weight, centroids[:1], d)
        for c, d in zip(chunks, closest, strict=True)
    ]
    best = 0
    for k in range(1, n_clusters):
        # Partial sums over consecutive rows: only one part is searched for each draw.
        edges = np.cumsum([p[:, best].sum() for p in parts])
        if not edges[-1] > 0:  # every row is a centroid already
            centroids[k:] = np.resize(centroids[:k], (n_clusters - k, source.n_features))
            break
        draws = random_state.uniform(size=n_candidates) * edges[-1]
        rows = np.empty(n_candidates, np.int64)
        for i, draw in enumerate(draws):
            j = min(int(np.searchsorted(edges, draw, side="right")), len(chunks) - 1)
            rest = draw - (edges[j - 1] if j else 0.0)
            chunk = chunks[j]
            rows[i] = chunk.start + _draw(parts[j][:, best], rest, closest[j], chunk.weight)
        candidates = source.take(rows)
        parts = [
            backend.potentials(c.x, c.weight, candidates, d)
            for c, d in zip(chunks, closest, strict=True)
        ]
        best = int(np.argmin(np.sum([p.sum(axis=0) for p in parts], axis=0)))
        centroids[k] = candidates[best]
        for chunk, distance in zip(chunks, closest, strict=True):
            backend.closest(chunk.x, centroids[k], distance)
    return centroids


def _draw_weighted(chunks: list, totals: np.ndarray, random_state: np.random.RandomState) -> int:
    """A row with probability proportional to its weight."""
    edges = np.cumsum(totals)
    draw = random_state.uniform() * edges[-1]
    j = min(int(np.searchsorted(edges, draw, side="right")), len(chunks) - 1)
    rest = draw - (edges[j - 1] if j else 0.0)
    chunk = chunks[j]
    if chunk.weight is None:
        return chunk.start + min(int(rest), len(chunk.x) - 1)
    return chunk.start + _search(np.cumsum(chunk.weight), rest)


def _draw(parts: np.ndarray, rest: float, closest: np.ndarray, weight: np.ndarray | None) -> int:
    """The row at which the running sum of weighted distances passes ``rest``."""
    edges = np.cumsum(parts)
    part = min(int(np.searchsorted(edges, rest, side="right")), len(parts) - 1)
    bounds = np.arange(len(parts) + 1) * len(closest) // len(parts)
    rows = slice(bounds[part], bounds[part + 1])
    mass = closest[rows].astype(np.float64)
    if weight is not None:
        mass *= weight[rows]
    return int(bounds[part]) + _search(np.cumsum(mass), rest - (edges[part - 1] if part else 0.0))


def _search(cumulative: np.ndarray, value: float) -> int:
    """First index whose running sum exceeds ``value``; the last that adds anything at the end."""
    index = int(np.searchsorted(cumulative, value, side="right"))
    return min(index, int(np.searchsorted(cumulative, cumulative[-1], side="left")))


def assign(source: Source, centroids: np.ndarray, backend: Backend) -> np.ndarray:
    """Number of the nearest centroid of each row.

    Parameters
    ----------
    source : Source
    centroids : ndarray of shape (K, D)
    backend : Backend

    Returns
    -------
    labels : ndarray of shape (N,)
        int32.
    """
    return _step(source, centroids, backend)[0]


def _step(
    source: Source, centroids: np.ndarray, backend: Backend, guess: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = np.empty(source.n_rows, np.int32)
    counts = np.zeros(len(centroids))
    sums = np.zeros_like(centroids)
    for chunk in source:
        rows = slice(chunk.start, chunk.start + len(chunk.x))
        near = None if guess is None else guess[rows]
        step = backend.kmeans_step(chunk.x, chunk.weight, centroids, near)
        labels[rows] = step.labels
        counts += step.counts
        sums += step.sums
    return labels, counts, sums


def kmeans(
    source: Source,
    centroids: np.ndarray,
    backend: Backend,
    variance: float,
    *,
    max_iter: int = _MAX_ITER,
    tol: float = _TOL,
) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's algorithm.

    Ends when no label changes, or the squared shift of the centroids is at most ``tol`` times the
    mean variance of the features. A centroid without rows stays where it is.

    Parameters
    ----------
    source : Source
    centroids : ndarray of shape (K, D)
        The start.
    backend : Backend
    variance : float
        Mean variance of the features.
    max_iter : int
    tol : float

    Returns
    -------
    centroids : ndarray of shape (K, D)
    labels : ndarray of shape (N,)
        Of the last assignment.

    Notes
    -----
    Lloyd (1982), Least squares quantization in PCM.
    """
    labels: np.ndarray | None = None
    for _ in range(max_iter):
        before = labels
        labels, counts, sums = _step(source, centroids, backend, before)
        alive = counts > 0
        moved = np.where(alive[:, None], sums / np.where(alive, counts, 1.0)[:, None], centroids)
        shift = float(((moved - centroids) ** 2).sum())
        centroids = moved
        same = before is not None and np.array_equal(before, labels)
        if same or shift <= tol * variance:
            break
    return centroids, np.empty(0, np.int32) if labels is None else labels
