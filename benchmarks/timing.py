"""Interleaved repetitions, medians, and the arithmetic that a row is worth."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

#: Seconds of rest before each measured call: idle BLAS and OpenMP workers spin for a while after
#: their last task (OpenBLAS for 0.1 s here), and would otherwise steal a core from the next
#: implementation.
SETTLE = 0.15
#: Seconds of work that the clock can tell well: shorter calls are repeated until they fill it.
AT_LEAST = 0.05


@dataclass
class Timing:
    """Seconds of repeated calls of one implementation."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def summary(self) -> dict[str, float | int]:
        return {
            "median": self.median,
            "min": min(self.seconds),
            "max": max(self.seconds),
            "repeats": len(self.seconds),
        }


def settle() -> None:
    """Take what is alive out of every later collection of garbage.

    Each timed call begins with one, which otherwise costs more than the call.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection inside a measurement."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def once(call: Callable[[], object]) -> float:
    """Seconds of one call, after a rest."""
    time.sleep(SETTLE)
    with quiet():
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin


def interleave(
    calls: Mapping[str, Callable[[], float]],
    budget: float,
    most: int = 9,
    least: int = 2,
    wanted: Callable[[str, int], bool] = lambda name, turn: False,
) -> dict[str, Timing]:
    """Measure in turns, so that all implementations see the same moods of the machine.

    Each call returns its own seconds per unit. An implementation takes part in as many rounds as
    fit `budget` seconds of it, between `least` and `most`, and in those that are `wanted`, by its
    name and the number of the round, whatever they take.
    """
    results = {name: Timing() for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    for turn in range(most):
        for name, call in calls.items():
            # the next turn costs about what the last ones did
            expected = spent[name] * (turn + 1) / max(turn, 1)
            if turn >= least and expected > budget and not wanted(name, turn):
                continue
            begin = time.perf_counter()
            results[name].seconds.append(call())
            spent[name] += time.perf_counter() - begin
    return results


class PerCall:
    """Seconds of one short call, from as many in a row as fill ``at_least`` seconds.

    How many those are is remembered from one measurement to the next.
    """

    def __init__(self, call: Callable[[], object], at_least: float = AT_LEAST) -> None:
        self._call, self._at_least, self._count = call, at_least, 1

    def __call__(self) -> float:
        while True:
            seconds = once(self._many)
            # What filled the time before may be done a little sooner now.
            if seconds >= 0.8 * self._at_least:
                return seconds / self._count
            wanted = 1.2 * self._count * self._at_least / max(seconds, 1e-7)
            self._count = max(2 * self._count, int(wanted))

    def _many(self) -> None:
        for _ in range(self._count):
            self._call()


class PerIteration:
    """Seconds of one iteration as the difference of two fits, so that set-up cancels.

    Short fits are repeated until the clock can tell them apart.
    """

    def __init__(self, fit: Callable[[int], object], short: int, long: int) -> None:
        self._short, self._long = PerCall(lambda: fit(short)), PerCall(lambda: fit(long))
        self._between = long - short

    def __call__(self) -> float:
        before = self._short()
        return (self._long() - before) / self._between


def nominal_flops(task: str, structure: str, n: int, k: int, d: int) -> float:
    """Floating-point operations of one pass, counting triangles and skipping nothing.

    Per row and component, score then statistics: full D^2 + D and D^2 + 3 D, diag 4 D and 4 D,
    spherical and tied 2 D and 2 D; tied adds D^2 per row for whitening. The exponentials are not
    counted. Code that skips work can exceed the peak by this count.
    """
    score = {"full": d * d + d, "diag": 4 * d, "spherical": 2 * d, "tied": 2 * d}[structure]
    moments = {"full": d * d + 3 * d, "diag": 4 * d, "spherical": 2 * d, "tied": 2 * d}[structure]
    whitening = d * d if structure == "tied" else 0
    if task == "products":
        return 2.0 * n * k * d * d
    if task == "kmeans":
        return n * (2.0 * k * d + d)
    per_component = score + (moments if task == "fit" else 0)
    return float(n) * (k * per_component + whitening)
