"""A few rows out of many: random ones, those of the lowest scores, all of few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastgmm.arrays import Array, like, to_numpy
from fastgmm.backends import Backend
from fastgmm.sources import ArraySource, Chunk, Source

# Rows from which starts are chosen where not all of them can be held: so many, or that many per
# component.
SAMPLE_ROWS = 16384
SAMPLE_PER_COMPONENT = 32


@dataclass(frozen=True, eq=False)
class Picked:
    """The rows with the lowest keys, in the order of the source; they add.

    Parameters
    ----------
    keys : ndarray of shape (n,)
    numbers : ndarray of shape (n,)
        Numbers of the rows in the source, by which ties are settled.
    rows : ndarray of shape (n, D)
    weights : ndarray of shape (n,) or None
    limit : int
        At most so many are kept.
    """

    keys: np.ndarray
    numbers: np.ndarray
    rows: np.ndarray
    weights: np.ndarray | None
    limit: int

    def __add__(self, other: Picked) -> Picked:
        parts = (self, other)
        weights = None
        if any(p.weights is not None for p in parts):
            # Of joined parts some may have weights, whose mean is that of the others: 1.
            ones = (np.ones(len(p.keys)) if p.weights is None else p.weights for p in parts)
            weights = np.concatenate(list(ones))
        keys = np.concatenate([p.keys for p in parts])
        numbers = np.concatenate([p.numbers for p in parts])
        kept = np.lexsort((numbers, keys))[: self.limit]
        kept = kept[np.argsort(numbers[kept])]
        return Picked(
            keys[kept],
            numbers[kept],
            np.concatenate([p.rows for p in parts])[kept],
            None if weights is None else weights[kept],
            self.limit,
        )


def _pick(chunk: Chunk, keys: np.ndarray, limit: int) -> Picked:
    kept = np.sort(np.argsort(keys, kind="stable")[:limit])
    rows = to_numpy(chunk.x[like(kept, chunk.x)])
    weights = None if chunk.weight is None else to_numpy(chunk.weight)[kept]
    return Picked(keys[kept], chunk.start + kept, rows, weights, limit)


def new_key(random_state: np.random.RandomState) -> int:
    """A key for :func:`uniforms`, drawn from the stream of a fit."""
    return int(random_state.randint(2**31))


def uniforms(key: int, start: int, n_rows: int, width: int = 1) -> np.ndarray:
    """Random numbers in [0, 1) of the rows ``start`` to ``start + n_rows``, (n_rows, width).

    Those of a row depend on its number and the key alone, so that it matters neither in which
    chunks rows are read nor by whom.

    Notes
    -----
    Salmon, Moraes, Dror and Shaw (2011), Parallel random numbers: as easy as 1, 2, 3.
    """
    first = start * width
    generator = np.random.Philox(key=key)
    # Four numbers belong to one step of the counter.
    generator.advance(first // 4)
    drawn = np.random.Generator(generator).random(first % 4 + n_rows * width)
    return drawn[first % 4 :].reshape(n_rows, width)


def random_rows(source: Source, n_rows: int, random_state: np.random.RandomState) -> Picked:
    """Rows drawn without replacement, with probability proportional to their weights, in one pass.

    Rows of weight 0 come last.

    Parameters
    ----------
    source : Source
    n_rows : int
    random_state : RandomState

    Returns
    -------
    picked : Picked

    Notes
    -----
    Efraimidis and Spirakis (2006), Weighted random sampling with a reservoir.
    """
    key = new_key(random_state)

    def part(chunk: Chunk) -> Picked:
        drawn = -np.log1p(-uniforms(key, chunk.start, len(chunk.x))[:, 0])
        if chunk.weight is not None:
            weight = to_numpy(chunk.weight)
            drawn = np.where(weight > 0, drawn / np.where(weight > 0, weight, 1.0), np.inf)
        return _pick(chunk, drawn, n_rows)

    return source.total(part)


def lowest_rows(source: Source, n_rows: int, scores: Callable[[Chunk], Array]) -> Picked:
    """Rows of the lowest scores; those of weight 0 come last, with infinity for a key.

    Parameters
    ----------
    source : Source
    n_rows : int
    scores : callable
        Gives the scores (n,) of a chunk's rows.

    Returns
    -------
    picked : Picked
    """

    def part(chunk: Chunk) -> Picked:
        keys = to_numpy(scores(chunk))
        if chunk.weight is not None:
            keys = np.where(to_numpy(chunk.weight) > 0, keys, np.inf)
        return _pick(chunk, keys, n_rows)

    return source.total(part)


def sample(
    source: Source, n_components: int, random_state: np.random.RandomState, backend: Backend
) -> ArraySource:
    """Rows of which a start is made, in memory: all, or if there are too many a random sample.

    Parameters
    ----------
    source : Source
    n_components : int
    random_state : RandomState
    backend : Backend

    Returns
    -------
    sample : ArraySource
        At most max(16384, 32 K) rows. In a sample weights have had their say in the drawing.
    """
    limit = max(SAMPLE_ROWS, SAMPLE_PER_COMPONENT * n_components)
    if source.n_rows <= limit:
        every = source.total(lambda chunk: _pick(chunk, np.zeros(len(chunk.x)), limit))
        return in_memory(every.rows, every.weights, backend)
    drawn = random_rows(source, limit, random_state)
    return in_memory(drawn.rows[np.isfinite(drawn.keys)], None, backend)


def in_memory(rows: np.ndarray, weights: np.ndarray | None, backend: Backend) -> ArraySource:
    """Rows on the host as a source such as a backend takes."""
    return ArraySource(like(rows, backend.own(np.zeros(1))), weights)


@dataclass(frozen=True)
class Distinct:
    """Distinct rows, a few of them; they add."""

    rows: frozenset[bytes]

    def __add__(self, other: Distinct) -> Distinct:
        return Distinct(self.rows | other.rows)


def distinct_rows(source: Source, wanted: int) -> int:
    """Number of distinct rows with weight, counted no further than ``wanted``.

    Parameters
    ----------
    source : Source
    wanted : int

    Returns
    -------
    count : int
    """
    seen: set[bytes] = set()
    with source:
        for chunk in source:
            for start in range(0, len(chunk.x), 4 * wanted):
                part = slice(start, start + 4 * wanted)
                rows = np.ascontiguousarray(to_numpy(chunk.x[part]))
                if chunk.weight is not None:
                    rows = rows[to_numpy(chunk.weight[part]) > 0]
                seen.update(row.tobytes() for row in rows)
                if len(seen) >= wanted:
                    break
            if len(seen) >= wanted:
                break
    # Of many more than wanted each process need tell no more than so many.
    few = frozenset(sorted(seen)[:wanted])
    return min(len(source.pool(Distinct(few)).rows), wanted)
