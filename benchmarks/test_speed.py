"""The promised speeds as pytest-benchmark cases: ``pytest benchmarks --benchmark-only``.

Cases of one workload form a group with one line per implementation, whose ratio the table shows.
Nothing asserts a time, for machines differ; agreement with the float64 oracle is asserted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from . import oracle
from .adapters import Adapter, FastGMM, MatMul, OneDAL, ScikitLearn
from .rows import ROWS, Row
from .subject import checked_length, complaint, errors
from .workloads import Workload

_PROMISED = tuple(row for row in ROWS if row.promise is not None)
#: those that promises and targets speak of
_ADAPTERS = (FastGMM, ScikitLearn, OneDAL, MatMul)
#: rows on which agreement is checked here; the report of benchmarks.cpu checks at full size
_CHECKED = 20_000
_ROUNDS = 3


@functools.lru_cache(maxsize=1)
def _workload(row_name: str) -> Workload:
    """One workload at a time: the largest takes 64 MB and seconds to draw."""
    return next(row for row in ROWS if row.name == row_name).workload()


@functools.lru_cache(maxsize=1)
def _truth(row_name: str) -> Any:
    row = next(row for row in ROWS if row.name == row_name)
    head = _workload(row_name).head(_CHECKED)
    if row.task == "score":
        return oracle.score_samples(head.x, head.start)
    return oracle.fit(head.x, head.start, 1)


def _cases() -> Iterator[Any]:
    for row in _PROMISED:
        for adapter in _ADAPTERS:
            reason = adapter.cannot(row.task, row.structure, row.precision)
            # What an implementation has no method for is no case; what is not installed is skipped.
            if reason is None or reason == adapter.missing():
                marks = [pytest.mark.skip(reason=reason)] if reason else []
                yield pytest.param(row, adapter, id=f"{row.name}-{adapter.name}", marks=marks)


@pytest.mark.parametrize(("row", "adapter"), list(_cases()))
def test_promised_speed(row: Row, adapter: type[Adapter], benchmark: Any) -> None:
    workload = _workload(row.name)
    built = adapter(workload.start, row.precision)
    if not adapter.yardstick:
        x = workload.head(_CHECKED).x
        result = built.score(x) if row.task == "score" else built.em_pass(x)
        found = errors(row, result, _truth(row.name))
        assert complaint(row, next(iter(found.values()))) is None
        benchmark.extra_info.update(found)
    benchmark.group = f"{row.title}: {workload.describe()}"
    benchmark.extra_info["promise"] = row.promise
    benchmark.extra_info["passes_per_iteration"] = adapter.passes_per_iteration
    benchmark.pedantic(_measured(built, row, workload), rounds=_ROUNDS, warmup_rounds=1)


def _measured(built: Adapter, row: Row, workload: Workload) -> Callable[[], object]:
    """A whole call; a fit runs the longer number of iterations, so that set-up counts little."""
    if row.task == "score":
        return lambda: built.score(workload.x)
    return lambda: built.fit(workload.x, checked_length(row))
