"""k-means on the GPU kernels: assignment is a pass of components with one variance each."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from fastgmm.backends.base import KMeansStep
from fastgmm.backends.given_gpu import add_labelled
from fastgmm.backends.packing import (
    DeviceParameters,
    compute_dtype,
    padded,
    whole_components,
    width_of,
)
from fastgmm.backends.passes import ChunkPass, Target, Totals, up
from fastgmm.backends.transfer import Results, chunks, move, result_dtype, torch_dtype
from fastgmm_kernels import gpu as kernels

Tensor: TypeAlias = torch.Tensor

# Parts of the rows of which k-means++ keeps potentials.
_PARTS = 64


def _centred(points: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of points (K, D) in the precision of the rows, the same padded, points about it."""
    centre = points.mean(dim=0).to(dtype).double()
    width = width_of(points.shape[1], "none")
    shape = whole_components(len(points)), width
    return centre, padded(centre, (width,), dtype), padded(points - centre, shape, dtype)


def _as_components(centroids: Tensor, dtype: torch.dtype) -> tuple[DeviceParameters, Tensor]:
    """Centroids as components whose log-probability is minus the squared distance."""
    exact, centre, points = _centred(centroids, dtype)
    n_components, n_features = centroids.shape
    ones = torch.ones(n_components, dtype=dtype, device=centroids.device)
    constants = padded(0 * ones, points.shape[:1], dtype, -torch.inf)
    infinite = torch.full_like(constants, torch.inf)
    parameters = DeviceParameters(
        None,
        "spherical",
        n_components,
        n_features,
        exact,
        centre,
        None,
        points.T.contiguous(),
        padded(ones, points.shape[:1], dtype),
        constants,
        infinite,
        torch.zeros_like(constants),
        torch.zeros((), dtype=dtype, device=centroids.device),
        points.square().sum(dim=1),
    )
    return parameters, points


def step(target: Target, x: Any, weight: Any, centroids: Any, size: int) -> KMeansStep:
    """Assign rows to the nearest centroid, the first of equals; sum the rows of each."""
    dtype = compute_dtype(torch_dtype(x))
    exact = move(centroids, target.device, torch.float64)
    p, points = _as_components(exact, dtype)
    size = min(size, len(x))
    work = ChunkPass(target, p, size)
    totals = Totals(target, size, p.n_components, p.width, p.n_features, "none", dtype)
    results = Results(x, (len(x),), torch.int32, target.device)
    inertia = target.zeros(())
    for rows, chunk in chunks(x, size, target.device):
        v = None if weight is None else move(weight[rows], target.device, torch.float64)
        work.expect(chunk)
        squared = -work.tops(len(chunk)).double()
        inertia += (squared if v is None else squared * v).sum()
        part = results.part(rows)
        part.copy_(work.labels(len(chunk)))
        known, index = torch.sort(part, stable=True)
        u = None if v is None else v[index].to(dtype)
        add_labelled(target, chunk, index, known, u, p.centre, points, totals)
        results.put(rows, part)
    counts, first, _ = totals.collect()
    return KMeansStep(results.array(), counts, first + counts[:, None] * exact, inertia)


def _rows_for(target: Target, chunk: Tensor, centre: Tensor) -> Tensor:
    """A chunk less the centre, as the kernels of k-means++ read it."""
    dtype, width = centre.dtype, len(centre)
    launch = target.launch("load_rows", width, dtype)
    z = target.empty((width, up(len(chunk), target.launch("kmeans", width, dtype).rows)), dtype).T
    kernels.load_rows(chunk, None, centre, None, z, precision=target.product(dtype), launch=launch)
    return z


def closest(target: Target, x: Any, point: Any, known: Any, size: int) -> Any:
    """min(known, |x - point|^2) per row; updates ``known`` where it is given."""
    dtype, n_features = result_dtype(x), x.shape[1]
    _, centre, points = _centred(move(point, target.device, torch.float64)[None], dtype)
    launch = target.launch("kmeans", len(centre), dtype)
    results = Results(x, (len(x),), dtype, target.device)
    for rows, chunk in chunks(x, min(size, len(x)), target.device):
        part = results.part(rows)
        if known is None:
            part.fill_(torch.inf)
        else:
            part.copy_(move(known[rows], target.device, dtype))
        z = _rows_for(target, chunk, centre)
        kernels.update_closest(z, n_features, points, part, launch=launch)
        results.put(rows, part)
    if known is None:
        return results.array()
    known[:] = results.array()
    return known


def parts_of(n_rows: int, size: int) -> int:
    """Parts of the rows: as many as chunks of ``size`` rows, up to a limit."""
    return min(_PARTS, -(-n_rows // size))


def potentials(
    target: Target, x: Any, weight: Any, candidates: Any, known: Any, size: int, n_parts: int
) -> Tensor:
    """Sum of v min(known, |x - c|^2) for each candidate and part of the rows, (P, C)."""
    dtype, n_features = result_dtype(x), x.shape[1]
    exact = move(candidates, target.device, torch.float64)
    _, centre, points = _centred(exact, dtype)
    launch = target.launch("kmeans", len(centre), dtype)
    n_rows = len(x)
    result = target.zeros((n_parts, len(exact)))
    for i in range(n_parts):
        first, last = i * n_rows // n_parts, (i + 1) * n_rows // n_parts
        for rows, chunk in chunks(x[first:last], size, target.device):
            place = slice(first + rows.start, first + rows.stop)
            near = move(known[place], target.device, dtype)
            v = None if weight is None else move(weight[place], target.device, torch.float64)
            z = _rows_for(target, chunk, centre)
            tiles = -(-len(chunk) // launch.rows)
            out = target.empty((tiles, len(points)), torch.float64)
            kernels.candidate_potentials(z, n_features, points, near, v, out, launch=launch)
            result[i] += out.sum(dim=0)[: len(exact)]
    return result
