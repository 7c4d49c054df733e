"""Reading tables of numbers from files, for the command line.

It knows four formats: ``.npy`` (memory-mapped), ``.npz``, ``.csv`` and ``.parquet``. Nothing here
ever unpickles, and pyarrow is imported only when a Parquet file is touched.
"""

from __future__ import annotations

import csv
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgmm import frames
from fastgmm.errors import InputError, PrecisionWarning

READABLE = (".npy", ".npz", ".csv", ".parquet")
PYARROW_MISSING = (
    'Parquet files need pyarrow, which is not installed: pip install "fastgmm[parquet]"'
)

__all__ = ["READABLE", "Table", "has_names", "read", "read_vector"]


@dataclass(frozen=True)
class Table:
    """Rows read from a file.

    Attributes
    ----------
    values : ndarray of shape (N, D)
        The numbers. A memory map where the file is a ``.npy`` file and no conversion was asked for.
    names : tuple of str or None
        The names of the columns, where the file has any.
    """

    values: NDArray[Any]
    names: tuple[str, ...] | None = None


def read(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    key: str | None = None,
    dtype: DTypeLike | None = None,
) -> Table:
    """Read a table of numbers.

    Parameters
    ----------
    path : path-like
        A file that ends in .npy, .npz, .csv or .parquet.
    columns : sequence of str, optional
        The columns to keep, in this order: names where the file has names, otherwise positions
        counted from 0.
    key : str, optional
        Which array of a .npz file to read; needed only where it holds several.
    dtype : dtype, optional
        float32 or float64. By default arrays keep their type, and text becomes float64.

    Returns
    -------
    Table

    Raises
    ------
    InputError
        If the file is damaged or of an unknown kind, or a column is missing or not numeric.
    OSError
        If the file cannot be opened.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if key is not None and suffix != ".npz":
        raise InputError(f"{path}: a key chooses an array of a .npz file; this file is none")
    if suffix in (".npy", ".npz"):
        values = _load_array(path, key)
        if values.ndim != 2:
            raise InputError(
                f"{path}: expected a table (rows, features), got an array of shape {values.shape}"
            )
        if columns is not None:
            values = values[:, _positions(path, columns, None, values.shape[1])]
        return Table(values if dtype is None else np.asarray(values, dtype=dtype))
    if suffix == ".csv":
        return _read_csv(path, columns, np.dtype(dtype or np.float64))
    if suffix == ".parquet":
        return _read_parquet(path, columns, dtype)
    raise InputError(f"{path}: unknown kind of file; expected one of {', '.join(READABLE)}")


def read_vector(path: str | os.PathLike[str], *, key: str | None = None) -> NDArray[Any]:
    """Read one number per row, such as sample weights: a 1-D array or a table with one column."""
    path = Path(path)
    if path.suffix.lower() in (".npy", ".npz"):
        values = _load_array(path, key)
    else:
        values = read(path).values
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(
            f"{path}: expected one number per row, got an array of shape {values.shape}"
        )
    return values


def has_names(path: str | os.PathLike[str]) -> bool:
    """Tell whether columns have names: those of Parquet do, of .csv with a header, no array."""
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return _csv_header(path)[1] is not None
    return path.suffix.lower() == ".parquet"


def _positions(
    path: Path, columns: Sequence[str], names: Sequence[str] | None, width: int
) -> list[int]:
    """Turn names, or positions counted from 0, into positions. A name wins over a position."""
    found = []
    for column in columns:
        if names is not None and column in names:
            found.append(list(names).index(column))
        elif column.isdecimal() and int(column) < width:
            found.append(int(column))
        else:
            has = (
                f"columns {', '.join(names)}" if names is not None else f"columns 0 to {width - 1}"
            )
            raise InputError(f"{path}: no column {column!r}; the file has {has}")
    return found


def _load_array(path: Path, key: str | None) -> NDArray[Any]:
    values = _load_npy(path) if path.suffix.lower() == ".npy" else _load_npz(path, key)
    if values.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected real numbers, got an array of {values.dtype}")
    return values


def _load_npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic != b"\x93NUMPY":  # numpy would guess, and leak the open file
        raise InputError(f"{path}: not a readable .npy file (it does not begin like one)")
    try:
        values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(
            f"{path}: not a readable .npy file of numbers ({_first_line(error)})"
        ) from error
    return values


def _load_npz(path: Path, key: str | None) -> NDArray[Any]:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if key is None and len(names) != 1:
                raise InputError(
                    f"{path}: holds {len(names)} arrays; choose one of them by its key: "
                    f"{', '.join(names)}"
                )
            if key is not None and key not in names:
                raise InputError(f"{path}: no array {key!r}; the file has {', '.join(names)}")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return np.asarray(arrays[names[0] if key is None else key])
    except InputError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: not a readable .npz file of numbers ({_first_line(error)})"
        ) from error


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _csv_header(path: Path) -> tuple[str, tuple[str, ...] | None, int, int]:
    """Look at the first two records: delimiter, names, lines to skip, number of columns.

    The first record is a header when no cell is a number, or when a cell that is none stands above
    one that is.
    """
    try:
        return _look_at_header(path)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start})"
        ) from error
    except csv.Error as error:
        raise InputError(f"{path}: not a readable .csv file ({error})") from error


def _look_at_header(path: Path) -> tuple[str, tuple[str, ...] | None, int, int]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        sample = next((line for line in file if line.strip()), "")
        if not sample:
            raise InputError(f"{path}: the file is empty: 0 rows")
        delimiter = max(",;\t", key=re.sub(r'"[^"]*"?', "", sample).count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
        records = [(record, reader.line_num) for record in islice((r for r in reader if r), 2)]
    first, line = records[0]
    second = records[1][0] if len(records) > 1 else []
    above = any(not _number(a) and _number(b) for a, b in zip(first, second, strict=False))
    if above or not any(_number(cell) for cell in first):
        return delimiter, tuple(cell.strip() for cell in first), line, len(first)
    return delimiter, None, 0, len(first)


def _read_csv(path: Path, columns: Sequence[str] | None, dtype: np.dtype[Any]) -> Table:
    delimiter, names, skip, width = _csv_header(path)
    try:
        wanted = list(range(width)) if columns is None else _positions(path, columns, names, width)
        if names is not None and columns is None and len(set(names)) < len(names):
            raise InputError(f"{path}: two columns have the same name: {', '.join(names)}")
        with path.open(encoding="utf-8-sig", newline="") as file:
            for _ in range(skip):
                next(file)
            if not any(line.strip() for line in file):
                raise InputError(f"{path}: a header and no rows: 0 rows")
        # Handing over every column would accept ragged rows; usecols alone would not notice them.
        values = np.loadtxt(
            path,
            dtype=dtype,
            delimiter=delimiter,
            skiprows=skip,
            ndmin=2,
            quotechar='"',
            comments=None,
            encoding="utf-8-sig",
            usecols=None if columns is None else wanted,
        )
        if max(values.max(initial=0), -values.min(initial=0)) >= 2**53:
            _warn_of_wide(path, delimiter, skip, wanted)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start})"
        ) from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(
            _csv_fault(path, delimiter, names, skip, wanted) or f"{path}: {_first_line(error)}"
        ) from error
    return Table(values, None if names is None else tuple(names[i] for i in wanted))


def _csv_fault(
    path: Path, delimiter: str, names: Sequence[str] | None, skip: int, wanted: list[int]
) -> str | None:
    """Read a file that could not be parsed again, slowly, to say which cell is at fault."""
    width = None
    for line, record in _records(path, delimiter, skip):
        width = width or (len(names) if names is not None else len(record))
        if len(record) != width:
            return f"{path}: line {line} has {len(record)} cells, expected {width}"
        for i in wanted:
            if not _number(record[i]):
                column = repr(names[i]) if names is not None else str(i)
                what = repr(record[i][:40]) if record[i].strip() else "an empty cell"
                return (
                    f"{path}: column {column} is not numeric: line {line} has {what}; "
                    "choose the numeric columns with --columns"
                )
    return None


def _warn_of_wide(path: Path, delimiter: str, skip: int, wanted: list[int]) -> None:
    """Read a file that has large numbers again, slowly, to see whether integers were rounded."""
    for line, record in _records(path, delimiter, skip):
        for cell in (record[i].strip() for i in wanted):
            if cell.lstrip("+-").isdecimal() and float(cell) != int(cell):
                warnings.warn(
                    f"{path}: line {line} has {cell}; float64 cannot represent such integers "
                    "beyond 2^53 exactly.",
                    PrecisionWarning,
                    stacklevel=4,
                )
                return


def _records(path: Path, delimiter: str, skip: int) -> Iterator[tuple[int, list[str]]]:
    """Lines of a file that are not empty, with their numbers."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for _ in range(skip):
            next(file)
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
        for record in reader:
            if record:
                yield skip + reader.line_num, record


def _read_parquet(path: Path, columns: Sequence[str] | None, dtype: DTypeLike | None) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(PYARROW_MISSING) from error
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            frames.check_names(schema.names, path)
            wanted = (
                list(range(len(schema)))
                if columns is None
                else _positions(path, columns, schema.names, len(schema))
            )
            names = tuple(schema.names[i] for i in wanted)
            single = all(
                pa.types.is_float32(schema.types[i]) or pa.types.is_float16(schema.types[i])
                for i in wanted
            )
            for i in wanted:
                kind = schema.types[i]
                if not (
                    pa.types.is_integer(kind)
                    or pa.types.is_floating(kind)
                    or pa.types.is_boolean(kind)
                ):
                    raise InputError(
                        f"{path}: column {schema.names[i]!r} is not numeric but {kind}; "
                        "choose the numeric columns with --columns"
                    )
            target = np.dtype(dtype or (np.float32 if single else np.float64))
            values = np.empty((file.metadata.num_rows, len(wanted)), dtype=target)
            start = 0
            # In batches, so that the file's rows are never in memory twice.
            for batch in file.iter_batches(columns=list(names)):
                for j, name in enumerate(names):
                    column = batch.column(name)
                    if column.null_count:
                        raise InputError(
                            f"{path}: column {name!r} has missing values "
                            f"({column.null_count} of rows {start} to {start + len(batch) - 1})"
                        )
                    part = column.to_numpy(zero_copy_only=False)
                    kind = str(column.type)
                    frames.warn_of_wide(part, f"{path}: column {name!r}", kind, stacklevel=3)
                    values[start : start + len(batch), j] = part
                start += len(batch)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a readable Parquet file ({_first_line(error)})") from error
    return Table(values, names)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
