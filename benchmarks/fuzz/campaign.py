"""Case after case until the time is up, and what was found."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .. import fresh
from ..provenance import provenance
from .bounds import distances
from .cases import Case, draw
from .checks import Finding, check
from .engines import ENGINES, Engine, by_name

#: share of the time that engines in processes of their own get
_APART = 0.25
#: failures that are told in full
_TOLD = 200
_QUANTILES = (0.5, 0.9, 0.99)

Say = Callable[[str], None]


class Tally:
    """Counts of cases and comparisons, errors in units of their bounds, failures."""

    def __init__(self) -> None:
        self.cases: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.ratios: dict[str, list[float]] = defaultdict(list)
        self.failures: list[dict[str, Any]] = []

    def add(self, case: Case, engine: Engine, findings: Iterable[Finding]) -> list[dict[str, Any]]:
        """Take note of the comparisons of one case; returns its failures."""
        self.cases[engine.name] += 1
        kinds = (case.mixture.structure, case.dtype, case.layout, *case.traits)
        self.kinds.update(kinds)
        failures = []
        for finding in findings:
            self.ratios[finding.check].append(finding.ratio)
            if not finding.ratio <= 1:
                failures.append(
                    {
                        "seed": case.seed,
                        "small": case.small,
                        "engine": engine.name,
                        "check": finding.check,
                        "ratio": None if np.isinf(finding.ratio) else finding.ratio,
                        "message": finding.message,
                        "case": case.describe(),
                    }
                )
        self.failures += failures
        return failures

    def result(self) -> dict[str, Any]:
        """Plain JSON values."""
        checks = {}
        for name, ratios in sorted(self.ratios.items()):
            passed = np.array([r for r in ratios if r <= 1])
            found = np.quantile(passed, _QUANTILES) if len(passed) else np.full(3, np.nan)
            checks[name] = {
                "comparisons": len(ratios),
                "failures": len(ratios) - len(passed),
                "largest_error_over_bound": float(passed.max(initial=0.0)),
                "quantiles": dict(zip(map(str, _QUANTILES), map(float, found), strict=True)),
            }
        return {
            "cases": dict(self.cases),
            "kinds": dict(self.kinds.most_common()),
            "checks": checks,
            "failures": self.failures[:_TOLD],
            "n_failures": len(self.failures),
        }


def run_case(
    seed: int, engines: tuple[Engine, ...], tally: Tally, *, small: bool = False
) -> list[dict[str, Any]]:
    """Draw one case and compare it on some backends; returns its failures."""
    failures = []
    for cheap in sorted({small or engine.small for engine in engines}):
        case = draw(seed, small=cheap)
        at = distances(case.mixture, case.rows)
        for engine in engines:
            if (small or engine.small) == cheap:
                failures += tally.add(case, engine, check(case, engine, at))
    return failures


def run(
    budget: float = 600.0,
    say: Say = lambda _: None,
    *,
    seed: int | None = None,
    engines: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """Fuzz for ``budget`` seconds, from ``seed`` on; None takes one from the clock."""
    begin = time.monotonic()
    first = int(time.time()) * 1000 if seed is None else seed
    chosen = ENGINES if engines is None else tuple(map(by_name, engines))
    local = tuple(e for e in chosen if e.here() and (not e.environment or engines is not None))
    apart, absent = [], {}
    for engine in chosen:
        if engine not in local:
            reason = _absent(engine)
            if reason is None:
                apart.append(engine)
            else:
                absent[engine.name] = reason
    ours = budget * (1 - _APART * len(apart)) if local else 0.0
    tally, number = Tally(), first
    told = begin
    while local and time.monotonic() - begin < ours:
        for failure in run_case(number, local, tally):
            say(f"seed {failure['seed']}, {failure['engine']}: {failure['check']}")
            say(f"  {failure['message']}")
        number += 1
        if time.monotonic() - told > 20:
            told = time.monotonic()
            done = sum(tally.cases.values())
            say(f"{told - begin:.0f} s: {done} cases, {len(tally.failures)} failures")
    result = {
        "first_seed": first,
        "next_seed": number,
        **tally.result(),
        "absent": absent,
    }
    for engine in apart:
        say(f"{engine.name}, in a process of its own")
        seconds = max(budget - (time.monotonic() - begin), 10.0) / len(apart)
        result = _joined(result, _in_own_process(engine, seconds, first, say), engine)
    result["seconds"] = time.monotonic() - begin
    return {"provenance": provenance(), **result}


def _absent(engine: Engine) -> str | None:
    """Why an engine that this process cannot run cannot run at all."""
    if not engine.environment:
        return "there is no CUDA device"
    missing = [name for name in ("torch", "triton") if find_spec(name) is None]
    return f"{' and '.join(missing)} not installed" if missing else None


def _in_own_process(engine: Engine, seconds: float, seed: int, say: Say) -> dict[str, Any]:
    environment = fresh.environment(**dict(engine.environment))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.fuzz", "--engines", engine.name]
        command += ["--seconds", str(seconds), "--seed", str(seed), "--json", str(path)]
        subprocess.run(command, cwd=fresh.ROOT, env=environment, check=False)
        if path.exists():
            return dict(json.loads(path.read_text()))
    say(f"{engine.name} ended without a result")
    failure = {"seed": seed, "engine": engine.name, "check": "process", "message": "no result"}
    return {"cases": {}, "kinds": {}, "checks": {}, "failures": [failure], "n_failures": 1}


def _joined(result: dict[str, Any], other: dict[str, Any], engine: Engine) -> dict[str, Any]:
    """Results of two processes as one; checks of the other are under its name."""
    checks = {f"{name} ({engine.name})": value for name, value in other["checks"].items()}
    kinds = Counter(result["kinds"])
    kinds.update(other["kinds"])
    return {
        **result,
        "cases": {**result["cases"], **other["cases"]},
        "kinds": dict(kinds.most_common()),
        "checks": {**result["checks"], **checks},
        "failures": [*result["failures"], *other["failures"]],
        "n_failures": result["n_failures"] + other["n_failures"],
    }
