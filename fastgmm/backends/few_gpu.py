"""Many mixtures of few rows each on the Triton kernels, forward and backward; and their samples.

Arguments are those of :mod:`fastgmm.backends.few`, as finite tensors on the device of a target.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch

from fastgmm.backends.batched_gpu import Gradients
from fastgmm.backends.passes import Target
from fastgmm_kernels import gpu as kernels

Tensor: TypeAlias = torch.Tensor

# Features up to which all rows of a mixture fit into the registers of a program.
FEW_FEATURES = 128


def _groups(target: Target, n_mixtures: int, n_components: int) -> int:
    """Groups of components, none empty, that keep the device busy where mixtures do not."""
    wanted = min(max(target.programs // n_mixtures, 1), n_components)
    return -(-n_components // -(-n_components // wanted))


def _constants(x: Tensor, log_weights: Tensor) -> Tensor:
    return log_weights.contiguous() - 0.5 * x.shape[2] * math.log(2 * math.pi)


def score(target: Target, x: Tensor, log_weights: Tensor, means: Tensor, scale: Tensor) -> Tensor:
    """log sum_k w_k N(x; mu_k, L_k L_k') of every row, (B, N).

    Parameters
    ----------
    target : Target
    x : Tensor of shape (B, N, D)
        float32 or float64, any strides.
    log_weights, means, scale : Tensor
        Of the dtype of ``x``.

    Returns
    -------
    log_likelihood : Tensor of shape (B, N)
    """
    n_mixtures, n_rows, n_features = x.shape
    if n_mixtures * n_rows == 0:
        return target.empty((n_mixtures, n_rows), x.dtype)
    groups = _groups(target, n_mixtures, means.shape[1])
    out = target.empty((groups, n_mixtures, n_rows), x.dtype)
    kernels.few_score(
        x, _constants(x, log_weights), means.contiguous(), scale.contiguous(), out,
        launch=target.launch("few", n_features, x.dtype),
    )  # fmt: skip
    return out[0] if groups == 1 else out.logsumexp(dim=0)


def backward(
    target: Target,
    upstream: Tensor,
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    scale: Tensor,
) -> Gradients:
    """Gradients of sum_bn upstream_bn score_bn by x, log_weights, means and scale."""
    n_mixtures, n_rows, n_features = x.shape
    dtype, n_components = x.dtype, means.shape[1]
    if n_mixtures * n_rows == 0:
        empty = (target.zeros(a.shape, dtype) for a in (x, log_weights, means, scale))
        return Gradients(*empty)
    groups = _groups(target, n_mixtures, n_components)
    shared = scale.shape[1] < n_components
    dx = target.empty((groups, *x.shape), dtype)
    dscale = target.empty((groups, *scale.shape) if shared else scale.shape, dtype)
    found = Gradients(
        dx, target.empty(log_weights.shape, dtype), target.empty(means.shape, dtype), dscale
    )
    kernels.few_backward(
        x, upstream.contiguous(), score(target, x, log_weights, means, scale),
        _constants(x, log_weights), means.contiguous(), scale.contiguous(), found,
        launch=target.launch("few", n_features, dtype),
    )  # fmt: skip
    return found._replace(x=dx.sum(dim=0), factors=dscale.sum(dim=0) if shared else dscale)


def colour(target: Target, labels: Tensor, noise: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """means[b, k] + factors[b, k] noise[b, s] with k = labels[b, s], (B, S, D).

    Parameters
    ----------
    target : Target
    labels : Tensor of shape (B, S)
        int64.
    noise : Tensor of shape (B, S, D)
    means : Tensor of shape (B, K, D)
    factors : Tensor of shape (B, K, D, D) or (B, K, D)
        Lower triangles, or diagonals; 1 in place of K where they are shared.

    Returns
    -------
    x : Tensor of shape (B, S, D)
    """
    out = target.empty(noise.shape, noise.dtype)
    if out.numel() == 0:
        return out
    # The kernel reads triangles column by column.
    columns = factors.mT.contiguous().mT if factors.ndim == 4 else factors.contiguous()
    kernels.colour_rows(
        noise.contiguous(), labels.contiguous(), means.contiguous(), columns, out,
        launch=target.launch("colour", noise.shape[2], noise.dtype),
    )  # fmt: skip
    return out
