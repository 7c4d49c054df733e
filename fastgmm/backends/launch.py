"""How kernels are launched: a table by kernel, padded features, dtype and compute capability."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

_NAME = "launch_table.json"
# The capability whose rows serve devices of generations that have none of their own: they take the
# least shared memory.
_COMMON = 80


@dataclass(frozen=True)
class Launch:
    """Sizes of a kernel's blocks and of its programs.

    Attributes
    ----------
    rows, features, components : int
        Of a block, powers of two, where the kernel has a choice.
    flush : int
        Tiles of rows whose sums are in the precision of the rows before they join float64 totals.
    early : int
        Features whose part of the exponent may put a component beyond reach.
    warps, stages : int
        Warps of a program, stages of its software pipeline.
    """

    rows: int = 128
    features: int = 64
    components: int = 4
    flush: int = 16
    early: int = 8
    warps: int = 4
    stages: int = 2


def table_path() -> Path:
    """Where the table lies."""
    return Path(str(resources.files("fastgmm.backends").joinpath(_NAME)))


@cache
def read_table() -> dict[str, Any]:
    """The table as it is stored: what it was made from, sizes of chunks, and rows by kernel."""
    return json.loads(table_path().read_text(encoding="utf-8"))


def device_sizes() -> dict[str, int]:
    """Bytes of the workspace of a chunk, and when rows are ordered by label."""
    return read_table()["sizes"]


def capability_of(vendor: str, major: int, minor: int) -> int:
    """The capability of a device as the table counts it.

    Parameters
    ----------
    vendor : {"cuda", "hip"}
    major, minor : int
        As torch tells them.

    Returns
    -------
    capability : int
        10 major + minor; 0 for AMD, whose numbers, such as 9.4, are those of other devices.
    """
    return 10 * major + minor if vendor == "cuda" else 0


@cache
def find(kernel: str, n_features: int, dtype: str, capability: int) -> Launch:
    """The row of the table for a kernel that is nearest to a case.

    Parameters
    ----------
    kernel : str
    n_features : int
        With padding. The first row with as many or more counts, else the one with most.
    dtype : {"float32", "float64"}
    capability : int
        Rows of the same major number count, of which the highest that is not above it, else the
        lowest; without such a row those for 8.x.

    Returns
    -------
    launch : Launch
    """
    rows = [row for row in read_table()["kernels"][kernel] if row["dtype"] == dtype]
    own = [row for row in rows if row["capability"] // 10 == capability // 10]
    rows = own or [row for row in rows if row["capability"] // 10 == _COMMON // 10]

    def distance(row: dict[str, Any]) -> tuple[bool, int, bool, int]:
        c, d = row["capability"], row["features"]
        return c > capability, abs(c - capability), d < n_features, abs(d - n_features)

    best = min(rows, key=distance)
    return Launch(**best["launch"])


def write_table(table: dict[str, Any], path: Path) -> None:
    """Write a table, one line per row, so that a change shows what it changes."""
    head = {key: value for key, value in table.items() if key != "kernels"}
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    kernels = [
        f"    {json.dumps(name)}: [\n"
        + ",\n".join(f"      {json.dumps(row)}" for row in rows)
        + "\n    ]"
        for name, rows in table["kernels"].items()
    ]
    text = "\n".join(["{", *lines, '  "kernels": {', ",\n".join(kernels), "  }", "}", ""])
    path.write_text(text, encoding="utf-8")
