"""Results that could not be held: refused before hours of work, and not by the system's killer."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from fastgmm.errors import InputError

# Below this nobody is asked: the common case, and the fast one for single rows.
_ALWAYS = 2**28
# Limits of a container, in the second and the first version of Linux's control groups.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@cache
def memory_bytes() -> int | None:
    """Memory of the machine, or of the container; None where the system does not tell."""
    found = []
    with suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _LIMITS:
        try:
            text = Path(path).read_text()
        except OSError:
            continue
        if text.strip().isdecimal():
            found.append(int(text))
    return min((size for size in found if size > 0), default=None)


def check_result(n_rows: int, n_columns: int, item_bytes: int, *, writes: bool = True) -> None:
    """Refuse a result that is larger than the memory.

    Parameters
    ----------
    n_rows, n_columns : int
    item_bytes : int
        Bytes of one number.
    writes : bool
        Whether the result could have been written to a file.

    Raises
    ------
    InputError
    """
    size = n_rows * n_columns * item_bytes
    if size < _ALWAYS:
        return
    there = memory_bytes()
    if there is not None and size > there:
        file = "out='results.npy' or 'results.parquet', which is written as it comes, or "
        raise InputError(
            f"the result would be an array of shape ({n_rows}, {n_columns}) and {size / 1e9:.1f} "
            f"GB; the memory of this machine is {there / 1e9:.1f} GB. Pass "
            f"{file if writes else ''}fewer rows at a time."
        )
