"""The kernels as plain functions on arrays, for those who write their own loop.

The mixture is given as arrays: ``weights`` (K,), ``means`` (K, D) and ``precisions_cholesky`` as
in scikit-learn: for "full" upper triangular U_k (K, D, D) with Sigma_k^-1 = U_k U_k', for "tied"
one U, otherwise reciprocal standard deviations of the structure's shape. Rows that are a tensor
give tensors on its device; the mixture may be of any kind. Half precision is computed and answered
in float32, all else but float32 in float64.

``log_prob``, ``score_samples`` and ``responsibilities`` carry gradients where a tensor requires
them, and take leading dimensions of many mixtures: then all arguments are tensors and ``device``
is "auto". ``predict`` and ``sufficient_statistics`` give what no gradient flows through.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from fastgmm import covariance
from fastgmm.arrays import (
    Array,
    as_given,
    cast,
    home,
    is_tensor,
    like,
    native,
    to_numpy,
    working_dtype,
)
from fastgmm.backends import Backend, choose
from fastgmm.checks import check_finite
from fastgmm.errors import InputError
from fastgmm.model import MixtureModel
from fastgmm.parameters import check_factors, check_means, exact_weights
from fastgmm.sources import ArraySource
from fastgmm.statistics import SufficientStatistics
from fastgmm.tensors import detached

__all__ = [
    "log_prob",
    "predict",
    "responsibilities",
    "score_samples",
    "sufficient_statistics",
]


def _model(
    weights: Any, means: Any, precisions_cholesky: Any, covariance_type: str
) -> MixtureModel:
    structure = covariance.get(covariance_type)
    means = np.asarray(to_numpy(means), np.float64)
    if means.ndim != 2:
        raise InputError(f"means must have shape (K, D); got {means.shape}.")
    means = check_means(means, *means.shape)
    if weights is None:
        weights = np.full(len(means), 1.0 / len(means))
    weights = exact_weights(weights, len(means))
    factors = check_factors(precisions_cholesky, structure, *means.shape).astype(np.float64)
    return MixtureModel(weights, means, structure.covariances(factors), factors, structure)


def _rows(x: Any, n_features: int) -> Array:
    x = detached(x, "x") if is_tensor(x) else np.asarray(x)
    x = x if is_tensor(x) else native(x)
    if not is_tensor(x) and x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float32 if x.dtype == np.float16 else np.float64)
    if x.ndim != 2 or x.shape[1] != n_features:
        raise InputError(f"x must have shape (N, {n_features}); got {tuple(x.shape)}.")
    return x


def _prepare(x: Any, model: MixtureModel, device: str) -> tuple[Backend, Any, Array]:
    rows = _rows(x, model.n_features)
    backend, _ = choose(device, home(rows))
    rows = backend.rows(rows)
    if not backend.all_finite(rows):
        check_finite(rows)
    return backend, backend.prepare(model.map(backend.own), rows.dtype), rows


def _differentiable(x: Any, *parameters: Any, device: str) -> bool:
    """Whether gradients or batches of mixtures are asked for, which only tensors can."""
    if "torch" not in sys.modules:
        return False
    from torch import Tensor

    tensors = [t for t in (x, *parameters) if isinstance(t, Tensor)]
    if not any(t.requires_grad or np.ndim(x) > 2 for t in tensors):
        return False
    if device != "auto":
        raise InputError(f"device must be 'auto' for tensors that require grad; got {device!r}.")
    return True


def log_prob(
    x: Any,
    means: Any,
    precisions_cholesky: Any,
    covariance_type: str = "full",
    *,
    device: str = "auto",
) -> Array:
    """Log-density of each component, without weights.

    log p(x_n | k) = log|U_k| - D/2 log 2 pi - 1/2 |U_k'(x_n - mu_k)|^2.

    Parameters
    ----------
    x : array-like or tensor of shape (N, D)
        float32 or float64, anything else becomes float64. Must be finite.
    means : array-like of shape (K, D)
    precisions_cholesky : array-like of the structure's shape
    covariance_type : str
        One of :func:`fastgmm.covariance.names`.
    device : {"auto", "cpu", "cuda", "reference", ...}

    Returns
    -------
    log_prob : array of shape (N, K)
        In nats, of the dtype of ``x``.

    Raises
    ------
    InputError
        If a shape or value does not fit.

    Examples
    --------
    >>> from fastgmm import functional
    >>> functional.log_prob([[0.0]], [[0.0]], [[1.0]], "diag").round(4)
    array([[-0.9189]])
    """
    if _differentiable(x, means, precisions_cholesky, device=device):
        from fastgmm.autograd.weighted import log_prob as on_tensors

        return on_tensors(x, means, precisions_cholesky, covariance_type)
    model = _model(None, means, precisions_cholesky, covariance_type).unweighted()
    backend, prepared, rows = _prepare(x, model, device)
    return as_given(backend.weighted_log_prob(prepared, rows), x)


def score_samples(
    x: Any,
    weights: Any,
    means: Any,
    precisions_cholesky: Any,
    covariance_type: str = "full",
    *,
    device: str = "auto",
) -> Array:
    """Log-likelihood of each row: log sum_k w_k p(x_n | k), without an (N, K) array.

    Parameters
    ----------
    x : array-like of shape (N, D)
    weights : array-like of shape (K,)
    means : array-like of shape (K, D)
    precisions_cholesky : array-like of the structure's shape
    covariance_type : str
    device : {"auto", "cpu", "cuda", "reference", ...}

    Returns
    -------
    log_likelihood : array of shape (N,)
        In nats.

    Examples
    --------
    >>> from fastgmm import functional
    >>> functional.score_samples([[0.0]], [1.0], [[0.0]], [[1.0]], "diag").round(4)
    array([-0.9189])
    """
    if _differentiable(x, weights, means, precisions_cholesky, device=device):
        from fastgmm.autograd.weighted import score_samples as on_tensors

        return on_tensors(x, weights, means, precisions_cholesky, covariance_type)
    model = _model(weights, means, precisions_cholesky, covariance_type)
    backend, prepared, rows = _prepare(x, model, device)
    return as_given(backend.score_samples(prepared, rows), x)


def predict(
    x: Any,
    weights: Any,
    means: Any,
    precisions_cholesky: Any,
    covariance_type: str = "full",
    *,
    device: str = "auto",
) -> Array:
    """The most probable component of each row: argmax_k w_k p(x_n | k).

    Parameters
    ----------
    x : array-like of shape (N, D)
    weights : array-like of shape (K,)
    means : array-like of shape (K, D)
    precisions_cholesky : array-like of the structure's shape
    covariance_type : str
    device : {"auto", "cpu", "cuda", "reference", ...}

    Returns
    -------
    labels : array of shape (N,)
        int64; the first component wins a tie.
    """
    model = _model(weights, means, precisions_cholesky, covariance_type)
    backend, prepared, rows = _prepare(x, model, device)
    return as_given(backend.predict(prepared, rows), x)


def responsibilities(
    x: Any,
    weights: Any,
    means: Any,
    precisions_cholesky: Any,
    covariance_type: str = "full",
    *,
    device: str = "auto",
) -> Array:
    """Posterior probabilities: r_nk = w_k p(x_n | k) / sum_j w_j p(x_n | j).

    Parameters
    ----------
    x : array-like of shape (N, D)
    weights : array-like of shape (K,)
    means : array-like of shape (K, D)
    precisions_cholesky : array-like of the structure's shape
    covariance_type : str
    device : {"auto", "cpu", "cuda", "reference", ...}

    Returns
    -------
    resp : array of shape (N, K)
        Rows sum to 1, however far a row is from every component.
    """
    if _differentiable(x, weights, means, precisions_cholesky, device=device):
        from fastgmm.autograd.weighted import responsibilities as on_tensors

        return on_tensors(x, weights, means, precisions_cholesky, covariance_type)
    model = _model(weights, means, precisions_cholesky, covariance_type)
    backend, prepared, rows = _prepare(x, model, device)
    return as_given(backend.responsibilities(prepared, rows), x)


def sufficient_statistics(
    x: Any,
    weights: Any,
    means: Any,
    precisions_cholesky: Any,
    covariance_type: str = "full",
    sample_weight: Any = None,
    *,
    device: str = "auto",
) -> SufficientStatistics:
    """Statistics of one E-step: counts and moments about the means, without an (N, K) array.

    Parameters
    ----------
    x : array-like of shape (N, D)
    weights : array-like of shape (K,)
    means : array-like of shape (K, D)
    precisions_cholesky : array-like of the structure's shape
    covariance_type : str
    sample_weight : array-like of shape (N,), optional
    device : {"auto", "cpu", "cuda", "reference", ...}

    Returns
    -------
    statistics : SufficientStatistics
        They add over parts of the data; of the kind of ``x``. A part without rows, or whose
        weights are all 0, adds zeros.
    """
    model = _model(weights, means, precisions_cholesky, covariance_type)
    backend, prepared, rows = _prepare(x, model, device)
    weight = np.ones(len(rows)) if sample_weight is None else to_numpy(sample_weight)
    if weight.shape == (len(rows),) and not weight.any():
        # One row that counts for nothing, wherever the others are, gives zeros of each shape.
        row = cast(like(model.means[:1], rows), working_dtype(rows.dtype))
        zeros = backend.accumulate(prepared, row, like(np.zeros(1), rows))
        return replace(zeros, n_rows=len(rows)).map(lambda part: as_given(part, x))
    source = ArraySource(rows, sample_weight)
    chunks = ((chunk.x, chunk.weight, None) for chunk in source)
    statistics = backend.accumulate_all(prepared, chunks)
    return statistics.scale(source.weight_scale).map(lambda part: as_given(part, x))
