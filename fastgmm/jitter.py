"""Covariances that rounding has taken out of the cone of positive definite ones, brought back."""

from __future__ import annotations

import warnings

import numpy as np

from fastgmm.arrays import Array
from fastgmm.errors import PrecisionWarning
from fastgmm.linalg import diagonal
from fastgmm.model import MixtureModel

# What variances are multiplied by, step by step: 1 and so many spacings of the rows' precision.
STEPS = (0.0, 8.0, 80.0, 800.0)


def restored(model: MixtureModel, reg_covar: float, dtype: np.dtype) -> tuple[MixtureModel, int]:
    """Repair covariances that only rounding can have made indefinite.

    In exact arithmetic an M-step with ``reg_covar`` above 0 gives S + reg_covar I with S positive
    semidefinite. So where there is no Cholesky factor, variances below ``reg_covar`` are raised to
    it, and while that is not enough the diagonal is multiplied by 1 + c eps, with eps of the rows'
    precision and c = 8, 80, 800 in turn. What needs more or is not finite is left as it is, and
    without ``reg_covar`` everything is.

    Parameters
    ----------
    model : MixtureModel
        As :meth:`MixtureModel.factorised` gives.
    reg_covar : float
    dtype : dtype
        In which rows are computed.

    Returns
    -------
    model : MixtureModel
        On the host if it has been repaired, otherwise as it was.
    n_jitter : int
        Number of covariances that were changed.

    Notes
    -----
    The bounded ladder is that of GPyTorch (Gardner et al., 2018, GPyTorch: blackbox matrix-matrix
    Gaussian process inference with GPU acceleration); here it is relative to each variance, so that
    the scales of the features do not matter.
    """
    host = model.on_host()
    structure, factors = host.structure, host.precisions_cholesky
    covariances = np.array(host.covariances)
    known = covariances.shape == factors.shape and bool(np.isfinite(covariances).all())
    if host.sound() or not reg_covar > 0 or not known:
        return model, 0
    matrices = structure.family == "full"
    bad = ~np.isfinite(factors)
    count = int(bad.reshape(1 if structure.tied else len(host.means), -1).any(axis=1).sum())
    variances = diagonal(covariances) if matrices else covariances
    if matrices:
        bad = bad.any(axis=(-2, -1))[..., None]
    np.maximum(variances, reg_covar, out=variances, where=bad)
    for step in STEPS if matrices else STEPS[:1]:
        np.multiply(variances, 1 + step * np.finfo(dtype).eps, out=variances, where=bad)
        repaired = MixtureModel.factorised(host.weights, host.means, covariances.copy(), structure)
        if repaired.sound():
            return repaired, count
    return model, 0


def mended(
    model: MixtureModel,
    reg_covar: float,
    dtype: np.dtype,
    counts: Array | None,
    context: str,
    advice: str,
) -> tuple[MixtureModel, int]:
    """A sound model: the given one, or what :func:`restored` makes of it.

    Parameters
    ----------
    model, reg_covar, dtype
        As for :func:`restored`.
    counts, context, advice
        As for :meth:`MixtureModel.refuse`.

    Returns
    -------
    model : MixtureModel
    n_jitter : int

    Raises
    ------
    SingularCovarianceError
        If rounding alone does not explain it.
    """
    if model.sound():
        return model, 0
    found, count = restored(model, reg_covar, dtype)
    if not count:
        model.refuse(counts, context, advice)
    return found, count


def warn_restored(count: int, where: str, dtype: np.dtype, *, stacklevel: int) -> None:
    """Warn of covariances that were repaired."""
    advice = ", or pass float64" if dtype == np.float32 else ""
    warnings.warn(
        f"{where}: rounding in {dtype} left {count} covariances indefinite; their variances were "
        f"raised by at most {STEPS[-1] * np.finfo(dtype).eps:.0e} of themselves, or to reg_covar. "
        f"Rescale the features, increase reg_covar{advice}.",
        PrecisionWarning,
        stacklevel=stacklevel + 1,
    )
