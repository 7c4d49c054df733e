"""The rows of the CPU table: what is measured, and which ratio is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from .workloads import Precision, Workload, make

Task = Literal["score", "fit", "kmeans"]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    ``targets``: for each peer, how many times faster fastgmm shall be at least.
    ``iterations``: the lengths of the two fits whose difference is timed.
    ``promise``: the ratio to scikit-learn below which a release is not made.
    """

    name: str
    title: str
    task: Task
    structure: str
    shape: tuple[int, int, int]  # (N, K, D)
    precision: Precision = "float32"
    overlap: str = "overlapping"
    targets: dict[str, float] = field(default_factory=dict)
    iterations: tuple[int, int] = (1, 4)
    promise: float | None = None

    def workload(self) -> Workload:
        return make(self.structure, *self.shape, self.precision, self.overlap)

    def shrunk(self, factor: int) -> Row:
        """The same row with fewer data rows, for a quick look."""
        n, k, d = self.shape
        return replace(self, shape=(max(n // factor, 5_000), k, d))


SKLEARN, ONEDAL, MATMUL = "scikit-learn", "oneDAL", "np.matmul"
_FULL = (100_000, 64, 32)
_WIDE = (1_000_000, 64, 16)

ROWS: tuple[Row, ...] = (
    Row(
        "score-full-f32",
        "score, full, f32",
        "score",
        "full",
        _FULL,
        targets={SKLEARN: 14, MATMUL: 1 / 0.45},
        promise=8,
    ),
    Row(
        "score-full-f64",
        "score, full, f64",
        "score",
        "full",
        _FULL,
        "float64",
        targets={SKLEARN: 12, MATMUL: 1 / 0.75},
    ),
    Row(
        "em-full-f32-overlapping",
        "EM, full, f32, overlapping",
        "fit",
        "full",
        _FULL,
        targets={SKLEARN: 12, ONEDAL: 3.5},
        promise=5,
    ),
    Row(
        "em-full-f32-separated",
        "EM, full, f32, separated",
        "fit",
        "full",
        _FULL,
        overlap="separated",
        targets={SKLEARN: 16, ONEDAL: 4.5},
        promise=5,
    ),
    Row(
        "em-full-f64",
        "EM, full, f64",
        "fit",
        "full",
        (100_000, 16, 16),
        "float64",
        targets={SKLEARN: 20, ONEDAL: 2},
    ),
    Row(
        "em-diag-f32-overlapping",
        "EM, diag, f32, overlapping",
        "fit",
        "diag",
        _WIDE,
        targets={SKLEARN: 25, ONEDAL: 5},
        iterations=(1, 6),
        promise=10,
    ),
    Row(
        "em-diag-f32-separated",
        "EM, diag, f32, separated",
        "fit",
        "diag",
        _WIDE,
        overlap="separated",
        targets={SKLEARN: 25, ONEDAL: 5},
        iterations=(1, 4),  # from the fifth on nothing changes, and oneDAL ends
    ),
    Row(
        "em-spherical-f32-overlapping",
        "EM, spherical, f32, overlapping",
        "fit",
        "spherical",
        _WIDE,
        targets={SKLEARN: 25},
        iterations=(1, 6),
        promise=10,
    ),
    Row(
        "em-spherical-f32-separated",
        "EM, spherical, f32, separated",
        "fit",
        "spherical",
        _WIDE,
        overlap="separated",
        targets={SKLEARN: 25},
        iterations=(1, 6),
    ),
    Row(
        "em-tied-f32-overlapping",
        "EM, tied, f32, overlapping",
        "fit",
        "tied",
        _WIDE,
        targets={SKLEARN: 60},
        iterations=(1, 3),
    ),
    Row(
        "em-tied-f32-separated",
        "EM, tied, f32, separated",
        "fit",
        "tied",
        _WIDE,
        overlap="separated",
        targets={SKLEARN: 60},
        iterations=(1, 3),
    ),
    Row(
        "kmeans-f32",
        "k-means, f32",
        "kmeans",
        "spherical",
        _WIDE,
        targets={SKLEARN: 1.5},
        iterations=(1, 4),
    ),
)
