"""Rows that are not one pass over many rows: one-row latency, iris, threads, start-up."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from . import fresh, oracle
from .adapters import ADAPTERS, FastGMM
from .measure import ratios
from .rows import SKLEARN, Row
from .timing import PerCall, PerIteration, Timing, interleave, settle
from .workloads import Array, Parameters

GROUP = "Small data"
#: seeds of the iris fits: one fit alone would measure the luck of its start
_SEEDS = range(10)


def iris() -> Array:
    from sklearn.datasets import load_iris

    return np.ascontiguousarray(load_iris().data)


def _mixtures() -> dict[str, Any]:
    from sklearn.mixture import GaussianMixture as Theirs

    from fastgmm import GaussianMixture as Ours

    return {"fastgmm": Ours, SKLEARN: Theirs}


def one_row(budget: float) -> dict[str, Any]:
    """score_samples of one row of iris with the same three-component model in all."""
    x = iris()
    theirs = _mixtures()[SKLEARN](3, random_state=0).fit(x)
    p = Parameters("full", theirs.weights_, theirs.means_, theirs.covariances_)
    truth = oracle.score_samples(x[:1], p)
    settle()
    entries: dict[str, dict[str, Any]] = {}
    calls: dict[str, Callable[[], float]] = {}
    for kind in ADAPTERS:
        reason = kind.cannot("score", "full", "float64")
        if reason is not None or kind.yardstick or kind.own_process:
            entries[kind.name] = {
                "missing": reason or kind.note,
                "installed": kind.missing() is None,
            }
            continue
        adapter = kind(p, "float64")
        row = adapter.rows(x[:1])
        begin = time.perf_counter()
        difference = float(np.max(np.abs(np.asarray(adapter.score(row)) - truth)))
        entries[kind.name] = {
            "first_call_seconds": time.perf_counter() - begin,
            "max_difference": difference,
        }
        if not difference <= 1e-8:
            entries[kind.name]["disagrees"] = (
                f"differs from the float64 oracle by {difference:.1e} (limit 1e-08)"
            )
            continue
        calls[kind.name] = PerCall(lambda a=adapter, r=row: a.score(r))  # type: ignore[misc]
    return _row(
        "score-one-row",
        "score_samples, 1 row, f64",
        "iris, K=3 D=4, one row",
        "one call",
        entries,
        interleave(calls, budget),
        {SKLEARN: 2.0},
    )


def iris_fit(budget: float) -> dict[str, Any]:
    """A fit of iris with all defaults but the seed; both choose their own k-means start."""
    x = iris()
    entries: dict[str, dict[str, Any]] = {}
    calls: dict[str, Callable[[], float]] = {}
    for name, kind in _mixtures().items():

        def fit_all(kind: Any = kind) -> list[Any]:
            return [kind(3, random_state=seed).fit(x) for seed in _SEEDS]

        begin = time.perf_counter()
        kind(3, random_state=0).fit(x)
        first = time.perf_counter() - begin
        models = fit_all()
        entries[name] = {
            "first_call_seconds": first,
            "lower_bounds": [float(m.lower_bound_) for m in models],
            "iterations": [int(m.n_iter_) for m in models],
        }
        all_seeds = PerCall(fit_all)
        calls[name] = lambda m=all_seeds: m() / len(_SEEDS)  # type: ignore[misc]
    return _row(
        "fit-iris",
        "fit, all defaults, f64",
        f"iris, N=150 K=3 D=4, mean of {len(_SEEDS)} seeds, each with its own start",
        "one fit",
        entries,
        interleave(calls, budget),
        {SKLEARN: 1.0},
    )


def threads(row: Row, budget: float) -> dict[str, Any]:
    """The time of one EM iteration on one thread over that on all, and whether bits agree."""
    import numba

    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    workload = row.workload()
    adapter = FastGMM(workload.start, row.precision)
    short, long = row.iterations or (1, 4)

    def with_threads(count: int, call: Callable[[], Any]) -> Any:
        numba.set_num_threads(count)
        try:
            return call()
        finally:
            numba.set_num_threads(most)

    counts = sorted({1, 2, most} & set(range(1, most + 1)))
    fits = {c: with_threads(c, lambda: adapter.fit(workload.x, long).parameters) for c in counts}
    same = all(fits[c].difference(fits[1]) == 0.0 for c in counts)
    measured = PerIteration(lambda n: adapter.fit(workload.x, n), short, long)
    timings = interleave(
        {str(c): lambda c=c: with_threads(c, measured) for c in counts},  # type: ignore[misc]
        budget,
    )
    one = timings["1"].median
    speedups = {c: one / timing.median for c, timing in timings.items()}
    return {
        "workload": workload.describe(),
        "seconds": {count: timing.summary() for count, timing in timings.items()},
        "speedup": speedups,
        "same_bits": same,
        "target": 1.8 if most > 1 else None,
        "reached": bool(speedups["2"] >= 1.8) if most > 1 else None,
    }


_IMPORT = """
import json, sys, time
begin = time.perf_counter()
from sklearn.mixture import GaussianMixture as _
peer = time.perf_counter()
import fastgmm
ours = time.perf_counter()
import numpy as np
x = np.random.default_rng(0).normal(size=(int(sys.argv[1]), 16)).astype("float32")
model = fastgmm.GaussianMixture(8, random_state=0, tol=1e9)
ready = time.perf_counter()
model.fit(x)
first = time.perf_counter()
model.fit(x)
second = time.perf_counter()
print(json.dumps({
    "import_sklearn": peer - begin, "import_beyond_sklearn": ours - peer,
    "first_fit_adds": (first - ready) - (second - first),
    "heavy": sorted({"torch", "triton", "matplotlib", "dask"} & set(sys.modules)),
}))
"""


#: rows of a first fit: on one thread, and on all, which is other machine code
_FEW, _MANY = 100, 100_000


def start_up() -> dict[str, Any]:
    """Import and first-fit seconds of fresh processes, with cold and with warm code caches."""
    cold, warm = {}, {}
    for n in (_FEW, _MANY):
        with tempfile.TemporaryDirectory() as folder:
            environment = {**fresh.environment(), "NUMBA_CACHE_DIR": folder}

            def once_more(n: int = n, environment: Any = environment) -> dict[str, Any]:
                found = subprocess.run(
                    [sys.executable, "-c", _IMPORT, str(n)],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                return dict(json.loads(found.stdout.splitlines()[-1]))

            cold[n] = once_more()
            warm[n] = min((once_more() for _ in range(3)), key=lambda r: r["first_fit_adds"])
    # Of either kind of machine code the slower.
    slow_cold, slow_warm = (
        max(r.values(), key=lambda r: r["first_fit_adds"]) for r in (cold, warm)
    )
    return {
        "cold": slow_cold,
        "warm": slow_warm,
        "cold_by_rows": {n: found["first_fit_adds"] for n, found in cold.items()},
        "limits": {"import_beyond_sklearn": 1.0, "first_fit_adds": {"warm": 1.0, "cold": 25.0}},
        "reached": bool(
            slow_warm["import_beyond_sklearn"] <= 1.0
            and slow_warm["first_fit_adds"] <= 1.0
            and slow_cold["first_fit_adds"] <= 25.0
            and not slow_warm["heavy"]
        ),
    }


def _row(
    name: str,
    title: str,
    workload: str,
    unit: str,
    entries: dict[str, dict[str, Any]],
    timings: dict[str, Timing],
    targets: dict[str, float],
) -> dict[str, Any]:
    for key, timing in timings.items():
        entries[key]["seconds"] = timing.summary()
    return {
        "name": name,
        "group": GROUP,
        "title": title,
        "workload": workload,
        "unit": unit,
        "targets": targets,
        "promise": None,
        "implementations": entries,
        "ratios": ratios(entries, targets),
    }


#: rows that are not one pass over many rows, by name
SMALL: dict[str, Callable[[float], dict[str, Any]]] = {
    "score-one-row": one_row,
    "fit-iris": iris_fit,
}


def quiet_convergence() -> None:
    """Hide convergence warnings of fits that are cut short by intention."""
    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)
