"""Seconds of one EM iteration against K, with skipping on and off."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .adapters import Adapter, FastGMM, OneDAL, VisitingAll
from .report import aligned, seconds
from .timing import PerIteration, interleave
from .workloads import Workload, make

_N, _D = 200_000, 32
_COMPONENTS = (64, 256, 1024, 4096)
#: distances of the clusters, with the largest K that is looked at
_REGIMES = {"distant": 4096, "separated": 1024}
#: where a ratio is asked, and that ratio
_TARGET = ("distant", 1024, 8.0)
#: above this oneDAL would take most of the run
_ONEDAL_UP_TO = 512
#: at K = 4096 some components hold fewer rows than features
_REG_COVAR = 1e-2
#: iterations of a long fit at least and at most, and seconds that it should have beyond a short one
_LONG, _LONGEST, _ENOUGH = 4, 62, 1.0
_COLUMNS = ("skipping", "visiting all", "oneDAL")


def run(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Full covariance, float32, distant and separated clusters in random row order."""
    n = _N // 10 if quick else _N
    tables = {}
    for overlap, most in _REGIMES.items():
        rows: list[dict[str, Any]] = []
        for k in [k for k in _COMPONENTS if k <= (256 if quick else most)]:
            say(f"{overlap}, K = {k}")
            workload = make("full", n, k, _D, "float32", overlap)
            rows.append(_row(workload, n == _N and overlap == _TARGET[0]))
        ks = np.array([row["K"] for row in rows], dtype=np.float64)
        times = np.array([row["seconds"]["skipping"]["median"] for row in rows])
        tables[overlap] = {
            "workload": f"full, float32, N={n:,} D={_D}, {overlap}, random row order",
            "rows": rows,
            "exponent_of_K": float(np.polyfit(np.log(ks), np.log(times), 1)[0]),
        }
    return {"absent": {"oneDAL": OneDAL.missing()}, "tables": tables}


def table(result: dict[str, Any]) -> str:
    """One line per K for each distance of the clusters."""
    text = []
    for found in result["tables"].values():
        lines: list[tuple[str, ...]] = [("K", *_COLUMNS, "skipping gains", "max diff")]
        for row in found["rows"]:
            times = [
                seconds(row["seconds"][name]["median"]) if name in row["seconds"] else "-"
                for name in _COLUMNS
            ]
            gain = f"{row['ratio']:.2f}"
            if row["target"] is not None:
                gain += f" (>= {row['target']:g}) {'yes' if row['reached'] else 'NO'}"
            lines.append((str(row["K"]), *times, gain, f"{row['max_difference']:.1e}"))
        text += [f"one EM iteration, {found['workload']}", "", aligned(lines), ""]
        text += [f"seconds grow as K^{found['exponent_of_K']:.2f} (K^1 without skipping)", ""]
    text += [f"absent: {reason}" for reason in result["absent"].values() if reason]
    return "\n".join(text)


def _row(workload: Workload, with_target: bool) -> dict[str, Any]:
    k = workload.start.n_components
    adapters: dict[str, Adapter] = {
        "skipping": FastGMM(workload.start, "float32", _REG_COVAR),
        "visiting all": VisitingAll(workload.start, "float32", _REG_COVAR),
    }
    if OneDAL.missing() is None and k <= _ONEDAL_UP_TO:
        onedal = OneDAL(workload.start, "float32", _REG_COVAR)
        # It stops by itself where nothing changes, which the difference of two fits would hide.
        if onedal.fit(workload.x, _LONG).n_iter == _LONG:
            adapters["oneDAL"] = onedal
    fitted = {name: adapter.fit(workload.x, 3).parameters for name, adapter in adapters.items()}

    def timed(adapter: Adapter) -> Callable[[], float]:
        # The first iteration meets the rows in their own order.
        long = _LONG
        begin = time.perf_counter()
        adapter.fit(workload.x, _LONG)
        if not isinstance(adapter, OneDAL):
            each = (time.perf_counter() - begin) / _LONG
            long = 2 + min(max(round(_ENOUGH / each), _LONG - 2), _LONGEST - 2)
        return PerIteration(lambda n_iter: adapter.fit(workload.x, n_iter), 2, long)

    timings = interleave({name: timed(a) for name, a in adapters.items()}, budget=8.0, most=7)
    ratio = timings["visiting all"].median / timings["skipping"].median
    target = _TARGET[2] if with_target and k == _TARGET[1] else None
    return {
        "K": k,
        "seconds": {name: timing.summary() for name, timing in timings.items()},
        "ratio": ratio,
        "max_difference": fitted["skipping"].difference(fitted["visiting all"]),
        "target": target,
        "reached": None if target is None else bool(ratio >= target),
    }
