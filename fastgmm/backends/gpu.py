"""The Triton kernels on one GPU: chunks of rows, results, and what fits into memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch

from fastgmm.arrays import to_tensor
from fastgmm.backends import clusters
from fastgmm.backends.base import Backend, FeatureSummary, KMeansStep, settle_unreachable
from fastgmm.backends.given_gpu import add_given, add_labelled
from fastgmm.backends.launch import capability_of, device_sizes
from fastgmm.backends.ordering_gpu import RowOrder
from fastgmm.backends.packing import (
    DeviceParameters,
    centre_of,
    compute_dtype,
    pack,
    padded,
    whole_components,
    width_of,
)
from fastgmm.backends.passes import (
    ChunkPass,
    Target,
    Totals,
    chunk_rows,
)
from fastgmm.backends.transfer import Results, chunks, move, on_device, result_dtype, torch_dtype
from fastgmm.covariance import CovarianceStructure
from fastgmm.errors import DeviceMemoryError
from fastgmm.model import MixtureModel
from fastgmm.statistics import SufficientStatistics
from fastgmm_kernels import gpu as kernels

Tensor: TypeAlias = torch.Tensor
_T = TypeVar("_T")

# Rows of a chunk that must fit into the memory of the device.
_FLOOR = 256
# Parts of a chunk that are summarised side by side.
_SPLITS = 256


class GPUBackend(Backend):
    """Triton kernels on a CUDA device, or on CPU tensors through Triton's interpreter.

    Rows may lie on the device, or on the host as a NumPy array or a tensor; results per row are
    of their kind, dtype and device (float32 for half precision). Statistics are float64 tensors on
    the device.

    Parameters
    ----------
    device : torch.device
        With its number, if it is a CUDA device.
    precision : {"highest", "high", "medium"}
        Of products in float32, as in ``torch.set_float32_matmul_precision``.
    skip : bool
        Leave out what is below rounding.
    """

    name = "gpu"

    def __init__(
        self, device: torch.device, *, precision: str = "highest", skip: bool = True
    ) -> None:
        cuda = device.type == "cuda"
        self.device = device
        vendor = "hip" if getattr(torch.version, "hip", None) else "cuda"
        capability, programs = 0, 4
        if cuda:
            properties = torch.cuda.get_device_properties(device)
            capability = capability_of(vendor, properties.major, properties.minor)
            programs = 2 * properties.multi_processor_count
        self.target = Target(
            device,
            capability,
            programs,
            kernels.input_precision(precision, vendor, capability if cuda else 80),
            skip,
        )

    def guard(self) -> AbstractContextManager[Any]:
        """Triton launches on the current device: make it ours. Kernels do not warn of overflow."""
        if self.device.type == "cuda":
            return torch.cuda.device(self.device)
        return np.errstate(over="ignore", invalid="ignore", divide="ignore")

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def _within_memory(self, size: int, row_bytes: int, run: Callable[[int], _T]) -> _T:
        """Run a whole pass in chunks of ``size`` rows; of half as many where memory is short."""
        with self.guard():
            while True:
                try:
                    return run(size)
                except torch.cuda.OutOfMemoryError:
                    if size <= _FLOOR:
                        free, total = torch.cuda.mem_get_info(self.device)
                        raise DeviceMemoryError(
                            f"a pass over chunks of {size} rows needs about {size * row_bytes} "
                            f"bytes of workspace besides its results; {free} of {total} are free "
                            f"on {self.device}. Free memory, or use another device."
                        ) from None
                size //= 2
                torch.cuda.empty_cache()

    def own(self, x: Any) -> Tensor:
        return to_tensor(x, str(self.device)).to(torch.float64)

    def prepare(self, model: MixtureModel, dtype: Any) -> DeviceParameters:
        with self.guard():
            return pack(model, dtype, self.device, skip=self.target.skip)

    def new_order(self) -> RowOrder | None:
        return RowOrder() if self.target.skip else None

    def _row_bytes(self, p: DeviceParameters, *, lines: bool) -> int:
        columns = 2 * p.width + 4 + (len(p.constants) if lines else 0)
        return p.means.itemsize * columns

    def _per_row(
        self,
        p: DeviceParameters,
        x: Any,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        write: Callable[[ChunkPass, Tensor, Tensor], None],
    ) -> Any:
        """Results of all rows; ``write(pass, rows, part)`` gives those of a chunk."""
        row_bytes = self._row_bytes(p, lines=len(shape) > 1)

        def run(size: int) -> Any:
            results = Results(x, shape, dtype, self.device)
            work = ChunkPass(self.target, p, min(size, len(x)))
            for rows, chunk in chunks(x, size, self.device):
                part = results.part(rows)
                write(work, chunk, part)
                results.put(rows, part)
            return results.array()

        return self._within_memory(chunk_rows(row_bytes, len(x)), row_bytes, run)

    def score_samples(self, prepared: DeviceParameters, x: Any) -> Any:
        def write(work: ChunkPass, chunk: Tensor, part: Tensor) -> None:
            work.expect(chunk)
            work.finish(norm=part)

        return self._per_row(prepared, x, (len(x),), result_dtype(x), write)

    def predict(self, prepared: DeviceParameters, x: Any) -> Any:
        def write(work: ChunkPass, chunk: Tensor, part: Tensor) -> None:
            work.expect(chunk)
            work.finish(best=part)
            lost = part < 0
            if lost.any():
                part[lost] = settle_unreachable(prepared.model, chunk[lost])

        return self._per_row(prepared, x, (len(x),), torch.int64, write)

    def responsibilities(self, prepared: DeviceParameters, x: Any, *, log: bool = False) -> Any:
        def write(work: ChunkPass, chunk: Tensor, part: Tensor) -> None:
            work.expect(chunk, part)
            work.respond(part, log=log)
            best = torch.empty(len(chunk), dtype=torch.int64, device=self.device)
            work.finish(best=best)
            lost = best < 0
            if lost.any():
                labels = settle_unreachable(prepared.model, chunk[lost])
                part[lost] = -torch.inf if log else 0.0
                part[lost.nonzero()[:, 0], labels] = 0.0 if log else 1.0

        shape = len(x), prepared.n_components
        return self._per_row(prepared, x, shape, result_dtype(x), write)

    def weighted_log_prob(self, prepared: DeviceParameters, x: Any) -> Any:
        shape = len(x), prepared.n_components
        return self._per_row(
            prepared, x, shape, result_dtype(x), lambda work, chunk, part: work.expect(chunk, part)
        )

    def accumulate(
        self,
        prepared: DeviceParameters,
        x: Any,
        weight: Any,
        about: Any = None,
        order: RowOrder | None = None,
    ) -> SufficientStatistics:
        p, dtype = prepared, prepared.dtype
        exact = self.own(p.model.means if about is None else about)
        skip = True
        if order is not None and not self._worth_ordering(p, len(x)):
            order = None
        elif order is not None and not order.wanted():
            skip, order = not order.dense, None
        row_bytes = self._row_bytes(p, lines=True)

        def run(size: int) -> SufficientStatistics:
            size = min(size, len(x))
            points = p.points(exact)
            work = ChunkPass(self.target, p, size, lines=True)
            second = "trace" if work.takes_traces else p.model.structure.moments
            totals = Totals(self.target, size, p.n_components, p.width, p.n_features, second, dtype)
            if work.takes_traces:
                totals.points, totals.shift = p.exact_points(exact)
            log_likelihood = self.target.zeros(())
            labels = None if order is None else self.target.empty((len(x),), torch.int32)
            visited, pairs = self.target.zeros(()), 0
            known = None if order is None else order.labels
            ordered = known is not None and len(known) == len(x)
            for rows, chunk in chunks(x, size, self.device):
                v, sorting = self._weights(weight, rows), None
                if ordered and known is not None:
                    by_label, index = torch.sort(known[rows], stable=True)
                    sorting = index, by_label
                    v = None if v is None else v[index]
                u = None if v is None else v.to(dtype)
                norm = work.add_moments(chunk, sorting, u, points, totals, skip=skip)
                norm = norm.double() if v is None else torch.where(v > 0, norm * v, 0.0)
                log_likelihood += norm.sum()
                if labels is not None:
                    found = work.labels(len(chunk))
                    place = labels[rows]
                    place.copy_(found) if sorting is None else place.index_copy_(
                        0, sorting[0], found
                    )
                    blocks = work.active_blocks(len(chunk))
                    visited += blocks.sum()
                    pairs += blocks.numel()
            if order is not None and labels is not None:
                order.note(labels, visited / pairs, ordered=ordered)
            return SufficientStatistics(
                *totals.collect(), exact, log_likelihood, self._mass(x, weight), len(x)
            )

        return self._within_memory(chunk_rows(row_bytes, len(x)), row_bytes, run)

    def _worth_ordering(self, p: DeviceParameters, n_rows: int) -> bool:
        """Whether rows are read by label: where many components cost much each."""
        sizes = device_sizes()
        return (
            p.n_components >= sizes["order_components"]
            and p.n_features >= sizes["order_features"]
            and n_rows >= p.n_components
        )

    def _weights(self, weight: Any, rows: slice) -> Tensor | None:
        return None if weight is None else move(weight[rows], self.device, torch.float64)

    def _mass(self, x: Any, weight: Any) -> Any:
        """Sum of the weights; where they are on the device it stays there."""
        return float(len(x)) if weight is None else move(weight, self.device, torch.float64).sum()

    def accumulate_given(
        self,
        x: Any,
        weight: Any,
        structure: CovarianceStructure,
        about: Any,
        *,
        labels: Any = None,
        resp: Any = None,
    ) -> SufficientStatistics:
        exact = self.own(about)
        n_components, n_features = exact.shape
        row_bytes = 8 * (2 * n_features + 8 + (0 if labels is not None else n_components))

        def run(size: int) -> SufficientStatistics:
            totals = self._given(x, weight, exact, structure.moments, size, labels, resp)
            return SufficientStatistics(
                *totals.collect(), exact, self.target.zeros(()), self._mass(x, weight), len(x)
            )

        return self._within_memory(chunk_rows(row_bytes, len(x)), row_bytes, run)

    def _given(
        self, x: Any, weight: Any, about: Tensor, moments: str, size: int, labels: Any, resp: Any
    ) -> Totals:
        """Moments under given labels or responsibilities."""
        n_components, n_features = about.shape
        dtype = compute_dtype(torch_dtype(x))
        width = width_of(n_features, moments)
        size = min(size, len(x))
        totals = Totals(self.target, size, n_components, width, n_features, moments, dtype)
        exact_centre = centre_of(torch.ones_like(about[:, 0]), about, dtype)
        centre = padded(exact_centre, (width,), dtype)
        points = padded(about - exact_centre, (whole_components(n_components), width), dtype)
        for rows, chunk in chunks(x, size, self.device):
            v = self._weights(weight, rows)
            u = None if v is None else v.to(dtype)
            if labels is None:
                part = move(resp[rows], self.device, dtype)
                add_given(self.target, chunk, part, u, centre, points, totals)
                continue
            known, index = torch.sort(move(labels[rows], self.device, torch.int32), stable=True)
            u = None if u is None else u[index]
            add_labelled(self.target, chunk, index, known, u, centre, points, totals)
        return totals

    def summarise(self, x: Any) -> FeatureSummary:
        n_rows, n_features = x.shape
        row_bytes = 8 * n_features

        def run(size: int) -> FeatureSummary:
            launch = self.target.launch("summarise", n_features, compute_dtype(torch_dtype(x)))
            origin = self.own(x[0]).contiguous()  # as a view it has the strides of the rows
            parts = []
            for _, chunk in chunks(x, size, self.device):
                splits = min(_SPLITS, -(-len(chunk) // launch.rows))
                out = self.target.empty((4, splits, n_features), torch.float64)
                kernels.summarise(chunk, origin, out, launch=launch)
                total, square = out[:2].sum(dim=1)
                parts.append((total, square, out[2].amin(dim=0), out[3].amax(dim=0)))
            totals, squares, low, high = (
                torch.stack(column) for column in zip(*parts, strict=True)
            )
            shift, square = totals.sum(dim=0) / n_rows, squares.sum(dim=0) / n_rows
            variance = (square - shift**2).clamp(min=0.0)
            return FeatureSummary(
                n_rows, origin + shift, variance, low.amin(dim=0), high.amax(dim=0)
            )

        # One read of the rows, and next to no workspace: only host rows need chunks at all.
        size = n_rows if on_device(x, self.device) else chunk_rows(row_bytes, n_rows)
        return self._within_memory(size, row_bytes, run)

    def kmeans_step(self, x: Any, weight: Any, centroids: Any, guess: Any = None) -> KMeansStep:
        row_bytes = 8 * (2 * x.shape[1] + 8)
        return self._within_memory(
            chunk_rows(row_bytes, len(x)),
            row_bytes,
            lambda size: clusters.step(self.target, x, weight, centroids, size),
        )

    def closest(self, x: Any, point: Any, closest: Any) -> Any:
        row_bytes = 8 * (x.shape[1] + 2)
        return self._within_memory(
            chunk_rows(row_bytes, len(x)),
            row_bytes,
            lambda size: clusters.closest(self.target, x, point, closest, size),
        )

    def potentials(self, x: Any, weight: Any, candidates: Any, closest: Any) -> Any:
        row_bytes = 8 * (x.shape[1] + 2)
        size = chunk_rows(row_bytes, len(x))
        # As many at every call, also where chunks are smaller because memory is short.
        n_parts = clusters.parts_of(len(x), size)
        return self._within_memory(
            size,
            row_bytes,
            lambda size: clusters.potentials(
                self.target, x, weight, candidates, closest, size, n_parts
            ),
        )
