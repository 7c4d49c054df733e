"""The compiled CPU kernels: sizes of tiles and chunks, scratch and results."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgmm.backends.base import Array, Backend, FeatureSummary, KMeansStep, settle_unreachable
from fastgmm.backends.parameters import Parameters, pack, pad, padded
from fastgmm.backends.threads import threads
from fastgmm.covariance import CovarianceStructure
from fastgmm.model import MixtureModel
from fastgmm.statistics import SufficientStatistics
from fastgmm_kernels import cpu as kernels

# Bytes of a transposed tile: long inner loops pay more than the first-level cache does.
_TILE_BYTES = 128 * 1024
# Bytes of the responsibilities of a chunk of rows, which the moments read again: in the cache at
# best, and enough rows for each of many components.
_CHUNK_BYTES = (2 * 1024 * 1024, 8 * 1024 * 1024)
# Bytes of the totals of all blocks of rows; blocks of fewer rows cost more to join than they gain.
_TOTAL_BYTES = 48 * 1024 * 1024
_BLOCK_ROWS = 4096
_BLOCKS = 64
_NO_WEIGHT = np.empty(0)


def _tile(n_features: int, n_components: int, itemsize: int) -> int:
    """Rows per tile: a multiple of 64 between 64 and 512."""
    rows = min(
        _TILE_BYTES // (padded(n_features) * itemsize), 1024 * 1024 // (n_components * itemsize)
    )
    return max(min(rows // 64 * 64, 512), 64)


def _chunk(tile: int, n_components: int, itemsize: int) -> int:
    """Rows per chunk, a multiple of the tile."""
    row = n_components * (itemsize + 2)
    rows = min(max(16 * n_components, _CHUNK_BYTES[0] // row), _CHUNK_BYTES[1] // row, 65536)
    return max(rows // tile, 2) * tile


def _dense_share(model: MixtureModel) -> float:
    """Share of a tile's rows above which moments are taken of all of them, without a gather.

    Products of few features cost less than finding the rows that matter.
    """
    n_features = model.n_features
    products = n_features**2 / 2 if model.structure.moments == "full" else 2.0 * n_features
    return float(np.clip((products - 64) / 2000, 0, 0.25))


def _blocks(n_rows: int, n_components: int, width: int, moments: str) -> int:
    """Blocks of rows with totals of their own; 0 where threads had better share one set."""
    size = {"full": width * width, "diag": width, "none": 0}[moments] + width + 1
    wanted = max(min(n_rows // _BLOCK_ROWS, _BLOCKS), 1)
    room = _TOTAL_BYTES // (8 * n_components * size)
    return 0 if room < min(wanted, 4) else min(wanted, room)


def _rows(x: Array) -> Array:
    """Rows as the kernels can read them: any strides, aligned, native byte order."""
    if x.flags.aligned and x.dtype.isnative:
        return x
    return np.array(x, dtype=x.dtype.newbyteorder("="))


class CPUBackend(Backend):
    """Numba kernels on the threads of the CPU."""

    name = "cpu"

    def prepare(self, model: MixtureModel, dtype: Any) -> Parameters:
        return pack(model, dtype)

    def _flops(self, prepared: Parameters, x: Array) -> float:
        n_features = x.shape[1]
        cost = n_features**2 if prepared.factors.ndim == 3 else 4 * n_features
        return x.shape[0] * prepared.means.shape[0] * (cost + 30.0)

    def _tile_for(self, prepared: Parameters, x: Array) -> int:
        return _tile(x.shape[1], 1, x.itemsize)

    def score_samples(self, prepared: Parameters, x: Array) -> Array:
        out = np.empty(x.shape[0], x.dtype)
        kernels.score_samples(
            _rows(x),
            *prepared.kernel_arguments(),
            self._tile_for(prepared, x),
            out,
            threads=threads(self._flops(prepared, x)),
        )
        return out

    def predict(self, prepared: Parameters, x: Array) -> Array:
        best = np.empty(x.shape[0], x.dtype)
        labels = np.empty(x.shape[0], np.int64)
        kernels.predict(
            _rows(x),
            *prepared.kernel_arguments(),
            self._tile_for(prepared, x),
            best,
            labels,
            threads=threads(self._flops(prepared, x)),
        )
        lost = np.isneginf(best)
        if lost.any():
            labels[lost] = settle_unreachable(prepared.model, x[lost])
        return labels

    def _per_component(self, prepared: Parameters, x: Array, mode: int) -> tuple[Array, Array]:
        n_components = prepared.means.shape[0]
        out = np.empty((x.shape[0], n_components), x.dtype)
        norm = np.empty(x.shape[0], x.dtype)
        kernels.per_component(
            _rows(x),
            *prepared.kernel_arguments(),
            _tile(x.shape[1], n_components, x.itemsize),
            mode,
            norm,
            out,
            threads=threads(self._flops(prepared, x)),
        )
        return out, norm

    def weighted_log_prob(self, prepared: Parameters, x: Array) -> Array:
        return self._per_component(prepared, x, 0)[0]

    def responsibilities(self, prepared: Parameters, x: Array, *, log: bool = False) -> Array:
        out, norm = self._per_component(prepared, x, 2 if log else 1)
        lost = np.isneginf(norm)
        if lost.any():
            out[lost] = -np.inf if log else 0
            out[lost, settle_unreachable(prepared.model, x[lost])] = 0 if log else 1
        return out

    def accumulate(
        self,
        prepared: Parameters,
        x: Array,
        weight: Array | None,
        about: Array | None = None,
    ) -> SufficientStatistics:
        model = prepared.model
        n_rows, n_features = x.shape
        n_components, width = prepared.means.shape
        tile = _tile(n_features, n_components, x.itemsize)
        blocks = _blocks(n_rows, n_components, width, model.structure.moments)
        count, first, second = _totals(max(blocks, 1), n_components, width, model.structure)
        log_likelihood = np.zeros(blocks or -(-n_rows // tile))
        run = kernels.accumulate if blocks else kernels.accumulate_shared
        points = model.means if about is None else about
        kernel_points = prepared.means
        if about is not None:
            kernel_points = pad(about - prepared.centre.astype(np.float64), (1,), x.dtype)
        run(
            _rows(x),
            _NO_WEIGHT if weight is None else weight,
            *prepared.kernel_arguments(),
            prepared.thresholds,
            kernel_points,
            tile,
            _chunk(tile, n_components, x.itemsize),
            _dense_share(model),
            count,
            first,
            second,
            log_likelihood,
            threads=threads(2 * self._flops(prepared, x)),
        )
        counts, sums, squares = _collect(count, first, second, n_features, model.structure)
        if model.structure.tied:
            sums = prepared.unwhiten(sums)
        total = float(n_rows) if weight is None else float(weight.sum())
        log_likelihood_sum = float(log_likelihood.sum())
        return SufficientStatistics(
            counts, sums, squares, points, log_likelihood_sum, total, n_rows
        )

    def accumulate_given(
        self,
        x: Array,
        weight: Array | None,
        structure: CovarianceStructure,
        about: Array,
        *,
        labels: Array | None = None,
        resp: Array | None = None,
    ) -> SufficientStatistics:
        n_rows, n_features = x.shape
        n_components = about.shape[0]
        tile = _tile(n_features, n_components, x.itemsize)
        width = padded(n_features)
        blocks = max(_blocks(n_rows, n_components, width, structure.moments), 1)
        count, first, second = _totals(blocks, n_components, width, structure)
        centre = about.mean(axis=0).astype(x.dtype)
        kernels.accumulate_given(
            _rows(x),
            _NO_WEIGHT if weight is None else weight,
            np.empty(0, np.int32) if labels is None else labels.astype(np.int32),
            np.empty((0, 0), x.dtype) if resp is None else np.ascontiguousarray(resp, x.dtype),
            centre,
            pad(about - centre.astype(np.float64), (1,), x.dtype),
            tile,
            _chunk(tile, n_components, x.itemsize),
            count,
            first,
            second,
            threads=threads(float(n_rows) * n_features**2),
        )
        counts, sums, squares = _collect(count, first, second, n_features, structure)
        total = float(n_rows) if weight is None else float(weight.sum())
        return SufficientStatistics(counts, sums, squares, about, 0.0, total, n_rows)

    def summarise(self, x: Array) -> FeatureSummary:
        n_rows, n_features = x.shape
        n_blocks = min(_BLOCKS, -(-n_rows // 256))
        origin = x[0].astype(np.float64)
        sums = np.zeros((2, n_blocks, n_features))
        extremes = np.empty((2, n_blocks, n_features))
        kernels.summarise(_rows(x), origin, sums, extremes, threads=threads(4.0 * x.size))
        with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the range
            shift, square = sums.sum(axis=1) / n_rows
            variance = np.maximum(square - shift**2, 0.0)
        low, high = extremes[0].min(axis=0), extremes[1].max(axis=0)
        return FeatureSummary(n_rows, origin + shift, variance, low, high)

    def kmeans_step(self, x: Array, weight: Array | None, centroids: Array) -> KMeansStep:
        n_rows, n_features = x.shape
        n_components = centroids.shape[0]
        tile = _tile(n_features, 1, x.itemsize)
        width = padded(n_features)
        room = _TOTAL_BYTES // (8 * n_components * (width + 1))
        n_blocks = max(min(_BLOCKS, -(-n_rows // tile), room), min(4, -(-n_rows // tile)))
        centre = centroids.mean(axis=0).astype(x.dtype)
        labels = np.empty(n_rows, np.int32)
        count = np.zeros((n_blocks, n_components))
        sums = np.zeros((n_blocks, n_components, width))
        inertia = np.zeros(n_blocks)
        kernels.kmeans_step(
            _rows(x),
            _NO_WEIGHT if weight is None else weight,
            centre,
            pad(centroids - centre.astype(np.float64), (1,), x.dtype),
            tile,
            labels,
            count,
            sums,
            inertia,
            threads=threads(float(n_rows) * n_components * (2 * n_features + 4)),
        )
        counts = count.sum(axis=0)
        totals = sums.sum(axis=0)[:, :n_features] + counts[:, None] * centre
        return KMeansStep(labels, counts, totals, float(inertia.sum()))

    def closest(self, x: Array, point: Array, closest: Array | None) -> Array:
        if closest is None:
            closest = np.full(x.shape[0], np.inf, x.dtype)
        centre = point.astype(x.dtype)
        tile = _tile(x.shape[1], 1, x.itemsize)
        origin = pad(point[None] - centre, (1,), x.dtype)
        kernels.update_closest(
            _rows(x), centre, origin, tile, closest, threads=threads(4.0 * x.size)
        )
        return closest

    def potentials(
        self, x: Array, weight: Array | None, candidates: Array, closest: Array
    ) -> Array:
        centre = candidates.mean(axis=0).astype(x.dtype)
        tile = _tile(x.shape[1], 1, x.itemsize)
        potential = np.zeros((min(_BLOCKS, -(-x.shape[0] // tile)), candidates.shape[0]))
        kernels.candidate_potentials(
            _rows(x),
            _NO_WEIGHT if weight is None else weight,
            centre,
            pad(candidates - centre.astype(np.float64), (1,), x.dtype),
            tile,
            closest,
            potential,
            threads=threads(4.0 * x.size * candidates.shape[0]),
        )
        return potential


def _totals(
    blocks: int, n_components: int, width: int, structure: CovarianceStructure
) -> tuple[Array, Array, Array]:
    last = {"full": (width, width), "diag": (width,), "none": (0,)}[structure.moments]
    return (
        np.zeros((blocks, n_components)),
        np.zeros((blocks, n_components, width)),
        np.zeros((blocks, n_components, *last)),
    )


def _collect(
    count: Array, first: Array, second: Array, n_features: int, structure: CovarianceStructure
) -> tuple[Array, Array, Array]:
    """Add the blocks in order, drop the padding, mirror the triangle."""
    sums = np.ascontiguousarray(first.sum(axis=0)[:, :n_features])
    if structure.moments == "none":
        return count.sum(axis=0), sums, np.empty(0)
    squares = second.sum(axis=0) if len(second) > 1 else second[0]
    if structure.moments == "diag":
        return count.sum(axis=0), sums, np.ascontiguousarray(squares[:, :n_features])
    squares = squares[:, :n_features, :n_features]
    lower = np.tril(squares, -1)
    squares = lower + np.swapaxes(lower, 1, 2) + squares * np.eye(n_features)
    return count.sum(axis=0), sums, squares
