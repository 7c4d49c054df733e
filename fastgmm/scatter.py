"""Second moments that tied structures take of all rows at once, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fastgmm.arrays import Array, is_tensor, namespace
from fastgmm.backends import Backend
from fastgmm.linalg import contiguous, cross, diagonal
from fastgmm.model import MixtureModel
from fastgmm.sources import Chunk, Source
from fastgmm.statistics import SufficientStatistics, pairwise_sum

_ROWS = 16384
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Weight, first and second moments of rows about one point."""

    weight: Array
    first: Array
    second: Array

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.weight + other.weight, self.first + other.first, self.second + other.second
        )


def _differences(x: Array, point: Array, backend: Backend) -> Array:
    # In C order whatever that of x is, so that the order of additions does not depend on it.
    if is_tensor(point):
        return contiguous(backend.own(x) - point)
    return np.subtract(x, point, dtype=np.float64, order="C")


def _sums(difference: Array, v: Array, family: str) -> _Sums:
    weighted = difference * v[:, None]
    full = family == "full"
    second = cross(weighted, difference) if full else (weighted * difference).sum(axis=0)
    return _Sums(v.sum(), weighted.sum(axis=0), second)


def _blocks(chunk: Chunk, backend: Backend) -> Iterator[tuple[Array, Array]]:
    """Rows as the source has them, and their weights as the backend has them."""
    for start in range(0, len(chunk.x), _ROWS):
        rows = slice(start, start + _ROWS)
        x = chunk.x[rows]
        weight = np.ones(len(x)) if chunk.weight is None else chunk.weight[rows]
        yield x, backend.own(weight)


def total_sums(source: Source, point: Array, family: str, backend: Backend) -> _Sums:
    """Weight, first and second moments of all rows about a point.

    Parameters
    ----------
    source : Source
    point : array of shape (D,)
    family : {"full", "diag", "spherical"}
    backend : Backend

    Returns
    -------
    sums : with ``weight``, ``first`` (D,) and ``second``, (D, D) or (D,) off the full family
    """

    def part(chunk: Chunk) -> _Sums:
        return pairwise_sum(
            _sums(_differences(x, point, backend), v, family) for x, v in _blocks(chunk, backend)
        )

    return source.total(part)


def rough_mean(source: Source, model: MixtureModel, backend: Backend) -> Array:
    """Mean of all rows to rounding: one read of them.

    Parameters
    ----------
    source : Source
    model : MixtureModel
        Its means tell about where the rows are.
    backend : Backend

    Returns
    -------
    mean : array of shape (D,)
    """
    origin = model.means.mean(axis=0)
    sums = total_sums(source, origin, "diag", backend)
    return origin + sums.first / sums.weight


def scatter(source: Source, mean: Array, family: str, backend: Backend) -> Array:
    """Second moments of all rows about their mean, per unit of weight.

    Parameters
    ----------
    source : Source
    mean : array of shape (D,)
        Near the mean of the rows; what is left of the difference is corrected.
    family : {"full", "diag", "spherical"}
    backend : Backend

    Returns
    -------
    scatter : array of shape (D, D), or (D,) off the full family
        sum v (x - m)(x - m)' / sum v, with m the weighted mean of the rows.
    """
    sums = total_sums(source, backend.own(mean), family, backend)
    shift = sums.first / sums.weight
    square = shift[:, None] * shift if family == "full" else shift**2
    return sums.second / sums.weight - square


def within_scatter(
    source: Source, model: MixtureModel, backend: Backend, statistics: SufficientStatistics
) -> SufficientStatistics:
    """Statistics with second moments about the new means, summed over components.

    For tied structures whose components lie so far apart that the total scatter less that between
    components has no digits left: a second E-step, component by component.

    Parameters
    ----------
    source : Source
    model : MixtureModel
        The parameters of the E-step.
    backend : Backend
    statistics : SufficientStatistics
        Of that E-step.

    Returns
    -------
    statistics : SufficientStatistics
        About the new means, with ``second`` of shape (D, D) or (D,).
    """
    means, family = statistics.means(), model.structure.family
    prepared = backend.prepare(model, source.dtype)

    def parts(chunk: Chunk) -> Iterator[_Sums]:
        for x, v in _blocks(chunk, backend):
            resp = backend.own(backend.responsibilities(prepared, x)) * v[:, None]
            for k, mean in enumerate(means):
                difference = _differences(x, mean, backend)
                yield _sums(difference, contiguous(resp[:, k]), family)

    sums: _Sums = source.total(lambda chunk: pairwise_sum(parts(chunk)))
    xp = namespace(means)
    # Equal rows differ from their mean by its rounding; that is no variance.
    noise = 4 * sums.weight * (_EPS * xp.max(xp.abs(means), axis=0)) ** 2
    flat = (diagonal(sums.second) if family == "full" else sums.second) <= noise
    if family == "full":
        flat = flat[:, None] | flat
    second = xp.where(flat, 0.0, sums.second)
    first = xp.zeros_like(statistics.first)
    return replace(statistics, about=means, first=first, second=second)
