"""Results that are written as they come: .npy and Parquet files that need not fit in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastgmm.atomic import replacing
from fastgmm.errors import InputError

FORMATS = (".npy", ".parquet")
# Room for the header of a .npy file, which is written again when the number of rows is known.
_HEADER = 128


def check_output(path: str | os.PathLike[str]) -> Path:
    """A path that results can be written to.

    Raises
    ------
    InputError
        If its kind is unknown or its folder does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: expected out= to end in {' or '.join(FORMATS)}.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: no such folder: {path.absolute().parent}")
    return path


def write_parts(
    path: str | os.PathLike[str], parts: Iterable[np.ndarray], names: Sequence[str]
) -> Path:
    """Write results part by part; the file appears once it is whole.

    Parameters
    ----------
    path : path-like
        Ends in .npy or .parquet.
    parts : iterable of ndarray of shape (n,) or (n, C)
    names : sequence of str
        Of the C columns, for Parquet.

    Returns
    -------
    path : Path
    """
    path = check_output(path)
    with replacing(path) as file:
        if path.suffix.lower() == ".npy":
            _write_npy(file, iter(parts))
        else:
            _write_parquet(file, parts, names)
    return path


def _write_npy(file: IO[bytes], parts: Iterator[np.ndarray]) -> None:
    file.write(bytes(_HEADER))
    n_rows, first = 0, None
    for part in parts:
        first = part if first is None else first
        n_rows += len(part)
        file.write(np.ascontiguousarray(part).data)
    if first is None:
        raise InputError("there are no rows: nothing to write.")
    shape = (n_rows, *first.shape[1:])
    text = str(
        {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False, "shape": shape}
    )
    head = np.lib.format.magic(1, 0) + (_HEADER - 10).to_bytes(2, "little")
    file.seek(0)
    file.write(head + text.encode("ascii").ljust(_HEADER - 11) + b"\n")


def _write_parquet(file: IO[bytes], parts: Iterable[np.ndarray], names: Sequence[str]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(
            'Parquet files need pyarrow, which is not installed: pip install "fastgmm[parquet]"'
        ) from error
    writer: Any = None
    try:
        for part in parts:
            columns = np.atleast_2d(part.T)
            table = pa.table(
                {n: np.ascontiguousarray(c) for n, c in zip(names, columns, strict=True)}
            )
            if writer is None:
                writer = pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise InputError("there are no rows: nothing to write.")
