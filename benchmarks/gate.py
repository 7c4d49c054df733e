"""A gate against slower kernels: ``python -m benchmarks.gate [--write] [--json FILE]``.

Each of six kernels is timed against two yardsticks in the same run: a product of matrices by NumPy,
and a loop of multiply-adds in registers. A kernel has lost speed if its ratios to both have grown,
so that another BLAS alone says nothing. What is compared is one ratio on one machine: reference
ratios are kept in `results/gate.json` by the instruction set of the kernels and that of NumPy's
BLAS, which the environment may choose, and `--write` measures them again.

On a shared machine the trouble is other processes. So all run on one thread, in pieces of a
millisecond or two that fit between two other tasks, kernel and yardsticks in turns; of each the
fastest count. A slowdown must show in each of three tries, and where those of the two halves of a
try differ the gate says that it cannot tell.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from . import console
from .provenance import cpu_model, numpy_blas, provenance
from .report import aligned, seconds
from .timing import quiet
from .workloads import Parameters, make

REFERENCE = Path(__file__).resolve().parent / "results" / "gate.json"
#: a kernel may take so many times as long as in the reference; and on another processor model of
#: the same instruction set, whose yardsticks may stand otherwise to its kernels
LIMIT, LIMIT_ELSEWHERE = 1 / 0.75, 2.0
TRIES = 3
#: rounds of a try, the quantile of their times that counts, and the ratio of those of the two
#: halves of a try beyond which it says nothing
_ROUNDS, _FAST, _DRIFT = 40, 0.1, 1.15
#: steady tries that a reference is the median of, and tries to find them in
_WRITE_TRIES, _MOST_TRIES = 5, 20

Say = Callable[[str], None]
Call = Callable[[], object]

#: name: structure, precision, (N, K, D), pass; a millisecond or two each on one thread
KERNELS = {
    "score full f32": ("full", "float32", (2048, 64, 32), "score"),
    "EM full f32": ("full", "float32", (512, 64, 32), "em"),
    "EM full f64": ("full", "float64", (256, 64, 32), "em"),
    "EM diag f32": ("diag", "float32", (8192, 64, 16), "em"),
    "EM tied f32": ("tied", "float32", (8192, 64, 16), "em"),
    "k-means f32": ("spherical", "float32", (16384, 64, 16), "kmeans"),
}


def machine() -> str | None:
    """What kernels and NumPy's BLAS are compiled for, or None where no reference is kept."""
    from fastgmm_kernels.cpu import REGISTER_BYTES

    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    instructions = {64: "AVX-512", 32: "AVX2"}.get(REGISTER_BYTES)
    return None if instructions is None else f"{instructions}, {numpy_blas()}"


def kernels(names: tuple[str, ...] = tuple(KERNELS)) -> dict[str, Call]:
    """The passes of the CPU backend, ready to be called; each has been called once."""
    from fastgmm.backends.cpu import CPUBackend

    found: dict[str, Call] = {}
    for name in names:
        structure, precision, shape, task = KERNELS[name]
        workload = make(structure, *shape, precision)  # type: ignore[arg-type]
        found[name] = _call(CPUBackend(), workload.x, workload.start, task)
        found[name]()
    return found


def _call(backend: Any, x: Any, start: Parameters, task: str) -> Call:
    from fastgmm import covariance, threads
    from fastgmm.model import MixtureModel

    structure = covariance.get(start.structure)
    model = MixtureModel.from_covariances(start.weights, start.means, start.covariances, structure)
    prepared = backend.prepare(model, x.dtype)
    passes: dict[str, Call] = {
        "score": lambda: backend.score_samples(prepared, x),
        "em": lambda: backend.accumulate(prepared, x, None),
        "kmeans": lambda: backend.kmeans_step(x, None, start.means),
    }

    def on_this_thread() -> object:
        # Not even one of Numba's threads: what is compiled without them is in every other test.
        with mock.patch.object(threads, "PARALLEL_FLOPS", float("inf")):
            return passes[task]()

    return on_this_thread


def _horner(values: Any, factor: Any, sweeps: int) -> None:
    """values <- values * factor + factor, 16 times per element and sweep."""
    for thread in range(values.shape[0]):
        row = values[thread]
        for _ in range(sweeps):
            for j in range(row.shape[0]):
                y = row[j]
                # Independent elements: the compiler fills the lanes, the processor overlaps the
                # chains. "contract" alone keeps it from folding them.
                for _ in range(16):
                    y = y * factor + factor
                row[j] = y


def yardsticks() -> dict[str, Call]:
    """Work that no change of the kernels can touch; a millisecond or two each."""
    import numba

    size = 384
    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    out = np.empty_like(a)
    loop = numba.njit(fastmath={"contract"})(_horner)
    values, factor = np.zeros((1, size), np.float32), np.float32(0.5)
    loop(values, factor, 1)
    return {
        "np.matmul": lambda: np.matmul(a, a, out=out),
        "multiply-adds": lambda: loop(values, factor, 4000),
    }


def _once(call: Call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def measure(calls: dict[str, Call], sticks: dict[str, Call]) -> dict[str, Any]:
    """One try: fast times of kernels and yardsticks, their ratios, and how far halves differ."""
    from threadpoolctl import threadpool_limits

    times: dict[str, list[float]] = {name: [] for name in (*calls, *sticks)}
    with threadpool_limits(1), quiet():
        for _ in range(_ROUNDS):
            for name, call in calls.items():
                for stick, work in sticks.items():
                    times[stick].append(_once(work))
                times[name].append(_once(call))
    fast = {name: float(np.quantile(found, _FAST)) for name, found in times.items()}
    halves = {
        name: [float(np.quantile(part, _FAST)) for part in np.array_split(found, 2)]
        for name, found in times.items()
    }
    return {
        "seconds": fast,
        "ratios": {n: {s: fast[n] / fast[s] for s in sticks} for n in calls},
        "drift": {name: max(pair) / min(pair) for name, pair in halves.items()},
    }


def loss(ratios: dict[str, float], reference: dict[str, float]) -> float:
    """How many times slower than in the reference, by the yardstick that says less."""
    return min(ratios[stick] / reference[stick] for stick in reference)


def judge(
    reference: dict[str, Any],
    limit: float,
    calls: dict[str, Call],
    sticks: dict[str, Call],
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Try up to three times; a kernel that is fast enough once is not tried again."""
    suspects, tries = dict(calls), []
    losses: dict[str, float] = {}
    while suspects and len(tries) < TRIES:
        found = measure(suspects, sticks)
        tries.append(found)
        for name in tuple(suspects):
            value = loss(found["ratios"][name], reference[name])
            losses[name] = min(value, losses.get(name, np.inf))
            say(f"try {len(tries)}: {name} takes {value:.2f} of its reference")
            if value <= limit:
                del suspects[name]
    steady = all(found["drift"][n] <= _DRIFT for found in tries for n in (*suspects, *sticks))
    return {
        "limit": limit,
        "loss": losses,
        "slower": sorted(suspects) if steady else [],
        "unclear": [] if steady else sorted(suspects),
        "tries": tries,
    }


def reference_for(kind: str | None) -> tuple[dict[str, Any], float] | str:
    """The reference ratios and the limit, or why there are none."""
    if kind is None:
        return f"no reference for the instruction set of {platform.machine()}"
    known = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    if kind not in known:
        return f"no reference for {kind}; python -m benchmarks.gate --write measures one"
    entry = known[kind]
    same = entry["provenance"]["cpu"] == cpu_model()
    return entry["ratios"], LIMIT if same else LIMIT_ELSEWHERE


def run(budget: float = 20.0, say: Say = lambda _: None) -> dict[str, Any]:
    """The gate as a study; it takes some seconds whatever the budget."""
    kind = machine()
    found = reference_for(kind)
    result: dict[str, Any] = {"machine": kind}
    if isinstance(found, str):
        result["absent"] = found
    else:
        result |= judge(*found, kernels(), yardsticks(), say)
    return {"provenance": provenance(), **result}


def write(say: Say = lambda _: None) -> int:
    """Measure the reference of this machine and write it; 1 where that cannot be."""
    kind = machine()
    if kind is None:
        say(f"no reference is kept for {platform.machine()}")
        return 1
    calls, sticks = kernels(), yardsticks()
    tries: list[dict[str, Any]] = []
    for _ in range(_MOST_TRIES):
        found = measure(calls, sticks)
        if max(found["drift"].values()) <= _DRIFT:
            tries.append(found)
        if len(tries) == _WRITE_TRIES:
            break
    else:
        say("the machine is too busy: halves of a try differ")
        return 1
    names = tries[0]["ratios"]
    ratios = {
        name: {
            stick: statistics.median(found["ratios"][name][stick] for found in tries)
            for stick in sticks
        }
        for name in names
    }
    known = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    known[kind] = {"provenance": provenance(), "ratios": ratios}
    console.write_json(REFERENCE, known)
    say(f"wrote {REFERENCE.name}")
    return 0


def markdown(result: dict[str, Any]) -> str:
    """One line per kernel."""
    if "absent" in result:
        return str(result["absent"])
    lines: list[tuple[str, ...]] = [("kernel", "one pass", "of its reference", "verdict")]
    for name, value in result["loss"].items():
        times = [t["seconds"][name] for t in result["tries"] if name in t["seconds"]]
        verdict = "slower" if name in result["slower"] else "kept"
        if name in result["unclear"]:
            verdict = "unclear, the machine is busy"
        lines.append((name, seconds(min(times)), f"{value:.2f}", verdict))
    head = f"{result['machine']}, one thread, limit {result['limit']:.2f}"
    return f"{head}\n\n{aligned(lines)}"


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Time against the reference, by kernel."""
    from matplotlib import pyplot as plt

    if "absent" in result:
        return {}
    figure, axes = plt.subplots(figsize=(7, 2.6))
    axes.barh(list(result["loss"]), list(result["loss"].values()), color="#0072b2")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.axvline(result["limit"], color="#d55e00", linestyle="--", label="limit")
    axes.set_xlabel("time over that of the reference, each in units of its yardstick")
    axes.invert_yaxis()
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return {"gate": figure}


def main(arguments: list[str] | None = None) -> int:
    """Judge, or write the reference; 1 where a kernel has become slower."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--write", action="store_true", help="measure the reference again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    options = parser.parse_args(arguments)
    if options.write:
        return write(console.say)
    result = run(say=console.say)
    print(markdown(result))
    console.write_json(options.json, result)
    return 1 if result.get("slower") else 0


if __name__ == "__main__":
    sys.exit(main())
