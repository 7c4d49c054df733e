"""A model as the CPU kernels take it: centred, scaled, padded, in the precision of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fastgmm.linalg import product
from fastgmm.model import MixtureModel
from fastgmm_kernels import cpu as kernels

Array = np.ndarray

_ROOT_HALF = np.sqrt(0.5)


def padded(n_features: int) -> int:
    """Features that the kernels see: D rounded up to a multiple of 4, with zeros."""
    return -(-n_features // 4) * 4


def pad(array: Array, axes: tuple[int, ...], dtype: Any) -> Array:
    """C-contiguous copy with zeros appended so that each of ``axes`` is a multiple of 4."""
    shape = tuple(padded(n) if i in axes else n for i, n in enumerate(array.shape))
    result = np.zeros(shape, dtype)
    result[tuple(slice(n) for n in array.shape)] = array
    return result


def columns(n_features: int, dtype: Any) -> int:
    """Entries of a row of features in memory: D rounded up to whole vectors and to eights."""
    step = max(kernels.REGISTER_BYTES // np.dtype(dtype).itemsize, 8)
    return -(-n_features // step) * step


def widen(array: Array, width: int, dtype: Any) -> Array:
    """C-contiguous copy with zeros appended to the last axis."""
    result = np.zeros((*array.shape[:-1], width), dtype)
    result[..., : array.shape[-1]] = array
    return result


def line(centre: Array) -> Array:
    """One line of features (1, C), as wide as the rows of the kernels."""
    return widen(centre[None], columns(len(centre), centre.dtype), centre.dtype)


def panels(factors: Array, dtype: Any) -> Array:
    """Lower triangular factors (K, D, D) as the kernels read them: (K, P, 4).

    Panel p holds lines 4 p to 4 p + 3, column after column up to the diagonal.
    """
    square = pad(factors, (1, 2), dtype)
    places = _panel_places(square.shape[1])
    return square.reshape(len(square), square.shape[1] ** 2).take(places, axis=1)


@lru_cache(maxsize=4)
def _panel_places(width: int) -> Array:
    """Where the entries of the panels stand in a matrix (width, width)."""
    square = np.arange(width * width).reshape(width, width)
    return np.concatenate([square[j : j + 4, : j + 4].T for j in range(0, width, 4)])


@dataclass(frozen=True, eq=False)
class Parameters:
    """Arguments of the kernels for one model and dtype.

    The factor 1/2 of the exponent lies in ``whiten`` and ``factors``: a row's weighted
    log-probability is constants_k - |factors_k (whiten (x - centre) - means_k)|^2, with
    ``factors`` the square itself in the spherical case, and ``means`` times minus the factors in
    the diagonal one. ``reach`` and ``thresholds`` say what may
    be skipped (see ``fastgmm_kernels.cpu.skip``).
    """

    model: MixtureModel
    centre: Array
    centre_line: Array
    whiten: Array
    means: Array
    factors: Array
    constants: Array
    reach: Array
    thresholds: Array

    def kernel_arguments(self) -> tuple[Array, ...]:
        """The arguments that all passes share, in order."""
        return self.centre_line, self.whiten, self.means, self.factors, self.constants

    def about(self, points: Array | None) -> Array:
        """Reference points of moments, the means by default, as the kernels take them: (K, C)."""
        points = self.model.means if points is None else points
        relative = points - self.centre.astype(np.float64)
        dtype = self.means.dtype
        return widen(relative, columns(points.shape[1], dtype), dtype)


def _fits(numbers: Array, dtype: Any) -> bool:
    """Whether positive numbers are ordinary ones in the precision of the rows."""
    limits = np.finfo(dtype)
    return bool(numbers.min() >= limits.tiny and numbers.max() <= limits.max)


def pack(model: MixtureModel, dtype: Any, *, skip: bool = True) -> Parameters:
    """Bring a model into the form of the kernels.

    Means and rows are taken relative to the mean of the mixture, rounded to the precision of the
    rows: data far from 0 keeps its digits. Without ``skip`` every pair of a row and a component
    is visited.
    """
    structure, (n_components, n_features) = model.structure, model.means.shape
    dtype = np.dtype(dtype)
    family, factor = structure.family, model.precisions_cholesky
    square: Any = 0.5 * factor**2 if family == "spherical" else np.float64(1)
    if family == "spherical" and not _fits(square, dtype):
        # Evaluated feature by feature: then the factors need not be squared.
        shape = (n_features,) if structure.tied else model.means.shape
        family, factor, square = "diag", np.broadcast_to(factor[..., None], shape), np.float64(1)
    centre = np.zeros((1, columns(n_features, dtype)), dtype)
    means = np.empty((n_components, n_features))
    constants, reach, thresholds = np.empty((3, n_components), dtype)
    kernels.centre_mixture(
        model.means,
        np.array(model.weights),
        np.array(model.log_determinants()),
        float(np.finfo(dtype).eps / 2),
        skip,
        centre[0],
        means,
        constants,
        reach,
        thresholds,
        threads=0,
    )
    whiten = np.empty((0, 0, 0), dtype)
    if structure.tied and family == "full":
        whiten = panels(_ROOT_HALF * factor.T[None], dtype)
        means = product(means, _ROOT_HALF * factor)
    elif structure.tied and family == "diag":
        whiten = pad(_ROOT_HALF * factor[None, None], (2,), dtype)
        means = means * (_ROOT_HALF * factor)
    if structure.tied:
        factors = np.full(n_components, square, dtype)
    elif family == "full":
        factors = panels(_ROOT_HALF * np.swapaxes(factor, 1, 2), dtype)
    elif family == "diag":
        factors = pad(_ROOT_HALF * factor, (1,), dtype)
        # By the factor as it was rounded: then the only error is the last rounding.
        means *= -factors[:, :n_features].astype(np.float64)
    else:
        factors = square.astype(dtype)
    return Parameters(
        model,
        centre[0, :n_features],
        centre,
        whiten,
        pad(means, (1,), dtype),
        factors,
        constants,
        reach,
        thresholds,
    )
