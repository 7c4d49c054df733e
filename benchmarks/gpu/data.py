"""Rows drawn where they are measured, so that nothing large is copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..rows import Row
from ..workloads import Array, Workload, draw_start, draw_truth

Tensor = torch.Tensor


def make(row: Row, device: torch.device, seed: int = 0) -> Workload:
    """The workload of a row, its rows as a tensor on the device.

    Parameters are drawn on the host as those of the CPU's workloads are, the rows by a seeded
    generator of the device: devices and versions of torch draw different rows.
    """
    rng = np.random.default_rng(seed)
    n, k, d = row.shape
    weights, means, factors = draw_truth(row.structure, k, d, row.overlap, rng)
    start = draw_start(row.structure, means, rng)
    dtype = getattr(torch, row.precision)
    x = _draw(n, weights, means, factors, dtype, torch.Generator(device).manual_seed(seed))
    name = f"{row.structure}-{row.precision}-{row.overlap}-{n}x{k}x{d}"
    return Workload(name, x, start, row.overlap)  # type: ignore[arg-type]


def _draw(
    n: int, weights: Array, means: Array, factors: Array, dtype: torch.dtype, generator: Any
) -> Tensor:
    device = generator.device

    def here(array: Array) -> Tensor:
        return torch.as_tensor(array, dtype=dtype, device=device)

    shares = torch.as_tensor(weights, dtype=torch.float64, device=device)
    labels = torch.multinomial(shares, n, replacement=True, generator=generator)
    x = torch.randn(n, means.shape[1], dtype=dtype, device=device, generator=generator)
    counts = torch.bincount(labels, minlength=len(weights)).tolist()
    members = torch.argsort(labels, stable=True).split(counts)
    centres, shapes = here(means), here(factors)
    for j, rows in enumerate(members):
        factor = shapes[j % len(shapes)]
        x[rows] = (x[rows] @ factor if factor.ndim == 2 else x[rows] * factor) + centres[j]
    return x
