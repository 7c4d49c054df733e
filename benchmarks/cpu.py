"""Every CPU row side by side: ``python -m benchmarks.cpu [--quick] [--json FILE] [--large-k]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from . import extras, large_k
from .adapters import ADAPTERS, FastGMM
from .console import say, write_json
from .measure import measure, set_fractions
from .provenance import provenance, set_by_hand, strays
from .report import differences, notes, table, unsteady, verdicts
from .rows import ROWS, Row
from .small import SMALL, quiet_convergence

#: rows of the quick run are this many times fewer
_SHRINK = 20


def main(arguments: list[str] | None = None) -> int:
    """Run, print the table, write the JSON file; 0 also when a target is missed."""
    options = _parser().parse_args(arguments)
    if stray := strays():
        print(f"{stray} is not of this checkout")
        return 2
    quiet_convergence()
    known = {row.name: row for row in ROWS}
    every = [*known, *SMALL, *extras.NAMES]
    chosen = options.rows or every
    if unknown := sorted(set(chosen) - set(every)):
        print(f"no row is called {', '.join(unknown)}; rows: {', '.join(every)}")
        return 2
    if options.large_k:
        result = {"provenance": provenance(), **large_k.run(options.quick, say)}
        print("\n" + large_k.table(result))
        return _write(options.json, result)

    def ready(row: Row) -> Row:
        return row.shrunk(_SHRINK) if options.quick else row

    budget = options.budget or (1.0 if options.quick else 12.0)
    adapters = ADAPTERS
    if options.implementations:
        adapters = tuple(kind for kind in ADAPTERS if kind.name in options.implementations)
    peaks = extras.peaks()
    # no row waits for a peer that is a hundred times slower
    rows = [
        measure(ready(row), budget, say, seconds=10 * budget, adapters=adapters)
        for row in ROWS
        if row.name in chosen
    ]
    extra: dict[str, Any] = {}
    if FastGMM.missing() is None:
        for name, call in SMALL.items():
            if name in chosen:
                say(name)
                rows.append(call(budget))
        extra = extras.run(chosen, ready(known[extras.THREADS_ROW]), budget, options.quick, say)
    # A busy moment lowers a peak, never raises it; fractions are of the better of two.
    peaks = extras.better(peaks, extras.peaks())
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


def _print(result: dict[str, Any]) -> None:
    origin, rows = result["provenance"], result["rows"]
    versions = ", ".join(f"{name} {v}" for name, v in origin["versions"].items() if v)
    print(f"\n{origin['cpu']}, {origin['cores']} cores; {origin['date']}, {origin['commit']}")
    print(f"{versions}; Python {origin['python']}")
    if by_hand := set_by_hand(origin):
        print(f"set in the environment: {by_hand}")
    print()
    print(table(rows))
    print("\nmedians of calls in turns; x = peer / fastgmm; FMA peak = nominal flops, so code that")
    print("skips work can pass 100 %\n")
    print(differences(rows) + "\n")
    for line in [*extras.lines(result), "", *notes(rows)]:
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


def _write(path: Path | None, result: dict[str, Any]) -> int:
    write_json(path, result)
    if path is not None:
        say(f"wrote {path}")
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
    parser.add_argument(
        "--implementations",
        nargs="+",
        choices=[kind.name for kind in ADAPTERS],
        metavar="NAME",
        help="these alone beside the rows, by the headings of their columns",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
