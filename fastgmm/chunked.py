"""Results of rows that come chunk by chunk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgmm.arrays import Array, namespace, to_numpy, to_tensor, working_dtype
from fastgmm.backends import Backend, choose
from fastgmm.budget import check_result
from fastgmm.checks import check_finite
from fastgmm.errors import InputError
from fastgmm.rows import open_to_score
from fastgmm.sources import Chunk, Source, StreamSource
from fastgmm.writing import check_output, write_parts

Compute = Callable[[Backend, Any, Array], Array]
"""From a backend, what it has prepared of a model, and rows, to results."""


def each_chunk(
    estimator: Any, source: Source, compute: Compute, *, weighted: bool = True
) -> Iterator[tuple[Array, Chunk]]:
    """Results of the rows of a source, chunk by chunk, in one pass."""
    backend, _ = choose(estimator.device, source.homes, estimator.precision)
    source.place(backend.rows)
    prepared = estimator._prepare(backend, source.dtype, weighted)
    n_rows = 0
    with source:
        for chunk in source:
            n_rows += len(chunk.x)
            if not isinstance(source, StreamSource) and not backend.all_finite(chunk.x):
                check_finite(chunk.x, source.names, chunk.start)
            yield compute(backend, prepared, chunk.x), chunk
    if n_rows == 0:
        raise InputError("X has 0 sample(s); expected at least one.")


def compute_stream(
    estimator: Any,
    X: Any,
    compute: Compute,
    out: str | os.PathLike[str] | None,
    names: Sequence[str],
    *,
    weighted: bool = True,
) -> Any:
    """Results of rows that are not in memory: together, or written as they come.

    Parameters
    ----------
    estimator : GaussianMixture
    X : rows as :func:`fastgmm.sources.open_source` takes them
    compute : callable
    out : path-like or None
    names : sequence of str
        Of the columns of the results.
    weighted : bool
        Whether the components have their weights.

    Returns
    -------
    results : array, of the kind of the rows, or the path that was written
    """
    if out is not None:
        check_output(out)
    source = open_to_score(estimator, X)
    parts = (result for result, _ in each_chunk(estimator, source, compute, weighted=weighted))
    if out is not None:
        return write_parts(out, (to_numpy(part) for part in parts), names)
    width, item_bytes = len(names), working_dtype(source.dtype).itemsize
    check_result(_known_rows(source), width, item_bytes)
    found, n_rows = [], 0
    for part in parts:
        n_rows += len(part)
        check_result(n_rows, width, item_bytes)
        found.append(to_numpy(part) if source.home is None else to_tensor(part, source.home))
    return namespace(found[0]).concat(found)


def _known_rows(source: Source) -> int:
    try:
        return source.n_rows
    except InputError:  # they have not been counted
        return 0


@dataclass
class Tally:
    """Sums over the scores of rows.

    Parameters
    ----------
    total : float
        Weighted sum of the scores.
    weight : float
        Sum of the weights, as the source has scaled them.
    n_rows : int
    scale : float
        What the source has divided the weights by.
    """

    total: float = 0.0
    weight: float = 0.0
    n_rows: int = 0
    scale: float = 1.0

    @property
    def mean(self) -> float:
        """Mean score of a row."""
        return self.total / self.weight

    @property
    def count(self) -> float:
        """Number of rows, each as often as its weight, as given, says."""
        return self.weight * self.scale

    def scores(self, estimator: Any, source: Source) -> Iterator[np.ndarray]:
        """Yield the scores of a source's rows, chunk by chunk, and add them up.

        Raises
        ------
        InputError
            At the end, if all weights were 0.
        """
        for scores, chunk in each_chunk(estimator, source, lambda b, p, x: b.score_samples(p, x)):
            part = to_numpy(scores)
            numbers = part.astype(np.float64)
            v = np.ones(len(numbers)) if chunk.weight is None else to_numpy(chunk.weight)
            used = v > 0
            self.total += float(v[used] @ numbers[used])
            self.weight += float(v.sum())
            self.n_rows += len(numbers)
            yield part
        if not self.weight > 0:
            raise InputError("sample_weight must contain at least one non-zero number.")
        self.scale = source.weight_scale


def log_likelihood(estimator: Any, X: Any, sample_weight: Any) -> Tally:
    """The sums over all scores of rows that are not in memory."""
    tally = Tally()
    for _ in tally.scores(estimator, open_to_score(estimator, X, sample_weight)):
        pass
    return tally
