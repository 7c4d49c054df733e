"""One row: agreement with the oracle first, then times in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from . import oracle
from .adapters import ADAPTERS, Adapter
from .rows import Row
from .timing import interleave, nominal_flops, once, per_iteration
from .workloads import Array, Workload, overlap_of

#: Largest difference from the float64 oracle for which a time is printed: parameters in units of
#: the data (whose scale is 1), scores in nats. It tells whether the same thing was computed; how
#: well it was computed is in the report. float32 sums over a million rows cost scikit-learn 1e-2.
TOLERANCE = {
    ("fit", "float32"): 5e-2,
    ("fit", "float64"): 1e-9,
    ("kmeans", "float32"): 5e-2,
    ("kmeans", "float64"): 1e-9,
    ("score", "float32"): 5e-3,
    ("score", "float64"): 1e-9,
}
#: rows per component in the first call of a process, which keeps compilation out of the times
_WARM_ROWS = 200


def measure(
    row: Row,
    budget: float,
    say: Callable[[str], None] = lambda _: None,
    adapters: tuple[type[Adapter], ...] = ADAPTERS,
) -> dict[str, Any]:
    """Everything about one row, as plain JSON values."""
    say(f"{row.title}: drawing rows")
    workload = row.workload()
    say(f"{row.title}: float64 oracle")
    truth = _oracle(row, workload)
    results: dict[str, dict[str, Any]] = {}
    calls: dict[str, Callable[[], float]] = {}
    for kind in adapters:
        task: str = row.task
        reason = kind.cannot(row.task, row.structure, row.precision)
        if reason is not None:
            results[kind.name] = {"missing": reason}
            continue
        say(f"{row.title}: checking {kind.name}")
        adapter = kind(workload.start, row.precision)
        entry: dict[str, Any] = {
            "passes_per_iteration": kind.passes_per_iteration,
            "first_call_seconds": _first_call(adapter, row, workload),
        }
        results[kind.name] = entry
        if kind.name == "np.matmul":
            task = "products"
        else:
            difference, complaint = _difference(adapter, row, workload, truth)
            entry["max_difference"] = difference
            if complaint is not None:
                entry["disagrees"] = complaint
                continue
        entry["nominal_flops"] = nominal_flops(task, row.structure, *workload.shape)
        calls[kind.name] = _timed(adapter, row, workload.x)
    say(f"{row.title}: timing {', '.join(calls)}")
    for name, timing in interleave(calls, budget).items():
        results[name]["seconds"] = timing.summary()
    return {
        "name": row.name,
        "title": row.title,
        "workload": workload.describe(),
        "precision": row.precision,
        "unit": "one pass" if row.task == "score" else "one iteration",
        "iterations": None if row.task == "score" else list(row.iterations),
        "overlap": _overlap(workload),
        "targets": row.targets,
        "promise": row.promise,
        "implementations": results,
        "ratios": ratios(results, row.targets),
    }


def ratios(results: dict[str, dict[str, Any]], targets: dict[str, float]) -> dict[str, Any]:
    """Peer's median over fastgmm's for every peer, with the target and whether it is reached."""
    ours = results.get("fastgmm", {}).get("seconds")
    found: dict[str, Any] = {}
    for name, entry in results.items():
        if name == "fastgmm" or ours is None or "seconds" not in entry:
            continue
        ratio = entry["seconds"]["median"] / ours["median"]
        target = targets.get(name)
        reached = None if target is None else bool(ratio >= target)
        found[name] = {"ratio": ratio, "target": target, "reached": reached}
    return found


def set_fractions(rows: list[dict[str, Any]], peaks: dict[str, float]) -> None:
    """Add nominal FLOP/s and their fraction of the measured peak to every timed entry."""
    for row in rows:
        for entry in row["implementations"].values():
            if "seconds" in entry and "nominal_flops" in entry:
                rate = entry["nominal_flops"] / entry["seconds"]["median"]
                entry["flops_per_second"] = rate
                entry["fraction_of_peak"] = rate / peaks[row["precision"]]


def _oracle(row: Row, workload: Workload) -> Any:
    if row.task == "score":
        return oracle.score_samples(workload.x, workload.start)
    if row.task == "kmeans":
        return oracle.kmeans(workload.x, workload.start.means, row.iterations[1])
    return oracle.fit(workload.x, workload.start, row.iterations[1])


def _difference(
    adapter: Adapter, row: Row, workload: Workload, truth: Any
) -> tuple[float, str | None]:
    """Largest difference from the oracle at full size, and why no time may be shown, if so."""
    if row.task == "score":
        worst = float(np.max(np.abs(adapter.score(workload.x) - truth)))
    elif row.task == "kmeans":
        centres = adapter.kmeans(workload.x, row.iterations[1])
        worst = float(np.max(np.abs(centres - truth)))
    else:
        fitted = adapter.fit(workload.x, row.iterations[1])
        worst = fitted.parameters.difference(truth)
        if fitted.n_iter != row.iterations[1]:
            return worst, f"ran {fitted.n_iter} of {row.iterations[1]} iterations"
    limit = TOLERANCE[row.task, row.precision]
    if not worst <= limit:
        return worst, f"differs from the float64 oracle by {worst:.1e} (limit {limit:.0e})"
    return worst, None


def _first_call(adapter: Adapter, row: Row, workload: Workload) -> float:
    """Seconds of the first call on a few rows: compilation or loading of compiled code."""
    x = workload.head(_WARM_ROWS * workload.start.n_components).x
    begin = time.perf_counter()
    _call(adapter, row, x, 1)
    return time.perf_counter() - begin


def _call(adapter: Adapter, row: Row, x: Array, n_iter: int) -> object:
    if row.task == "score":
        return adapter.score(x)
    if row.task == "kmeans":
        return adapter.kmeans(x, n_iter)
    return adapter.fit(x, n_iter)


def _timed(adapter: Adapter, row: Row, x: Array) -> Callable[[], float]:
    if row.task == "score":
        return lambda: once(lambda: adapter.score(x))
    short, long = row.iterations
    return lambda: per_iteration(lambda n: _call(adapter, row, x, n), short, long)


def _overlap(workload: Workload) -> dict[str, float]:
    rows = workload.head(2_000)
    return overlap_of(rows, oracle.responsibilities(rows.x, rows.start))
