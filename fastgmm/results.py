"""Writing results to files, for the command line: ``.npy``, ``.csv`` or ``.parquet``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fastgmm.atomic import replacing
from fastgmm.errors import InputError
from fastgmm.tables import PYARROW_MISSING

WRITABLE = (".npy", ".csv", ".parquet")

__all__ = ["WRITABLE", "write", "write_csv"]


def write(path: str | os.PathLike[str], values: NDArray[Any], names: Sequence[str]) -> None:
    """Write one array of results.

    Parameters
    ----------
    path : path-like
        Ends in .npy, .csv or .parquet. A file that is there is replaced, and only once the new one
        is complete.
    values : ndarray of shape (N,) or (N, C)
        The results, one row per row of the data.
    names : sequence of str
        The names of the C columns, for the formats that have a header.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        _replace(path, lambda file: np.save(file, values, allow_pickle=False))
    elif suffix == ".csv":
        _replace(path, lambda file: write_csv(file, values, names))
    elif suffix == ".parquet":
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise ImportError(PYARROW_MISSING) from error
        columns = np.atleast_2d(values.T)
        table = pa.table(
            {
                name: np.ascontiguousarray(column)
                for name, column in zip(names, columns, strict=True)
            }
        )
        _replace(path, lambda file: pq.write_table(table, file))
    else:
        raise InputError(
            f"{path}: cannot write this kind of file; expected one of {', '.join(WRITABLE)}"
        )


def write_csv(file: IO[Any], values: NDArray[Any], names: Sequence[str]) -> None:
    """Write a header and the rows, with the fewest digits that bring back the same numbers."""
    np.savetxt(file, values, fmt="%s", delimiter=",", header=",".join(names), comments="")


def _replace(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    with replacing(path) as file:
        fill(file)
