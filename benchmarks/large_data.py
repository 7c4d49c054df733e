"""Data larger than memory: ``python -m benchmarks.large_data [--json FILE] [--page FILE]``.

- A file of rows, fitted as a memory map and read by path, in processes whose private memory is
  limited, beside rows in memory.
- Rows in memory in one batch and in batches of 64k.
- Two processes of one thread each beside one process of two, and what goes over the wire.
- From the pass and the M-step that were measured: docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import fresh, workers
from .console import say, write_json
from .provenance import provenance
from .report import aligned, seconds
from .workloads import make

_D, _FILE_K, _K = 16, 16, 64
_BATCH = 65_536
#: rows that are drawn; the file repeats them, since their order and values cost the same
_DRAWN = 1_000_000
#: bytes of private memory that a fit from a file may reserve, all in all
_LIMIT = 10**9
#: a file may take so many times what rows in memory take, bytes for bytes
_FILE, _BATCHES, _PROCESSES = 1.3, 1.10, 1.15
#: megabytes by which the peaks of the largest and the smallest file may differ
_FLAT = 32.0
_MB = 1e6


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables, write the files; 1 when a target is missed."""
    options = _parser().parse_args(arguments)
    if options.render:
        print(workers.page(json.loads(options.render.read_text())), end="")
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="fastgmm-") as folder:
        file = _write(Path(folder) / "rows.npy", max(options.gigabytes))
        files = _files(file, sorted(options.gigabytes), options.memory_gigabytes, options.repeats)
    n = options.rows
    batches = {
        overlap: _child("batching", n=n, k=_K, d=_D, batch=_BATCH, overlap=overlap, budget=60.0)
        for overlap in ("overlapping", "separated")
    }
    # Short beside files, and few repeats of them vary by half.
    processes = _processes(n, 2 * options.repeats)
    found = {
        "provenance": provenance(),
        "files": files,
        "batching": {"rows": n, "components": _K, "batch": _BATCH, "seconds": batches},
        "processes": processes,
        "scaling": _scaling(n, batches, options.m_step_components),
    }
    found["targets"] = targets(found)
    print(report(found))
    write_json(options.json, found)
    if options.page is not None:
        options.page.write_text(workers.page(found))
    return 0 if all(target["reached"] for target in found["targets"]) else 1


def _child(task: str, *launcher: str, threads: int = 0, **arguments: Any) -> dict[str, Any]:
    """What a task of ``large_child`` finds in a process of its own."""
    say(f"{task} {arguments}")
    threads = threads or (os.cpu_count() or 1)
    environment = {"NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    given = [task, json.dumps(arguments)]
    found = fresh.run("benchmarks.large_child", given, launcher=launcher, **environment)
    if "failed" in found:
        raise RuntimeError(f"{task}: {found['failed']}")
    return found


def _write(path: Path, gigabytes: float) -> Path:
    """A .npy file of so many bytes of rows, all of them written."""
    from fastgmm.writing import write_parts

    n_rows = int(gigabytes * 1e9) // (4 * _D)
    drawn = make("full", min(n_rows, _DRAWN), _FILE_K, _D, "float32").x
    parts = (drawn[: n_rows - start] for start in range(0, n_rows, len(drawn)))
    say(f"{path}: {n_rows:,} rows")
    return write_parts(path, parts, ())


def _files(
    file: Path, gigabytes: list[float], in_memory: float, repeats: int
) -> list[dict[str, Any]]:
    """Rows of the file in memory, mapped, and read by path, of each size."""
    largest, rows = gigabytes[-1], []
    for how, sizes, limit in (
        ("memory", [min(in_memory, largest)], None),
        ("map", gigabytes, _LIMIT),
        ("read", gigabytes, _LIMIT),
    ):
        for size in sizes:
            settings = {"parts": round(largest / size), "k": _FILE_K, "limit": limit}
            rows.append(_child("file_pass", file=str(file), how=how, repeats=repeats, **settings))
    return rows


def _processes(n: int, repeats: int) -> list[dict[str, Any]]:
    """One process of two threads and two of one, in turns."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1")
    arguments = {"n": n, "k": _K, "d": _D, "repeats": repeats}
    rows = []
    for _ in range(3):
        rows.append(_child("shared", threads=2, **arguments))
        rows.append(_child("shared", *torchrun, "--nproc-per-node=2", threads=1, **arguments))
    return rows


def _scaling(n: int, batches: dict[str, Any], components: int) -> dict[str, Any]:
    step = _child("m_step", k=components, d=_D)
    one = batches["overlapping"]["one batch"]["median"]
    return {
        "d": _D,
        "rows": n,
        "components": _K,
        "threads": os.cpu_count(),
        "pair_seconds": one / (n * _K),
        "component_seconds": step["seconds"] / components,
        "m_step_components": components,
    }


def targets(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked for, what was found, and whether it is enough."""
    files, rows = found["files"], []

    def ask(name: str, value: float, limit: float) -> None:
        reached = math.isfinite(value) and value <= limit
        rows.append({"name": name, "value": value, "limit": limit, "reached": bool(reached)})

    def rate(row: dict[str, Any]) -> float:
        return float(row["seconds"]["median"] / row["bytes"])

    memory = next(row for row in files if row["how"] == "memory")
    for how in ("map", "read"):
        sizes = [row for row in files if row["how"] == how]
        ask(f"{how}: time per byte beside memory", rate(sizes[-1]) / rate(memory), _FILE)
        peaks = [row["anonymous_peak"] / _MB for row in sizes]
        ask(f"{how}: MB of private memory", max(peaks), _LIMIT / _MB)
        ask(f"{how}: MB more for the largest than for the smallest", peaks[-1] - peaks[0], _FLAT)
    for overlap, times in found["batching"]["seconds"].items():
        ratio = times["batches"]["median"] / times["one batch"]["median"]
        ask(f"batches of 64k beside one, {overlap}", ratio, _BATCHES)
    one, two = (
        statistics.median(
            row["seconds"]["median"] for row in found["processes"] if row["processes"] == count
        )
        for count in (1, 2)
    )
    ask("two processes beside two threads", two / one, _PROCESSES)
    wire = [row for row in found["processes"] if row["processes"] == 2]
    excess = max(abs(row["statistics_bytes"] - row["expected_bytes"]) for row in wire)
    ask("bytes per iteration on the wire beyond the statistics", excess, 0)
    return rows


def report(found: dict[str, Any]) -> str:
    """The tables of a run."""
    lines: list[tuple[str, ...]] = [
        ("rows", "size", "one iteration", "per GB", "private memory, peak", "limit")
    ]
    for row in found["files"]:
        size, median = row["bytes"] / 1e9, row["seconds"]["median"]
        limit = "-" if row["limit"] is None else f"{row['limit'] / _MB:.0f} MB"
        peak = f"{row['anonymous_peak'] / _MB:.0f} MB"
        how = {"memory": "in memory", "map": "memory map", "read": "path"}[row["how"]]
        lines.append((how, f"{size:.2g} GB", seconds(median), seconds(median / size), peak, limit))
    head = f"full, float32, D={_D}, K={_FILE_K}, one EM iteration"
    text = [head, "", aligned(lines), ""]
    lines = [("target", "found", "at most", "")]
    for target in found["targets"]:
        verdict = "yes" if target["reached"] else "NO"
        lines.append((target["name"], f"{target['value']:.3g}", f"{target['limit']:g}", verdict))
    return "\n".join([*text, aligned(lines), "", workers.table(workers.cost_of(found))])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_data", description=__doc__)
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", help="write all that was measured")
    add("--page", type=Path, metavar="FILE", help="write the page about scaling")
    add("--render", type=Path, metavar="JSON", help="print that page of an earlier run, no more")
    add("--folder", metavar="DIR", help="where the file of rows is made, and removed again")
    add("--gigabytes", type=float, nargs="+", default=[1.0, 8.0], metavar="GB")
    add("--memory-gigabytes", type=float, default=1.0, metavar="GB", help="of the rows in memory")
    add("--rows", type=int, default=2_000_000, metavar="N", help="of batches and processes")
    add("--m-step-components", type=int, default=2048, metavar="K")
    add("--repeats", type=int, default=5)
    return parser


if __name__ == "__main__":
    sys.exit(main())
