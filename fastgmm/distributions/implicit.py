"""Implicit reparameterisation: gradients of samples of a Gaussian mixture by its parameters.

The distributional transform S_d(x) = F(x_d | x_1 ... x_d-1), the conditional distribution function
of each feature, maps x to independent uniform numbers. A sample that keeps them while parameters
change moves by dx = -(dS/dx)^-1 dS/dparameters. With y_k = P_k (x - mu_k), P_k lower triangular,

    S_d = sum_k pi_kd Phi(y_kd),   pi_kd proportional to w_k prod_{i<d} P_k,ii phi(y_ki).

Figurnov, Mohamed and Mnih (2018), Implicit reparameterization gradients; Graves (2016), Stochastic
backpropagation through mixture density distributions.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

# Numbers of the largest intermediate array; rows are taken in chunks that keep to it.
_CHUNK = 1 << 22
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _whiten(x: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """y (B, n, K, D)."""
    difference = x[:, :, None] - means[:, None]
    if factors.ndim == 4:
        shape = (*means.shape, means.shape[-1])
        return torch.einsum("bkij,bnkj->bnki", factors.expand(shape), difference)
    return factors[:, None] * difference


def _diagonals(factors: Tensor) -> Tensor:
    return factors.diagonal(dim1=-2, dim2=-1) if factors.ndim == 4 else factors


def _conditional_shares(y: Tensor, log_weights: Tensor, factors: Tensor) -> Tensor:
    """pi (B, n, K, D): weights of the components given the features before each."""
    steps = _diagonals(factors).log()[:, None] - 0.5 * y**2 - _HALF_LOG_2PI
    before = steps.cumsum(-1) - steps
    return (log_weights[:, None, :, None] + before).softmax(-2)


def _transform(x: Tensor, log_weights: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """S (B, n, D)."""
    y = _whiten(x, means, factors)
    return (_conditional_shares(y, log_weights, factors) * torch.special.ndtr(y)).sum(-2)


def _jacobian(x: Tensor, log_weights: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """dS_d / dx_j, lower triangular, (B, n, D, D)."""
    y = _whiten(x, means, factors)
    shares = _conditional_shares(y, log_weights, factors)
    below = torch.special.ndtr(y)
    transform = (shares * below).sum(-2, keepdim=True)
    density = shares * torch.exp(-0.5 * y**2 - _HALF_LOG_2PI)
    # How the shares turn: d log(unnormalised pi_kd) / dx_j = -sum_{i<d} y_ki P_k,ij.
    turn = shares * (below - transform)
    if factors.ndim == 4:
        full = factors.expand(*means.shape, means.shape[-1])
        products = y[..., None] * full[:, None]
        before = products.cumsum(-2) - products
        direct = torch.einsum("bnkd,bkdj->bndj", density, full)
        return direct - torch.einsum("bnkd,bnkdj->bndj", turn, before)
    direct = torch.diag_embed((density * factors[:, None]).sum(-2))
    return direct - torch.einsum("bnkd,bnkj->bndj", turn, y * factors[:, None]).tril(-1)


class _Implicit(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, log_weights: Tensor, means: Tensor, factors: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # What comes out and not what went in: derivatives of derivatives see that it moves.
        ctx.save_for_backward(output, *inputs[1:])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # Differences of distribution functions: in float64, whatever the samples are.
        x, *parameters = (t.double() for t in ctx.saved_tensors)
        n_mixtures, n_rows, n_features = x.shape
        width = n_features if parameters[2].ndim == 4 else 1
        row = max(n_mixtures * parameters[1].shape[1] * n_features * width, 1)
        size = max(_CHUNK // row, 1)
        totals = [torch.zeros_like(p) for p in parameters]
        for start in range(0, n_rows, size):
            part, further = (t[:, start : start + size] for t in (x, upstream.double()))
            jacobian = _jacobian(part, *parameters)
            pull = torch.linalg.solve_triangular(jacobian.mT, further[..., None], upper=True)
            _, pullback = torch.func.vjp(partial(_transform, part), *parameters)
            totals = [t - g for t, g in zip(totals, pullback(pull[..., 0]), strict=True)]
        dtypes = (t.dtype for t in ctx.saved_tensors[1:])
        return (None, *(t.to(dtype) for t, dtype in zip(totals, dtypes, strict=True)))


def attach(x: Tensor, log_weights: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """Return the samples ``x`` as a differentiable function of the parameters.

    Parameters
    ----------
    x : Tensor of shape (B, N, D)
        Samples of the mixtures.
    log_weights : Tensor of shape (B, K)
    means : Tensor of shape (B, K, D)
    factors : Tensor of shape (B, K, D, D) or (B, K, D)
        P, lower triangular or diagonals; 1 in place of K where shared.

    Returns
    -------
    x : Tensor of shape (B, N, D)
        Backward holds all (row, component, feature) values, and for triangles the square of the
        features, of a chunk of rows at a time; of all rows for derivatives of derivatives.
    """
    return _Implicit.apply(x, log_weights, means, factors)
