"""The kernels as plain functions on arrays, for those who write their own loop.

The mixture is given as arrays: ``weights`` (K,), ``means`` (K, D) and ``precisions_cholesky`` as
in scikit-learn: for "full" upper triangular U_k (K, D, D) with Sigma_k^-1 = U_k U_k', for "tied"
one U, otherwise reciprocal standard deviations of the structure's shape. Rows that are a tensor
give tensors on its device; the mixture may be of any kind. Half precision is computed and answered
in float32, all else but float32 in float64.

``log_prob``, ``score_samples`` and ``responsibilities`` carry gradients where a tensor requires
them, and take leading dimensions of many mixtures: then all arguments are tensors and ``device``
is "auto". What the others give no gradient flows through.

EM of one's own, in parts that add:

>>> import numpy as np
>>> from fastgmm import functional
>>> x = np.random.default_rng(0).normal(size=(1000, 2)) * [4.0, 1.0]
>>> mixture = [0.5, 0.5], x[:2], functional.precisions_cholesky([[1.0, 1.0]] * 2, "diag")
>>> for _ in range(10):
...     parts = (functional.sufficient_statistics(p, *mixture, "diag") for p in np.split(x, 4))
...     statistics = sum(parts, next(parts))
...     mixture = functional.m_step(statistics, *mixture, "diag")
>>> mixture[0].sum().round(6)
np.float64(1.0)
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from fastgmm import covariance
from fastgmm.arrays import Array, as_given, cast, home, is_tensor, like, to_numpy, working_dtype
from fastgmm.backends import Backend, choose
from fastgmm.budget import check_result
from fastgmm.checks import check_finite
from fastgmm.errors import InputError
from fastgmm.given import from_parameters, numbers
from fastgmm.model import MixtureModel
from fastgmm.sources import ArraySource
from fastgmm.statistics import SufficientStatistics
from fastgmm.steps import covariances, m_step, precisions_cholesky, row_scatter, sample
from fastgmm.tensors import detached

__all__ = [
    "covariances",
    "log_prob",
    "m_step",
    "precisions_cholesky",
    "predict",
    "responsibilities",
    "row_scatter",
    "sample",
    "score_samples",
    "sufficient_statistics",
]


def _model(
    weights: Any, means: Any, precisions_cholesky: Any, covariance_type: str
) -> MixtureModel:
    structure = covariance.get(covariance_type)
    return from_parameters(weights, means, structure, factors=precisions_cholesky)[0]


def _prepare(
    x: Any, model: MixtureModel, device: str, *, wide: bool = False
) -> tuple[Backend, Any, Array]:
    """A backend, the model and the rows as it takes them; ``wide`` results have K columns."""
    rows = numbers(x, "x")
    if rows.ndim != 2 or rows.shape[1] != model.n_features:
        raise InputError(f"x must have shape (N, {model.n_features}); got {tuple(rows.shape)}.")
    if wide and home(rows) in (None, "cpu"):
        size = working_dtype(rows.dtype).itemsize
        check_result(len(rows), model.n_components, size, writes=False)
    backend, _ = choose(device, home(rows))
    rows = backend.rows(rows)
    if not backend.all_finite(rows):
        check_finite(rows)
    return backend, backend.prepare(model.map(backend.own), rows.dtype), rows


def _differentiable(
    x: Any, weights: Any, means: Any, factors: Any, covariance_type: str, device: str
) -> bool:
    """Whether gradients or batches of mixtures are asked for, which only tensors can."""
    if "torch" not in sys.modules:
        return False
    single = (2, 1, 2, len(covariance.get(covariance_type).shape(1, 1)))
    given = zip((x, weights, means, factors), single, strict=True)
    if not any(is_tensor(t) and (t.requires_grad or t.ndim > n) for t, n in given):
        return False
    if device != "auto":
        raise InputError(
            "device must be 'auto' for tensors that require grad and for batches of mixtures; "
            f"got {device!r}."
        )
    return True


def _on_tensors(name: str, x: Any, *parameters: Any) -> Any:
    """What a function of tensors gives, in the dtype of the rows whatever the mixture has."""
    import torch

    from fastgmm.autograd import weighted

    rows = detached(x, "x") if is_tensor(x) and not x.is_floating_point() else x
    result = getattr(weighted, name)(rows, *parameters)
    return result.to(torch.promote_types(rows.dtype, torch.float32))


def _as_rows(statistics: SufficientStatistics, x: Any) -> SufficientStatistics:
    """Statistics of the kind of the rows, where they are."""

    def placed(number: Any) -> Any:
        if not is_tensor(number):
            return number
        return like(number, x) if is_tensor(x) else float(number)

    statistics = statistics.map(lambda part: like(part, x))
    return replace(
        statistics,
        log_likelihood=placed(statistics.log_likelihood),
        weight=placed(statistics.weight),
    )


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
        Half precision becomes float32, anything else but float32 float64. Must be finite.
    means : array-like of shape (K, D)
    precisions_cholesky : array-like of the structure's shape
    covariance_type : str
        One of :func:`fastgmm.covariance.names`.
    device : {"auto", "cpu", "cuda", "reference", ...}

    Returns
    -------
    log_prob : array of shape (N, K)
        In nats, of the dtype that ``x`` is computed in.

    Raises
    ------
    InputError
        If a shape or value does not fit, or the result would be larger than the memory.

    Examples
    --------
    >>> from fastgmm import functional
    >>> functional.log_prob([[0.0]], [[0.0]], [[1.0]], "diag").round(4)
    array([[-0.9189]])
    """
    given = means, precisions_cholesky, covariance_type
    if _differentiable(x, None, *given, device):
        return _on_tensors("log_prob", x, *given)
    equal = np.ones(np.shape(means)[:1])
    model = _model(equal / max(equal.size, 1), *given).unweighted()
    backend, prepared, rows = _prepare(x, model, device, wide=True)
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
    given = weights, means, precisions_cholesky, covariance_type
    if _differentiable(x, *given, device):
        return _on_tensors("score_samples", x, *given)
    model = _model(*given)
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

    Raises
    ------
    InputError
        If a shape or value does not fit, or the result would be larger than the memory.
    """
    given = weights, means, precisions_cholesky, covariance_type
    if _differentiable(x, *given, device):
        return _on_tensors("responsibilities", x, *given)
    model = _model(*given)
    backend, prepared, rows = _prepare(x, model, device, wide=True)
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
        They add over parts of the data; of the kind of ``x``, on its device. A part without rows,
        or whose weights are all 0, adds zeros.
    """
    model = _model(weights, means, precisions_cholesky, covariance_type)
    backend, prepared, rows = _prepare(x, model, device)
    weight = np.ones(len(rows)) if sample_weight is None else to_numpy(sample_weight)
    if weight.shape == (len(rows),) and not weight.any():
        # One row that counts for nothing, wherever the others are, gives zeros of each shape.
        row = cast(like(model.means[:1], rows), working_dtype(rows.dtype))
        zeros = backend.accumulate(prepared, row, like(np.zeros(1), rows))
        return _as_rows(replace(zeros, n_rows=len(rows)), x)
    source = ArraySource(rows, sample_weight)
    chunks = ((chunk.x, chunk.weight, None) for chunk in source)
    statistics = backend.accumulate_all(prepared, chunks)
    return _as_rows(statistics.scale(source.weight_scale), x)
