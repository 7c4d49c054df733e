"""k-means on any source of rows, and k-means++ on rows in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fastgmm.arrays import Array, cast, is_tensor, like, namespace, read
from fastgmm.backends import Backend
from fastgmm.linalg import running_sum
from fastgmm.sources import ArraySource, Chunk, Source

_MAX_ITER = 300
_TOL = 1e-4


def kmeans_plusplus(
    source: ArraySource,
    n_clusters: int,
    random_state: np.random.RandomState,
    backend: Backend,
) -> Array:
    """Choose rows as centroids, far from each other, by greedy k-means++.

    Each next centroid is the best of 2 + log K rows drawn with probability proportional to weight
    times squared distance from the nearest centroid so far.

    Parameters
    ----------
    source : ArraySource
    n_clusters : int
        At most the number of rows.
    random_state : RandomState
    backend : Backend

    Returns
    -------
    centroids : array of shape (K, D)
        The backend's own. Rows repeat only where there are fewer than K distinct ones.

    Notes
    -----
    Arthur and Vassilvitskii (2007), k-means++: the advantages of careful seeding, section 5.

    Uniform numbers are drawn on the host, rows by them where the rows are: a device is waited for
    once, at the end.
    """
    n_candidates = 2 + int(np.log(n_clusters))
    chunks = list(source)
    ranges = [slice(c.start, c.start + len(c.x)) for c in chunks]
    weights = [c.weight for c in chunks if c.weight is not None]
    weight = namespace(chunks[0].x).concat(weights) if weights else None
    first = _first_row(source.n_rows, weight, random_state.uniform())
    chosen = [backend.own(source.take(first))]
    closest = namespace(chunks[0].x).concat(
        [backend.closest(c.x, chosen[0][0], None) for c in chunks]
    )
    if weight is not None:
        # Rows without weight may be so far away that their distances are infinite.
        closest = namespace(closest).where(weight > 0, closest, 0.0)

    def potentials(candidates: Array) -> list[Array]:
        return [
            backend.potentials(c.x, c.weight, candidates, closest[rows])
            for c, rows in zip(chunks, ranges, strict=True)
        ]

    parts = potentials(chosen[0])
    bounds = like(_bounds(ranges, [len(p) for p in parts]), closest)
    longest = int(max(-(-len(c.x) // len(p)) for c, p in zip(chunks, parts, strict=True)))
    draws = like(random_state.uniform(size=(n_clusters - 1, n_candidates)), closest)
    xp = namespace(parts[0])
    masses = xp.concat(parts)[:, 0]
    totals: list[Array] = []
    for draw in draws:
        mass = like(masses, closest)
        totals.append(mass.sum())
        if not is_tensor(mass) and not totals[-1] > 0:
            break
        values = draw * totals[-1]
        rows = _draw(mass, values, bounds, longest, closest, weight)
        candidates = backend.own(source.take(rows))
        sums = xp.concat(potentials(candidates))
        best = xp.argmin(sums.sum(axis=0))[None]
        chosen.append(candidates[best])
        masses = sums[:, best][:, 0]
        for chunk, part in zip(chunks, ranges, strict=True):
            backend.closest(chunk.x, chosen[-1][0], closest[part])
    # Where nothing is left to draw from, every row is a centroid already.
    spent = [not total > 0 for total in read(*totals)]
    live = 1 + (spent.index(True) if any(spent) else len(spent))
    centroids = xp.concat(chosen)
    return centroids if live == n_clusters else centroids[[k % live for k in range(n_clusters)]]


def _first_row(n_rows: int, weight: Array | None, draw: float) -> Array:
    """A row with probability proportional to its weight, as an array (1,)."""
    if weight is None:
        return np.array([min(int(draw * n_rows), n_rows - 1)])
    return _search(running_sum(weight)[None], (draw * weight.sum())[None])


def _bounds(ranges: list[slice], counts: list[int]) -> np.ndarray:
    """Where the parts of the rows begin, and the last ends."""
    edges = [
        rows.start + np.arange(count) * (rows.stop - rows.start) // count
        for rows, count in zip(ranges, counts, strict=True)
    ]
    return np.append(np.concatenate(edges), ranges[-1].stop)


def _draw(
    mass: Array, values: Array, bounds: Array, longest: int, closest: Array, weight: Array | None
) -> Array:
    """The rows at which the running sum of weighted distances passes each of ``values``."""
    xp, edges = namespace(mass), running_sum(mass)
    part = xp.searchsorted(edges, values, side="right").clip(max=len(mass) - 1)
    rest = values - xp.where(part > 0, edges[part - 1], 0.0)
    start, end = bounds[part], bounds[part + 1]
    rows = start[:, None] + xp.arange(longest, device=closest.device)
    inside = rows < end[:, None]
    rows = xp.where(inside, rows, start[:, None])
    near = cast(closest[rows], np.float64)
    if weight is not None:
        near = near * weight[rows]
    return start + _search(running_sum(xp.where(inside, near, 0.0)), rest)


def _search(sums: Array, values: Array) -> Array:
    """First index of each line whose running sum exceeds its value; at most the last that adds."""
    passed = (sums <= values[:, None]).sum(axis=1)
    last = (sums < sums[:, -1:]).sum(axis=1)
    return namespace(sums).minimum(passed, last)


@dataclass(frozen=True, eq=False)
class Assignment:
    """The nearest of given centroids for every row.

    Parameters
    ----------
    centroids : array of shape (K, D)
    backend : Backend
    known : dict
        Labels by the start of their chunk, of rows that stay in memory.
    """

    centroids: Array
    backend: Backend
    known: dict[int, Array] = field(default_factory=dict)

    def labels(self, chunk: Chunk) -> Array:
        """Labels (n,) of a chunk, integers of the rows' kind."""
        if chunk.start in self.known:
            return self.known[chunk.start]
        return self.backend.kmeans_step(chunk.x, chunk.weight, self.centroids).labels


@dataclass(frozen=True, eq=False)
class _Sums:
    """Weights (K,) and sums of rows (K, D) of the clusters.

    ``changed`` (1,) is 0 if all labels are known to be those of the step before.
    """

    counts: Array
    sums: Array
    changed: Array

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.counts + other.counts, self.sums + other.sums, self.changed + other.changed
        )

    def to_buffer(self) -> Array:
        """All numbers in one flat array."""
        return namespace(self.sums).concat([self.counts, self.changed, self.sums.reshape(-1)])

    def from_buffer(self, buffer: Array) -> _Sums:
        """The like of these from such an array."""
        n = len(self.counts)
        return _Sums(buffer[:n], buffer[n + 1 :].reshape(self.sums.shape), buffer[n : n + 1])


def _step(source: Source, centroids: Array, backend: Backend, known: dict[int, Array]) -> _Sums:
    """One assignment; labels are kept of rows that stay in memory, and looked at first."""
    resident = source.resident

    def part(chunk: Chunk) -> _Sums:
        before = known.get(chunk.start)
        step = backend.kmeans_step(chunk.x, chunk.weight, centroids, before)
        if resident:
            known[chunk.start] = step.labels
        changed = namespace(step.counts).ones_like(step.counts[:1])
        if before is not None:
            # Labels lie where the rows are, which may not be where the sums are.
            xp = namespace(step.labels)
            number = xp.sum(before != step.labels, dtype=xp.float64)
            changed = like(xp.reshape(number, (1,)), step.counts)
        return _Sums(step.counts, step.sums, changed)

    return source.total(part)


def kmeans(
    source: Source,
    centroids: Array,
    backend: Backend,
    variance: float,
    *,
    max_iter: int = _MAX_ITER,
    tol: float = _TOL,
) -> tuple[Array, Assignment]:
    """Lloyd's algorithm.

    Ends when no label of rows in memory changes, or the squared shift of the centroids is at most
    ``tol`` times the mean variance of the features. A centroid without rows stays where it is.

    Parameters
    ----------
    source : Source
    centroids : array of shape (K, D)
        The start.
    backend : Backend
    variance : float
        Mean variance of the features.
    max_iter : int
    tol : float

    Returns
    -------
    centroids : array of shape (K, D)
    assignment : Assignment
        The last one.

    Notes
    -----
    Lloyd (1982), Least squares quantization in PCM. A device is waited for once per iteration.
    """
    xp = namespace(centroids)
    known: dict[int, Array] = {}
    assigned = centroids
    for _ in range(max_iter):
        assigned = centroids
        found = _step(source, centroids, backend, known)
        alive = found.counts > 0
        safe = xp.where(alive, found.counts, 1.0)
        centroids = xp.where(alive[:, None], found.sums / safe[:, None], assigned)
        changed, shift = read(found.changed[0], ((centroids - assigned) ** 2).sum())
        if changed == 0 or shift <= tol * variance:
            break
    return centroids, Assignment(assigned, backend, known)
