"""The named suites: which rows, how long, and what stands beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from . import extras, sections
from .adapters import ADAPTERS, Adapter, FastGMM
from .clock import Clock, failures
from .measure import measure, set_fractions
from .provenance import provenance
from .rows import ROWS, Row
from .seeds import FLASH, GMMX_FIT, GMMX_PREDICT, POMEGRANATE, PYCAVE
from .small import SMALL, quiet_convergence
from .workloads import make

Say = Callable[[str], None]


@dataclass(frozen=True)
class Suite:
    """A named run.

    ``seconds``: after which nothing new is started; ``repeats``: seconds of timing of each
    implementation in each row; ``shrink``: how many times fewer data rows; ``without``:
    implementations that would take most of the time.
    """

    about: str
    seconds: float
    rows: tuple[Row, ...] = ()
    small: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    repeats: float = 2.0
    shrink: int = 1
    without: frozenset[str] = frozenset()


SUITES: dict[str, Suite] = {
    "quick": Suite(
        "a first look with fewer data rows, in at most 3 minutes",
        165.0,
        (*ROWS, *PYCAVE[:6], *POMEGRANATE, *GMMX_PREDICT[1:2], *GMMX_FIT[1:2]),
        small=tuple(SMALL),
        extras=("threads",),
        repeats=0.25,
        shrink=20,
        # a compilation for every shape; float64 NumPy
        without=frozenset({"gmmx", "fastgmm reference"}),
    ),
    "full": Suite(
        "all rows at their full shapes, in about 45 minutes",
        2700.0,
        # the longest last: they get the time that the others left
        (
            *ROWS,
            *POMEGRANATE,
            *PYCAVE[:6],
            *GMMX_FIT,
            *GMMX_PREDICT,
            *FLASH,
            PYCAVE[-1],
            *PYCAVE[6:9],
        ),
        small=tuple(SMALL),
        extras=extras.NAMES,
    ),
    "scaling": Suite("time and memory against N, K and D", 450.0, sections=("scaling",)),
    "memory": Suite("peak memory, each case in a fresh process", 600.0, sections=("memory",)),
    "likelihood": Suite("likelihood against time on data sets", 600.0, sections=("likelihood",)),
    "fuzz": Suite("random shapes and data against the oracle", 600.0, sections=("fuzz",)),
}


def run(
    name: str,
    suite: Suite,
    say: Say,
    save: Callable[[dict[str, Any]], None] = lambda _: None,
    adapters: tuple[type[Adapter], ...] = ADAPTERS,
) -> dict[str, Any]:
    """Measure a suite; ``save`` gets the result after every row.

    Small data comes first, being quick, then rows in their order: those before others are more
    important. A row that was measured under another name is not measured again.
    """
    quiet_convergence()
    begin, clock = time.monotonic(), Clock(suite.seconds)
    result: dict[str, Any] = {
        "suite": name,
        "provenance": provenance(),
        "settings": {
            "quick": suite.shrink > 1,
            "seconds": suite.seconds,
            "repeats": suite.repeats,
            "shrink": suite.shrink,
            "without": sorted(suite.without),
        },
        "rows": [],
        "not_run": [],
        "sections": {},
    }
    adapters = tuple(kind for kind in adapters if kind.name not in suite.without)
    # targets are for full shapes
    rows = [
        replace(row.shrunk(suite.shrink), targets={}) if suite.shrink > 1 else row
        for row in suite.rows
    ]
    if rows:
        say("loading all packages")
        _load(adapters)
        say("peak of the machine")
        result["fma_peak"] = extras.peaks()
    if FastGMM.missing() is None:
        for small in suite.small:
            say(small)
            result["rows"].append(SMALL[small](suite.repeats))
        row = next((row for row in rows if row.name == extras.THREADS_ROW), None)
        if row is not None:
            quick = suite.shrink > 1
            result |= extras.run(suite.extras, row, suite.repeats, quick, say)
    _rows(rows, suite, clock, result, say, save, adapters)
    if rows:
        # A busy moment lowers a peak, never raises it; fractions are of the better of two.
        result["fma_peak"] = extras.better(result["fma_peak"], extras.peaks())
        set_fractions(result["rows"], result["fma_peak"])
    for i, section in enumerate(suite.sections):
        share = max(clock.left(), 0.0) / (len(suite.sections) - i)
        result["sections"][section] = sections.load(section).run(share, say)
        save(result)
    result["provenance"] = provenance()
    result["seconds"] = time.monotonic() - begin
    return result


def _load(adapters: tuple[type[Adapter], ...]) -> None:
    """Import what is installed, for no row has the time; what fails says so in its rows."""
    workload = make("diag", 100, 2, 2, "float32")
    for kind in adapters:
        if not kind.own_process and kind.cannot("fit", "diag", "float32") is None:
            with suppress(*failures()):
                kind(workload.start, "float32").em_pass(workload.x)


def _rows(
    rows: Sequence[Row],
    suite: Suite,
    clock: Clock,
    result: dict[str, Any],
    say: Say,
    save: Callable[[dict[str, Any]], None],
    adapters: tuple[type[Adapter], ...],
) -> None:
    done: dict[tuple[Any, ...], dict[str, Any]] = {}
    for i, row in enumerate(rows):
        plain = (row.task, row.structure, row.shape, row.precision, row.overlap, row.iterations)
        if plain in done:
            names = {key: getattr(row, key) for key in ("name", "title", "group", "axis")}
            result["rows"].append({**done[plain], **names, "same_as": done[plain]["name"]})
            continue
        if clock.left() <= 0:
            result["not_run"].append(row.name)
            continue

        def numbered(text: str, place: int = i) -> None:
            say(f"[{place + 1}/{len(rows)}, {max(clock.left(), 0):.0f} s left] {text}")

        # a row may take twice its share of what is left
        limit = clock.share(len(rows) - i, least=6.0).left()
        done[plain] = measure(row, suite.repeats, numbered, adapters, seconds=limit)
        result["rows"].append(done[plain])
        save(result)
