"""One row on one device: agreement with the oracle first, then times in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch

from fastgmm.errors import FastGMMError

from .. import oracle as host_oracle
from ..rows import Row
from ..timing import interleave, once, per_call, per_iteration
from ..workloads import Workload, overlap_of
from . import data, oracle
from .adapters import ADAPTERS, FastGMM, TensorAdapter
from .device import count_calls, free, peak_memory, synchronise
from .rows import LONGEST, SHORT

#: Largest error for which a time is printed, by precision: root mean square of log-likelihoods in
#: nats, difference of a parameter in units of the data (whose scale is 1). It tells whether the
#: same thing was computed; how well it was computed is in the report.
TOLERANCE = {
    "highest": {"score": 5e-3, "parameters": 5e-2},
    "high": {"score": 5e-2, "parameters": 5e-2},
    "medium": {"score": 5e-1, "parameters": 2e-1},
    "float64": {"score": 1e-9, "parameters": 1e-9},
}
#: seconds of iterations that the difference of two fits shall hold
_ITERATIONS = 0.25


def failures() -> tuple[type[Exception], ...]:
    """What an implementation may raise without ending the run: its row says what it was.

    Device time is dear, and code of many authors meets a device, a driver and sizes that it may
    not have seen before. Running out of memory is among them.
    """
    found = [RuntimeError, ValueError, TypeError, AttributeError, ImportError, MemoryError]
    try:
        from triton.errors import TritonError
    except ImportError:
        return (*found, FastGMMError)
    return (*found, FastGMMError, TritonError)


class Clock:
    """Seconds until something must be over."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        return self._end - time.monotonic()


def entries(
    row: Row, adapters: tuple[type[TensorAdapter], ...] = ADAPTERS
) -> Iterator[tuple[str, type[TensorAdapter], str]]:
    """Name, class and precision of products of all that a row is measured with."""
    for kind in adapters:
        modes = kind.modes if row.precision == "float32" else ("highest",)
        for mode in modes:
            yield kind.name if len(modes) == 1 else f"{kind.name}, {mode}", kind, mode


def measure(
    row: Row,
    device: torch.device,
    clock: Clock,
    budget: float,
    say: Callable[[str], None] = lambda _: None,
    adapters: tuple[type[TensorAdapter], ...] = ADAPTERS,
) -> dict[str, Any]:
    """Everything about one row, as plain JSON values.

    ``clock`` tells when nothing new may be started, ``budget`` the seconds of timing of each
    implementation.
    """
    say(f"{row.title}: drawing rows")
    workload = _workload(row.structure, row.shape, row.precision, row.overlap, device)
    say(f"{row.title}: float64 oracle")
    truth = _truth(row, workload)
    results: dict[str, dict[str, Any]] = {}
    subjects: dict[str, _Subject] = {}
    for name, kind, mode in entries(row, adapters):
        reason = kind.cannot(row.task, row.structure, row.precision) or kind.absent(device)
        if reason is None and clock.left() <= 0:
            reason = f"{row.title}, {name}: the time of the row was over"
        if reason is not None:
            results[name] = {"missing": reason}
            continue
        say(f"{row.title}: checking {name}")
        results[name] = entry = {
            "mode": mode,
            "own": kind is FastGMM,
            "passes": kind.passes_per_iteration if row.task == "fit" else 1,
        }
        try:
            adapter = kind(workload.start, row.precision, device, mode)
            subject = _Subject(adapter, row, workload.x)
            if subject.check(truth, entry) and subject.plan(entry, clock):
                subjects[name] = subject
        except failures() as error:
            entry["failed"] = _line(error)
        free(device)
    if subjects:
        say(f"{row.title}: timing {', '.join(subjects)}")
        share = max(clock.left(), 1.0) / len(subjects)
        calls = {name: _guarded(s.seconds, results[name]) for name, s in subjects.items()}
        for name, timing in interleave(calls, min(budget, share)).items():
            if "failed" not in results[name]:
                results[name]["seconds"] = timing.summary()
    for name, subject in subjects.items():
        if row.task == "fit" and results[name]["own"]:
            _count(subject, results[name])
    return {
        "name": row.name,
        "title": row.title,
        "task": row.task,
        "structure": row.structure,
        "shape": list(row.shape),
        "workload": workload.describe(),
        "precision": row.precision,
        "unit": "one pass" if row.task == "score" else "one iteration",
        "overlap": _overlap(workload),
        "targets": row.targets,
        "implementations": results,
    }


class _Subject:
    """One implementation with the rows of a workload."""

    def __init__(self, adapter: TensorAdapter, row: Row, x: torch.Tensor) -> None:
        self.adapter, self.row, self.x = adapter, row, x

    def call(self, n_iter: int = SHORT) -> Any:
        """The whole task, its results complete: scores, parameters or centres."""
        if self.row.task == "score":
            scores = self.adapter.score(self.x)
            synchronise(self.adapter.device)
            return scores
        if self.row.task == "kmeans":
            return self.adapter.kmeans(self.x, n_iter)
        fitted = self.adapter.fit(self.x, n_iter)
        if fitted.n_iter != n_iter:
            raise RuntimeError(f"ran {fitted.n_iter} of {n_iter} iterations")
        return fitted.parameters

    def check(self, truth: Any, entry: dict[str, Any]) -> bool:
        """Record the first call's time and the error; whether a time may be shown."""
        begin = time.perf_counter()
        result = self.call()
        entry["first_call_seconds"] = time.perf_counter() - begin
        if self.row.task == "score":
            difference = result.double() - truth
            error = float(difference.square().mean().sqrt())
            entry["rms_nats"], entry["max_nats"] = error, float(difference.abs().max())
        else:
            error = entry["max_difference"] = (
                result.difference(truth)
                if self.row.task == "fit"
                else float(abs(result - truth).max())
            )
        grade = entry["mode"] if self.row.precision == "float32" else self.row.precision
        limit = TOLERANCE[grade]["score" if self.row.task == "score" else "parameters"]
        if math.isnan(error) or error > limit:
            entry["disagrees"] = (
                f"differs from the float64 oracle by {error:.1e} (limit {limit:.0e})"
            )
            return False
        return True

    def plan(self, entry: dict[str, Any], clock: Clock) -> bool:
        """Record memory and lengths of fits; whether there is time to repeat it."""
        begin = time.perf_counter()
        memory = peak_memory(self.adapter.device, self.call)
        warm = time.perf_counter() - begin
        if self.adapter.memory_counted:
            entry["peak_memory_bytes"] = memory
        if 6 * warm > clock.left():
            entry["slow"] = f"one call took {warm:.2g} s, too long to repeat it in the row's time"
            return False
        if self.row.task == "score":
            return True
        middle = SHORT + 2
        self._compile(middle)
        each = max((once(lambda: self.call(middle)) - warm) / 2, 1e-4)
        count = min(max(round(_ITERATIONS / each), 1), LONGEST - SHORT)
        self.lengths = SHORT, SHORT + count
        self._compile(self.lengths[1])
        entry["iterations"] = list(self.lengths)
        return True

    def seconds(self) -> float:
        """Of one pass, or of one iteration."""
        if self.row.task == "score":
            return per_call(self.call)
        return per_iteration(self.call, *self.lengths)

    def _compile(self, n_iter: int) -> None:
        if self.adapter.compiles_lengths:
            self.call(n_iter)


def _guarded(call: Callable[[], float], entry: dict[str, Any]) -> Callable[[], float]:
    def guarded() -> float:
        if "failed" in entry:
            return math.nan
        try:
            return call()
        except failures() as error:
            entry["failed"] = _line(error)
            return math.nan

    return guarded


def _line(error: Exception) -> str:
    """The kind of an error and the beginning of its text."""
    kind = "out of memory" if isinstance(error, torch.OutOfMemoryError) else type(error).__name__
    text = str(error).strip() or "without text"
    return f"{kind}: {text.splitlines()[0][:200]}"


def _count(subject: _Subject, entry: dict[str, Any]) -> None:
    """Record launches and waits per iteration; a device may forbid profiles."""
    try:
        entry["calls_per_iteration"] = count_calls(subject.adapter.device, subject.call)
    except failures() as error:
        entry["not_counted"] = _line(error)


@lru_cache(maxsize=1)
def _workload(
    structure: str, shape: tuple[int, int, int], precision: Any, overlap: str, device: torch.device
) -> Workload:
    """One workload at a time; scoring and EM share it."""
    return data.make(Row("", "", "score", structure, shape, precision, overlap), device)


def _truth(row: Row, workload: Workload) -> Any:
    x: Any = workload.x
    if row.task == "score":
        return oracle.score_samples(x, workload.start)
    if row.task == "kmeans":
        return oracle.kmeans(x, workload.start.means, SHORT)
    return oracle.fit(x, workload.start, SHORT)


def _overlap(workload: Workload) -> dict[str, float]:
    x: Any = workload.x
    rows = Workload(workload.name, x[:2_000].cpu().numpy(), workload.start, workload.overlap)
    return overlap_of(rows, host_oracle.responsibilities(rows.x, rows.start))
