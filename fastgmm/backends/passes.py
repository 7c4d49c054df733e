"""One chunk of rows through the GPU kernels: its workspace, its launches, its sums."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch

from fastgmm.backends.launch import Launch, device_sizes, find
from fastgmm.backends.packing import DeviceParameters, whole_components
from fastgmm_kernels import gpu as kernels

Tensor: TypeAlias = torch.Tensor

# Components of a group at least: below, joining the groups costs more than it gains.
_GROUP = 16
# Times that programs fill the device, at most, where their number could leave much of it idle.
_WAVES = 4


@dataclass(frozen=True)
class Target:
    """What launches depend on besides the sizes of a problem.

    Attributes
    ----------
    device : torch.device
    capability : int
        As :func:`fastgmm.backends.launch.capability_of`; that of no device for the interpreter.
    programs : int
        Programs that keep the device busy.
    precision : str
        What ``tl.dot`` calls ``input_precision``, for float32.
    skip : bool
    """

    device: torch.device
    capability: int
    programs: int
    precision: str
    skip: bool

    def launch(self, kernel: str, width: int, dtype: torch.dtype) -> Launch:
        """The row of the launch table."""
        return find(kernel, width, str(dtype).removeprefix("torch."), self.capability)

    def product(self, dtype: torch.dtype) -> str:
        """Precision of the products of a pass."""
        return self.precision if dtype == torch.float32 else "ieee"

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An array of the workspace."""
        return torch.empty(shape, dtype=dtype, device=self.device)

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
        """An array that sums are added to."""
        return torch.zeros(shape, dtype=dtype, device=self.device)


def up(n: int, unit: int) -> int:
    """``n`` rounded up to a multiple of ``unit``."""
    return -(-n // unit) * unit


def chunk_rows(row_bytes: int, n_rows: int = 0) -> int:
    """Rows of a chunk, a power of two: its workspace stays in the cache, or takes some memory where
    that would be many chunks of ``n_rows``: their launches would take longer than the passes.
    """
    sizes = device_sizes()
    few = min(n_rows // sizes["chunks"], sizes["most_bytes"] // row_bytes)
    rows = max(sizes["chunk_bytes"] // row_bytes, few, sizes["least_rows"])
    return 1 << (rows.bit_length() - 1)


def splits_of(programs: int, places: int, most: int) -> int:
    """Parts of the rows, at most ``most``, that leave the fewest of the device's places idle while
    the last of their programs run; the least of equals, because each part has totals of its own.
    """
    found = range(1, min(max(places // programs, _WAVES), most) + 1)
    return min(found, key=lambda splits: up(programs * splits, places) / (programs * splits))


class Totals:
    """Float64 sums of a call, in parts of the rows: counts, first and second moments."""

    def __init__(
        self, target: Target, n_rows: int, n_components: int, width: int, n_features: int,
        second: str, dtype: torch.dtype,
    ) -> None:  # fmt: skip
        """``second`` is "full", "diag", "trace" (sum over features, by products) or "none"."""
        self.n_components, self._n_features = n_components, n_features
        self.product = target.launch("moments_product", width, dtype)
        self.launches = (
            target.launch("moments_full", width, dtype),
            target.launch("moments_diag", width, dtype),
        )
        whole = whole_components(n_components)
        size = 1 + width
        if second == "full":
            n = width // kernels.block_of(width, self.launches[0].features)
            programs, size = n_components * n * (n + 1) // 2, size + width * width
        elif second == "trace":
            b_k, b_d = kernels.blocks_of(whole, width, self.product)
            programs = -(-whole // b_k) * width // b_d
        else:
            b_d = kernels.block_of(width, self.launches[1].features)
            programs = whole // kernels.UNROLL * width // b_d
            size += width if second == "diag" else 0
        room = device_sizes()["total_bytes"] // (8 * whole * size)
        tiles = up(n_rows, kernels.TILE) // kernels.TILE
        splits = splits_of(programs, target.programs, max(min(room, tiles), 1))
        self.count = target.zeros((splits, whole))
        self.first = target.zeros((splits, whole, width))
        shapes = {"full": (splits, whole, width, width), "diag": (splits, whole, width)}
        self.second = target.zeros(shapes[second]) if second in shapes else None
        self.trace = target.zeros((splits, whole)) if second == "trace" else None
        # For the trace: the points of the moments, and what leads from them to the means, (K, D).
        self.points = self.shift = target.empty((0,), torch.float64)

    def arrays(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the kernels add to."""
        return self.count, self.first, self.second

    def collect(self) -> tuple[Any, Any, Any]:
        """Add the parts in order, drop the padding, mirror the triangle."""
        k, d = self.n_components, self._n_features
        count, first = self.count.sum(dim=0)[:k], self.first.sum(dim=0)[:k, :d].contiguous()
        if self.trace is not None:
            first = first - count[:, None] * self.points
            trace = self.trace.sum(dim=0)[:k] + 2 * (self.shift * first).sum(dim=1)
            trace = trace - count * (self.shift**2).sum(dim=1)
            return count, first, (trace / d)[:, None].expand(-1, d).contiguous()
        if self.second is None:
            return count, first, self.count.new_empty(0)
        second = self.second.sum(dim=0)
        if second.ndim == 2:
            return count, first, second[:k, :d].contiguous()
        lower = second[:k, :d, :d].tril()
        return count, first, lower + lower.tril(-1).mT


class ChunkPass:
    """The E-step of one model over chunks of at most ``size`` rows; the workspace is kept.

    Or of many mixtures (``packing.pack_mixtures``) at once: then rows are (B, n, D), of ``size``
    each time, and what comes out has a leading dimension of mixtures too.

    Parameters
    ----------
    target : Target
    parameters : DeviceParameters
    size : int
    lines : bool
        Keep the log-probabilities of a chunk, for statistics.
    """

    def __init__(
        self, target: Target, parameters: DeviceParameters, size: int, *, lines: bool = False
    ) -> None:
        self.target, self.parameters = target, parameters
        dtype, width = parameters.dtype, parameters.width
        self._batch = tuple(parameters.constants.shape[:-1])
        kernel = f"expect_{parameters.family}"
        if parameters.family == "full" and not parameters.row_major:
            kernel = "expect_small"
        elif parameters.family == "full" and self._batch:
            # Its strides take registers.
            kernel = "expect_mixtures"
        self._product = self._by_product()
        if self._product:
            kernel = "expect_product"
        self._expect = target.launch(kernel, width, dtype)
        self._row = target.launch("row", width, dtype)
        self._load = target.launch("load_rows", width, dtype)
        self._respond = target.launch("respond", width, dtype)
        if self._batch:
            # Mixtures often have fewer rows than a tile.
            rows = min(self._expect.rows, max(kernels.TILE, 1 << (size - 1).bit_length()))
            self._expect = replace(self._expect, rows=rows)
        self._unit = max(kernels.TILE, self._expect.rows, self._row.rows)
        n_padded = up(size, self._unit)
        whole = parameters.constants.shape[-1]
        n_tiles = math.prod(self._batch) * n_padded // self._expect.rows
        groups = min(target.programs // n_tiles, whole // _GROUP)
        shape = (max(groups, 1), *self._batch, n_padded)
        self.z = self._rows_array(n_padded)
        self._raw = self.z
        if lines and parameters.whiten is not None and not self._batch:
            self._raw = self._rows_array(n_padded)
        self._top, self._total = target.empty(shape, dtype), target.empty(shape, dtype)
        self._label = target.empty(shape, torch.int32)
        self._lp = self._active = self._spread = None
        if lines:
            self._lp = target.empty((*self._batch, whole, n_padded), dtype)
            self._active = target.empty((n_padded // kernels.TILE, whole), torch.int32)
            if self.takes_traces:
                self._spread = target.empty((n_padded // kernels.TILE, whole), dtype)

    def _by_product(self) -> bool:
        """Whether squared distances are taken from products, on the matrix unit."""
        p, sizes = self.parameters, device_sizes()
        return (
            p.family == "spherical"
            and not self._batch
            and p.width >= sizes["product_features"]
            and p.n_components >= sizes["product_components"]
        )

    @property
    def takes_traces(self) -> bool:
        """Whether statistics come from products, with the traces of second moments alone."""
        structure = getattr(self.parameters.model, "structure", None)
        return self._product and structure is not None and structure.moments == "diag"

    def _rows_array(self, n_padded: int) -> Tensor:
        width, dtype = self.parameters.width, self.parameters.dtype
        if self.parameters.row_major:
            return self.target.empty((*self._batch, n_padded, width), dtype)
        return self.target.empty((*self._batch, width, n_padded), dtype).mT

    def _load_into(self, z: Tensor, x: Tensor, order: Tensor | None, whiten: Tensor | None) -> None:
        kernels.load_rows(
            x, order, self.parameters.centre, whiten, z,
            precision=self.target.product(z.dtype), launch=self._load,
        )  # fmt: skip

    def expect(
        self,
        x: Tensor,
        lp: Tensor | None = None,
        order: tuple[Tensor, Tensor] | None = None,
        weight: Tensor | None = None,
    ) -> None:
        """Largest log-probability, sum of exponentials and label of every row.

        ``lp`` (n, K) takes the log-probabilities; with whole tiles of rows it is written in
        vectors, whatever n. ``order`` is the rows' numbers by label and
        those labels; then components out of reach are left out.
        """
        p, n = self.parameters, x.shape[-2]
        padded = up(n, self._unit)
        z = self.z[..., :padded, :]
        index, labels = (None, None) if order is None else order
        self._load_into(z, x, index, p.whiten)
        top, total, label = (a[..., :padded] for a in (self._top, self._total, self._label))
        skip = None
        if labels is not None:
            places = torch.arange(0, padded, self._expect.rows, device=labels.device)
            skip = labels[places.clamp(max=n - 1)], weight
        arguments = (z, n, p.n_features, p, top, total, label, lp)
        precision = self.target.product(p.dtype)
        if p.family == "full":
            kernels.expect_full(*arguments, skip=skip, precision=precision, launch=self._expect)
        elif self._product:
            kernels.expect_product(
                z, n, p, top, total, label, lp,
                skip=skip, precision=precision, launch=self._expect,
            )  # fmt: skip
        else:
            run = kernels.expect_diag if p.family == "diag" else kernels.expect_spherical
            run(*arguments, skip=skip, launch=self._expect)
        # Views, for the result is written to the first of the groups.
        top, total, label = (a.view(len(a), -1) for a in (top, total, label))
        kernels.combine(top, total, label, launch=self._row)

    def finish(self, norm: Tensor | None = None, best: Tensor | None = None) -> None:
        """Write the log-likelihoods, and the labels with -1 for rows that nothing reaches."""
        top, total, label = (a[0].flatten() for a in (self._top, self._total, self._label))
        kernels.finish(top, total, label, norm, best, launch=self._row)

    def respond(self, lp: Tensor, *, log: bool) -> None:
        """Turn the log-probabilities of the last chunk into responsibilities, in place."""
        kernels.respond(lp, self._top[0], self._total[0], *lp.shape, log=log, launch=self._respond)

    def tops(self, n: int) -> Tensor:
        """The largest log-probabilities (n,) of the last chunk."""
        return self._top[0, :n]

    def labels(self, n: int) -> Tensor:
        """The labels (n,) int32 of the last chunk."""
        return self._label[0, :n].clamp(max=self.parameters.n_components - 1)

    def add_moments(
        self,
        x: Tensor,
        order: tuple[Tensor, Tensor] | None,
        weight: Tensor | None,
        about: Tensor,
        totals: Totals,
        *,
        skip: bool = True,
    ) -> Tensor:
        """E-step of a chunk and its moments about points; returns its log-likelihoods (n,).

        Without ``skip`` moments are taken of all tiles.
        """
        p, n, lp, active = self.parameters, len(x), self._lp, self._active
        if lp is None or active is None:
            raise TypeError("this pass was made without lines")
        self.expect(x, lp.T[: up(n, self._unit)], order, weight)
        norm = self.target.empty((n,), p.dtype)
        self.finish(norm)
        padded = up(n, kernels.TILE)
        kernels.respond(
            lp.T[:padded], self._top[0], self._total[0], n, p.n_components,
            moments=(active, weight, p.thresholds, p.tallest),
            spread=None if self._spread is None else (self._spread, p.constants, p.factors),
            launch=self._respond,
        )  # fmt: skip
        if self._raw is not self.z:
            self._load_into(self._raw[: up(n, self._unit)], x, order and order[0], None)
        worth = p.n_components >= device_sizes()["skip_components"]
        skip = skip and self.target.skip and worth
        precision = self.target.product(p.dtype)
        if totals.trace is not None:
            kernels.moments_product(
                self.z, n, about, p.factors, (totals.count, totals.first, totals.trace),
                resp=lp, spread=self._spread, active=active,
                skip=skip, precision=precision, launch=totals.product,
            )  # fmt: skip
            return norm
        kernels.moments(
            self._raw, n, p.n_components, about, totals.arrays(),
            resp=lp, active=active, labels=None, weight=None,
            skip=skip, precision=precision, launches=totals.launches,
        )  # fmt: skip
        return norm

    def active_blocks(self, n: int) -> Tensor:
        """Where tiles of the last chunk said anything of components that are visited together."""
        if self._active is None:
            raise TypeError("this pass was made without lines")
        tiles, k = up(n, kernels.TILE) // kernels.TILE, self.parameters.n_components
        active = self._active[:tiles, None, :k].to(torch.float32)
        together = 1 if self.parameters.family == "full" else kernels.UNROLL
        if self._product:
            whole = self.parameters.constants.shape[-1]
            together, _ = kernels.blocks_of(whole, self.parameters.width, self._expect)
        return torch.nn.functional.max_pool1d(active, together, ceil_mode=True)

    def log_likelihoods(self, n: int) -> Tensor:
        """log p(x) of the last rows of many mixtures, (B, n)."""
        norm = self.target.empty((math.prod(self._top.shape[1:]),), self.parameters.dtype)
        self.finish(norm)
        return norm.reshape(self._top.shape[1:])[..., :n]

    def weigh(self, x: Tensor, upstream: Tensor) -> Tensor:
        """Weights (B, K', R) of the components of many mixtures, 0 beyond the last row.

        ``upstream`` (B, n) times responsibility, or ``upstream`` (B, n, K) itself. :attr:`z` has
        the rows then.
        """
        p, n, lp = self.parameters, x.shape[-2], self._lp
        if lp is None:
            raise TypeError("this pass was made without lines")
        if upstream.ndim == 3:
            self._load_into(self.z, x, None, p.whiten)
            lp.zero_()
            lp[:, : p.n_components, :n] = upstream.mT
            return lp
        self.expect(x, lp.mT[:, : up(n, self._unit)])
        kernels.respond(
            lp.mT[:, : up(n, kernels.TILE)], self._top[0], self._total[0], n, p.n_components,
            moments=(None, upstream, None, None), launch=self._respond,
        )  # fmt: skip
        return lp

    def add_weighted(self, n: int, weights: Tensor, about: Tensor, totals: Totals) -> None:
        """Add moments of the rows in :attr:`z` under given weights (B, K', R) about (B, K', D')."""
        kernels.moments(
            self.z, n, self.parameters.n_components, about.flatten(0, 1), totals.arrays(),
            resp=weights.flatten(0, 1), active=None, labels=None, weight=None, skip=False,
            precision=self.target.product(about.dtype), launches=totals.launches,
        )  # fmt: skip
