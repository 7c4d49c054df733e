"""Second moments that tied structures take of all rows at once, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from fastgmm import covariance
from fastgmm.arrays import Array, is_tensor, namespace, read
from fastgmm.backends import Backend
from fastgmm.linalg import contiguous, cross, diagonal
from fastgmm.model import MixtureModel
from fastgmm.sources import Chunk, Source
from fastgmm.statistics import SufficientStatistics, pairwise_sum

_ROWS = 16384
_EPS = float(np.finfo(np.float64).eps)
# Second moments about a point whose distance from the mean, squared, is less than such a part of
# them lose no digit when they are brought to the mean.
_NEAR = 2.0


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

    def map(self, function: Callable[[Array], Array]) -> _Sums:
        """The sums with a function applied to each, for instance to take them to a device."""
        return _Sums(function(self.weight), function(self.first), function(self.second))


def _differences(x: Array, point: Array, backend: Backend) -> Array:
    # In C order whatever that of x is, so that the order of additions does not depend on it.
    if is_tensor(point):
        return contiguous(backend.own(x) - point)
    return np.subtract(x, point, dtype=np.float64, order="C")


def _sums(difference: Array, v: Array, family: str, backend: Backend) -> _Sums:
    full = family == "full"
    if is_tensor(difference):
        weighted = difference * v[:, None]
        second = cross(weighted, difference) if full else (weighted * difference).sum(axis=0)
        return _Sums(v.sum(), weighted.sum(axis=0), second)
    # Not by BLAS: its threads spin for tens of milliseconds after each call, and slow what follows.
    structure = covariance.get("full" if full else "diag")
    origin, labels = np.zeros((1, difference.shape[1])), np.zeros(len(difference), np.int32)
    found = backend.accumulate_given(difference, v, structure, origin, labels=labels)
    return _Sums(found.counts[0], found.first[0], found.second[0])


def _blocks(chunk: Chunk, backend: Backend) -> Iterator[tuple[Array, Array]]:
    """Rows as the source has them, and their weights as the backend has them."""
    # Ones are copied once: a device is waited for by a copy.
    ones: Array = backend.own(np.ones(min(_ROWS, len(chunk.x)))) if chunk.weight is None else None
    for start in range(0, len(chunk.x), _ROWS):
        rows = slice(start, start + _ROWS)
        x = chunk.x[rows]
        yield x, ones[: len(x)] if chunk.weight is None else backend.own(chunk.weight[rows])


def _flat(variances: Array, largest: Array) -> Array:
    """Features whose variance is the rounding of their mean: equal rows differ from it by that."""
    return variances <= 4 * (_EPS * largest) ** 2


def _without(second: Array, flat: Array) -> Array:
    """Second moments with zeros for the features in a mask (D,)."""
    mask = flat[:, None] | flat if second.ndim == 2 else flat
    return namespace(second).where(mask, 0.0, second)


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
        there = backend.of(chunk.x)
        origin = there.own(point)
        sums = pairwise_sum(
            _sums(_differences(x, origin, there), v, family, there)
            for x, v in _blocks(chunk, there)
        )
        return sums.map(backend.own)

    return source.total(part)


def scatter(source: Source, mean: Array, family: str, backend: Backend) -> Array:
    """Second moments of all rows about their mean, per unit of weight.

    Parameters
    ----------
    source : Source
    mean : array of shape (D,)
        Near the mean of the rows; if it is not, they are read twice.
    family : {"full", "diag", "spherical"}
    backend : Backend

    Returns
    -------
    scatter : array of shape (D, D), or (D,) off the full family
        sum v (x - m)(x - m)' / sum v, with m the weighted mean of the rows; 0 for features that do
        not vary.
    """
    mean = backend.own(mean)
    for _ in range(2):
        sums = total_sums(source, mean, family, backend)
        shift, second = sums.first / sums.weight, sums.second / sums.weight
        variances = diagonal(second) if family == "full" else second
        # With weights of many sizes their mean may be far from that of the rows.
        (far,) = read((_NEAR * shift**2 > variances).any())
        if not far:
            break
        mean = mean + shift
    total = second - (shift[:, None] * shift if family == "full" else shift**2)
    flat = _flat(diagonal(total) if family == "full" else total, namespace(total).abs(mean))
    return _without(total, flat)


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
    means, family = statistics.means, model.structure.family
    prepared = backend.prepare(model, source.dtype)

    def parts(chunk: Chunk) -> Iterator[_Sums]:
        there = backend.of(chunk.x)
        points = there.own(means)
        for x, v in _blocks(chunk, there):
            resp = there.own(backend.responsibilities(prepared, x)) * v[:, None]
            for k, mean in enumerate(points):
                difference = _differences(x, mean, there)
                yield _sums(difference, contiguous(resp[:, k]), family, there)

    sums: _Sums = source.total(lambda chunk: pairwise_sum(parts(chunk)).map(backend.own))
    xp = namespace(means)
    variances = (diagonal(sums.second) if family == "full" else sums.second) / sums.weight
    second = _without(sums.second, _flat(variances, xp.max(xp.abs(means), axis=0)))
    first = xp.zeros_like(statistics.first)
    return replace(statistics, about=means, first=first, second=second)
