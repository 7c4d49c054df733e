"""One row, on a host or on a device: agreement with the oracle first, then times in turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

from . import oracle
from .adapters import ADAPTERS, Adapter, FastGMM
from .adapters.base import Device
from .apart import Apart, patience
from .clock import Clock, describe, failures
from .rows import Row
from .subject import Subject, checked_length
from .timing import interleave, nominal_flops, settle
from .workloads import Workload, overlap_of

Say = Callable[[str], None]

#: parts of a row's time of which a check may take two, however few are left to be checked
_PARTS = 8


class Broken(Exception):
    """A device that answers this process no more since an implementation failed on it.

    ``name`` is that of the implementation, ``entry`` what its row says of it.
    """

    def __init__(self, name: str, entry: dict[str, Any]) -> None:
        super().__init__(f"{name}: {entry['failed']}")
        self.name, self.entry = name, entry


def measure(
    row: Row,
    budget: float,
    say: Say = lambda _: None,
    adapters: tuple[type[Adapter], ...] = ADAPTERS,
    *,
    device: Device = None,
    seconds: float = math.inf,
    known: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Everything about one row, as plain JSON values.

    Parameters
    ----------
    row : Row
    budget : float
        Seconds of timing of each implementation.
    say : callable
        Told what is being done.
    adapters : tuple of Adapter classes
    device : torch.device or None
        Where rows lie as tensors; None for NumPy arrays.
    seconds : float
        After which nothing new is started, once rows are drawn and the oracle has spoken.
    known : mapping of entries by name, optional
        Implementations that are not measured, and what the row says of them.

    Raises
    ------
    Broken
    """
    settle()
    say(f"{row.title}: drawing rows")
    workload = _workload(row.structure, row.shape, row.precision, row.overlap, device)
    say(f"{row.title}: float64 oracle")
    truth = truth_of(row, workload, device)
    overlap = _overlap(workload)
    clock = Clock(seconds)
    results: dict[str, dict[str, Any]] = {}
    subjects: dict[str, Subject | Apart] = {}
    able: list[tuple[str, type[Adapter], str]] = []
    for name, kind, mode in entries(row, adapters, device):
        if known and name in known:
            results[name] = known[name]
            continue
        reason = kind.cannot(row.task, row.structure, row.precision, device)
        if reason is None:
            able.append((name, kind, mode))
        else:
            results[name] = {"missing": reason, "installed": kind.missing() is None}
    with ExitStack() as children:
        subject: Subject | Apart
        for i, (name, kind, mode) in enumerate(able):
            passes = kind.passes_per_iteration if row.task == "fit" else 1
            results[name] = entry = {"mode": mode, "own": kind is FastGMM, "passes": passes}
            # what a target speaks of is waited for
            awaited = (entry["own"] or name in row.targets) and clock.left() > 0
            own_clock = Clock() if awaited and device is None else clock
            if own_clock.left() <= 0:
                entry["skipped"] = "the time of the row was over"
                continue
            say(f"{row.title}: checking {name}")
            # The last ones, which are slow, may not take what the timing of all others needs.
            share = own_clock.share(max(len(able) - i, _PARTS)).left()
            try:
                if kind.own_process:
                    subject = Apart(kind, row, device, mode, patience(own_clock))
                    children.callback(subject.close)
                else:
                    adapter = kind(workload.start, row.precision, device=device, mode=mode)
                    subject = Subject(adapter, row, workload.x, host=device is None)
                needed = subject.first(entry, share)
                if needed is not None:
                    entry["skipped"] = needed
                elif subject.check(entry, truth) and subject.plan(entry, own_clock.left()):
                    task = "products" if kind.yardstick else row.task
                    entry["nominal_flops"] = nominal_flops(task, row.structure, *row.shape)
                    subjects[name] = subject
            except failures() as error:
                entry["failed"] = describe(error)
            _free(device, name, entry)
        if subjects:
            say(f"{row.title}: timing {', '.join(subjects)}")
            share = max(clock.left(), 1.0) / len(subjects)
            calls = {
                name: _guarded(s.seconds, name, results[name], device)
                for name, s in subjects.items()
            }

            def wanted(name: str, turn: int) -> bool:
                spoken_of = results[name]["own"] or name in row.targets
                return spoken_of and turn < row.repeats and clock.left() > 0

            for name, timing in interleave(calls, min(budget, share), wanted=wanted).items():
                if "failed" in results[name]:
                    continue
                # One of two may be noise, and so may few of many.
                if sum(s > 0 for s in timing.seconds) > 0.7 * len(timing.seconds):
                    results[name]["seconds"] = timing.summary()
                else:
                    results[name]["failed"] = "the two fits differ by less than their own spread"
        if device is not None and row.task == "fit":
            for name, subject in subjects.items():
                if results[name]["own"] and isinstance(subject, Subject):
                    _count(subject, results[name])
    return {
        **about(row),
        "workload": workload.describe(),
        "overlap": overlap,
        "implementations": results,
        "ratios": ratios(results, row.targets),
    }


def about(row: Row) -> dict[str, Any]:
    """What is known of a row before it is measured."""
    return {
        "name": row.name,
        "title": row.title,
        "group": row.group,
        "task": row.task,
        "structure": row.structure,
        "shape": list(row.shape),
        "axis": row.axis,
        "precision": row.precision,
        "unit": "one iteration" if row.task in ("fit", "kmeans") else "one pass",
        "iterations": None if row.iterations is None else list(row.iterations),
        "targets": row.targets,
        "promise": row.promise,
    }


def entries(
    row: Row, adapters: tuple[type[Adapter], ...], device: Device
) -> Iterator[tuple[str, type[Adapter], str]]:
    """Name, class and precision of products of all that a row is measured with."""
    for kind in adapters:
        modes = kind.modes if device is not None and row.precision == "float32" else ("highest",)
        for mode in modes:
            yield kind.name if len(modes) == 1 else f"{kind.name}, {mode}", kind, mode


def ratios(results: dict[str, dict[str, Any]], targets: dict[str, float]) -> dict[str, Any]:
    """Peer's median over fastgmm's for every peer, with the target and whether it is reached.

    Of fastgmm's precisions the first counts.
    """
    own = [name for name, entry in results.items() if entry.get("own")] or ["fastgmm"]
    ours = results.get(own[0], {}).get("seconds")
    found: dict[str, Any] = {}
    for name, entry in results.items():
        if name in own or ours is None or "seconds" not in entry:
            continue
        ratio = entry["seconds"]["median"] / ours["median"]
        target = targets.get(name)
        reached = None if target is None else bool(ratio >= target)
        found[name] = {"ratio": ratio, "target": target, "reached": reached}
    return found


def set_fractions(rows: list[dict[str, Any]], peaks: dict[str, float]) -> None:
    """Add nominal FLOP/s and their fraction of the measured peak to every timed entry."""
    for row in rows:
        for entry in row["implementations"].values():
            if "seconds" in entry and "nominal_flops" in entry:
                rate = entry["nominal_flops"] / entry["seconds"]["median"]
                entry["flops_per_second"] = rate
                entry["fraction_of_peak"] = rate / peaks[row["precision"]]


def _guarded(
    call: Callable[[], float], name: str, entry: dict[str, Any], device: Device
) -> Callable[[], float]:
    def guarded() -> float:
        if "failed" in entry:
            return math.nan
        try:
            return call()
        except failures() as error:
            entry["failed"] = describe(error)
        _free(device, name, entry)
        return math.nan

    return guarded


def _free(device: Device, name: str, entry: dict[str, Any]) -> None:
    """Give back what nobody holds; a device that cannot is of no more use to this process."""
    if device is None:
        return
    from .gpu.device import free

    try:
        free(device)
    except failures() as error:
        entry.setdefault("failed", describe(error))
        raise Broken(name, entry) from error


def _count(subject: Subject, entry: dict[str, Any]) -> None:
    """Record launches and waits per iteration; a device may forbid profiles."""
    from .gpu.device import count_calls

    try:
        entry["calls_per_iteration"] = count_calls(subject.adapter.device, subject.call)
    except failures() as error:
        entry["not_counted"] = describe(error)


@lru_cache(maxsize=1)
def _workload(
    structure: str, shape: tuple[int, int, int], precision: Any, overlap: str, device: Device
) -> Workload:
    """One workload at a time; scoring and EM share it."""
    return Row("", "", "score", structure, shape, precision, overlap).workload(device)


def truth_of(row: Row, workload: Workload, device: Device) -> Any:
    exact: Any = oracle
    if device is not None:
        from .gpu import oracle as on_device

        exact = on_device
    if row.task == "score":
        return exact.score_samples(workload.x, workload.start)
    if row.task == "predict":
        return exact.predict(workload.x, workload.start)
    if row.task == "kmeans":
        return exact.kmeans(workload.x, workload.start.means, checked_length(row))
    return exact.fit(workload.x, workload.start, checked_length(row))


def _overlap(workload: Workload) -> dict[str, float]:
    x: Any = workload.x[:2_000]
    if hasattr(x, "cpu"):
        x = x.cpu().numpy()
    rows = Workload(workload.name, x, workload.start, workload.overlap)
    return overlap_of(rows, oracle.responsibilities(x, rows.start))
