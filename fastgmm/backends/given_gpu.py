"""Moments of a chunk of rows on the GPU, where labels or responsibilities are given."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from fastgmm.backends.passes import Target, Totals, up
from fastgmm_kernels import gpu as kernels

Tensor: TypeAlias = torch.Tensor


def add_labelled(
    target: Target, x: Tensor, order: Tensor, labels: Tensor, weight: Tensor | None,
    centre: Tensor, about: Tensor, totals: Totals,
) -> None:  # fmt: skip
    """Add the moments of a chunk under hard labels: ``order`` sorts them, ``labels`` are sorted."""
    z = target.empty((about.shape[1], up(len(x), kernels.TILE)), about.dtype).T
    launch = target.launch("load_rows", about.shape[1], about.dtype)
    precision = target.product(about.dtype)
    kernels.load_rows(x, order, centre, None, z, precision=precision, launch=launch)
    kernels.moments(
        z, len(x), totals.n_components, about, totals.arrays(),
        resp=None, active=None, labels=labels, weight=weight, skip=True,
        precision=precision, launches=totals.launches,
    )  # fmt: skip


def add_given(
    target: Target, x: Tensor, resp: Any, weight: Tensor | None,
    centre: Tensor, about: Tensor, totals: Totals,
) -> None:  # fmt: skip
    """Add the moments of a chunk under given responsibilities (n, K)."""
    n_padded = up(len(x), kernels.TILE)
    z = target.empty((about.shape[1], n_padded), about.dtype).T
    launch = target.launch("load_rows", about.shape[1], about.dtype)
    precision = target.product(about.dtype)
    kernels.load_rows(x, None, centre, None, z, precision=precision, launch=launch)
    shares = target.zeros((about.shape[0], n_padded), about.dtype)
    part = shares[: resp.shape[1], : len(x)]
    part.copy_(resp.T)
    if weight is not None:
        part *= weight
    kernels.moments(
        z, len(x), totals.n_components, about, totals.arrays(),
        resp=shares, active=None, labels=None, weight=None, skip=False,
        precision=precision, launches=totals.launches,
    )  # fmt: skip
