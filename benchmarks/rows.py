"""The rows of the CPU table: what is measured, and which ratio is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .workloads import Precision, Workload, make

Task = Literal["score", "predict", "fit", "kmeans"]


@dataclass(frozen=True)
class Row:
    """One line of a table.

    ``targets``: for each peer, how many times faster fastgmm shall be at least.
    ``iterations``: the lengths of the two fits whose difference is timed; None leaves them to the
    speed of each implementation.
    ``repeats``: turns of fastgmm and of the peers of the targets that are made while the row has
    time, whatever they take; where differences of fits are noisy, two would be a matter of luck.
    ``promise``: the ratio to scikit-learn below which a release is not made.
    ``group``: the table that the row belongs to; ``axis``: what changes along a series of rows.
    """

    name: str
    title: str
    task: Task
    structure: str
    shape: tuple[int, int, int]  # (N, K, D)
    precision: Precision = "float32"
    overlap: str = "overlapping"
    targets: dict[str, float] = field(default_factory=dict)
    iterations: tuple[int, int] | None = None
    repeats: int = 2
    promise: float | None = None
    group: str = ""
    axis: str | None = None

    def workload(self, device: Any = None) -> Workload:
        """Rows and start; on a torch.device as tensors, drawn there."""
        if device is None:
            return make(self.structure, *self.shape, self.precision, self.overlap)
        from .gpu import data

        return data.make(self, device)

    def shrunk(self, factor: int) -> Row:
        """The same row with fewer data rows, for a quick look; its title says so."""
        n, k, d = self.shape
        # enough for every covariance to keep its rank
        least = 8 * k * d if self.structure == "full" else 0
        fewer = min(n, max(n // factor, 5_000, least))
        if fewer == n:
            return self
        title = f"{self.title}, N={fewer:,}"
        return replace(self, shape=(fewer, k, d), title=title, repeats=2)


SKLEARN, ONEDAL, MATMUL = "scikit-learn", "oneDAL", "np.matmul"
TARGETS = "Targets of two cores"
_FULL = (100_000, 64, 32)
_WIDE = (1_000_000, 64, 16)


def _score(
    name: str,
    title: str,
    precision: Precision,
    least: float,
    share: float,
    promise: float | None = None,
) -> Row:
    wanted = {SKLEARN: least, MATMUL: 1 / share}
    return Row(name, title, "score", "full", _FULL, precision, targets=wanted, promise=promise,
               group=TARGETS)  # fmt: skip


def _em(
    structure: str,
    overlap: str,
    targets: dict[str, float],
    shape: tuple[int, int, int] = _WIDE,
    precision: Precision = "float32",
    promise: float | None = None,
    *,
    suffix: str | None = None,
    iterations: tuple[int, int] = (1, 4),
    repeats: int = 2,
) -> Row:
    kind = f"{structure}-{'f32' if precision == 'float32' else 'f64'}"
    ending = overlap if suffix is None else suffix
    return Row(
        f"em-{kind}" + (f"-{ending}" if ending else ""),
        f"EM, {kind.replace('-', ', ')}" + (f", {ending}" if ending else ""),
        "fit",
        structure,
        shape,
        precision,
        overlap,
        targets,
        iterations,
        repeats,
        promise,
        TARGETS,
    )


ROWS: tuple[Row, ...] = (
    _score("score-full-f32", "score, full, f32", "float32", 14, 0.45, promise=8),
    _score("score-full-f64", "score, full, f64", "float64", 12, 0.75),
    _em("full", "overlapping", {SKLEARN: 12, ONEDAL: 3.5}, _FULL, promise=5, repeats=5),
    _em("full", "separated", {SKLEARN: 16, ONEDAL: 4.5}, _FULL, promise=5, repeats=5),
    _em("full", "overlapping", {SKLEARN: 20, ONEDAL: 2}, (100_000, 16, 16), "float64", suffix=""),
    # What scikit-learn does besides its iterations varies by as much as one of these takes: long
    # fits, many of them. oneDAL stops by itself after four on separated components.
    _em("diag", "overlapping", {SKLEARN: 25, ONEDAL: 5}, promise=10, iterations=(1, 6), repeats=5),
    _em("diag", "separated", {SKLEARN: 25, ONEDAL: 5}, iterations=(1, 4), repeats=5),
    _em("spherical", "overlapping", {SKLEARN: 25}, promise=10, iterations=(1, 6), repeats=5),
    _em("spherical", "separated", {SKLEARN: 25}, iterations=(1, 6), repeats=5),
    # an iteration takes scikit-learn seconds
    _em("tied", "overlapping", {SKLEARN: 60}, iterations=(1, 3), repeats=4),
    _em("tied", "separated", {SKLEARN: 60}, iterations=(1, 3), repeats=4),
    Row("kmeans-f32", "k-means, f32", "kmeans", "spherical", _WIDE, targets={SKLEARN: 1.5},
        iterations=(1, 4), group=TARGETS),
)  # fmt: skip
