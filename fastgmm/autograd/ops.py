"""The kernels as torch operators: traced by torch.compile, differentiable, batched by vmap.

Mixtures come as in :mod:`fastgmm.autograd.cpu`. Derivatives of derivatives are taken of
:func:`dense_log_prob`, which holds all rows times components times features: correct, not fast.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from fastgmm.autograd.engines import engine_for


def dense_log_prob(x: Tensor, constants: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """lp_k(x) of every row and component, (B, N, K), by ordinary torch operators."""
    difference = x[:, :, None, :] - means[:, None]
    if factors.ndim == 4:
        shape = (*means.shape, means.shape[-1])
        whitened = torch.einsum("bkij,bnkj->bnki", factors.tril().expand(shape), difference)
    else:
        whitened = difference * (factors if factors.ndim == 3 else factors[..., None])[:, None]
    return constants[:, None] - 0.5 * (whitened**2).sum(-1)


@custom_op("fastgmm::mixture_log_prob", mutates_args=())
def mixture_log_prob(
    x: Tensor, constants: Tensor, means: Tensor, factors: Tensor, validate: bool
) -> Tensor:
    """log sum_k exp(lp_k(x)), (B, N)."""
    return engine_for(x).score(x, constants, means, factors, validate)


@custom_op("fastgmm::component_log_prob", mutates_args=())
def component_log_prob(
    x: Tensor, constants: Tensor, means: Tensor, factors: Tensor, validate: bool
) -> Tensor:
    """lp_k(x), (B, N, K)."""
    return engine_for(x).per_component(x, constants, means, factors, validate)


@custom_op("fastgmm::nearest", mutates_args=())
def nearest(lost: Tensor, x: Tensor, constants: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """Component to which rows belong where ``lost`` (B, N) says that all lp_k are -inf, (B, N).

    As :func:`fastgmm.backends.base.settle_unreachable` has it: that at the least scaled distance,
    and of those at equal ones the one of the largest constant. What others get has no meaning.
    """
    labels = constants.argmax(-1, keepdim=True).repeat(1, x.shape[1])
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        # A CUDA graph cannot look for them: the heaviest component gets them all.
        return labels
    mixtures, rows = lost.any(1).nonzero()[:, 0], lost.any(0).nonzero()[:, 0]
    if len(rows) == 0:
        return labels
    # Squares of float32 do not overflow in float64, and those of float64 not in other units.
    unit = 2.0**-600 if x.dtype == torch.float64 else 1.0
    heights = constants[mixtures].double()
    distances = engine_for(x).per_component(
        unit * x[mixtures][:, rows].double(),
        torch.where(heights == -torch.inf, heights, 0.0),
        unit * means[mixtures].double(),
        factors[mixtures].double(),
        False,
    )
    beaten = distances < distances.amax(-1, keepdim=True)
    found = heights[:, None].expand_as(beaten).masked_fill(beaten, -torch.inf).argmax(-1)
    labels[mixtures[:, None], rows] = found
    return labels


@custom_op("fastgmm::log_prob_backward", mutates_args=())
def log_prob_backward(
    upstream: Tensor,
    x: Tensor,
    constants: Tensor,
    means: Tensor,
    factors: Tensor,
    with_x: bool,
    with_moments: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the sum of ``upstream`` (B, N) or (B, N, K) times what the others give."""
    return engine_for(x).backward(upstream, x, constants, means, factors, with_x, with_moments)


def dense_few(x: Tensor, log_weights: Tensor, means: Tensor, scale: Tensor) -> Tensor:
    """log w_k N(x; mu_k, L_k L_k') of every row and component, (B, N, K), by torch operators."""
    difference = x[:, :, None, :] - means[:, None]
    if scale.ndim == 4:
        triangles = scale.tril().expand(*means.shape, means.shape[-1])[:, None]
        whitened = torch.linalg.solve_triangular(triangles, difference[..., None], upper=False)
        whitened, diagonal = whitened[..., 0], scale.diagonal(dim1=-2, dim2=-1)
    else:
        whitened, diagonal = difference / scale[:, None], scale
    heights = log_weights - diagonal.log().sum(-1) - 0.5 * x.shape[2] * math.log(2 * math.pi)
    return heights[:, None] - 0.5 * (whitened**2).sum(-1)


@custom_op("fastgmm::few_log_prob", mutates_args=())
def few_log_prob(
    x: Tensor, log_weights: Tensor, means: Tensor, scale: Tensor, validate: bool
) -> Tensor:
    """log sum_k w_k N(x; mu_k, L_k L_k'), (B, N), for mixtures of few rows."""
    return engine_for(x).few_score(x, log_weights, means, scale, validate)


@custom_op("fastgmm::few_backward", mutates_args=())
def few_backward(
    upstream: Tensor, x: Tensor, log_weights: Tensor, means: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the sum of ``upstream`` (B, N) times :func:`few_log_prob`."""
    return engine_for(x).few_backward(upstream, x, log_weights, means, scale)


@few_backward.register_fake
def _(
    upstream: Tensor, x: Tensor, log_weights: Tensor, means: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arguments = (x, log_weights, means, scale)
    return tuple(a.new_empty(a.shape) for a in arguments)


@custom_op("fastgmm::colour", mutates_args=())
def colour(labels: Tensor, noise: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """means[b, k] + factors[b, k] noise[b, s] with k = labels[b, s], (B, S, D); no gradients."""
    return engine_for(noise).colour(labels, noise, means, factors)


@few_log_prob.register_fake
@mixture_log_prob.register_fake
def _(x: Tensor, constants: Tensor, means: Tensor, factors: Tensor, validate: bool) -> Tensor:
    return x.new_empty(x.shape[:2])


@component_log_prob.register_fake
def _(x: Tensor, constants: Tensor, means: Tensor, factors: Tensor, validate: bool) -> Tensor:
    return x.new_empty((*x.shape[:2], means.shape[1]))


@nearest.register_fake
def _(lost: Tensor, x: Tensor, constants: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    return x.new_empty(x.shape[:2], dtype=torch.int64)


@log_prob_backward.register_fake
def _(
    upstream: Tensor,
    x: Tensor,
    constants: Tensor,
    means: Tensor,
    factors: Tensor,
    with_x: bool,
    with_moments: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dx = x.new_empty(x.shape if with_x else (x.shape[0], 0, 0))
    arguments = (constants, means, factors)
    return (dx, *(a.new_empty(a.shape) for a in arguments))


@colour.register_fake
def _(labels: Tensor, noise: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    return noise.new_empty(noise.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad
    found = log_prob_backward(
        upstream, *ctx.saved_tensors, bool(needs[0]), bool(needs[2] or needs[3])
    )
    return (*(g if need else None for g, need in zip(found, needs[:4], strict=True)), None)


def _few_backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    found = few_backward(upstream, *ctx.saved_tensors)
    needs = ctx.needs_input_grad[:4]
    return (*(g if need else None for g, need in zip(found, needs, strict=True)), None)


def _save_few(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _save_all(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.wanted = (inputs[5], True, inputs[6], inputs[6])


def _own(tensor: Tensor, attached: bool) -> Tensor:
    """A tensor to differentiate by, though others may depend on it too."""
    if attached and tensor.requires_grad:
        return tensor.view_as(tensor)
    return tensor.detach().requires_grad_()


def _second(
    dense: Callable[..., Tensor], saved: Any, upstream: tuple[Tensor, ...], wanted: Any
) -> tuple[Tensor | None, ...]:
    """Differentiate gradients, through the formula that keeps everything."""
    further = torch.is_grad_enabled()
    with torch.enable_grad():
        weights, *arguments = inputs = tuple(_own(t, further) for t in saved)
        used = weights != 0 if weights.ndim == 2 else (weights != 0).any(-1)
        # A row that is not finite takes no part where nothing is asked of it.
        lost = (~used & ~arguments[0].isfinite().all(-1))[..., None]
        value = dense(arguments[0].masked_fill(lost, 0), *arguments[1:]).masked_fill(lost, 0)
        if weights.ndim == 2:
            value = value.logsumexp(-1)
        first = torch.autograd.grad(value, arguments, weights, create_graph=True)
        terms = zip(first, upstream, wanted, strict=True)
        total = torch.stack([(g * u).sum() for g, u, found in terms if found]).sum()
        return torch.autograd.grad(total, inputs, allow_unused=True, create_graph=further)


def _double_backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
    return (*_second(dense_log_prob, ctx.saved_tensors, upstream, ctx.wanted), None, None)


def _few_double_backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
    return _second(dense_few, ctx.saved_tensors, upstream, (True,) * 4)


def _first(size: int, tensor: Tensor, dim: int | None) -> Tensor:
    """The mapped dimension merged into the leading one, (V B, ...)."""
    moved = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return moved.flatten(0, 1)


def _map(operator: Callable[..., Any], n_tensors: int) -> Callable[..., Any]:
    """The rule by which vmap maps an operator: mapped mixtures are more mixtures."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        size = info.batch_size
        dims = in_dims[:n_tensors]
        tensors = [_first(size, t, d) for t, d in zip(args[:n_tensors], dims, strict=True)]
        out = operator(*tensors, *args[n_tensors:])
        if isinstance(out, Tensor):
            return out.unflatten(0, (size, -1)), 0
        return tuple(o.unflatten(0, (size, -1)) for o in out), (0,) * len(out)

    return rule


for _operator in (mixture_log_prob, component_log_prob):
    _operator.register_autograd(_backward, setup_context=_save)
    _operator.register_vmap(_map(_operator, 4))
nearest.register_vmap(_map(nearest, 5))
log_prob_backward.register_autograd(_double_backward, setup_context=_save_all)
log_prob_backward.register_vmap(_map(log_prob_backward, 5))
few_log_prob.register_autograd(_few_backward, setup_context=_save)
few_log_prob.register_vmap(_map(few_log_prob, 4))
few_backward.register_autograd(_few_double_backward, setup_context=_save_few)
few_backward.register_vmap(_map(few_backward, 5))
