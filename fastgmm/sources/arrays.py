"""Rows of an array in memory, or mapped to it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastgmm.arrays import Array, cast, home, like, refuse_mask, to_numpy
from fastgmm.errors import InputError
from fastgmm.sources.base import Chunk, Source
from fastgmm.sources.batches import batch_rows

# Maps of files beyond this many bytes count as rows that are not in memory.
MAPPED_BYTES = 2**30

NO_WEIGHT = (
    "sample_weight: Sample weights must contain at least one non-zero number; with all of them "
    "zero no row is left to fit."
)


def mapped(x: object) -> np.memmap | None:
    """The memory map that an array is, or looks into; None if there is none."""
    found = None
    while isinstance(x, np.ndarray):
        # The outermost has the offset of the whole map.
        found = x if isinstance(x, np.memmap) else found
        x = x.base
    return found if isinstance(x, mmap.mmap) else None


def check_file(whole: np.memmap) -> None:
    """Look whether a mapped file still has its length: to read beyond its end kills a process.

    Raises
    ------
    InputError
        If it has been cut short.
    """
    view: Any = whole.base
    end = whole.offset - whole.offset % mmap.ALLOCATIONGRANULARITY + len(view)
    size = view.size()
    if size < end:
        raise InputError(
            f"{whole.filename or 'the mapped file'}: {end - size} bytes of the {end} that were "
            "mapped are gone; the file has been cut short. Write it again."
        )


def stored(sample_weight: Any) -> Any:
    """The weights in a .npy file where a path is given, mapped."""
    if isinstance(sample_weight, str | os.PathLike):
        return np.load(sample_weight, mmap_mode="r", allow_pickle=False)
    return sample_weight


def check_weights(sample_weight: object, n_rows: int) -> np.ndarray:
    """Weights of all rows as a float64 array (N,) on the host, checked.

    Raises
    ------
    InputError
        If they have another length, are negative, not finite, or all zero.
    """
    weight = _part_weights(sample_weight, n_rows)
    if not weight.any():
        raise InputError(NO_WEIGHT)
    return weight


def _part_weights(sample_weight: object, n_rows: int) -> np.ndarray:
    """The same of rows that may be a part of all, and have no weight then."""
    refuse_mask(sample_weight, "sample_weight")
    weight = np.array(to_numpy(stored(sample_weight)), dtype=np.float64)
    if weight.ndim == 0:
        weight = np.full(n_rows, float(weight))
    if weight.ndim != 1:
        raise InputError("Sample weights must be 1D array or scalar")
    if weight.shape != (n_rows,):
        raise InputError(f"sample_weight.shape == {weight.shape}, expected {(n_rows,)}!")
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        first = int(bad.argmax())
        raise InputError(
            "sample_weight must be finite and not negative; Negative values, NaN or inf in data: "
            f"got {weight[first]} at row {first} ({int(bad.sum())} such rows)."
        )
    return weight


class ArraySource(Source):
    """Chunks of consecutive rows of an array, without copying.

    Parameters
    ----------
    x : array of shape (N, D)
        float32 or float64, any strides; or a tensor.
    sample_weight : array-like of shape (N,), optional
        All may be 0: other parts of the rows may have weight.
    batch_size : int or str, optional
        Rows per chunk, or their size such as "64MB"; all rows in one chunk by default, and 64 MiB
        of a mapped file of more than 1 GiB.

    Notes
    -----
    Before each chunk a mapped file is asked for its length, so that one that has been cut short is
    an error; one that is cut while a chunk is read ends the process, where a path would not.
    """

    def __init__(
        self, x: Array, sample_weight: object = None, batch_size: int | str | None = None
    ) -> None:
        self._x = x
        self.n_rows, self.n_features = x.shape
        self.dtype, self.home = x.dtype, home(x)
        self._file = mapped(x)
        row_bytes = self.n_features * x.dtype.itemsize
        self.resident = self._file is None or self.n_rows * row_bytes <= MAPPED_BYTES
        if batch_size is None and self.resident:
            self._batch = max(self.n_rows, 1)
        else:
            self._batch = batch_rows(batch_size, row_bytes)
        self._weight: Array | None = None
        if sample_weight is not None:
            weight = _part_weights(sample_weight, self.n_rows)
            # The largest first: a sum of weights near 1e308 would overflow.
            largest = weight.max(initial=0.0)
            if largest > 0:
                mean = (weight / largest).mean()
                weight = weight / largest / mean
                self.weight_scale = float(largest * mean)
            self._weight = like(weight, x)

    def __iter__(self) -> Iterator[Chunk]:
        for start in range(0, self.n_rows, self._batch):
            rows = slice(start, start + self._batch)
            weight = None if self._weight is None else self._weight[rows]
            if self._file is not None:
                check_file(self._file)
            yield Chunk(self._x[rows], weight, start)

    def place(self, where: Callable[[Array], Array]) -> None:
        self._x = where(self._x)
        self._file = mapped(self._x)
        self.resident = self.resident or self._file is None
        self.dtype = self._x.dtype
        if self._weight is not None:
            self._weight = like(self._weight, self._x)

    def scale_weights(self, scale: float) -> None:
        if self._weight is not None:
            self._weight = self._weight * (self.weight_scale / scale)
        self.weight_scale = scale

    def take(self, rows: Array) -> Array:
        """The rows of the given numbers, (n, D) float64, of the kind of the rows."""
        return cast(self._x[like(rows, self._x)], np.float64)
