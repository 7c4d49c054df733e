"""The compiled CPU kernels: sizes of tiles and chunks, scratch and results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastgmm.arrays import Array, native, to_numpy
from fastgmm.backends import sizes
from fastgmm.backends.base import Backend, FeatureSummary, KMeansStep, Part, settle_unreachable
from fastgmm.backends.ordering import RowOrder
from fastgmm.backends.parameters import Parameters, columns, line, pack, pad, padded, widen
from fastgmm.backends.totals import Totals
from fastgmm.covariance import CovarianceStructure
from fastgmm.model import MixtureModel
from fastgmm.statistics import SufficientStatistics, pairwise_sum
from fastgmm.threads import threads
from fastgmm_kernels import cpu as kernels

_NO_WEIGHT = np.empty(0)
# Numbers that NumPy looks at as fast as a kernel would.
_FEW = 10_000
_NO_ORDER = np.empty(0, np.int32)


def _rows(x: Array) -> Array:
    """Rows as the kernels can read them: any strides, aligned, native byte order."""
    x = native(x)
    return x if x.flags.aligned else x.copy()


def _writable(array: Array | None, dtype: Any = np.float64) -> Array:
    """An array of the user's as kernels take all but the rows, for they are compiled once."""
    return _NO_WEIGHT if array is None else np.require(array, dtype, ["C", "A", "W"])


class CPUBackend(Backend):
    """Numba kernels on the threads of the CPU.

    Parameters
    ----------
    skip : bool
        Leave out what is below rounding. False visits every pair of a row and a component, in the
        order of the rows: for tests and benchmarks.
    """

    name = "cpu"

    def __init__(self, *, skip: bool = True) -> None:
        self._skip = skip

    def rows(self, x: Array) -> Array:
        return to_numpy(x)

    def prepare(self, model: MixtureModel, dtype: Any) -> Parameters:
        return pack(model, dtype, skip=self._skip)

    def all_finite(self, x: Array) -> bool:
        x = _rows(x)
        if x.size < _FEW or not (x.flags.c_contiguous or x.flags.f_contiguous):
            return super().all_finite(x)
        counts = np.empty(sizes.BLOCKS, np.int64)
        kernels.not_finite(x.ravel(order="K"), counts, threads=threads(4.0 * x.size))
        return not counts.any()

    def new_order(self) -> RowOrder | None:
        return RowOrder() if self._skip else None

    def _flops(self, prepared: Parameters, x: Array) -> float:
        n_features = x.shape[1]
        cost = n_features**2 if prepared.factors.ndim == 3 else 4 * n_features
        return x.shape[0] * prepared.means.shape[0] * (cost + 30.0)

    def _early(self, prepared: Parameters) -> int:
        """Feature from which the exponents so far are looked at, in the order of the rows.

        Where components are few, most matter to some row of a strip; and where features cost
        little, looking costs as much as it saves.
        """
        n_components, width = prepared.means.shape
        many = n_components > 2 * kernels.strip_rows(prepared.means.itemsize)
        return sizes.EARLY if many and prepared.factors.ndim == 3 else width

    def _tile_for(self, prepared: Parameters, x: Array) -> int:
        return sizes.tile(x.shape[1], 1, x.itemsize)

    def score_samples(self, prepared: Parameters, x: Array) -> Array:
        out = np.empty(x.shape[0], x.dtype)
        kernels.score_samples(
            _rows(x),
            *prepared.kernel_arguments(),
            prepared.reach,
            self._early(prepared),
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
            prepared.reach,
            self._early(prepared),
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
            np.full_like(prepared.reach, np.inf),
            x.shape[1],
            sizes.tile(x.shape[1], n_components, x.itemsize),
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
        order: RowOrder | None = None,
    ) -> SufficientStatistics:
        return self.accumulate_all(prepared, [(x, weight, order)], about)

    def accumulate_all(
        self, prepared: Parameters, chunks: Iterable[Part], about: Array | None = None
    ) -> SufficientStatistics:
        return pairwise_sum(self._runs(prepared, chunks, about))

    def _runs(
        self, prepared: Parameters, chunks: Iterable[Part], about: Array | None
    ) -> Iterator[SufficientStatistics]:
        """Statistics of runs of chunks of much the same size, which add to the same totals."""
        points, structure = prepared.about(about), prepared.model.structure
        n_components, width = points.shape
        about = prepared.model.means if about is None else about
        totals = None
        for x, weight, order in chunks:
            blocks = sizes.blocks(len(x), n_components, width, structure.moments)
            if totals is not None and not totals.take(blocks):
                yield totals.statistics(about)
                totals = None
            if totals is None:
                totals = Totals(blocks, points, x.shape[1], structure)
            self._add(prepared, x, weight, points, order, totals)
        if totals is not None:
            yield totals.statistics(about)

    def _add(
        self,
        prepared: Parameters,
        x: Array,
        weight: Array | None,
        points: Array,
        order: RowOrder | None,
        totals: Totals,
    ) -> None:
        """E-step of a chunk; moments about the points, as the kernels take them."""
        n_rows, n_features = x.shape
        n_components = prepared.means.shape[0]
        work = self._flops(prepared, x) / n_rows
        few = work < sizes.ORDER_WORK or n_rows < sizes.ORDER_ROWS * n_components
        if few or n_rows > sizes.ORDER_MOST:
            order = None
        label = order is not None and order.wants_labels(n_rows)
        ordered = order is not None and len(order.index) > 0
        # In order a tile meets few components: their lines stay in the cache however many.
        together = 1 if ordered else n_components
        tile = sizes.tile(n_features, together, x.itemsize)
        span = tile
        if prepared.factors.ndim < 3:
            tile = sizes.tile(n_features, together, x.itemsize, sizes.LONG_TILE_ROWS)
            span = sizes.span(n_components, x.itemsize)
        blocks = totals.n_blocks
        windows = sizes.windows(n_rows, x.itemsize * n_features, n_components, max(blocks, 1))
        cut: tuple[float, ...] = (sizes.chunk(points, tile),)
        if blocks:
            cut = windows, sizes.dense_share(prepared.model)
        parts = blocks or -(-n_rows // tile)
        log_likelihood, visited = np.zeros(parts), np.zeros(parts)
        run = kernels.accumulate if blocks else kernels.accumulate_shared
        run(
            _rows(x),
            _NO_ORDER if order is None else order.index,
            _NO_ORDER if order is None else order.labels,
            _writable(weight),
            *prepared.kernel_arguments(),
            prepared.reach,
            sizes.EARLY if ordered else self._early(prepared),
            span,
            prepared.thresholds,
            points,
            tile,
            *cut,
            label,
            totals.fresh,
            totals.count,
            totals.first,
            totals.second,
            log_likelihood,
            visited,
            threads=threads(2 * self._flops(prepared, x)),
        )
        if label and order is not None:
            strips = -(-n_rows // kernels.strip_rows(x.itemsize))
            if order.worth(visited.sum() / (strips * n_components)):
                self._reorder(order, n_components, max(blocks, 1) * windows)
        totals.added(n_rows, weight, float(log_likelihood.sum()))

    def _reorder(self, order: RowOrder, n_components: int, windows: int) -> None:
        n_rows = len(order.labels)
        if len(order.index) == 0:
            order.index = np.empty(n_rows, np.int32)
        kernels.order_by_label(
            order.labels, n_components, windows, order.index, threads=threads(8.0 * n_rows)
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
        # In double precision a total is no wider than the sum of a tile, which had better be short.
        tile = sizes.tile(n_features, 1, x.itemsize, 64 if x.itemsize == 8 else sizes.TILE_ROWS)
        centre = about.mean(axis=0).astype(x.dtype)
        relative = about - centre.astype(np.float64)
        points = widen(relative, columns(n_features, x.dtype), x.dtype)
        blocks = max(sizes.blocks(n_rows, len(about), points.shape[1], structure.moments), 1)
        totals = Totals(blocks, points, n_features, structure)
        kernels.accumulate_given(
            _rows(x),
            np.empty(0, np.int32) if labels is None else labels.astype(np.int32),
            np.empty((0, 0), x.dtype) if resp is None else _writable(resp, x.dtype),
            _writable(weight),
            line(centre),
            points,
            tile,
            totals.count,
            totals.first,
            totals.second,
            threads=threads(float(n_rows) * n_features**2),
        )
        totals.added(n_rows, weight)
        return totals.statistics(about)

    def summarise(self, x: Array) -> FeatureSummary:
        n_rows, n_features = x.shape
        n_blocks = min(sizes.BLOCKS, -(-n_rows // 256))
        origin = x[0].astype(np.float64)
        sums = np.zeros((2, n_blocks, n_features))
        extremes = np.empty((2, n_blocks, n_features))
        kernels.summarise(_rows(x), origin, sums, extremes, threads=threads(4.0 * x.size))
        with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the range
            shift, square = sums.sum(axis=1) / n_rows
            variance = np.maximum(square - shift**2, 0.0)
        low, high = extremes[0].min(axis=0), extremes[1].max(axis=0)
        return FeatureSummary(n_rows, origin + shift, variance, low, high)

    def kmeans_step(
        self, x: Array, weight: Array | None, centroids: Array, guess: Array | None = None
    ) -> KMeansStep:
        n_rows, n_features = x.shape
        n_components = centroids.shape[0]
        tile = sizes.tile(n_features, 1, x.itemsize)
        width = columns(n_features, x.dtype)
        n_blocks = sizes.kmeans_blocks(n_rows, n_components, width, tile)
        centre = centroids.mean(axis=0).astype(x.dtype)
        near = guess if n_components >= sizes.GUESS_COMPONENTS else None
        if near is not None and len(near) != n_rows:
            near = None
        labels = np.empty(n_rows, np.int32) if near is None else near.copy()
        count = np.zeros((n_blocks, n_components))
        sums = np.zeros((n_blocks, n_components, width))
        inertia = np.zeros(n_blocks)
        kernels.kmeans_step(
            _rows(x),
            _writable(weight),
            line(centre),
            widen(centroids - centre.astype(np.float64), width, x.dtype),
            padded(n_features),
            near is not None,
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
        tile = sizes.tile(x.shape[1], 1, x.itemsize)
        origin = pad(point[None] - centre, (1,), x.dtype)
        kernels.update_closest(
            _rows(x), line(centre), origin, tile, closest, threads=threads(4.0 * x.size)
        )
        return closest

    def potentials(
        self, x: Array, weight: Array | None, candidates: Array, closest: Array
    ) -> Array:
        centre = candidates.mean(axis=0).astype(x.dtype)
        tile = sizes.tile(x.shape[1], 1, x.itemsize)
        potential = np.zeros((min(sizes.BLOCKS, -(-x.shape[0] // tile)), candidates.shape[0]))
        kernels.candidate_potentials(
            _rows(x),
            _writable(weight),
            line(centre),
            pad(candidates - centre.astype(np.float64), (1,), x.dtype),
            tile,
            closest,
            potential,
            threads=threads(4.0 * x.size * candidates.shape[0]),
        )
        return potential
