"""Rows that do not stay in memory: read anew in every pass, one chunk ahead of the computing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgmm.arrays import Array, copied, home, like, namespace, to_numpy
from fastgmm.errors import InputError
from fastgmm.sources.base import Chunk, Source
from fastgmm.sources.batches import Rows, batch_rows, rebatch
from fastgmm.sources.items import as_rows
from fastgmm.sources.prefetch import prefetch

# Rows that a reader is asked for before their width is known.
_HINT = 65536


@dataclass(frozen=True)
class Reader:
    """How to begin a pass over rows that lie somewhere else.

    Parameters
    ----------
    open : callable
        Takes the number of rows that is wanted per chunk, which it need not keep to, and gives a
        new iterator of chunks, each as :func:`fastgmm.sources.items.as_rows` takes it.
    what : str
        A name for errors.
    row_bytes : int, optional
        Bytes of one row, where that is known before any is read.
    n_rows : int, optional
    names : sequence of str, optional
        Names of the features.
    once : bool
        Whether there is but one pass.
    """

    open: Callable[[int], Iterator[Any]]
    what: str
    row_bytes: int | None = None
    n_rows: int | None = None
    names: tuple[str, ...] | None = None
    once: bool = False


class StreamSource(Source):
    """Chunks that a reader gives in every pass.

    Every pass must give the same rows; their order may change. The rows are checked for NaN and
    infinity in the first pass, their number and width in each.

    Parameters
    ----------
    reader : Reader
    sample_weight : ndarray of shape (N,), optional
        May be a memory map; not together with weights that the reader gives.
    batch_size : int or str, optional
        Rows per chunk, or their size; 64 MiB by default.

    Raises
    ------
    InputError
        If there is no row, or there are weights from both.
    """

    def __init__(
        self,
        reader: Reader,
        sample_weight: np.ndarray | None = None,
        batch_size: int | str | None = None,
    ) -> None:
        self._reader = reader
        self._weight = sample_weight
        self._place: Callable[[Array], Array] = _as_it_is
        self._passes = 0
        self._counted: int | None = None
        self._last: object = None
        self._current: Iterator[Chunk] | None = None
        row_bytes = reader.row_bytes
        rows = _HINT if row_bytes is None else batch_rows(batch_size, row_bytes)
        # The first chunk tells width, type and device; the first pass goes on from it.
        parts = self._parts(rows)
        first = next(parts, None)
        if first is None:
            raise InputError(f"{reader.what}: there are no rows (0 chunks); expected at least one.")
        self._begun: Iterator[Rows] | None = _chain(first, parts)
        x = first[0]
        self.n_features, self.dtype, self.home = x.shape[1], x.dtype, home(x)
        # A view would keep all of the chunk.
        self._sample, self._weighted = copied(x[:1]), first[1] is not None
        if self._weighted and sample_weight is not None:
            self._begun.close()  # type: ignore[attr-defined]
            raise InputError(f"sample_weight: {reader.what} gives weights itself.")
        if row_bytes is None:
            rows = batch_rows(batch_size, x.dtype.itemsize * x.shape[1])
        self._rows = rows
        self.names = reader.names

    @property
    def once(self) -> bool:
        """Whether there is but one pass."""
        return self._reader.once

    @property
    def n_rows(self) -> int:  # type: ignore[override]
        """Number of rows, as the reader or the first pass has told."""
        known = self._reader.n_rows if self._counted is None else self._counted
        if known is None:
            raise InputError(f"{self._reader.what}: the rows have not been counted yet.")
        return known

    def place(self, where: Callable[[Array], Array]) -> None:
        # By the thread that reads, so that copies to a device overlap with computing too.
        self._place = where
        self.dtype = where(self._sample).dtype

    def __iter__(self) -> Iterator[Chunk]:
        self.close()
        self._current = prefetch(self._chunks())
        return self._through(self._current)

    def _through(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """One pass; where another has ended it the rows that are left must not go missing."""
        yield from chunks
        if self._current is not chunks:
            raise InputError(
                f"{self._reader.what}: a pass over the rows was ended by another before all were "
                "read. Open them once for each pass that is under way at the same time."
            )

    def close(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            current.close()  # type: ignore[attr-defined]

    def _chunks(self) -> Iterator[Chunk]:
        start = 0
        for x, weight in rebatch(self._pass(), self._rows):
            x = self._place(x)
            if weight is not None:
                weight = like(weight / self.weight_scale, x)
            yield Chunk(x, weight, start)
            start += len(x)

    def _pass(self) -> Iterator[Rows]:
        """All rows, with what is known of them compared; weights as given."""
        begun, self._begun = self._begun, None
        parts = self._parts(self._rows) if begun is None else begun
        count = 0
        for x, weight in parts:
            if self._weight is not None:
                weight = self._given_weights(count, len(x))
            yield x, weight
            count += len(x)
        expected = self._weight.shape[0] if self._weight is not None else count
        if expected != count:
            raise InputError(
                f"sample_weight.shape == ({expected},), but {self._reader.what} has {count} rows."
            )
        if self._counted not in (None, count):
            raise InputError(
                f"{self._reader.what}: pass {self._passes} gave {count} rows, the first "
                f"{self._counted}. Every pass must give the same rows."
            )
        self._counted = count

    def _given_weights(self, start: int, n_rows: int) -> np.ndarray:
        part = np.asarray(self._weight[start : start + n_rows], np.float64)  # type: ignore[index]
        bad = ~(np.isfinite(part) & (part >= 0))
        if bad.any():
            row = int(bad.argmax())
            raise InputError(
                "sample_weight must be finite and not negative; got "
                f"{part[row]} at row {start + row}."
            )
        # Where it is too short the end of the pass says so.
        return np.resize(part, n_rows) if len(part) == 0 or len(part) < n_rows else part

    def _parts(self, rows: int) -> Iterator[Rows]:
        """What one pass of the reader gives, checked chunk by chunk."""
        what = self._reader.what
        self._passes += 1
        if self._passes > 1 and self._reader.once:
            raise InputError(f"{what} gives its rows once, and {HOW_TO_WRAP}")
        items = self._reader.open(rows)
        if items is self._last:
            raise InputError(f"{what} gave the same iterator a second time; {HOW_TO_WRAP}")
        self._last = items
        try:
            start = 0
            for number, item in enumerate(items):
                where = f"{what}, chunk {number}"
                x, weight = as_rows(item, where)
                if len(x) == 0:
                    continue
                self.given = getattr(item[0] if isinstance(item, tuple) else item, "dtype", None)
                self._compare(x, weight, where)
                if self._counted is None:
                    _check_finite(x, where, start, self._reader.names)
                yield x, weight
                start += len(x)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def _compare(self, x: Array, weight: Array | None, where: str) -> None:
        known = getattr(self, "n_features", None)
        if known is None:
            return
        if (weight is not None) != self._weighted:
            now = "no weights" if weight is None else "weights"
            raise InputError(
                f"{where} has {now}, the first had {'some' if weight is None else 'none'}."
            )
        if x.shape[1] != known:
            raise InputError(
                f"{where} has {x.shape[1]} features (shape {tuple(x.shape)}), the first had "
                f"{known}. All chunks must have the same features."
            )
        if x.dtype != self._sample.dtype or home(x) != self.home:
            found, first = (f"{a.dtype} on {home(a) or 'the host'}" for a in (x, self._sample))
            raise InputError(f"{where} is {found}, the first was {first}. Convert them to one.")


HOW_TO_WRAP = (
    "a fit reads them several times. Pass a function that begins anew, such as "
    "fit(lambda: read_chunks(path)) where read_chunks is your generator function."
)


def _as_it_is(x: Array) -> Array:
    return x


def _chain(first: Rows, rest: Iterator[Rows]) -> Iterator[Rows]:
    try:
        yield first
        del first
        yield from rest
    finally:
        rest.close()  # type: ignore[attr-defined]


def _check_finite(x: Array, where: str, start: int, names: tuple[str, ...] | None) -> None:
    xp = namespace(x)
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(x.sum(dtype=xp.float64)):
            return
    bad = to_numpy(~xp.isfinite(x))
    if not bad.any():
        return
    row, column = np.argwhere(bad)[0].tolist()
    what = "NaN" if xp.isnan(x[row, column]) else "infinity"
    name = "" if names is None else f" ({names[column]!r})"
    raise InputError(
        f"{where}: Input X contains {what}: first at its row {row} (row {start + row} of all), "
        f"column {column}{name}; {int(bad.sum())} not finite in this chunk. Impute them or drop "
        "these rows."
    )
