"""Rows in files: NumPy's .npy, Parquet files and folders of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastgmm import frames
from fastgmm.arrays import float_dtype
from fastgmm.errors import InputError
from fastgmm.sources.stream import Reader

PathLike = str | os.PathLike[str]


def read_path(path: PathLike, part: tuple[int, int] = (0, 1)) -> Reader:
    """A reader of a .npy file, a .parquet file, or a folder of .parquet files.

    Parameters
    ----------
    path : path-like
    part : tuple of int
        (i, n): the i-th of n shares of the rows.

    Returns
    -------
    reader : Reader

    Raises
    ------
    InputError
        If it is of another kind, or damaged.
    OSError
        If it cannot be opened.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() == ".parquet":
        return read_parquet(path, part=part)
    if path.suffix.lower() == ".npy":
        return read_npy(path, part=part)
    if not path.exists():
        raise FileNotFoundError(2, "No such file or folder", str(path))
    raise InputError(f"{path}: expected a .npy file, a .parquet file or a folder of .parquet files")


def share(n: int, part: tuple[int, int]) -> tuple[int, int]:
    """Begin and end of the i-th of n nearly equal shares."""
    i, parts = part
    return n * i // parts, n * (i + 1) // parts


def read_npy(path: PathLike, *, part: tuple[int, int] = (0, 1)) -> Reader:
    """A reader of an array (N, D) in a .npy file.

    It is read and not mapped: a file that is cut short during a pass is an error, where a mapped
    one would end the process.

    Parameters
    ----------
    path : path-like
    part : tuple of int
        (i, n): the i-th of n shares of the rows.

    Returns
    -------
    reader : Reader
    """
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable .npy file of numbers ({error})") from error
    if not isinstance(mapped, np.memmap) or mapped.ndim != 2 or mapped.dtype.kind not in "fiub":
        shape = getattr(mapped, "shape", "")
        raise InputError(
            f"{path}: expected numbers of shape (rows, features), got {shape} "
            f"{getattr(mapped, 'dtype', type(mapped).__name__)}"
        )
    shape, dtype, offset = mapped.shape, mapped.dtype, mapped.offset
    by_column = not mapped.flags.c_contiguous
    begin, end = share(shape[0], part)
    del mapped

    def blocks(rows: int) -> Iterator[np.ndarray]:
        with open(path, "rb", buffering=0) as file:
            for start in range(begin, end, rows):
                n = min(rows, end - start)
                block = np.empty((n, shape[1]), dtype, order="F" if by_column else "C")
                if by_column:
                    for j, column in enumerate(block.T):
                        _fill(file, offset + (j * shape[0] + start) * dtype.itemsize, column, path)
                else:
                    _fill(file, offset + start * shape[1] * dtype.itemsize, block, path)
                yield block

    row_bytes = max(shape[1], 1) * float_dtype(dtype).itemsize
    return Reader(blocks, str(path), row_bytes=row_bytes, n_rows=end - begin)


def _fill(file: Any, position: int, block: np.ndarray, path: PathLike) -> None:
    file.seek(position)
    view = block.reshape(-1).view(np.uint8)
    got = 0
    while got < len(view):
        step = file.readinto(view[got:].data)
        if not step:
            raise InputError(
                f"{path}: the file ended {len(view) - got} bytes before its header says; it has "
                "been cut short. Write it again."
            )
        got += step


def read_parquet(
    path: PathLike,
    *,
    columns: Sequence[str] | None = None,
    weight: str | None = None,
    part: tuple[int, int] = (0, 1),
) -> Reader:
    """A reader of a Parquet file, or of all those of a folder in the order of their names.

    Parameters
    ----------
    path : path-like
    columns : sequence of str, optional
        The features; all columns but ``weight`` by default.
    weight : str, optional
        The column of the sample weights.
    part : tuple of int
        (i, n): the i-th of n shares of the row groups.

    Returns
    -------
    reader : Reader
    """
    parquet = _pyarrow("pyarrow.parquet")
    path = Path(path)
    files = _parquet_files(path)
    groups = []
    with_names: list[str] = []
    for file in files:
        with parquet.ParquetFile(file) as opened:
            found = opened.schema_arrow.names
            frames.check_names(found, file)
            with_names = with_names or found
            missing = set(with_names) - set(found)
            if missing:
                raise InputError(f"{file}: no column {sorted(missing)}; {files[0]} has it")
            metadata = opened.metadata
            groups += [
                (file, g, metadata.row_group(g).num_rows) for g in range(metadata.num_row_groups)
            ]
    names = [name for name in with_names if name != weight]
    names = names if columns is None else list(columns)
    unknown = [name for name in (*names, weight) if name is not None and name not in with_names]
    if unknown:
        raise InputError(f"{path}: no column {unknown}; it has {with_names}")
    begin, end = share(len(groups), part)
    mine = groups[begin:end]

    def batches(rows: int) -> Iterator[Any]:
        wanted = names if weight is None else [*names, weight]
        for file in dict.fromkeys(file for file, _, _ in mine):
            numbers = [g for other, g, _ in mine if other == file]
            with parquet.ParquetFile(file) as opened:
                for batch in opened.iter_batches(rows, row_groups=numbers, columns=wanted):
                    yield rows_of_batch(batch, names, weight)

    return Reader(
        batches, str(path), n_rows=sum(n for _, _, n in mine), names=tuple(map(str, names))
    )


def rows_of_batch(batch: Any, names: Sequence[str], weight: str | None = None) -> Any:
    """The features of a record batch, and its weights where it has some."""
    table = _pyarrow("pyarrow").Table.from_batches([batch])
    x = frames.to_array(table.select(list(names)))
    return x if weight is None else (x, frames.to_array(table.select([weight]))[:, 0])


def _parquet_files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(2, "No such file or folder", str(path))
        return [path]
    inside = sorted(path.rglob("*.parquet"))
    files = [
        file
        for file in inside
        if not any(name.startswith(("_", ".")) for name in file.relative_to(path).parts)
    ]
    if not files:
        raise InputError(f"{path}: the folder has no .parquet files")
    return files


def _pyarrow(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            'Parquet files need pyarrow, which is not installed: pip install "fastgmm[parquet]"'
        ) from error
