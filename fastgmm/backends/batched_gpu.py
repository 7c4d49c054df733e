"""Many mixtures at once on the Triton kernels, forward and backward.

Arguments are those of :mod:`fastgmm.backends.batched`, as finite tensors on the device of a target.
Mixtures are an axis of the grid; they are taken in parts only where the workspace would be large.

The gradients by constants, means and factors are the sufficient statistics of an E-step, with the
upstream gradient for the weight of a row: with e = x - mu_k and w = g r,

    n_k = sum w,   f_k = sum w e,   S_k = sum w e e',

d/d constants_k = n_k, d/d mu_k = P_k' P_k f_k and d/d P_k = -tril(P_k S_k).
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import torch

from fastgmm.backends.launch import device_sizes
from fastgmm.backends.packing import (
    DeviceParameters,
    pack_mixtures,
    padded,
    shares_factor,
    whole_components,
    width_of,
)
from fastgmm.backends.passes import ChunkPass, Target, Totals, chunk_rows, up
from fastgmm.backends.transfer import slices
from fastgmm_kernels import gpu as kernels

Tensor: TypeAlias = torch.Tensor

# Programs along an axis of a grid that is not the first.
_GRID = 65535
_ROOT_TWO = math.sqrt(2)


class Gradients(NamedTuple):
    """Derivatives by each argument, of its shape and dtype; ``x`` is empty unless asked for."""

    x: Tensor
    constants: Tensor
    means: Tensor
    factors: Tensor


def _parts(x: Tensor, means: Tensor, factors: Tensor) -> tuple[list[slice], list[slice]]:
    """Mixtures, and rows of each, that are handled at a time."""
    n_mixtures, n_rows, n_features = x.shape
    full = factors.ndim == 4
    width = width_of(n_features, "full" if full else "diag")
    whole = whole_components(means.shape[1])
    room = chunk_rows(x.itemsize * (2 * width + 4 + whole))
    size = min(n_rows, room)
    total_bytes = 8 * whole * (1 + width + (width * width if full else width))
    step = min(room // up(size, kernels.TILE), device_sizes()["total_bytes"] // total_bytes, _GRID)
    return list(slices(n_mixtures, max(step, 1))), list(slices(n_rows, size))


def score(target: Target, x: Tensor, constants: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """log sum_k exp(lp_k(x)) of every row, (B, N).

    Parameters
    ----------
    target : Target
    x : Tensor of shape (B, N, D)
        float32 or float64, any strides.
    constants, means, factors : Tensor
        Of the dtype of ``x``.

    Returns
    -------
    log_likelihood : Tensor of shape (B, N)
    """
    out = target.empty(x.shape[:2], x.dtype)
    if out.numel() == 0:
        return out
    mixtures, chunks = _parts(x, means, factors)
    for part in mixtures:
        packed = pack_mixtures(constants[part], means[part], factors[part])
        for rows in chunks:
            chunk = x[part, rows]
            work = ChunkPass(target, packed, chunk.shape[1])
            work.expect(chunk)
            out[part, rows] = work.log_likelihoods(chunk.shape[1])
    return out


def per_component(
    target: Target, x: Tensor, constants: Tensor, means: Tensor, factors: Tensor
) -> Tensor:
    """lp_k(x) of every row and component, (B, N, K); arguments as for :func:`score`."""
    out = target.empty((*x.shape[:2], means.shape[1]), x.dtype)
    if out.numel() == 0:
        return out
    mixtures, chunks = _parts(x, means, factors)
    for part in mixtures:
        packed = pack_mixtures(constants[part], means[part], factors[part])
        for rows in chunks:
            chunk = x[part, rows]
            ChunkPass(target, packed, chunk.shape[1]).expect(chunk, out[part, rows])
    return out


def backward(
    target: Target,
    upstream: Tensor,
    x: Tensor,
    constants: Tensor,
    means: Tensor,
    factors: Tensor,
    *,
    with_x: bool = True,
    with_moments: bool = True,
) -> Gradients:
    """Gradients of sum_bn g_bn score_bn, or of sum_bnk G_bnk lp_k(x_bn).

    Log-probabilities are computed again, chunk by chunk; a responsibility that underflows adds
    nothing.

    Parameters
    ----------
    target : Target
    upstream : Tensor of shape (B, N) or (B, N, K)
        g or G, contiguous.
    x, constants, means, factors : Tensor
        As for :func:`score`.
    with_x, with_moments : bool
        Whether the derivatives by x, and those by means and factors, are wanted; else they are
        empty and zero.

    Returns
    -------
    gradients : Gradients
    """
    shape = x.shape if with_x else (len(x), 0, 0)
    dtype = x.dtype
    others = (target.zeros(a.shape, dtype) for a in (constants, means, factors))
    found = Gradients(target.empty(shape, dtype), *others)
    if x.numel() == 0:
        return found
    mixtures, chunks = _parts(x, means, factors)
    for part in mixtures:
        packed = pack_mixtures(constants[part], means[part], factors[part])
        sums = _Sums(target, packed, factors[part], chunks[0].stop, with_x, with_moments)
        for rows in chunks:
            dx = found.x[part, rows] if with_x else None
            sums.add(x[part, rows], upstream[part, rows], dx)
        found.constants[part] = sums.count
        if with_moments:
            found.means[part], found.factors[part] = sums.derive(means[part])
    return found


class _Sums:
    """What the rows of some mixtures say of their parameters, and of the rows."""

    def __init__(
        self, target: Target, packed: DeviceParameters, factors: Tensor, size: int,
        with_x: bool, with_moments: bool,
    ) -> None:  # fmt: skip
        self._target, self._packed = target, packed
        n_mixtures, n_components = len(factors), packed.n_components
        self._full = factors.ndim == 4
        self._shared = shares_factor(factors, n_components)
        exact = factors.to(torch.float64)
        self._factors = exact.tril() if self._full else exact
        self._points = packed.means if packed.family == "full" else packed.means.mT.contiguous()
        self._launch = target.launch(
            "pull_full" if packed.family == "full" else "pull_diag", packed.width, packed.dtype
        )
        self._precisions = self._pack_precisions() if with_x and not self._shared else None
        self.count = target.zeros((n_mixtures, n_components))
        self._totals = None
        if with_moments:
            second = "none" if self._shared else "full" if self._full else "diag"
            self._totals = Totals(
                target, size, self._points.shape[0] * self._points.shape[1], packed.width,
                packed.n_features, second, packed.dtype,
            )  # fmt: skip
        if self._shared:
            self._cross = target.zeros(self._factors.shape[:1] + self._factors.shape[2:])

    def _pack_precisions(self) -> Tensor:
        """P_k' P_k, or its diagonal."""
        p, shape = self._factors, self._points.shape
        if self._full:
            return padded(p.mT @ p, (*shape, shape[-1]), self._packed.dtype)
        if p.ndim == 2:
            p = p[..., None].expand(*p.shape, self._packed.n_features)
        return padded(p**2, shape, self._packed.dtype)

    def add(self, x: Tensor, upstream: Tensor, dx: Tensor | None) -> None:
        """Take rows (B, n, D) in, and write their gradient, if it is wanted."""
        n = x.shape[1]
        work = ChunkPass(self._target, self._packed, n, lines=True)
        weights = work.weigh(x, upstream)
        n_components = self._packed.n_components
        self.count += weights[:, :n_components, :n].sum(dim=-1, dtype=torch.float64)
        if self._totals is not None:
            work.add_weighted(n, weights, self._points, self._totals)
        if dx is None and not (self._shared and self._totals is not None):
            return
        out = self._target.empty(x.shape, x.dtype) if dx is None or self._shared else dx
        kernels.pull(
            work.z, weights, self._points, self._precisions, out, n_components,
            product=self._target.product(x.dtype), launch=self._launch,
        )  # fmt: skip
        if self._shared:
            self._unwhiten(x, out.to(torch.float64), dx)

    def _unwhiten(self, x: Tensor, pull: Tensor, dx: Tensor | None) -> None:
        """From whitened rows back to the rows, in float64: D^2 for each, and no more."""
        centred = x.to(torch.float64) - self._packed.exact_centre[:, None]
        factor = self._factors[:, 0]
        if self._full:
            self._cross += pull.mT @ centred
        else:
            self._cross += (pull * centred).sum(dim=1)
        if dx is not None:
            back = pull @ factor if self._full else pull * factor[:, None]
            dx.copy_(_ROOT_TWO * back)

    def derive(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients by means and factors, float64."""
        if self._totals is None:
            raise TypeError("no moments were asked for")
        _, first, second = self._totals.collect()
        n_components, shape = self._packed.n_components, self._points.shape[:2]
        first = first.unflatten(0, shape)[:, :n_components]
        p = self._factors
        if self._shared:
            relative = means.to(torch.float64) - self._packed.exact_centre[:, None]
            if self._full:
                moments = (self._cross + first.mT @ relative).tril()
                return _ROOT_TWO * first @ p[:, 0], _ROOT_TWO * moments[:, None]
            moments = self._cross + (first * relative).sum(dim=1)
            return _ROOT_TWO * first * p, _ROOT_TWO * moments[:, None]
        second = second.unflatten(0, shape)[:, :n_components]
        if self._full:
            return (p.mT @ (p @ first[..., None]))[..., 0], -(p @ second).tril()
        if p.ndim == 2:
            return p[..., None] ** 2 * first, -p * second.sum(dim=-1)
        return p**2 * first, -p * second
