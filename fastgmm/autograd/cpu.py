"""The engine of the CPU: Numba kernels on views of the tensors' memory."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgmm.backends import batched, few, finite


def is_few(n_rows: int, n_features: int) -> bool:
    """Whether :func:`few_score` is faster than :func:`score` for a mixture of so many rows."""
    return n_rows <= few.FEW


def _views(*tensors: Tensor) -> list[batched.Array]:
    return [t.detach().numpy() for t in tensors]


def _tensors(found: batched.Gradients) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arrays = (found.x, found.constants, found.means, found.factors)
    return tuple(torch.from_numpy(a) for a in arrays)


def score(x: Tensor, constants: Tensor, means: Tensor, factors: Tensor, validate: bool) -> Tensor:
    """log sum_k exp(lp_k(x)) of every row, (B, N).

    lp_k(x) = constants_k - 1/2 |P_k (x - mu_k)|^2.

    Parameters
    ----------
    x : Tensor of shape (B, N, D)
        float32 or float64, as all others.
    constants : Tensor of shape (B, K)
    means : Tensor of shape (B, K, D)
    factors : Tensor
        P: lower triangles (B, K, D, D), diagonals (B, K, D) or numbers (B, K); a triangle or
        diagonal that all components share has 1 in place of K.
    validate : bool
        Refuse NaN, infinity, and mixtures without weight; else NaN gives NaN.

    Returns
    -------
    log_likelihood : Tensor of shape (B, N)

    Raises
    ------
    InputError
        If ``validate`` and a value cannot be used.
    """
    arrays = _views(x, constants, means, factors)
    if validate:
        finite.check_values(*arrays)
    return torch.from_numpy(batched.score(*arrays))


def per_component(
    x: Tensor, constants: Tensor, means: Tensor, factors: Tensor, validate: bool
) -> Tensor:
    """lp_k(x) of every row and component, (B, N, K); arguments as for :func:`score`."""
    arrays = _views(x, constants, means, factors)
    if validate:
        finite.check_values(*arrays)
    return torch.from_numpy(batched.per_component(*arrays))


def backward(
    upstream: Tensor,
    x: Tensor,
    constants: Tensor,
    means: Tensor,
    factors: Tensor,
    with_x: bool,
    with_moments: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, constants, means and factors of sums of what the other two give.

    Parameters
    ----------
    upstream : Tensor of shape (B, N) or (B, N, K)
        Weights of the sum: of :func:`score`, or of :func:`per_component`.
    x, constants, means, factors : Tensor
        As for :func:`score`.
    with_x, with_moments : bool
        Whether the first, and the last two, are wanted.

    Returns
    -------
    gradients : tuple of four tensors
        Each of the shape of its argument; that by ``x`` has no elements unless ``with_x``.
    """
    arrays = _views(upstream, x, constants, means, factors)
    return _tensors(batched.backward(*arrays, with_x=with_x, with_moments=with_moments))


def few_score(
    x: Tensor, log_weights: Tensor, means: Tensor, scale: Tensor, validate: bool
) -> Tensor:
    """log sum_k w_k N(x; mu_k, L_k L_k'), (B, N), for mixtures of few rows.

    Parameters
    ----------
    x : Tensor of shape (B, N, D)
    log_weights : Tensor of shape (B, K)
    means : Tensor of shape (B, K, D)
    scale : Tensor
        L: lower triangles (B, K, D, D) or diagonals (B, K, D); 1 in place of K where shared.
    validate : bool
        As for :func:`score`.

    Returns
    -------
    log_likelihood : Tensor of shape (B, N)
    """
    arrays = _views(x, log_weights, means, scale)
    if validate:
        few.check_values(*arrays)
    return torch.from_numpy(few.score(*arrays))


def few_backward(
    upstream: Tensor, x: Tensor, log_weights: Tensor, means: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, log_weights, means and scale of the sum of ``upstream`` times the former."""
    return _tensors(few.backward(*_views(upstream, x, log_weights, means, scale)))


def colour(labels: Tensor, noise: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """means[b, k] + factors[b, k] noise[b, s] with k = labels[b, s], (B, S, D).

    Parameters
    ----------
    labels : Tensor of shape (B, S)
    noise : Tensor of shape (B, S, D)
    means : Tensor of shape (B, K, D)
    factors : Tensor of shape (B, K, D, D) or (B, K, D)
        Lower triangular, or diagonals; 1 in place of K where shared.

    Returns
    -------
    x : Tensor of shape (B, S, D)
    """
    return torch.from_numpy(batched.colour(*_views(labels, noise, means, factors)))
