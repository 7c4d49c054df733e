"""Second moments that tied structures take of all rows at once, in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastgmm.backends import Backend
from fastgmm.model import MixtureModel
from fastgmm.sources import Source
from fastgmm.statistics import SufficientStatistics, pairwise_sum

_ROWS = 16384


@dataclass(frozen=True, eq=False)
class _Sums:
    """Weight, first and second moments of rows about one point."""

    weight: float
    first: np.ndarray
    second: np.ndarray

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.weight + other.weight, self.first + other.first, self.second + other.second
        )


def _sums(x: np.ndarray, weight: np.ndarray | None, point: np.ndarray, family: str) -> _Sums:
    # In C order whatever that of x is, so that the order of additions does not depend on it.
    difference = np.subtract(x, point, dtype=np.float64, order="C")
    v = np.ones(len(x)) if weight is None else weight
    weighted = difference * v[:, None]
    second = weighted.T @ difference if family == "full" else (weighted * difference).sum(axis=0)
    return _Sums(float(v.sum()), weighted.sum(axis=0), second)


def _all_sums(source: Source, point: np.ndarray, family: str) -> _Sums:
    parts = []
    for chunk in source:
        for start in range(0, len(chunk.x), _ROWS):
            rows = slice(start, start + _ROWS)
            weight = None if chunk.weight is None else chunk.weight[rows]
            parts.append(_sums(chunk.x[rows], weight, point, family))
    return pairwise_sum(parts)


def scatter(source: Source, mean: np.ndarray | None, family: str) -> np.ndarray:
    """Second moments of all rows about their mean, per unit of weight.

    Parameters
    ----------
    source : Source
    mean : ndarray of shape (D,) or None
        Near the mean of the rows; what is left of the difference is corrected. None costs one
        more read of the rows.
    family : {"full", "diag", "spherical"}

    Returns
    -------
    scatter : ndarray of shape (D, D), or (D,) off the full family
        sum v (x - m)(x - m)' / sum v, with m the weighted mean of the rows.
    """
    if mean is None:
        origin = source.take(np.array([0]))[0]
        sums = _all_sums(source, origin, "diag")
        mean = origin + sums.first / sums.weight
    sums = _all_sums(source, mean, family)
    shift = sums.first / sums.weight
    square = np.multiply.outer(shift, shift) if family == "full" else shift**2
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
    parts = []
    for chunk in source:
        for start in range(0, len(chunk.x), _ROWS):
            rows = slice(start, start + _ROWS)
            x = chunk.x[rows]
            resp = backend.responsibilities(prepared, x).astype(np.float64)
            if chunk.weight is not None:
                resp *= chunk.weight[rows, None]
            parts += [
                _sums(x, np.ascontiguousarray(resp[:, k]), mean, family)
                for k, mean in enumerate(means)
            ]
    sums = pairwise_sum(parts)
    # Equal rows differ from their mean by its rounding; that is no variance.
    noise = 4 * sums.weight * (np.finfo(np.float64).eps * np.abs(means).max(axis=0)) ** 2
    diagonal = np.diag(sums.second) if family == "full" else sums.second
    flat = diagonal <= noise
    second = sums.second.copy()
    second[flat] = 0
    if family == "full":
        second[:, flat] = 0
    first = np.zeros_like(statistics.first)
    return replace(statistics, about=means, first=first, second=second)
