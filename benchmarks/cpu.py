"""Every CPU row side by side: ``python -m benchmarks.cpu [--quick] [--json FILE] [--large-k]``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import large_k, small
from .adapters import FastGMM
from .measure import measure, set_fractions
from .peak import fma_peak
from .provenance import provenance
from .report import differences, notes, seconds, table, unsteady, verdicts
from .rows import ROWS, Row

#: rows of the quick run are this many times fewer
_SHRINK = 20
_SMALL: dict[str, Callable[[float], dict[str, Any]]] = {
    "score-one-row": small.one_row,
    "fit-iris": small.iris_fit,
}
_EXTRA = ("threads", "start-up")


def main(arguments: list[str] | None = None) -> int:
    """Run, print the table, write the JSON file; 0 also when a target is missed."""
    options = _parser().parse_args(arguments)
    small.quiet_convergence()
    known = {row.name: row for row in ROWS}
    every = [*known, *_SMALL, *_EXTRA]
    chosen = options.rows or every
    if unknown := sorted(set(chosen) - set(every)):
        print(f"no row is called {', '.join(unknown)}; rows: {', '.join(every)}")
        return 2
    if options.large_k:
        result = {"provenance": provenance(), **large_k.run(options.quick, _say)}
        print("\n" + large_k.table(result))
        return _write(options.json, result)

    def ready(row: Row) -> Row:
        return row.shrunk(_SHRINK) if options.quick else row

    budget = options.budget or (1.0 if options.quick else 12.0)
    peaks = _peaks()
    rows = [measure(ready(row), budget, _say) for row in ROWS if row.name in chosen]
    absent = FastGMM.missing()
    extra: dict[str, Any] = {}
    if absent is None:
        for name, call in _SMALL.items():
            if name in chosen:
                _say(name)
                rows.append(call(budget))
        if "threads" in chosen:
            _say("threads")
            extra["threads"] = small.threads(ready(known["em-full-f32-overlapping"]), budget)
        if "start-up" in chosen and not options.quick:
            _say("start-up")
            extra["start_up"] = small.start_up()
    # A busy moment lowers a peak, never raises it; fractions are of the better of two.
    peaks = {precision: max(value, peaks[precision]) for precision, value in _peaks().items()}
    set_fractions(rows, peaks)
    result = {
        "provenance": provenance(),
        "settings": {"quick": options.quick, "budget_seconds": budget},
        "fma_peak": peaks,
        "rows": rows,
        **extra,
    }
    _print(result)
    return _write(options.json, result)


def _peaks() -> dict[str, float]:
    return {precision: fma_peak(precision) for precision in ("float32", "float64")}


def _print(result: dict[str, Any]) -> None:
    origin, rows, peaks = result["provenance"], result["rows"], result["fma_peak"]
    versions = ", ".join(f"{name} {v}" for name, v in origin["versions"].items() if v)
    print(f"\n{origin['cpu']}, {origin['cores']} cores; {origin['date']}, {origin['commit']}")
    print(f"{versions}; Python {origin['python']}")
    print(
        f"FMA peak of all threads in this run: {peaks['float32'] / 1e9:.0f} GFLOP/s float32,"
        f" {peaks['float64'] / 1e9:.0f} float64\n"
    )
    print(table(rows))
    print("\nmedians of calls in turns; ratio = peer / fastgmm; FMA peak = nominal flops, so code")
    print("that skips work can pass 100 %\n")
    print(differences(rows) + "\n")
    ours = [row["implementations"].get("fastgmm", {}) for row in rows]
    firsts = [entry["first_call_seconds"] for entry in ours if "first_call_seconds" in entry]
    if firsts:
        print(f"slowest first call (compiles or loads; in no time above): {seconds(max(firsts))}")
    if "threads" in result:
        found = result["threads"]
        speedups = ", ".join(f"{c} threads {s:.2f}x" for c, s in found["speedup"].items())
        print(f"threads, {found['workload']}: {speedups}; same bits: {found['same_bits']}")
    if "start_up" in result:
        warm, cold = result["start_up"]["warm"], result["start_up"]["cold"]
        print(
            f"start-up: import {warm['import_beyond_sklearn']:.2f} s beyond scikit-learn;"
            f" the first fit adds {warm['first_fit_adds']:.2f} s with warm caches,"
            f" {cold['first_fit_adds']:.1f} s with cold ones"
        )
    print()
    for line in notes(rows):
        print(line)
    reached, total, missed = verdicts(rows)
    print(f"\n{reached} of {total} targets reached" + ("; missed:" if missed else ""))
    for line in missed:
        print(f"  {line}")
    if unquiet := unsteady(rows):
        print("repeats differ by much, was the machine busy?")
        for line in unquiet:
            print(f"  {line}")
    if result["settings"]["quick"]:
        print("quick run: fewer rows and repeats than the targets are stated for")


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _write(path: Path | None, result: dict[str, Any]) -> int:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        _say(f"wrote {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rows and repeats")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--large-k", action="store_true", help="time of one iteration against K")
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="of each implementation in each row"
    )
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="these rows alone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
