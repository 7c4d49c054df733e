"""Writing results to files, for the command line: ``.npy``, ``.csv`` or ``.parquet``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fastgmm import writing
from fastgmm.atomic import replacing
from fastgmm.errors import InputError

WRITABLE = (".npy", ".csv", ".parquet")

__all__ = ["WRITABLE", "write", "write_csv"]


def write(
    path: str | os.PathLike[str], parts: Iterable[NDArray[Any]], names: Sequence[str]
) -> None:
    """Write results part by part.

    Parameters
    ----------
    path : path-like
        Ends in .npy, .csv or .parquet. A file that is there is replaced, and only once the new one
        is complete.
    parts : iterable of ndarray of shape (n,) or (n, C)
        The results, one row per row of the data.
    names : sequence of str
        The names of the C columns, for the formats that have a header.
    """
    path = Path(path)
    if path.suffix.lower() in writing.FORMATS:
        writing.write_parts(path, parts, names)
    elif path.suffix.lower() == ".csv":
        with replacing(path) as file:
            write_csv(file, parts, names)
    else:
        raise InputError(
            f"{path}: cannot write this kind of file; expected one of {', '.join(WRITABLE)}"
        )


def write_csv(file: IO[Any], parts: Iterable[NDArray[Any]], names: Sequence[str]) -> None:
    """Write a header and the rows, with the fewest digits that bring back the same numbers."""
    header = ",".join(names)
    for part in parts:
        np.savetxt(file, part, fmt="%s", delimiter=",", header=header, comments="")
        header = ""
