"""The headline tables of the projects that fastgmm learns from, shape by shape.

Shapes are theirs; rows are drawn as all workloads here are, every implementation starts from the
same parameters and runs the same iterations, so figures are not those that the projects print.
gmmx shows curves against K, N and D whose other two sizes are fixed here at 32, 50,000 and 16.
"""

from __future__ import annotations

from .rows import Row, Task

_GMMX = (50_000, 32, 16)
_CURVES = {"K": (8, 32, 128), "N": (5_000, 50_000, 500_000), "D": (4, 16, 64)}
_PYCAVE = ((10_000, 4, 8), (100_000, 16, 32), (1_000_000, 64, 64))


def size(n: int) -> str:
    """1000000 as 1M."""
    for unit, text in ((1_000_000, "M"), (1_000, "k")):
        if n >= unit and n % unit == 0:
            return f"{n // unit}{text}"
    return str(n)


def _gmmx(task: Task) -> tuple[Row, ...]:
    word = "fit" if task == "fit" else "predict"
    found = []
    for axis, values in _CURVES.items():
        for value in values:
            sizes = dict(zip("NKD", _GMMX, strict=True)) | {axis: value}
            shape = (sizes["N"], sizes["K"], sizes["D"])
            found.append(
                Row(
                    f"gmmx-{word}-{axis.lower()}-{size(value)}",
                    f"{word}, full, {axis}={size(value)}",
                    task,
                    "full",
                    shape,
                    group=f"gmmx: {word} against {axis}",
                    axis=axis,
                )
            )
    return tuple(found)


def _pycave() -> tuple[Row, ...]:
    found = []
    for n, k, d in _PYCAVE:
        for structure in ("diag", "tied", "full"):
            where = f"[{size(n)}, {d}] -> {k}"
            # two iterations of the largest take the peers minutes
            lengths = (1, 2) if n == 1_000_000 else None
            found.append(
                Row(f"pycave-{structure}-{size(n)}", f"{structure}, {where}", "fit", structure,
                    (n, k, d), iterations=lengths, group="pycave: EM iteration")
            )  # fmt: skip
    n, k, d = _PYCAVE[-1]
    found.append(
        Row(f"pycave-kmeans-{size(n)}", f"k-means, [{size(n)}, {d}] -> {k}", "kmeans", "spherical",
            (n, k, d), iterations=(1, 3), group="pycave: k-means iteration")
    )  # fmt: skip
    return tuple(found)


def _pomegranate() -> tuple[Row, ...]:
    return tuple(
        Row(f"pomegranate-{structure}-d{d}", f"{structure}, N=200k K=8 D={d}", "fit", structure,
            (200_000, 8, d), group="pomegranate: EM iteration")
        for structure in ("full", "diag")
        for d in (2, 25)
    )  # fmt: skip


def _flash() -> tuple[Row, ...]:
    # Ten rows per component collapse after a few iterations; and what scikit-learn does besides
    # its iterations takes seconds, which short fits cannot tell from them.
    lengths = {10_000: (1, 3), 30_000: (1, 5), 100_000: (1, 5)}
    return tuple(
        Row(f"flash-spherical-{size(n)}", f"spherical, N={size(n)} K=1024 D=128", "fit",
            "spherical", (n, 1024, 128), iterations=both, group="Flash-GMM: EM iteration",
            axis="N")
        for n, both in lengths.items()
    )  # fmt: skip


PYCAVE, POMEGRANATE, FLASH = _pycave(), _pomegranate(), _flash()
GMMX_FIT, GMMX_PREDICT = _gmmx("fit"), _gmmx("predict")

SEEDS: tuple[Row, ...] = (*PYCAVE, *GMMX_FIT, *GMMX_PREDICT, *POMEGRANATE, *FLASH)
