"""k-means||: first centroids out of all rows of any source, in a few passes."""

from __future__ import annotations

from functools import partial

import numpy as np

from fastgmm.arrays import Array, cast, to_numpy
from fastgmm.backends import Backend
from fastgmm.kmeans import kmeans_plusplus
from fastgmm.picks import Picked, in_memory, new_key, random_rows, uniforms
from fastgmm.sources import Chunk, Source

_ROUNDS = 5
# Rows that a round draws, per centroid that is wanted.
_OVERSAMPLING = 2.0
_BLOCK = 16384


def kmeans_parallel(
    source: Source, n_clusters: int, random_state: np.random.RandomState, backend: Backend
) -> Array:
    """Choose rows as centroids, far from each other, by k-means||.

    Each of five rounds draws about 2 K rows with probability proportional to weight times squared
    distance from the rows that are drawn already. Each of these is weighted by the rows nearest to
    it, and k-means++ among them has the last word.

    Parameters
    ----------
    source : Source
    n_clusters : int
    random_state : RandomState
    backend : Backend

    Returns
    -------
    centroids : array of shape (K, D)
        The backend's own.

    Notes
    -----
    Bahmani, Moseley, Vattani, Kumar and Vassilvitskii (2012), Scalable k-means++.

    Two passes per round, and about 10 K rows in memory; what is drawn does not depend on the
    chunks.
    """
    drawn = random_rows(source, 1, random_state).rows.astype(np.float64)
    for _ in range(_ROUNDS):
        points = backend.own(drawn)
        mass = source.total(partial(_mass, points=points, backend=backend))
        if not mass > 0:
            break
        more = _draw(source, points, _OVERSAMPLING * n_clusters / mass, random_state, backend)
        drawn = np.concatenate([drawn, more.rows.astype(np.float64)])
    points = backend.own(drawn)
    counts = to_numpy(
        source.total(lambda c: to_numpy(backend.kmeans_step(c.x, c.weight, points).counts))
    )
    alive = counts > 0
    if alive.sum() < n_clusters:
        # Fewer distinct rows than clusters, or an unlucky draw from few: some are used twice.
        alive[:] = True
        counts = np.maximum(counts, 1e-300)
    few = in_memory(drawn[alive], counts[alive], backend)
    return kmeans_plusplus(few, n_clusters, random_state, backend)


def _draw(
    source: Source,
    points: Array,
    rate: float,
    random_state: np.random.RandomState,
    backend: Backend,
) -> Picked:
    """Each row with probability rate times weighted squared distance."""
    key, limit = new_key(random_state), source.n_rows

    def part(chunk: Chunk) -> Picked:
        chance = rate * _distances(chunk, points, backend)
        kept = np.flatnonzero(uniforms(key, chunk.start, len(chunk.x))[:, 0] < chance)
        rows = to_numpy(chunk.x)[kept]
        return Picked(np.zeros(len(kept)), chunk.start + kept, rows, None, limit)

    return source.total(part)


def _mass(chunk: Chunk, points: Array, backend: Backend) -> float:
    return float(_distances(chunk, points, backend).sum())


def _distances(chunk: Chunk, points: Array, backend: Backend) -> np.ndarray:
    """Weighted squared distance of each row from the nearest point, float64 on the host."""
    labels = to_numpy(backend.kmeans_step(chunk.x, chunk.weight, points).labels)
    rows, near = to_numpy(chunk.x), to_numpy(points)
    squared = np.empty(len(labels))
    with np.errstate(over="ignore"):  # of rows without weight
        for start in range(0, len(labels), _BLOCK):
            part = slice(start, start + _BLOCK)
            squared[part] = ((cast(rows[part], np.float64) - near[labels[part]]) ** 2).sum(axis=1)
    if chunk.weight is None:
        return squared
    weight = to_numpy(chunk.weight)
    return np.multiply(squared, weight, out=np.zeros_like(squared), where=weight > 0)
