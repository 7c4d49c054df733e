"""The first pass over rows: how many, their means and ranges, the sum of their weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fastgmm.arrays import Array, cast, like, to_numpy
from fastgmm.backends import Backend, FeatureSummary
from fastgmm.checks import check_finite
from fastgmm.errors import InputError
from fastgmm.sources import Chunk, Source
from fastgmm.sources.arrays import NO_WEIGHT
from fastgmm.statistics import pairwise_sum


@dataclass(frozen=True, eq=False)
class Survey:
    """What a fit needs to know of rows before it begins; surveys of parts add.

    Parameters
    ----------
    n_read : int
        All rows.
    n_rows : int
        Those with weight: the others are as if they were not there.
    mean, variance, minimum, maximum : ndarray of shape (D,)
        Of the rows with weight, each counted once.
    largest : float
        The largest weight.
    weight : float
        Sum of the weights, in units of the largest, so that it cannot overflow.
    """

    n_read: int
    n_rows: int
    mean: np.ndarray
    variance: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    largest: float
    weight: float

    def __add__(self, other: Survey) -> Survey:
        n_read = self.n_read + other.n_read
        if not (self.n_rows and other.n_rows):
            return replace(self if self.n_rows else other, n_read=n_read)
        # Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance.
        n_rows = self.n_rows + other.n_rows
        share = other.n_rows / n_rows
        with np.errstate(over="ignore", invalid="ignore"):  # who asked looks at the range
            step = other.mean - self.mean
            mean = self.mean + share * step
            within = (1 - share) * self.variance + share * other.variance
            variance = within + share * (1 - share) * step**2
        largest = max(self.largest, other.largest)
        unit = largest if largest > 0 else 1.0
        return Survey(
            n_read,
            n_rows,
            mean,
            variance,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            largest,
            self.weight * (self.largest / unit) + other.weight * (other.largest / unit),
        )

    def summary(self) -> FeatureSummary:
        """The same without weights."""
        return FeatureSummary(self.n_rows, self.mean, self.variance, self.minimum, self.maximum)


# Rows of a projection, or with weight among others without, that are taken together.
_ROWS = 65536


def projected(source: Source, found: Survey) -> np.ndarray:
    """Weighted moments of one projection of the rows, which tell rows and weights apart.

    Ranges and moments of single features are the same when a feature is shuffled, and sums of
    weights when they belong to other rows; with p = sum_d a_d (x_d - mean_d) / s_d the means of
    v p, v p^2 and v p^3 are not. They do not depend on the order of the rows.

    Parameters
    ----------
    source : Source
        Its weights v have a mean of 1.
    found : Survey
        Of these rows.

    Returns
    -------
    moments : ndarray of shape (3,)
    """
    spread = np.sqrt(found.variance)
    drawn = np.random.RandomState(0).normal(size=len(spread)) / np.sqrt(len(spread))
    direction = np.divide(drawn, spread, out=np.zeros_like(drawn), where=spread > 0)

    def part(chunk: Chunk) -> np.ndarray:
        centre, along = like(found.mean, chunk.x), like(direction, chunk.x)
        sums = np.zeros(3)
        for start in range(0, len(chunk.x), _ROWS):
            rows = slice(start, start + _ROWS)
            p = to_numpy((cast(chunk.x[rows], np.float64) - centre) @ along)
            v = np.ones(1) if chunk.weight is None else to_numpy(chunk.weight[rows])
            # Of rows without weight powers may overflow.
            p = np.where(v > 0, p, 0.0)
            sums += [(v * p).sum(), (v * p**2).sum(), (v * p**3).sum()]
        return sums

    return source.total(part) / found.n_read


def survey(source: Source, backend: Backend, first: int = 0) -> Survey:
    """Look at all rows once, and scale the source's weights to a mean of 1.

    Parameters
    ----------
    source : Source
        Its rows are such as the backend takes.
    backend : Backend
    first : int
        The number of the source's first row, for errors.

    Returns
    -------
    survey : Survey

    Raises
    ------
    InputError
        If there is NaN or infinity, or all weights are 0.
    """
    before, names = source.weight_scale, source.names

    def of_rows(x: Array, weight: np.ndarray | None) -> Survey:
        found = backend.summarise(x).on_host()
        largest, total = 1.0, float(len(x))
        if weight is not None:
            largest = float(weight.max())
            total = float((weight / (largest if largest > 0 else 1.0)).sum())
        return Survey(
            found.n_rows,
            found.n_rows,
            found.mean,
            found.variance,
            found.minimum,
            found.maximum,
            largest * before,
            total,
        )

    def of_some(x: Array, weight: np.ndarray, kept: np.ndarray) -> Survey:
        blocks = [kept[start : start + _ROWS] for start in range(0, len(kept), _ROWS)]
        if not blocks:
            return replace(of_rows(x[:1], weight[:1]), n_rows=0)
        return pairwise_sum(of_rows(x[like(rows, x)], weight[rows]) for rows in blocks)

    def part(chunk: Chunk) -> Survey:
        weight = None if chunk.weight is None else to_numpy(chunk.weight)
        if weight is None or weight.all():
            found = of_rows(chunk.x, weight)
            finite = bool(np.isfinite(found.mean).all())
        else:
            found = of_some(chunk.x, weight, np.flatnonzero(weight))
            # NaN times a weight of 0 is NaN.
            finite = backend.all_finite(chunk.x)
        if not finite:
            check_finite(chunk.x, names, first + chunk.start)
        return replace(found, n_read=len(chunk.x))

    found = source.total(part)
    if found.weight == 0:
        raise InputError(NO_WEIGHT)
    scale = found.largest * (found.weight / found.n_read)
    if not math.isclose(scale, before, rel_tol=1e-12):
        source.scale_weights(scale)
    return found
