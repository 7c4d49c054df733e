"""Peak resident memory beyond the input: ``python -m benchmarks.memory [--json FILE]``.

Each case runs in a fresh process: rows are drawn, a small slice is run once so that compiled code
and thread stacks exist, freed memory goes back to the system, the system's high-water mark is
reset, then the case runs.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from .adapters import by_name
from .provenance import provenance
from .report import aligned
from .workloads import Workload, make

_SHAPE = (1_000_000, 256, 16)
_TASKS = ("fit", "score_samples", "predict")
_STRUCTURES = ("full", "diag")
_ITERATIONS = 2
#: megabytes beyond the input and the model: what is promised, and what is aimed for
LIMIT, TARGET = 150.0, 100.0
_MB = 1e6


def main(arguments: list[str] | None = None) -> int:
    """Run every case in its own process and print the table; 1 when a promise is broken."""
    options = _parser().parse_args(arguments)
    if options.case:
        task, structure = options.case
        print(json.dumps(run_case(task, structure, options.rows, options.implementation)))
        return 0
    missing = by_name(options.implementation).missing()
    if missing is not None:
        print(missing)
        return 2
    rows = []
    for structure in _STRUCTURES:
        for task in _TASKS:
            print(f"  {task}, {structure}", file=sys.stderr, flush=True)
            rows.append(_fresh(task, structure, options.rows, options.implementation))
    n, k, d = options.rows, *_SHAPE[1:]
    print(f"\n{options.implementation}, float32, N={n:,} K={k} D={d}: peak beyond the input\n")
    print(_table(rows))
    result = {
        "provenance": provenance(),
        "implementation": options.implementation,
        "limit_mb": LIMIT,
        "target_mb": TARGET,
        "rows": rows,
    }
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(row["kept"] for row in rows) else 1


def run_case(task: str, structure: str, n: int, implementation: str) -> dict[str, Any]:
    """Megabytes of one case, measured in this process; call it once per process."""
    workload = make(structure, n, *_SHAPE[1:], "float32", "overlapping")
    call = _call(task, workload, implementation)
    # long enough for every component to keep a covariance of full rank
    call(workload.head(20_000).x.copy())
    release()
    before = resident()
    exact = reset_peak()
    result = call(workload.x)
    after = peak()
    p = workload.start
    model = p.weights.nbytes + p.means.nbytes + 3 * p.covariances.nbytes
    beyond = (after - before) / _MB
    return {
        "task": task,
        "structure": structure,
        "input_mb": workload.x.nbytes / _MB,
        "before_mb": before / _MB,
        "peak_mb": after / _MB,
        "beyond_input_mb": beyond,
        "result_mb": getattr(result, "nbytes", 0) / _MB,
        "model_mb": model / _MB,
        "peak_was_reset": exact,
        "kept": beyond <= LIMIT + model / _MB,
        "reached": beyond <= TARGET + model / _MB,
    }


def release() -> None:
    """Give freed memory back, so that scratch of the warm-up does not hide that of the case."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def resident() -> int:
    """Bytes resident now (Linux), else the highest so far."""
    return status("VmRSS") or peak()


def peak() -> int:
    """Bytes resident at the highest, since the last reset where one is possible."""
    found = status("VmHWM")
    if found:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> bool:
    """Set the kernel's high-water mark to what is resident now; False where that is not offered."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def status(field: str) -> int:
    """Bytes that Linux tells of this process under a name, 0 where it does not."""
    told = Path("/proc/self/status")
    if not told.exists():
        return 0
    line = next((t for t in told.read_text().splitlines() if t.startswith(field)), "")
    return int(line.split()[1]) * 1024 if line else 0


def _call(task: str, workload: Workload, implementation: str) -> Any:
    adapter = by_name(implementation)(workload.start, "float32")
    if task == "fit":
        return lambda x: adapter.fit(x, _ITERATIONS)
    if task == "score_samples":
        return adapter.score
    return adapter.predict


def fresh(command: list[str], **environment: str) -> dict[str, Any]:
    """The JSON object that Python, started anew with these arguments, prints last."""
    root = Path(__file__).resolve().parent.parent
    paths = [str(root), str(root / "kernels"), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment}
    found = subprocess.run(
        [sys.executable, *command], cwd=root, env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(found.stdout.splitlines()[-1]))


def _fresh(task: str, structure: str, n: int, implementation: str) -> dict[str, Any]:
    command = ["-m", "benchmarks.memory", "--case", task, structure]
    return fresh([*command, "--rows", str(n), "--implementation", implementation])


def _table(rows: list[dict[str, Any]]) -> str:
    lines: list[tuple[str, ...]] = [
        ("task", "structure", "input", "beyond it", "of that result", "model", "promise", "target")
    ]
    for row in rows:
        mb = [f"{row[f'{key}_mb']:.1f} MB" for key in ("input", "beyond_input", "result", "model")]
        kept = f"<= {LIMIT:.0f} MB {'yes' if row['kept'] else 'NO'}"
        reached = f"<= {TARGET:.0f} MB {'yes' if row['reached'] else 'NO'}"
        lines.append((row["task"], row["structure"], *mb, kept, reached))
    return aligned(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--rows", type=int, default=_SHAPE[0], metavar="N")
    parser.add_argument("--implementation", default="fastgmm", choices=("fastgmm", "scikit-learn"))
    parser.add_argument("--case", nargs=2, metavar=("TASK", "STRUCTURE"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
