"""What stands beside the rows of a run: peak of the machine, threads, start-up."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from . import small
from .peak import fma_peak
from .report import seconds
from .rows import Row

NAMES = ("threads", "start-up")
#: the row whose speed on one and on more threads is measured
THREADS_ROW = "em-full-f32-overlapping"


def peaks() -> dict[str, float]:
    """FLOP/s of fused multiply-adds on all threads."""
    return {precision: fma_peak(precision) for precision in ("float32", "float64")}


def better(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {name: max(value, b[name]) for name, value in a.items()}


def run(
    chosen: Collection[str],
    row: Row,
    budget: float,
    quick: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Those that were chosen; start-up takes too long for a quick look."""
    found: dict[str, Any] = {}
    if "threads" in chosen:
        say("threads")
        found["threads"] = small.threads(row, budget)
    if "start-up" in chosen and not quick:
        say("start-up")
        found["start_up"] = small.start_up()
    return found


def lines(result: dict[str, Any]) -> list[str]:
    """The same in words."""
    text = []
    peak = result.get("fma_peak")
    if peak:
        text.append(
            f"FMA peak of all threads in this run: {peak['float32'] / 1e9:.0f} GFLOP/s float32,"
            f" {peak['float64'] / 1e9:.0f} float64"
        )
    ours = [row["implementations"].get("fastgmm", {}) for row in result.get("rows", [])]
    firsts = [entry["first_call_seconds"] for entry in ours if "first_call_seconds" in entry]
    if firsts:
        slowest = seconds(max(firsts))
        text.append(f"slowest first call of fastgmm (compiles or loads; in no time): {slowest}")
    if "threads" in result:
        found = result["threads"]
        speedups = ", ".join(
            f"{c} thread{'' if c == '1' else 's'} {s:.2f} x" for c, s in found["speedup"].items()
        )
        text.append(f"threads, {found['workload']}: {speedups}; same bits: {found['same_bits']}")
    if "start_up" in result:
        warm, cold = result["start_up"]["warm"], result["start_up"]["cold"]
        text.append(
            f"start-up: import {warm['import_beyond_sklearn']:.2f} s beyond scikit-learn; the first"
            f" fit adds {warm['first_fit_adds']:.2f} s with warm caches,"
            f" {cold['first_fit_adds']:.1f} s with cold ones"
        )
    return text
