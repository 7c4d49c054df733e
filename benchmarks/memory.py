"""Peak resident memory beyond the input: ``python -m benchmarks.memory [--json FILE]``.

Each case runs in a fresh process: rows are drawn, the case runs once so that compiled code and
thread stacks exist, freed memory goes back to the system, the system's high-water mark is reset,
then the case runs again. That is so for all implementations, compiled or not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import console, fresh
from .adapters import ADAPTERS, by_name
from .clock import Clock
from .provenance import provenance
from .report import aligned
from .resident import peak, release, reset_peak, resident
from .workloads import Workload, make

_SHAPE = (1_000_000, 256, 16)
_TASKS = ("fit", "score_samples", "predict")
_STRUCTURES = ("full", "diag")
_ITERATIONS = 2
#: what all implementations are asked for: smaller, since some form an (N, K, D) array
_COMPARED = (200_000, 64, 16)
#: megabytes beyond the input and the model: what is promised, and what is aimed for
LIMIT, TARGET = 150.0, 100.0
#: bytes that a process may take, and seconds that it may last
_MOST_BYTES, _MOST_SECONDS = 16e9, 120.0
_MB = 1e6


def main(arguments: list[str] | None = None) -> int:
    """Run every case in its own process and print the table; 1 when a promise is broken."""
    options = _parser().parse_args(arguments)
    shape = (options.rows, options.components, options.features)
    if options.case:
        task, structure = options.case
        fresh.limit_memory(_MOST_BYTES)
        print(json.dumps(run_case(task, structure, shape, options.implementation)))
        return 0
    missing = by_name(options.implementation).missing()
    if missing is not None:
        print(missing)
        return 2
    rows = []
    for structure in _STRUCTURES:
        for task in _TASKS:
            console.say(f"{task}, {structure}")
            rows.append(_fresh(task, structure, shape, options.implementation))
    n, k, d = shape
    print(f"\n{options.implementation}, float32, N={n:,} K={k} D={d}: peak beyond the input\n")
    print(_table(rows))
    result = {
        "provenance": provenance(),
        "implementation": options.implementation,
        "limit_mb": LIMIT,
        "target_mb": TARGET,
        "rows": rows,
    }
    console.write_json(options.json, result)
    return 0 if all(row.get("kept") for row in rows) else 1


def run(
    budget: float, say: Any, shape: tuple[int, int, int] = _COMPARED, promised: bool = True
) -> dict[str, Any]:
    """All implementations at one shape, fastgmm also at that of its promise.

    Cases after ``budget`` seconds are left out by name.
    """
    clock = Clock(budget)
    result: dict[str, Any] = {"shape": list(shape), "cases": [], "promised": [], "not_run": []}
    wanted = [(t, s, _SHAPE, "fastgmm") for s in _STRUCTURES for t in _TASKS] if promised else []
    wanted += [(t, s, shape, kind.name) for s in _STRUCTURES for t in _TASKS for kind in ADAPTERS]
    for task, structure, sizes, name in wanted:
        kind = by_name(name)
        asked = "score" if task == "score_samples" else task
        reason = kind.cannot(asked, structure, "float32")
        if reason is not None or kind.yardstick:
            continue
        what = f"{task}, {structure}, N={sizes[0]:,} K={sizes[1]} D={sizes[2]}, {name}"
        if clock.left() <= 0:
            result["not_run"].append(what)
            continue
        say(what)
        found = {"implementation": name, **_fresh(task, structure, sizes, name)}
        result["promised" if sizes is _SHAPE else "cases"].append(found)
    return result


def markdown(result: dict[str, Any]) -> str:
    """Megabytes beyond the input, a line for each case and a column for each implementation."""
    n, k, d = result["shape"]
    cases = result["cases"]
    names = list(dict.fromkeys(case["implementation"] for case in cases))
    lines: list[tuple[str, ...]] = [("task", "structure", *names)]
    for task, structure in dict.fromkeys((c["task"], c["structure"]) for c in cases):
        found = {
            c["implementation"]: _megabytes(c)
            for c in cases
            if (c["task"], c["structure"]) == (task, structure)
        }
        lines.append((task, structure, *(found.get(name, "-") for name in names)))
    text = []
    if cases:
        text += [
            f"Peak beyond the input, each in a process of its own: float32, N={n:,} K={k} D={d}",
            "",
            aligned(lines),
        ]
    if result["promised"]:
        n, k, d = _SHAPE
        text += ["", f"fastgmm at N={n:,} K={k} D={d}", "", _table(result["promised"])]
    failed = [c for c in [*cases, *result["promised"]] if "failed" in c]
    text += [""] + [
        f"- {c['implementation']}, {c['task']}, {c['structure']}: {c['failed']}" for c in failed
    ]
    text += [f"- not run, the time was over: {what}" for what in result["not_run"]]
    return "\n".join(text)


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Megabytes of every implementation, a line for each case."""
    from . import plots

    return {"memory": plots.memory(result)} if result["cases"] else {}


def run_case(
    task: str, structure: str, shape: tuple[int, int, int], implementation: str
) -> dict[str, Any]:
    """Megabytes of one case, measured in this process; call it once per process."""
    workload = make(structure, *shape, "float32", "overlapping")
    adapter = by_name(implementation)(workload.start, "float32")
    call = _call(task, adapter)
    x = adapter.rows(workload.x)
    call(x)
    release()
    before = resident()
    exact = reset_peak()
    result = call(x)
    after = peak()
    p = workload.start
    model = p.weights.nbytes + p.means.nbytes + 3 * p.covariances.nbytes
    beyond = (after - before) / _MB
    return {
        **_described(task, structure, workload),
        "before_mb": before / _MB,
        "peak_mb": after / _MB,
        "beyond_input_mb": beyond,
        "result_mb": getattr(result, "nbytes", 0) / _MB,
        "model_mb": model / _MB,
        "peak_was_reset": exact,
        "kept": beyond <= LIMIT + model / _MB,
        "reached": beyond <= TARGET + model / _MB,
    }


def _described(task: str, structure: str, workload: Workload) -> dict[str, Any]:
    return {"task": task, "structure": structure, "input_mb": workload.x.nbytes / _MB}


def _call(task: str, adapter: Any) -> Any:
    if task == "fit":
        return lambda x: adapter.fit(x, _ITERATIONS)
    return adapter.score if task == "score_samples" else adapter.predict


def _fresh(
    task: str, structure: str, shape: tuple[int, int, int], implementation: str
) -> dict[str, Any]:
    n, k, d = map(str, shape)
    found = fresh.run(
        "benchmarks.memory",
        ["--case", task, structure, "--rows", n, "--components", k, "--features", d,
         "--implementation", implementation],
        _MOST_SECONDS,
    )  # fmt: skip
    return {"task": task, "structure": structure, **found}


def _megabytes(case: dict[str, Any]) -> str:
    return "failed" if "failed" in case else f"{case['beyond_input_mb']:.0f} MB"


def _table(rows: list[dict[str, Any]]) -> str:
    lines: list[tuple[str, ...]] = [
        ("task", "structure", "input", "beyond it", "of that result", "model", "promise", "target")
    ]
    for row in rows:
        if "failed" in row:
            lines.append((row["task"], row["structure"], "-", "failed", *["-"] * 4))
            continue
        mb = [f"{row[f'{key}_mb']:.1f} MB" for key in ("input", "beyond_input", "result", "model")]
        kept = f"<= {LIMIT:.0f} MB {'yes' if row['kept'] else 'NO'}"
        reached = f"<= {TARGET:.0f} MB {'yes' if row['reached'] else 'NO'}"
        lines.append((row["task"], row["structure"], *mb, kept, reached))
    return aligned(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--rows", type=int, default=_SHAPE[0], metavar="N")
    parser.add_argument("--components", type=int, default=_SHAPE[1], metavar="K")
    parser.add_argument("--features", type=int, default=_SHAPE[2], metavar="D")
    parser.add_argument(
        "--implementation", default="fastgmm", choices=[kind.name for kind in ADAPTERS]
    )
    parser.add_argument("--case", nargs=2, metavar=("TASK", "STRUCTURE"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
