"""Rows of a Dask array or data frame: one task per chunk, and a tree of additions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np

from fastgmm.arrays import Array, like
from fastgmm.errors import InputError
from fastgmm.sources.base import Chunk, Source
from fastgmm.sources.items import as_rows
from fastgmm.sources.prefetch import caller_stream
from fastgmm.statistics import pairwise_sum

T = TypeVar("T")
# Sums that one task of the tree adds.
_FAN_IN = 8


class DaskSource(Source):
    """Chunks that stay where a cluster has them in a fit, from which only sums come back.

    A pass runs on whatever scheduler Dask would take: the client that is there, or threads. Results
    per row are computed here, one chunk after the other.

    Parameters
    ----------
    X : dask array of shape (N, D), or dask data frame
    sample_weight : ndarray or dask array of shape (N,), optional

    Raises
    ------
    InputError
        If the chunks do not fit together.
    """

    def __init__(self, X: Any, sample_weight: Any = None) -> None:
        from dask.base import compute
        from dask.delayed import delayed

        self._compute, self._delayed = compute, delayed
        if X.ndim != 2:
            raise InputError(f"X is a Dask collection of {X.ndim} dimensions; expected 2.")
        if hasattr(X, "columns"):
            self.names = tuple(X.columns)
        else:
            X = X.rechunk({1: -1})
        self._parts = list(np.ravel(X.to_delayed()))
        look = delayed(_look)
        seen = compute(*[look(part) for part in self._parts])
        counts = [n_rows for n_rows, _, _ in seen]
        kinds = {(width, dtype) for n_rows, width, dtype in seen if n_rows}
        if not kinds:
            raise InputError("X has 0 sample(s); expected at least one.")
        if len(kinds) != 1:
            raise InputError(
                f"the chunks of X have (features, dtype) {sorted(kinds)}; expected the same in all."
            )
        self.n_features, dtype = kinds.pop()
        self.dtype = np.dtype(dtype)
        self._starts = [0, *accumulate(counts)]
        self.n_rows = self._starts[-1]
        self._weights = [None] * len(counts)
        if sample_weight is not None:
            self._weights = self._shares(sample_weight)
        self._place: Callable[[Array], Array] = _as_it_is

    def _shares(self, sample_weight: Any) -> list[Any]:
        """The weights of each chunk."""
        if hasattr(sample_weight, "dask"):
            sample_weight = sample_weight.compute()
        weight = np.asarray(sample_weight, dtype=np.float64)
        if weight.shape != (self.n_rows,):
            raise InputError(f"sample_weight.shape == {weight.shape}, expected {(self.n_rows,)}!")
        edges = zip(self._starts[:-1], self._starts[1:], strict=True)
        return [weight[start:end] for start, end in edges]

    def place(self, where: Callable[[Array], Array]) -> None:
        self._place = where

    def _live(self) -> list[tuple[Any, Any, int, int]]:
        """Chunks that have rows, their weights, the numbers of their first rows and of all."""
        counts = np.diff(self._starts).tolist()
        each = zip(self._parts, self._weights, self._starts[:-1], counts, strict=True)
        return [(part, weight, start, count) for part, weight, start, count in each if count]

    def __iter__(self) -> Iterator[Chunk]:
        for part, weight, start, count in self._live():
            rows = part.compute()
            yield _chunk(rows, weight, start, count, self.weight_scale, self._place)

    def fold(self, run: Callable[[Iterable[Chunk]], T]) -> T:
        delayed = self._delayed
        task = delayed(_within, pure=False)
        # One object in the graph, however many tasks take it.
        work = delayed(run, pure=False, traverse=False)
        sums = [
            task(_Here(), _run, work, *chunk, self.weight_scale, self._place)
            for chunk in self._live()
        ]
        while len(sums) > 1:
            sums = [
                task(_Here(), _add, sums[i : i + _FAN_IN]) for i in range(0, len(sums), _FAN_IN)
            ]
        (result,) = self._compute(sums[0])
        return result


class _Here(AbstractContextManager[None]):
    """The CUDA stream of the caller for one task of a thread; another process has its own."""

    def __init__(self) -> None:
        self._stream = caller_stream()

    def __enter__(self) -> None:
        self._stream.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._stream.__exit__(kind, error, traceback)

    def __reduce__(self) -> tuple[Any, ...]:
        return nullcontext, ()


def _within(there: AbstractContextManager[Any], function: Callable[..., T], *args: Any) -> T:
    with there:
        return function(*args)


def _as_it_is(x: Array) -> Array:
    return x


def _look(part: Any) -> tuple[int, int, str]:
    x, _ = as_rows(part, "a chunk of X")
    return len(x), x.shape[1], str(x.dtype)


def _chunk(
    part: Any, weight: Any, start: int, count: int, scale: float, place: Callable[[Array], Array]
) -> Chunk:
    x, _ = as_rows(part if weight is None else (part, weight), f"the chunk at row {start}")
    if len(x) != count:
        raise InputError(
            f"the chunk at row {start} gave {len(x)} rows, {count} when they were counted. Every "
            "pass must give the same rows."
        )
    x = place(x)
    return Chunk(x, None if weight is None else like(weight / scale, x), start)


def _run(work: Callable[[Iterable[Chunk]], T], *chunk: Any) -> T:
    return work([_chunk(*chunk)])


def _add(parts: list[Any]) -> Any:
    return pairwise_sum(parts)
