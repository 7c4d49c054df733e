"""The rows of the GPU table, the most important first, and how their lengths shrink."""

from __future__ import annotations

from dataclasses import replace

from ..rows import Row

#: the arguments of fastgmm's ``precision`` that a row is measured with
MODES = {"float32": ("highest", "high", "medium"), "float64": ("highest",)}

_SPHERICAL = (1_000_000, 1024, 128)
_FULL = (1_000_000, 64, 64)
_LARGE = (1_000_000, 1024, 64)
_DIAG = (1_000_000, 256, 32)
_TIED = (1_000_000, 256, 64)
_SMALL = (10_000_000, 16, 8)


def _pair(
    name: str,
    structure: str,
    shape: tuple[int, int, int],
    precision: str = "float32",
    targets: dict[str, float] | None = None,
) -> tuple[Row, Row]:
    """Scoring and one EM iteration of a workload."""
    wanted = targets or {}
    return (
        Row(f"score-{name}", f"score, {name}", "score", structure, shape, precision, "overlapping",
            wanted),
        Row(f"em-{name}", f"EM, {name}", "fit", structure, shape, precision, "overlapping", wanted),
    )  # fmt: skip


#: of the speed of the floor at published rates, in float32 grade
_HALF = {"highest": 0.5}

ROWS: tuple[Row, ...] = (
    *_pair("spherical", "spherical", _SPHERICAL, targets=_HALF),
    *_pair("full", "full", _FULL, targets=_HALF),
    *_pair("full-f64", "full", _FULL, "float64"),
    Row("em-full-large", "EM, full-large", "fit", "full", _LARGE),
    *_pair("diag", "diag", _DIAG),
    *_pair("tied", "tied", _TIED),
    *_pair("full-small", "full", _SMALL),
    Row("kmeans", "k-means", "kmeans", "spherical", _SPHERICAL),
    Row("em-full-separated", "EM, full-separated", "fit", "full", _LARGE, overlap="separated"),
)

#: Seconds that the floors of an H200 were stated as before anything was built: counted work at
#: published rates, tiles and recomputation included. Where there is none, the floor is counted by
#: `timing.nominal_flops`.
STATED_FLOORS: dict[str, dict[str, float]] = {
    "em-spherical": {"highest": 6.6e-3, "medium": 2.0e-3},
    "score-full": {"highest": 2.7e-3},
    "em-full": {"highest": 8.8e-3},
    "em-full-f64": {"highest": 9.8e-3},
    "em-full-large": {"highest": 141e-3},
}


def shrunk(row: Row, *, tiny: bool) -> Row:
    """The row for a quick look: fewer data rows, or so small that an interpreter can run it."""
    if not tiny:
        return row.shrunk(20)
    _, k, d = row.shape
    small = (300, min(k, 5), min(d, 17))
    return replace(row, shape=small)
