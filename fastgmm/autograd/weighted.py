"""The functions of :mod:`fastgmm.functional` on tensors: weights, and factors of the precisions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgmm import autograd
from fastgmm.autograd.arguments import check_tensors


def log_weights(weights: Tensor) -> Tensor:
    """log w; a weight of 0 gives -inf, and gets gradient 0."""
    check_tensors(weights=weights)
    empty = weights == 0
    return torch.where(empty, -torch.inf, torch.where(empty, 1.0, weights).log())


def log_prob(x: Tensor, means: Tensor, factors: Tensor, covariance_type: str) -> Any:
    """Log-density of each component, without weights, (..., N, K)."""
    check_tensors(means=means)
    zeros = torch.zeros_like(means[..., 0])
    return autograd.component_log_prob(
        x, zeros, means, factors, covariance_type, parameterisation="precisions_cholesky"
    )


def score_samples(
    x: Tensor, weights: Tensor, means: Tensor, factors: Tensor, covariance_type: str
) -> Any:
    """Log-likelihood of each row, (..., N)."""
    return autograd.mixture_log_prob(
        x,
        log_weights(weights),
        means,
        factors,
        covariance_type,
        parameterisation="precisions_cholesky",
    )


def responsibilities(
    x: Tensor, weights: Tensor, means: Tensor, factors: Tensor, covariance_type: str
) -> Any:
    """Posterior probabilities, (..., N, K)."""
    return autograd.responsibilities(
        x,
        log_weights(weights),
        means,
        factors,
        covariance_type,
        parameterisation="precisions_cholesky",
    )
