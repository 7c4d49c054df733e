"""A model as the CPU kernels take it: centred, scaled, padded, in the precision of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import lapack

from fastgmm.model import MixtureModel

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


@dataclass(frozen=True, eq=False)
class Parameters:
    """Arguments of the kernels for one model and dtype.

    The factor 1/2 of the exponent lies in ``whiten`` and ``factors``: a row's weighted
    log-probability is constants_k - |factors_k (whiten (x - centre) - means_k)|^2, with
    ``factors`` the square itself in the spherical case.
    """

    model: MixtureModel
    centre: Array
    whiten: Array
    means: Array
    factors: Array
    constants: Array
    thresholds: Array

    def kernel_arguments(self) -> tuple[Array, ...]:
        """The arguments that all passes share, in order."""
        return self.centre, self.whiten, self.means, self.factors, self.constants

    def unwhiten(self, first: Array) -> Array:
        """First moments (K, D) of whitened rows in the coordinates of the rows."""
        if self.whiten.shape[0] == 0:
            return first
        factor = self.model.precisions_cholesky
        if factor.ndim == 1:
            return first / (_ROOT_HALF * factor)
        # dtrtri and not a solver: OpenBLAS starts threads for the latter at any size.
        return first @ (lapack.dtrtri(factor)[0] / _ROOT_HALF)


def pack(model: MixtureModel, dtype: Any) -> Parameters:
    """Bring a model into the form of the kernels.

    Means and rows are taken relative to the mean of the mixture, rounded to the precision of the
    rows: data far from 0 keeps its digits.
    """
    structure, n_features = model.structure, model.n_features
    dtype = np.dtype(dtype)
    shares = model.weights / model.weights.sum()
    centre = (shares @ (model.means - model.means[0]) + model.means[0]).astype(dtype)
    means = model.means - centre.astype(np.float64)
    factor = model.precisions_cholesky
    whiten = np.empty((0, 0))
    if structure.tied and structure.family == "full":
        whiten = pad(_ROOT_HALF * factor.T, (0, 1), np.float64)
        means = means @ (_ROOT_HALF * factor)
    elif structure.tied and structure.family == "diag":
        whiten = pad(_ROOT_HALF * factor[None], (1,), np.float64)
        means = means * (_ROOT_HALF * factor)
    if structure.tied:
        square = 0.5 * factor**2 if structure.family == "spherical" else np.float64(1)
        factors = np.full(model.n_components, square, dtype)
    elif structure.family == "full":
        factors = pad(_ROOT_HALF * np.swapaxes(factor, 1, 2), (1, 2), dtype)
    elif structure.family == "diag":
        factors = pad(_ROOT_HALF * factor, (1,), dtype)
    else:
        factors = (0.5 * factor**2).astype(dtype)
    constants = model.log_weights() + model.log_determinants()
    constants = constants - 0.5 * n_features * np.log(2 * np.pi)
    half_ulp = np.finfo(dtype).eps / 2
    return Parameters(
        model,
        centre,
        whiten.astype(dtype),
        pad(means, (1,), dtype),
        factors,
        constants.astype(dtype),
        (half_ulp * model.weights).astype(dtype),
    )
