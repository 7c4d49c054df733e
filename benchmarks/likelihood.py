"""Held-out likelihood against seconds, real data: ``python -m benchmarks.likelihood``.

8 x 8 patches of scikit-learn's two photographs, in grey (D = 64) and colour (D = 192), and its
digits (D = 64). A third is held out: the right third of each photograph, every third digit. A point
of a curve is a whole fit of 1, 2, 5, 10, ... iterations from the same start, with `tol=0` and the
same `reg_covar`; the likelihood of the held-out rows is computed by the float64 oracle for all
alike. Who differs from its first iteration has no curve.

There are two starts. "random": rows drawn at random as means, equal weights, the covariance of all
rows. "k-means": the clusters after some of Lloyd's iterations from the same rows; the seconds that
an implementation needs for these iterations count as its own, and all go on from the centres of the
oracle. Who has no k-means to call begins for nothing, which its line says; scikit-learn's seconds
are those of `KMeans.fit`, which looks at its input and labels the rows besides.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from . import apart, console, oracle
from .adapters import ADAPTERS, Adapter
from .clock import describe
from .provenance import provenance
from .report import aligned, is_peer, seconds
from .subject import disagreement
from .timing import once
from .workloads import Array, Parameters, Precision

CHECKPOINTS = (1, 2, 5, 10, 20, 50, 100)
_LLOYD = 5
_PATCH = 8
#: pixels between two patches
_STEP = 4
#: nats within which a curve has arrived at the best likelihood of its start
_NEAR = 0.1
#: by how much a first iteration may be off: sums of float32 cost scikit-learn 1e-4; and the share
#: of `reg_covar` that rounding may hide where that is more
_ROUNDING, _PART = {"float32": 5e-4, "float64": 1e-9}, {"float32": 0.25, "float64": 1e-6}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Data:
    """Rows to fit and rows to judge by, and what they are fitted with."""

    name: str
    train: Array  # (N, D)
    held_out: Array
    n_components: int
    reg_covar: float
    precision: Precision


def data_sets(quick: bool = False) -> list[Data]:
    """The three data sets; pictures only where pillow can read them."""
    found = [_digits()]
    try:
        pictures = _photographs()
    except ImportError:
        return found
    for name, colour, k in (("patches, grey", False, 32), ("patches, colour", True, 16)):
        train, held_out = _patches(pictures, colour)
        found.append(Data(name, train, held_out, k, 1e-4, "float32"))
    if quick:
        found = [Data(d.name, d.train[:600], d.held_out[:300], 3, 1e-2, d.precision) for d in found]
    return found


def _digits() -> Data:
    from sklearn.datasets import load_digits

    x = np.ascontiguousarray(load_digits().data) / 16
    last = np.arange(len(x)) % 3 == 2
    # Many pixels are always white: without a floor no covariance would be positive definite.
    return Data("digits", x[~last], x[last], 10, 1e-3, "float64")


def _photographs() -> list[Array]:
    from sklearn.datasets import load_sample_image

    names = ("china.jpg", "flower.jpg")
    return [load_sample_image(name).astype(np.float32) / 255 for name in names]


def _patches(pictures: list[Array], colour: bool) -> tuple[Array, Array]:
    """Patches of the left two thirds of each picture, and of the right third, in random order."""
    parts: tuple[list[Array], list[Array]] = ([], [])
    for picture in pictures:
        shown = picture if colour else picture.mean(axis=2, keepdims=True)
        edge = shown.shape[1] * 2 // 3
        for part, pixels in zip(parts, (shown[:, :edge], shown[:, edge:]), strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(pixels, (_PATCH, _PATCH), (0, 1))
            chosen = windows[::_STEP, ::_STEP]
            part.append(chosen.reshape(-1, shown.shape[2] * _PATCH**2))
    rng = np.random.default_rng(0)
    train, held_out = (rng.permutation(np.concatenate(part)) for part in parts)
    return np.ascontiguousarray(train), np.ascontiguousarray(held_out)


def starts(data: Data) -> dict[str, Parameters]:
    """The parameters that all begin at, by the name of the start."""
    x, k = data.train.astype(np.float64), data.n_components
    rows = np.random.default_rng(0).choice(len(x), size=k, replace=False)
    floor = data.reg_covar * np.eye(x.shape[1])
    whole = np.repeat((np.cov(x.T, bias=True) + floor)[None], k, axis=0)
    random = Parameters("full", np.full(k, 1.0 / k), x[rows], whole)
    centres = oracle.kmeans(x, x[rows], _LLOYD)
    distance = np.sum(centres**2, axis=1) - 2 * x @ centres.T
    labels = distance.argmin(axis=1)
    counts = np.bincount(labels, minlength=k)
    covariances = np.stack(
        [(np.cov(x[labels == j].T, bias=True) if counts[j] > 1 else 0.0) + floor for j in range(k)]
    )
    clusters = Parameters("full", counts / len(x), centres, covariances)
    return {"random": random, "k-means": clusters}


def run(
    budget: float = 600.0,
    say: Say = lambda _: None,
    *,
    quick: bool = False,
    checkpoints: tuple[int, ...] = CHECKPOINTS,
) -> dict[str, Any]:
    """All curves; implementations get equal shares of the budget, and a point at least."""
    sets = data_sets(quick)
    share = budget / (2 * len(sets) * _expected(sets))
    tables = []
    for data in sets:
        both = starts(data)
        for name, start in both.items():
            say(f"{data.name}, {name} start")
            curves, absent = {}, {}
            seeds = both["random"].means if name == "k-means" else None
            truth = oracle.fit(data.train, start, 1, data.reg_covar)
            for kind in ADAPTERS:
                reason = kind.cannot("fit", "full", data.precision)
                if reason is None:
                    say(f"{data.name}, {name} start: {kind.name}")
                    curve = partial(_curve, kind, data, start, truth, seeds, share, checkpoints)
                    try:
                        with warnings.catch_warnings():
                            # Of constant features, in every fit.
                            warnings.simplefilter("ignore")
                            found = apart.call(apart.MOST, curve) if kind.own_process else curve()
                        curves[kind.name] = found
                    except Exception as error:  # noqa: BLE001 - a failing peer is no end
                        reason = describe(error)
                if reason is not None:
                    absent[kind.name] = reason
            tables.append(
                {
                    "data": data.name,
                    "start": name,
                    "shape": [*data.train.shape, data.n_components],
                    "held_out": len(data.held_out),
                    "precision": data.precision,
                    "reg_covar": data.reg_covar,
                    "likelihood_of_start": _held_out(data, start),
                    "curves": curves,
                    "absent": absent,
                }
            )
    return {"provenance": provenance(), "budget_seconds": budget, "tables": tables}


def _expected(sets: list[Data]) -> int:
    return max(sum(k.cannot("fit", "full", d.precision) is None for k in ADAPTERS) for d in sets)


def _curve(
    kind: type[Adapter],
    data: Data,
    start: Parameters,
    truth: Parameters,
    seeds: Array | None,
    share: float,
    checkpoints: tuple[int, ...],
) -> dict[str, Any]:
    """Points (iterations, seconds, likelihood) until the next would take longer than is left."""
    adapter = kind(start, data.precision, data.reg_covar)
    train = adapter.rows(data.train)
    # Compiled code and threads are there after it.
    error = adapter.fit(train, 1).parameters.difference(truth)
    limit = max(data.reg_covar * _PART[data.precision], _ROUNDING[data.precision])
    if wrong := disagreement(error, limit):
        raise RuntimeError(wrong)
    before, paid = 0.0, False
    if seeds is not None and kind.cannot("kmeans", "spherical", data.precision) is None:
        rows = Parameters("spherical", start.weights, seeds, np.ones(len(seeds)))
        clusters = kind(rows, data.precision)
        clusters.kmeans(data.train, 1)
        before, paid = once(lambda: clusters.kmeans(data.train, _LLOYD)), True
    points: list[dict[str, float]] = []
    spent, last = 0.0, (0, 0.0)
    for n_iter in checkpoints:
        if points and last[1] / last[0] * n_iter > share - spent:
            break
        fitted: list[Any] = []
        taken = once(lambda n=n_iter, f=fitted: f.append(adapter.fit(train, n)))
        spent, last = spent + taken, (n_iter, taken)
        point = {"iterations": n_iter, "seconds": before + taken}
        points.append({**point, "likelihood": _held_out(data, fitted[0].parameters)})
        if fitted[0].n_iter != n_iter:
            points[-1]["iterations"] = fitted[0].n_iter
            break  # it has stopped by itself
    return {"start_seconds": before, "start_counted": paid or seeds is None, "points": points}


def _held_out(data: Data, p: Parameters) -> float:
    """Mean log-likelihood of the held-out rows, in nats per row."""
    exact = Parameters(p.structure, *(np.asarray(a, np.float64) for a in _arrays(p)))
    return float(oracle.score_samples(data.held_out, exact).mean())


def _arrays(p: Parameters) -> tuple[Array, Array, Array]:
    return p.weights, p.means, p.covariances


def best(curve: dict[str, Any]) -> float:
    """The highest likelihood of a curve, in nats per held-out row."""
    return max((p["likelihood"] for p in curve["points"]), default=-np.inf)


def common(table: dict[str, Any]) -> float:
    """The highest likelihood that two implementations reach: no one runs to it alone."""
    curves = table["curves"].items()
    reached = sorted(best(curve) for name, curve in curves if name == "fastgmm" or is_peer(name))
    return reached[-2] if len(reached) > 1 else np.nan


def arrival(curve: dict[str, Any], target: float) -> float | None:
    """Seconds to the first point within `_NEAR` nats of a likelihood; None if there is none."""
    reached = [p["seconds"] for p in curve["points"] if p["likelihood"] >= target - _NEAR]
    return min(reached, default=None)


def beside(curve: dict[str, Any], ours: dict[str, Any]) -> tuple[int, float] | None:
    """The most iterations that both did, and how many times as long the first took for them."""
    both = [
        (p["iterations"], p["seconds"] / q["seconds"])
        for p in curve["points"]
        for q in ours["points"]
        if p["iterations"] == q["iterations"]
    ]
    return max(both, default=None)


def markdown(result: dict[str, Any]) -> str:
    """When each comes within a tenth of a nat of what two of them reach, by data and start."""
    head = (
        "data", "start", "implementation", "start took", "iterations", "best", "seconds to it",
        "for as many iterations",
    )  # fmt: skip
    lines: list[tuple[str, ...]] = [head]
    notes = set()
    for table in result["tables"]:
        target, ours = common(table), table["curves"].get("fastgmm", {"points": []})
        for name, curve in table["curves"].items():
            when, ratio = arrival(curve, target), beside(curve, ours)
            counted = seconds(curve["start_seconds"]) if curve["start_counted"] else "not counted"
            most = f"{curve['points'][-1]['iterations']:.0f}"
            arrived = "-" if when is None else seconds(when)
            times = "-" if ratio is None or curve is ours else f"{ratio[1]:.1f} x in {ratio[0]:.0f}"
            lines.append(
                (table["data"], table["start"], name, counted, most, f"{best(curve):.2f}", arrived,
                 times)
            )  # fmt: skip
        notes |= {f"- absent: {name}: {reason}" for name, reason in table["absent"].items()}
    text = (
        "nats per held-out row; seconds to within 0.1 nat of the best that two implementations"
        " reach from the same start; last, its seconds over fastgmm's for as many iterations"
    )
    return "\n".join([text, "", aligned(lines), "", *sorted(notes)])


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Likelihood against seconds, a panel for each data set and start."""
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(table["data"] for table in result["tables"]))
    starts = list(dict.fromkeys(table["start"] for table in result["tables"]))
    figure, panels = plt.subplots(
        len(starts), len(names), figsize=(3.6 * len(names), 3 * len(starts) + 0.5), squeeze=False
    )
    kinds = list(dict.fromkeys(n for table in result["tables"] for n in table["curves"]))
    palette = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
    colours = {name: palette[i % len(palette)] for i, name in enumerate(kinds)}
    for table in result["tables"]:
        axes = panels[starts.index(table["start"])][names.index(table["data"])]
        for name, curve in table["curves"].items():
            axes.plot(
                [p["seconds"] for p in curve["points"]],
                [p["likelihood"] for p in curve["points"]],
                color=colours[name],
                marker="o" if name == "fastgmm" else ".",
                markersize=4,
                label=name,
            )
        n, d, k = table["shape"]
        axes.set_title(f"{table['data']}, N={n:,} D={d} K={k}, {table['start']} start", fontsize=8)
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter("")  # crowded where there is one decade
        axes.set_xlabel("seconds")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for row in panels:
        row[0].set_ylabel("nats per held-out row")
    lines = {line.get_label(): line for axes in panels.flat for line in axes.get_lines()}
    figure.legend(lines.values(), lines, loc="lower center", ncols=6, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    return {"likelihood": figure}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON file and the figure."""
    parser = console.study_parser("likelihood", __doc__, 600.0)
    parser.add_argument("--quick", action="store_true", help="few rows and components")
    options = parser.parse_args(arguments)
    result = run(options.budget, console.say, quick=options.quick)
    console.write_study(options, result, markdown(result), figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
