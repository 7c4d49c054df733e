"""Seconds of one EM iteration against K, with skipping on and off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .adapters import Adapter, FastGMM, OneDAL
from .report import aligned, seconds
from .timing import interleave, per_iteration
from .workloads import Workload, make

_N, _D = 200_000, 32
_COMPONENTS = (64, 128, 256, 512, 1024, 2048, 4096)
#: the K for which a ratio is asked, and that ratio
_TARGET = (1024, 8.0)
#: above this oneDAL would take most of the run
_ONEDAL_UP_TO = 512
#: at K = 4096 some components hold fewer rows than features
_REG_COVAR = 1e-2
_COLUMNS = ("skipping", "visiting all", "oneDAL")


def run(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Full covariance, float32, separated clusters in random row order."""
    n = _N // 10 if quick else _N
    rows: list[dict[str, Any]] = []
    for k in _COMPONENTS[:3] if quick else _COMPONENTS:
        say(f"K = {k}")
        rows.append(_row(make("full", n, k, _D, "float32", "separated"), n == _N))
    ks = np.array([row["K"] for row in rows], dtype=np.float64)
    times = np.array([row["seconds"]["skipping"]["median"] for row in rows])
    exponent = float(np.polyfit(np.log(ks), np.log(times), 1)[0])
    return {
        "workload": f"full, float32, N={n:,} D={_D}, separated, random row order",
        "absent": {"visiting all": FastGMM.no_switch(), "oneDAL": OneDAL.missing()},
        "rows": rows,
        "exponent_of_K": exponent,
    }


def table(result: dict[str, Any]) -> str:
    """One line per K."""
    lines: list[tuple[str, ...]] = [("K", *_COLUMNS, "skipping gains", "max diff")]
    for row in result["rows"]:
        times = [
            seconds(row["seconds"][name]["median"]) if name in row["seconds"] else "-"
            for name in _COLUMNS
        ]
        gain = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        if row["target"] is not None:
            gain += f" (>= {row['target']:g}) {'yes' if row['reached'] else 'NO'}"
        difference = row["max_difference"]
        lines.append(
            (str(row["K"]), *times, gain, "-" if difference is None else f"{difference:.1e}")
        )
    text = [f"one EM iteration, {result['workload']}", "", aligned(lines), ""]
    text.append(f"seconds grow as K^{result['exponent_of_K']:.2f} (K^1 without skipping)")
    text += [f"absent: {reason}" for reason in result["absent"].values() if reason]
    return "\n".join(text)


def _row(workload: Workload, full_size: bool) -> dict[str, Any]:
    k = workload.start.n_components
    adapters: dict[str, Adapter] = {"skipping": FastGMM(workload.start, "float32", _REG_COVAR)}
    if FastGMM.no_switch() is None:
        adapters["visiting all"] = FastGMM(workload.start, "float32", _REG_COVAR, skip=False)
    if OneDAL.missing() is None and k <= _ONEDAL_UP_TO:
        adapters["oneDAL"] = OneDAL(workload.start, "float32", _REG_COVAR)
    fitted = {name: adapter.fit(workload.x, 2).parameters for name, adapter in adapters.items()}

    def timed(adapter: Adapter) -> Callable[[], float]:
        return lambda: per_iteration(lambda n_iter: adapter.fit(workload.x, n_iter), 2, 4)

    timings = interleave({name: timed(a) for name, a in adapters.items()}, budget=10.0, most=5)
    ratio, difference = None, None
    if "visiting all" in timings:
        ratio = timings["visiting all"].median / timings["skipping"].median
        difference = fitted["skipping"].difference(fitted["visiting all"])
    target = _TARGET[1] if k == _TARGET[0] and full_size else None
    return {
        "K": k,
        "seconds": {name: timing.summary() for name, timing in timings.items()},
        "ratio": ratio,
        "max_difference": difference,
        "target": target if ratio is not None else None,
        "reached": None if target is None or ratio is None else bool(ratio >= target),
    }
