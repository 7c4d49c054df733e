"""The engine of GPUs: Triton kernels where the tensors are; on the CPU their interpreter.

Functions take and give what those of :mod:`fastgmm.autograd.cpu` do. Nothing waits for the device
unless values are to be validated, which a CUDA graph cannot do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastgmm.backends import batched_gpu, choose, few, few_gpu, finite


def is_few(n_rows: int, n_features: int) -> bool:
    """Whether a mixture has so few rows that its factors are not worth inverting."""
    return n_rows <= few.FEW and n_features <= few_gpu.FEW_FEATURES


def _run(function: Callable[..., Any], x: Tensor, *args: Any, **options: Any) -> Any:
    """Call a function of the backends for the device of ``x``, which is chosen or refused first."""
    backend: Any = choose("interpreter" if x.device.type == "cpu" else str(x.device))[0]
    with backend.guard():
        return function(backend.target, *args, **options)


def _each(found: Tensor) -> Tensor:
    """Whether something is so for all entries of each mixture, (B,)."""
    return found.flatten(1).all(dim=1)


def _sane(x: Tensor, constants: Tensor, means: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows (B, N) and which mixtures (B,) are finite; a weight of 0 has the constant -inf."""
    whole = _each(means.isfinite()) & _each(factors.isfinite()) & _each(constants < torch.inf)
    return x.isfinite().all(dim=-1), whole


def _check(check: Callable[..., None], heights: Tensor, *arguments: Tensor) -> None:
    """Refuse what the masks find wrong; only then are the values moved, for the message."""
    x, _, means, factors = arguments
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        # A CUDA graph keeps launches alone: to wait for the device is an error.
        return
    rows, whole = _sane(x, heights, means, factors)
    empty = _each(heights == -torch.inf)
    if not bool(rows.all() & whole.all() & ~empty.any()):
        check(*(t.detach().cpu().numpy() for t in arguments))


def _settled(out: Tensor, *arguments: Tensor) -> Tensor:
    """Results with NaN where a row or its mixture has it, and -inf for infinite rows."""
    rows, whole = _sane(*arguments)
    lost = torch.where(arguments[0].isnan().any(dim=-1), torch.nan, -torch.inf).to(out.dtype)
    trailing = (1,) * (out.ndim - 2)
    out = torch.where(rows.unflatten(1, (-1, *trailing)), out, lost.unflatten(1, (-1, *trailing)))
    return out.masked_fill(~whole.reshape(-1, 1, *trailing), torch.nan)


def _usable(upstream: Tensor, *arguments: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Which mixtures (B,) have finite gradients, and arguments with 0 for what is not finite.

    A row that is not finite spoils those of its mixture, unless its upstream gradient is 0.
    """
    rows, whole = _sane(*arguments)
    used = upstream != 0 if upstream.ndim == 2 else (upstream != 0).any(dim=2)
    x, *parameters = arguments
    kept = [_where(whole, p) for p in parameters]
    return whole & (rows | ~used).all(dim=1), [torch.where(rows[..., None], x, 0), *kept]


def _where(keep: Tensor, array: Tensor) -> Tensor:
    return torch.where(keep.reshape(-1, *(1,) * (array.ndim - 1)), array, 0)


def _spoilt(keep: Tensor, found: batched_gpu.Gradients) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with NaN for the mixtures that have none."""
    x, constants, means, factors = (
        g.masked_fill_(~keep.reshape(-1, *(1,) * (g.ndim - 1)), torch.nan) for g in found
    )
    return x, constants, means, factors


def score(x: Tensor, constants: Tensor, means: Tensor, factors: Tensor, validate: bool) -> Tensor:
    """log sum_k exp(lp_k(x)) of every row, (B, N)."""
    if validate:
        _check(finite.check_values, constants, x, constants, means, factors)
    arguments = x, constants, means, factors
    return _settled(_run(batched_gpu.score, x, *arguments), *arguments)


def per_component(
    x: Tensor, constants: Tensor, means: Tensor, factors: Tensor, validate: bool
) -> Tensor:
    """lp_k(x) of every row and component, (B, N, K)."""
    if validate:
        _check(finite.check_values, constants, x, constants, means, factors)
    arguments = x, constants, means, factors
    return _settled(_run(batched_gpu.per_component, x, *arguments), *arguments)


def backward(
    upstream: Tensor,
    x: Tensor,
    constants: Tensor,
    means: Tensor,
    factors: Tensor,
    with_x: bool,
    with_moments: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the sum of ``upstream`` (B, N) or (B, N, K) times what the former two give."""
    keep, arguments = _usable(upstream, x, constants, means, factors)
    found = _run(
        batched_gpu.backward,
        x,
        upstream.to(x.dtype).contiguous(),
        *arguments,
        with_x=with_x,
        with_moments=with_moments,
    )
    return _spoilt(keep, found)


def few_score(
    x: Tensor, log_weights: Tensor, means: Tensor, scale: Tensor, validate: bool
) -> Tensor:
    """log sum_k w_k N(x; mu_k, L_k L_k'), (B, N), for mixtures of few rows."""
    arguments = x, few.sound_constants(log_weights, scale), means, scale
    if validate:
        _check(few.check_values, arguments[1], *arguments)
    return _settled(_run(few_gpu.score, x, *arguments), *arguments)


def few_backward(
    upstream: Tensor, x: Tensor, log_weights: Tensor, means: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, log_weights, means and scale of the sum of ``upstream`` times the former."""
    keep, arguments = _usable(upstream, x, few.sound_constants(log_weights, scale), means, scale)
    return _spoilt(keep, _run(few_gpu.backward, x, upstream.to(x.dtype), *arguments))


def colour(labels: Tensor, noise: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """means[b, k] + factors[b, k] noise[b, s] with k = labels[b, s], (B, S, D)."""
    found: Tensor = _run(few_gpu.colour, noise, labels, noise, means, factors)
    return found
