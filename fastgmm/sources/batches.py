"""Chunks of the wanted number of rows, whatever sizes they come in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fastgmm.arrays import Array, namespace
from fastgmm.errors import InputError

DEFAULT_BYTES = 64 * 2**20
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}

Rows = tuple[Array, Array | None]
"""Rows (n, D) and their weights (n,), or None."""


def batch_rows(batch_size: int | str | None, row_bytes: int) -> int:
    """Rows per chunk.

    Parameters
    ----------
    batch_size : int, str or None
        A number of rows, or a size with its unit such as "64MB" or "1GiB"; 64 MiB by default.
    row_bytes : int
        Bytes of one row.

    Returns
    -------
    rows : int
        At least 1.

    Raises
    ------
    InputError
        If the size cannot be read, or is not above 0.
    """
    if batch_size is None:
        size = float(DEFAULT_BYTES)
    elif isinstance(batch_size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmg]i?)?b\s*", batch_size, re.IGNORECASE)
        if match is None or float(match[1]) == 0:
            raise InputError(
                "batch_size must be a number of rows, or a size above 0 such as '64MB' or '1GiB'; "
                f"got {batch_size!r}."
            )
        size = float(match[1]) * _UNITS[(match[2] or "").lower()]
    elif batch_size >= 1:
        return int(batch_size)
    else:
        raise InputError(f"batch_size must be a number of rows of at least 1; got {batch_size}.")
    return max(int(size // row_bytes), 1)


def rebatch(parts: Iterator[Rows], rows: int) -> Iterator[Rows]:
    """Cut and join parts into chunks of ``rows`` rows each, the last of what is left.

    Where the boundaries of chunks lie then depends on ``rows`` alone, and so do the bits of a sum.

    Parameters
    ----------
    parts : iterator
    rows : int

    Yields
    ------
    x : array of shape (n, D)
    weight : array of shape (n,) or None
    """
    held: list[Rows] = []
    count = 0
    for x, weight in parts:
        start = 0
        while count + len(x) - start >= rows:
            end = start + rows - count
            held.append((x[start:end], None if weight is None else weight[start:end]))
            yield _join(held)
            held, count, start = [], 0, end
        if start < len(x):
            held.append((x[start:], None if weight is None else weight[start:]))
            count += len(x) - start
    if held:
        yield _join(held)


def _join(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    weights = [weight for _, weight in parts if weight is not None]
    x = namespace(parts[0][0]).concat([x for x, _ in parts])
    return x, namespace(weights[0]).concat(weights) if weights else None
