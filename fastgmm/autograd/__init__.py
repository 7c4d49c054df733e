"""Log-probabilities of Gaussian mixtures on torch tensors, differentiable, on compiled kernels.

Forward passes keep no array of rows times components; backward passes compute the responsibilities
again and hand back sufficient statistics, which are the gradients. Leading dimensions of the
parameters are batches of mixtures, as a network that maps contexts to mixtures gives them.

A responsibility that underflows, and a row with upstream gradient 0, add nothing to any gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fastgmm.autograd import ops
from fastgmm.autograd.arguments import (
    Factors,
    Mixtures,
    as_scale,
    check_mixture,
    check_tensors,
    flatten,
    from_precisions_cholesky,
    from_scale,
)
from fastgmm.autograd.engines import engine_for
from fastgmm.errors import InputError

__all__ = ["component_log_prob", "log_responsibilities", "mixture_log_prob", "responsibilities"]

Parameterisation = Literal["scale", "precisions_cholesky"]


def _mixtures(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    factors: Tensor,
    covariance_type: str,
    parameterisation: str,
) -> Mixtures:
    dtype = check_tensors(x=x, log_weights=log_weights, means=means, factors=factors)
    check_mixture(log_weights, means, factors, covariance_type)
    if parameterisation not in ("scale", "precisions_cholesky"):
        raise InputError(
            f"parameterisation must be 'scale' or 'precisions_cholesky'; got {parameterisation!r}."
        )
    build = from_scale if parameterisation == "scale" else from_precisions_cholesky
    found: Factors = build(factors.to(dtype), covariance_type, means.shape[-2])
    return flatten(x.to(dtype), log_weights.to(dtype), means.to(dtype), found)


def _few(x: Tensor) -> bool:
    """Whether mixtures have so few rows that their factors are not worth inverting."""
    check_tensors(x=x)
    return x.ndim > 1 and engine_for(x).is_few(*x.shape[-2:])


def _mixtures_of_few(
    x: Tensor, log_weights: Tensor, means: Tensor, scale: Tensor, covariance_type: str
) -> Mixtures:
    dtype = check_tensors(x=x, log_weights=log_weights, means=means, factors=scale)
    check_mixture(log_weights, means, scale, covariance_type)
    found = as_scale(scale.to(dtype), covariance_type, means.shape[-1])
    return flatten(x.to(dtype), log_weights.to(dtype), means.to(dtype), found, normalised=False)


def mixture_log_prob(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    factors: Tensor,
    covariance_type: str = "full",
    *,
    parameterisation: Parameterisation = "scale",
    validate: bool = True,
) -> Tensor:
    """Log-density of mixtures: log sum_k w_k N(x; mu_k, Sigma_k).

    With g the upstream gradient and r the responsibilities, the gradients are the sums g r by
    log w_k, g r Sigma_k^-1 (x - mu_k) by mu_k, and so on: statistics of one E-step.

    Parameters
    ----------
    x : Tensor of shape (..., N, D)
    log_weights : Tensor of shape (..., K)
        log w; not normalised here. -inf is a component without weight, and gets gradient 0.
    means : Tensor of shape (..., K, D)
    factors : Tensor
        (..., K, D, D) if full, (..., D, D) if tied, (..., K, D) if diag, (..., D) if tied_diag,
        (..., K) if spherical, (...) if tied_spherical. Leading dimensions of all arguments
        broadcast: each index of them is a mixture of its own.
    covariance_type : {"full", "tied", "diag", "spherical", "tied_diag", "tied_spherical"}
    parameterisation : {"scale", "precisions_cholesky"}
        What ``factors`` are. "scale": lower Cholesky factors L of the covariances (scale_tril), or
        standard deviations. "precisions_cholesky": upper U with Sigma^-1 = U U', as in
        scikit-learn, or reciprocal standard deviations.
    validate : bool
        Refuse NaN, infinity, and mixtures without weight. Without, NaN gives NaN; so it does in a
        CUDA graph, which cannot look at values.

    Returns
    -------
    log_prob : Tensor of shape (..., N)
        In nats. float64 if any argument is; float32 otherwise, for half precisions too.

    Raises
    ------
    InputError
        If a shape, dtype, device or value does not fit; the message names the argument.

    Notes
    -----
    First derivatives are kernels. Higher derivatives hold all rows times components times
    features in memory.

    Examples
    --------
    >>> import torch
    >>> from fastgmm.autograd import mixture_log_prob
    >>> means = torch.tensor([[0.0], [2.0]], requires_grad=True)
    >>> weights, scale = torch.tensor([0.5, 0.5]), torch.ones(2, 1)
    >>> x = torch.tensor([[0.5]])
    >>> mixture_log_prob(x, weights.log(), means, scale, "diag").sum().backward()
    >>> [round(g, 4) for g in means.grad[:, 0].tolist()]
    [0.3655, -0.4034]
    """
    given = (x, log_weights, means, factors, covariance_type, parameterisation)
    if parameterisation == "scale" and _few(x):
        found = _mixtures_of_few(*given[:5])
        operator = ops.few_log_prob
    else:
        found = _mixtures(*given)
        operator = ops.mixture_log_prob
    out = operator(found.x, found.constants, found.means, found.factors, validate)
    return out.reshape(*found.batch_shape, x.shape[-2])


def component_log_prob(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    factors: Tensor,
    covariance_type: str = "full",
    *,
    parameterisation: Parameterisation = "scale",
    validate: bool = True,
) -> Tensor:
    """Weighted log-density of every component: log w_k + log N(x; mu_k, Sigma_k).

    Parameters
    ----------
    x, log_weights, means, factors, covariance_type, parameterisation, validate
        As for :func:`mixture_log_prob`.

    Returns
    -------
    log_prob : Tensor of shape (..., N, K)
        In nats.

    Raises
    ------
    InputError
    """
    found = _mixtures(x, log_weights, means, factors, covariance_type, parameterisation)
    out = ops.component_log_prob(found.x, found.constants, found.means, found.factors, validate)
    return out.reshape(*found.batch_shape, x.shape[-2], means.shape[-2])


def log_responsibilities(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    factors: Tensor,
    covariance_type: str = "full",
    *,
    parameterisation: Parameterisation = "scale",
    validate: bool = True,
) -> Tensor:
    """Logarithms of posterior probabilities, log r_nk.

    Parameters
    ----------
    x, log_weights, means, factors, covariance_type, parameterisation, validate
        As for :func:`mixture_log_prob`.

    Returns
    -------
    log_resp : Tensor of shape (..., N, K)
        A row so far away that every log-density overflows belongs to the nearest component that
        has weight, and has no gradient.

    Raises
    ------
    InputError
    """
    found = _mixtures(x, log_weights, means, factors, covariance_type, parameterisation)
    joint = ops.component_log_prob(found.x, found.constants, found.means, found.factors, validate)
    # The difference of two infinities would be NaN, and so would its gradient.
    lost = torch.isneginf(joint).all(-1)
    owner = ops.nearest(lost, *(tensor.detach() for tensor in found[:4]))
    others = torch.arange(joint.shape[-1], device=joint.device) != owner[..., None]
    settled = torch.zeros_like(joint).masked_fill(others, -torch.inf)
    out = torch.where(lost[..., None], settled, joint).log_softmax(-1)
    return out.reshape(*found.batch_shape, x.shape[-2], means.shape[-2])


def responsibilities(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    factors: Tensor,
    covariance_type: str = "full",
    *,
    parameterisation: Parameterisation = "scale",
    validate: bool = True,
) -> Tensor:
    """Posterior probabilities: r_nk = w_k N(x_n; mu_k, Sigma_k) / sum_j w_j N(x_n; mu_j, Sigma_j).

    Parameters
    ----------
    x, log_weights, means, factors, covariance_type, parameterisation, validate
        As for :func:`mixture_log_prob`.

    Returns
    -------
    resp : Tensor of shape (..., N, K)
        Rows sum to 1.

    Raises
    ------
    InputError
    """
    return log_responsibilities(
        x,
        log_weights,
        means,
        factors,
        covariance_type,
        parameterisation=parameterisation,
        validate=validate,
    ).exp()
