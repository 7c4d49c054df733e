"""Time and memory against N, K, D and threads. ``python -m benchmarks.scaling [--json FILE]``.

One EM iteration of each structure, one of the three sizes growing while the others stay. In a table
beside each slope of seconds on logarithmic axes, over the upper part of the sizes, is the exponent
that the arithmetic has. Below that part fixed costs flatten every line. An implementation has a
line only if its iteration at the second size agrees with the float64 oracle.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import console, fresh, oracle
from .adapters import Adapter, by_name
from .provenance import provenance
from .report import aligned, seconds
from .resident import peak, release, reset_peak, resident
from .rows import Row
from .subject import complaint
from .timing import SETTLE, Timing, nominal_flops, quiet, settle
from .workloads import Workload, make

STRUCTURES = ("full", "tied", "diag", "spherical")
IMPLEMENTATIONS = ("fastgmm", "scikit-learn")
#: sizes of each sweep, and what stays as it is
SWEEPS: dict[str, tuple[int, ...]] = {
    "N": (10_000, 31_623, 100_000, 316_228, 1_000_000, 3_162_278, 10_000_000),
    "K": (1, 4, 16, 64, 256, 1024, 4096),
    "D": (1, 2, 4, 8, 16, 32, 64, 128, 256),
}
_BASE = {"N": {"K": 8, "D": 8}, "K": {"N": 20_000, "D": 8}, "D": {"N": 20_000, "K": 8}}
#: sizes at which memory is looked at, in a process of its own each
_MEMORY: dict[str, tuple[int, ...]] = {
    "N": (10_000, 100_000, 1_000_000),
    "K": (16, 128, 1024),
    "D": (4, 32, 128),
}
#: exponent of the time; a tied row is whitened once, D^2, and then costs D per component
THEORY: dict[str, dict[str, float]] = {
    "N": dict.fromkeys(STRUCTURES, 1.0),
    "K": dict.fromkeys(STRUCTURES, 1.0),
    "D": {"full": 2.0, "tied": 2.0, "diag": 1.0, "spherical": 1.0},
}
#: more is left out, with the reason
LIMIT_BYTES = 8e9
#: points from the end that the slope is taken of
_UPPER = 3
_REG_COVAR = 1e-2
_REPEATS = 3
#: seconds by which a long fit takes longer than a short one, and iterations at most
_LONG, _MOST = 0.03, 1024
#: shares of the budget
_TIME, _THREADS = 0.65, 0.05

Say = Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """One size of one sweep."""

    structure: str
    sweep: str
    value: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, K, D)."""
        sizes = {**_BASE[self.sweep], self.sweep: self.value}
        return sizes["N"], sizes["K"], sizes["D"]

    def workload(self) -> Workload:
        return make(self.structure, *self.shape)


def needed_bytes(point: Point, implementation: str) -> float:
    """About the memory of a point, rows included: float32, with what drawing them takes."""
    n, k, d = point.shape
    rows, model = 4.0 * n * d, 8.0 * k * d * (d if point.structure == "full" else 1)
    if implementation == "fastgmm":
        return 2 * rows + 8 * model + 16 * n
    # Log-probabilities, responsibilities and what lies between; a centred copy of the rows.
    return 3 * rows + 8 * model + 4 * 4.0 * n * k


def run(
    budget: float = 450.0,
    say: Say = lambda _: None,
    *,
    sweeps: dict[str, tuple[int, ...]] = SWEEPS,
    memory: dict[str, tuple[int, ...]] = _MEMORY,
) -> dict[str, Any]:
    """Every sweep, as far as the budget goes."""
    lines = []
    chosen = [name for name in IMPLEMENTATIONS if by_name(name).missing() is None]
    absent = {n: by_name(n).missing() for n in IMPLEMENTATIONS if n not in chosen}
    share = _TIME * budget / (len(STRUCTURES) * len(sweeps) * max(len(chosen), 1))
    for structure in STRUCTURES:
        for sweep, values in sweeps.items():
            for name in chosen:
                say(f"{structure} against {sweep}: {name}")
                points = [Point(structure, sweep, value) for value in values]
                lines.append(_line(by_name(name), points, share))
    return {
        "provenance": provenance(),
        "budget_seconds": budget,
        "time": lines,
        "threads": _threads(_THREADS * budget, say) if "fastgmm" in chosen else [],
        "memory": _memory(memory, chosen, (1 - _TIME - _THREADS) * budget, say),
        "absent": absent,
    }


def _line(kind: type[Adapter], points: list[Point], share: float) -> dict[str, Any]:
    """Seconds of one iteration at each size until the time or the memory is used up."""
    found: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    smallest = points[0].workload()
    kind(smallest.start, smallest.precision, _REG_COVAR).fit(smallest.x, 1)  # compiled, in no time
    wrong = _disagreement(kind, points[min(1, len(points) - 1)])
    if wrong is not None:
        left_out["all sizes"] = wrong
    begin, last, over = time.perf_counter(), (1.0, 0.0), False
    for point in points if wrong is None else ():
        wanted = needed_bytes(point, kind.name)
        if wanted > LIMIT_BYTES:
            left_out[str(point.value)] = f"needs about {wanted / 1e9:.0f} GB"
            continue
        flops = nominal_flops("fit", point.structure, *point.shape)
        left = share - (time.perf_counter() - begin)
        # Two fits of an iteration and one of three at least, by the iteration of the last point.
        expected = last[1] * max(flops / last[0], 1.0) * 6
        over = over or expected > max(left, 0.0)
        if over:
            left_out[str(point.value)] = f"would take about {seconds(expected)}, the time is over"
            continue
        timing = _seconds(kind, point.workload(), left)
        if min(timing.seconds) <= 0:
            left_out[str(point.value)] = "its time is lost in that of others"
            continue
        last = (flops, timing.median)
        found.append({"value": point.value, "shape": point.shape, **timing.summary()})
    sizes = [p["value"] for p in found]
    first = points[0]
    return {
        "implementation": kind.name,
        "structure": first.structure,
        "against": first.sweep,
        "points": found,
        "left_out": left_out,
        "exponent": slope(sizes, [p["median"] for p in found]),
        "theory": THEORY[first.sweep][first.structure],
    }


def _disagreement(kind: type[Adapter], point: Point) -> str | None:
    """Why no time may be shown: an iteration is not that of the float64 oracle."""
    workload = point.workload()
    found = kind(workload.start, workload.precision, _REG_COVAR).fit(workload.x, 1).parameters
    truth = oracle.fit(workload.x, workload.start, 1, _REG_COVAR)
    row = Row("", "", "fit", point.structure, point.shape, workload.precision)
    return complaint(row, found.difference(truth))


def _seconds(kind: type[Adapter], workload: Workload, left: float) -> Timing:
    """A few repeats of one iteration: long and short fits, so long that the difference shows."""
    adapter = kind(workload.start, workload.precision, _REG_COVAR)
    begin = time.perf_counter()

    def difference(more: int, rest: float = 0.0) -> float:
        time.sleep(rest)
        with quiet():
            start = time.perf_counter()
            adapter.fit(workload.x, 1)
            middle = time.perf_counter()
            adapter.fit(workload.x, 1 + more)
            return (time.perf_counter() - middle) - (middle - start)

    settle()
    more, timing = 2, Timing()
    while (taken := difference(more)) < _LONG and more < _MOST:
        wanted = 1.3 * more * _LONG / taken if taken > 0 else _MOST
        more = min(max(int(wanted), 2 * more), 8 * more, _MOST)
    for _ in range(_REPEATS):
        spent = time.perf_counter() - begin
        if timing.seconds and spent * (1 + 1 / len(timing.seconds)) > left:
            break
        timing.seconds.append(difference(more, SETTLE) / more)
    return timing


def slope(sizes: list[int], values: list[float]) -> float | None:
    """Exponent over the last few sizes; None for fewer than two."""
    if len(sizes) < 2:
        return None
    upper = slice(-min(_UPPER, len(sizes)), None)
    return float(np.polyfit(np.log(sizes[upper]), np.log(values[upper]), 1)[0])


def _threads(budget: float, say: Say) -> list[dict[str, Any]]:
    """Seconds of one iteration of each structure on 1, 2, 4, ... threads."""
    import numba

    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    counts = sorted({1, most, *(2**i for i in range(8) if 2**i < most)})
    found = []
    for structure in STRUCTURES:
        say(f"{structure} against threads")
        workload = make(structure, 200_000, 32, 16)
        times = {}
        for count in counts:
            numba.set_num_threads(count)
            try:
                share = budget / (len(STRUCTURES) * len(counts))
                times[count] = _seconds(by_name("fastgmm"), workload, share).median
            finally:
                numba.set_num_threads(most)
        values = [times[c] for c in counts]
        found.append(
            {
                "structure": structure,
                "workload": workload.describe(),
                "seconds": {str(c): times[c] for c in counts},
                "exponent": slope(counts, values),
                "theory": -1.0,
            }
        )
    return found


def _memory(
    sizes: dict[str, tuple[int, ...]], chosen: list[str], budget: float, say: Say
) -> list[dict[str, Any]]:
    """Peak beyond the rows of a fit, each in a fresh process, for two structures."""
    begin, found = time.perf_counter(), []
    for structure in ("full", "diag"):
        for sweep, values in sizes.items():
            for name in chosen:
                say(f"memory of {structure} against {sweep}: {name}")
                rows: list[dict[str, Any]] = []
                for value in values:
                    point = Point(structure, sweep, value)
                    if time.perf_counter() - begin > budget:
                        rows.append({"value": value, "left_out": "no time was left"})
                    elif needed_bytes(point, name) > LIMIT_BYTES:
                        rows.append({"value": value, "left_out": "needs too much memory"})
                    else:
                        rows.append({"value": value, **_fresh(point, name)})
                line = {"implementation": name, "structure": structure, "against": sweep}
                found.append({**line, "points": rows})
    return found


def _fresh(point: Point, implementation: str) -> dict[str, Any]:
    case = [implementation, point.structure, point.sweep, str(point.value)]
    found = fresh.run("benchmarks.scaling", ["--case", *case])
    return {"left_out": found["failed"]} if "failed" in found else found


def peak_of(point: Point, implementation: str) -> dict[str, float]:
    """Megabytes of a fit beyond what was resident before it; call it once per process."""
    workload = point.workload()
    adapter = by_name(implementation)(workload.start, workload.precision, _REG_COVAR)
    few = max(2_000, 2 * workload.start.n_components)
    adapter.fit(workload.head(few).x.copy(), 1)
    release()
    before = resident()
    reset_peak()
    adapter.fit(workload.x, 2)
    return {"beyond_mb": (peak() - before) / 1e6, "rows_mb": workload.x.nbytes / 1e6}


def markdown(result: dict[str, Any]) -> str:
    """Exponents beside the theory, threads, memory."""
    lines: list[tuple[str, ...]] = [
        ("structure", "against", "implementation", "sizes", "largest took", "exponent", "theory")
    ]
    for line in result["time"]:
        points = line["points"]
        sizes = f"{points[0]['value']:,} to {points[-1]['value']:,}" if points else "none"
        took = seconds(points[-1]["median"]) if points else "-"
        found = "-" if line["exponent"] is None else f"{line['exponent']:.2f}"
        where = (line["structure"], line["against"], line["implementation"])
        lines.append((*where, sizes, took, found, f"{line['theory']:g}"))
    text = ["one EM iteration; exponents of the last three sizes", "", aligned(lines), ""]
    left = [f"- absent: {name}: {reason}" for name, reason in result["absent"].items()]
    left += [
        f"- left out: {line['structure']}, {line['implementation']}, {line['against']} = {value}:"
        f" {reason}"
        for line in result["time"]
        for value, reason in line["left_out"].items()
    ]
    threads: list[tuple[str, ...]] = [("structure", "threads", "seconds", "exponent")]
    for line in result["threads"]:
        times = ", ".join(seconds(s) for s in line["seconds"].values())
        slope_text = "-" if line["exponent"] is None else f"{line['exponent']:.2f}"
        threads.append((line["structure"], ", ".join(line["seconds"]), times, slope_text))
    memory: list[tuple[str, ...]] = [("structure", "against", "implementation", "beyond the rows")]
    for line in result["memory"]:
        cells = ", ".join(
            f"{p['value']:,}: {p['beyond_mb']:.0f} MB" for p in line["points"] if "beyond_mb" in p
        )
        memory.append((line["structure"], line["against"], line["implementation"], cells))
    text += [aligned(threads), "", aligned(memory), "", *left]
    return "\n".join(text)


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Seconds on logarithmic axes, by structure and size, with a line of the theory."""
    from matplotlib import pyplot as plt

    sweeps = list(dict.fromkeys(line["against"] for line in result["time"]))
    figure, panels = plt.subplots(
        len(STRUCTURES), len(sweeps), figsize=(3.4 * len(sweeps), 10), squeeze=False
    )
    for line in result["time"]:
        if not line["points"]:
            continue
        row, column = STRUCTURES.index(line["structure"]), sweeps.index(line["against"])
        axes, points = panels[row][column], line["points"]
        sizes = np.array([p["value"] for p in points], dtype=np.float64)
        ours = line["implementation"] == "fastgmm"
        colour, marker = ("#0072b2", "o") if ours else ("#999999", "s")
        times = [p["median"] for p in points]
        exponent = "" if line["exponent"] is None else f" {line['exponent']:.2f}"
        label = f"{line['implementation']}{exponent}"
        axes.plot(sizes, times, color=colour, marker=marker, markersize=4, label=label)
        if ours:
            guide = times[-1] * (sizes / sizes[-1]) ** line["theory"]
            axes.plot(sizes, guide, ":", color="black", label=f"theory {line['theory']:g}")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(line["against"])
        axes.set_title(line["structure"], fontsize=9)
        axes.legend(frameon=False, fontsize=7)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for row in panels:
        row[0].set_ylabel("seconds per iteration")
    figure.tight_layout()
    return {"scaling": figure}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables, write the JSON file and the figure."""
    parser = console.study_parser("scaling", __doc__, 450.0)
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        name, structure, sweep, value = options.case
        print(json.dumps(peak_of(Point(structure, sweep, int(value)), name)))
        return 0
    result = run(options.budget, console.say)
    console.write_study(options, result, markdown(result), figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
