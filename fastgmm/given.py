"""Mixtures from what a user has: their parameters, or the responsibilities of rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastgmm import covariance
from fastgmm.arrays import (
    Array,
    home,
    is_tensor,
    like,
    to_numpy,
    working_dtype,
)
from fastgmm.backends import Backend
from fastgmm.checks import check_scale
from fastgmm.covariance import CovarianceStructure
from fastgmm.errors import InputError
from fastgmm.jitter import mended, warn_restored
from fastgmm.model import MixtureModel
from fastgmm.parameters import check_factors, check_matrices, check_means, exact_weights
from fastgmm.sources import ArraySource
from fastgmm.sources.items import floating, readable
from fastgmm.survey import survey
from fastgmm.tensors import detached


def numbers(value: Any, name: str) -> Array:
    """An array of real floating-point numbers; a tensor where one is given, without its graph.

    Parameters
    ----------
    value : array-like or tensor
        Of any shape.
    name : str
        For the text of an error.

    Returns
    -------
    array : array
        Arrays are float32 or float64; half precision becomes float32.

    Raises
    ------
    InputError
        If it is masked, or has no real numbers.
    """
    if is_tensor(value):
        return detached(value, name)
    return floating(np.asarray(readable(value, name)), name)


def from_parameters(
    weights: Any,
    means: Any,
    structure: CovarianceStructure,
    covariances: Any = None,
    precisions: Any = None,
    factors: Any = None,
) -> tuple[MixtureModel, np.dtype, str | None]:
    """The model of given parameters, on the host, and the dtype and torch device of the means.

    Parameters
    ----------
    weights, means : array-like of shape (K,) and (K, D)
    structure : CovarianceStructure
    covariances, precisions, factors : array-like of the structure's shape
        Exactly one; ``factors`` are Cholesky factors of precisions.

    Returns
    -------
    model : MixtureModel
    dtype : dtype
    where : str or None

    Raises
    ------
    InputError, SingularCovarianceError
        If a shape or value does not fit.
    """
    where, means = home(means), to_numpy(numbers(means, "means"))
    if means.ndim != 2 or 0 in means.shape:
        raise InputError(f"means must have shape (K, D); got {means.shape}.")
    shape = means.shape
    exact = check_means(means, *shape).astype(np.float64)
    shares = exact_weights(numbers(weights, "weights"), len(means))
    given = {
        "covariances": covariances,
        "precisions": precisions,
        "precisions_cholesky": factors,
    }
    present = [name for name, value in given.items() if value is not None]
    if len(present) != 1:
        raise InputError(f"exactly one of {', '.join(given)} must be given; got {len(present)}.")
    value = numbers(given[present[0]], present[0])
    if covariances is not None:
        matrices = check_matrices(value, structure, shape[0], shape[1], "covariance")
        model = MixtureModel.from_covariances(
            shares, exact, matrices.astype(np.float64), structure, context="from_parameters"
        )
        return model, means.dtype, where
    if precisions is not None:
        matrices = check_matrices(value, structure, *shape).astype(np.float64)
        value = structure.factor_precisions(matrices)
    factors = check_factors(value, structure, *shape).astype(np.float64)
    model = MixtureModel(shares, exact, structure.covariances(factors), factors, structure)
    return model, means.dtype, where


def from_responsibilities(
    x: Array,
    resp: Array,
    sample_weight: Any,
    structure: CovarianceStructure,
    reg_covar: float,
    backend: Backend,
) -> tuple[MixtureModel, int]:
    """One M-step from given responsibilities.

    Parameters
    ----------
    x : array of shape (N, D)
        Such as the backend takes.
    resp : array of shape (N, K)
        float64, not negative, not all 0. Components without any keep unit variances.
    sample_weight : array-like of shape (N,) or None
    structure : CovarianceStructure
    reg_covar : float
    backend : Backend

    Returns
    -------
    model : MixtureModel
        The backend's own, or on the host.
    n_jitter : int
        Covariances that had to be repaired, which is warned of.

    Raises
    ------
    InputError
        If no row with weight has a responsibility, or squares of the rows overflow.
    SingularCovarianceError
        If a covariance is not positive definite.
    """
    n_components, n_features = resp.shape[1], x.shape[1]
    # Their scale does not matter, but must fit the precision of the rows.
    resp = like(resp / resp.max(), x)
    # One chunk, of mapped files too: the responsibilities are in memory anyway.
    source, dtype = ArraySource(x, sample_weight, len(x)), working_dtype(x.dtype)
    found = survey(source, backend)
    check_scale(dtype, found.summary(), reg_covar)
    (chunk,) = source
    given = chunk.x, chunk.weight
    about = backend.own(np.repeat(found.mean[None], n_components, axis=0))
    rough = backend.accumulate_given(*given, structure, about, resp=resp)
    if not float(rough.counts.sum()) > 0:
        raise InputError("resp times sample_weight is 0 in all rows: non-zero ones are needed.")
    loose = structure
    if structure.tied:
        # Not what is left of the scatter of all rows: of components far apart that is rounding.
        loose = covariance.get("full" if structure.family == "full" else "diag")
    # Again about the means themselves, so that nothing cancels.
    statistics = backend.accumulate_given(*given, loose, rough.means, resp=resp)
    if structure.tied:
        statistics = replace(statistics, second=statistics.second.sum(axis=0))
    covariances = structure.maximise(statistics, None, reg_covar)
    unit = backend.own(structure.spread(np.ones(n_features), n_components))
    covariances = structure.replace(covariances, statistics.empty, unit)
    model = MixtureModel.factorised(statistics.weights, statistics.means, covariances, structure)
    context = "from_responsibilities"
    advice = f"Increase reg_covar (now {reg_covar:g})."
    model, repaired = mended(model, reg_covar, dtype, statistics.counts, context, advice)
    if repaired:
        warn_restored(repaired, context, dtype, stacklevel=3)
    return model, repaired
