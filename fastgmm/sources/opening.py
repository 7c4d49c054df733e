"""From what a user passes as rows to a source of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastgmm.arrays import float_dtype, is_tensor, refuse_mask, to_numpy
from fastgmm.errors import InputError
from fastgmm.sources import arrays, batches
from fastgmm.sources.arrays import check_file, mapped, stored
from fastgmm.sources.base import Source
from fastgmm.sources.files import read_path, rows_of_batch
from fastgmm.sources.stream import HOW_TO_WRAP, Reader, StreamSource

# Libraries whose arrays lie in files and are read by slices.
_STORED = ("zarr", "h5py")
_LOADED_ROWS = 65536


def is_stream(X: object) -> bool:
    """Whether ``X`` stands for rows that are not in memory: paths, sources, loaders, functions."""
    if isinstance(X, np.ndarray):
        return _is_large_map(X)
    if isinstance(X, str | os.PathLike | Source | Reader):
        return True
    if is_tensor(X) or isinstance(X, list | tuple):
        return False
    return _reader_of(X) is not None or is_dask(X)


def is_dask(X: object) -> bool:
    """Whether ``X`` is a Dask array or data frame, without importing Dask."""
    return hasattr(X, "dask") and hasattr(X, "__dask_graph__")


def open_source(
    X: Any, sample_weight: Any = None, batch_size: int | str | None = None, *, once: bool = False
) -> Source:
    """A source of the rows that ``X`` stands for.

    Parameters
    ----------
    X : any
        A path, Source, Reader, function, iterator, torch Dataset or DataLoader, pyarrow Dataset or
        Table of more than 64 MiB, zarr or h5py array, Dask array or data frame. A function takes
        nothing and returns an iterator of chunks: arrays, tensors or tables (n, D), or tuples of
        such and weights (n,).
    sample_weight : array-like of shape (N,) or path of a .npy file, optional
    batch_size : int or str, optional
        Rows per chunk, or their size such as "64MB".
    once : bool
        Whether one pass is enough, so that an iterator will do.

    Returns
    -------
    source : Source

    Raises
    ------
    InputError
        If ``X`` cannot be read as often as is needed.
    """
    if isinstance(X, Source):
        if X.shared:
            raise InputError(
                f"X is a {type(X).__name__}, which fit() alone takes. Give this process's own rows."
            )
        if sample_weight is not None:
            raise InputError("sample_weight: a Source has its weights itself.")
        return X
    if is_dask(X):
        from fastgmm.sources.dask import DaskSource

        given = sample_weight if is_dask(sample_weight) else _weights(sample_weight)
        return DaskSource(X, given)
    if isinstance(X, Reader):
        reader: Reader | None = X
    else:
        reader = read_path(X) if isinstance(X, str | os.PathLike) else _reader_of(X)
    if reader is None:
        raise InputError(f"X is a {type(X).__name__}, which is no source of rows.")
    if reader.once and not once:
        raise InputError(f"X is a {type(X).__name__}, which gives its rows once; {HOW_TO_WRAP}")
    return StreamSource(reader, _weights(sample_weight), batch_size)


def _weights(sample_weight: Any) -> np.ndarray | None:
    if sample_weight is None:
        return None
    refuse_mask(sample_weight, "sample_weight")
    weight = np.asarray(to_numpy(stored(sample_weight)))
    if weight.ndim != 1:
        raise InputError("Sample weights must be 1D array or scalar")
    return weight


def _reader_of(X: Any) -> Reader | None:
    name, root = type(X).__name__, type(X).__module__.partition(".")[0]
    if isinstance(X, np.ndarray):
        return _stored(X, name) if _is_large_map(X) else None
    data = sys.modules.get("torch.utils.data")
    if data is not None and isinstance(X, data.DataLoader | data.Dataset):
        return _loader(X, data)
    if root in _STORED and getattr(X, "ndim", None) == 2:
        return _stored(X, name)
    if root == "pyarrow" and hasattr(X, "to_batches") and hasattr(X, "scanner"):
        return _arrow(X, name)
    if root == "pyarrow" and hasattr(X, "to_batches") and hasattr(X, "nbytes"):
        # A small one is converted once, as other tables are.
        return _table(X, name) if X.nbytes > batches.DEFAULT_BYTES else None
    if isinstance(X, Iterator):
        return Reader(lambda rows: X, f"the {name}", once=True)
    if callable(X) and not hasattr(X, "shape") and not isinstance(X, type):
        return Reader(lambda rows: iter(X()), getattr(X, "__name__", name))
    return None


def _loader(X: Any, data: Any) -> Reader:
    name = type(X).__name__

    def batches(rows: int) -> Iterator[Any]:
        loader = X
        if not isinstance(X, data.DataLoader):
            loader = data.DataLoader(X, batch_size=min(rows, _LOADED_ROWS))
        for batch in loader:
            if isinstance(batch, tuple | list):
                if len(batch) != 1:
                    raise InputError(
                        f"the {name} gives {len(batch)} things per row; which are features? Pass "
                        "a function that says so, such as fit(lambda: (x for x, label in loader))."
                    )
                batch = batch[0]
            yield batch

    return Reader(batches, f"the {name}")


def _is_large_map(X: np.ndarray) -> bool:
    """Whether floats of a mapped file would take too much memory, and have to be made."""
    if mapped(X) is None or X.ndim != 2 or X.dtype.kind not in "fiub":
        return False
    dtype = float_dtype(X.dtype)
    return X.dtype != dtype and X.size * dtype.itemsize > arrays.MAPPED_BYTES


def _stored(X: Any, name: str) -> Reader:
    n_rows, n_features = X.shape
    size, file = float_dtype(np.dtype(X.dtype)).itemsize, mapped(X)

    def blocks(rows: int) -> Iterator[np.ndarray]:
        for start in range(0, n_rows, rows):
            if file is not None:
                check_file(file)
            yield np.asarray(X[start : start + rows])

    return Reader(blocks, f"the {name}", row_bytes=max(n_features, 1) * size, n_rows=n_rows)


def _arrow(X: Any, name: str) -> Reader:
    names = tuple(X.schema.names)

    def batches(rows: int) -> Iterator[Any]:
        # Read-ahead of Arrow's own would hold many batches at a time.
        for batch in X.to_batches(batch_size=rows, batch_readahead=1, fragment_readahead=1):
            yield rows_of_batch(batch, names)

    return Reader(batches, f"the {name}", names=names)


def _table(X: Any, name: str) -> Reader:
    """Record batches of a table in memory: converted as they come, not all at once."""
    single = all(str(kind) in ("float", "halffloat") for kind in X.schema.types)

    def parts(rows: int) -> Iterator[Any]:
        for batch in X.to_batches(max_chunksize=rows):
            yield type(X).from_batches([batch])

    names = tuple(X.schema.names)
    row_bytes = max(len(names), 1) * (4 if single else 8)
    return Reader(parts, f"the {name}", row_bytes=row_bytes, n_rows=X.num_rows, names=names)
