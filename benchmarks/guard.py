"""What a call would need at full size, from smaller ones: nothing is run into swapping."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .resident import peak, release, reset_peak, resident
from .rows import Row

#: bytes that no implementation may take beyond the rows, and the share of what is free
MOST_BYTES, MOST_SHARE = 12e9, 0.6
#: work below which nothing can go wrong: bytes of the largest array that an implementation might
#: form, and rows x components x features (squared for full), of which the slowest do 1e8 a second
_SMALL_BYTES, _SLOW_RATE = 1e9, 1e8
#: share of the rows that is tried where few rows are much fewer: what leaves the caches, or is
#: given back to the system and taken again, costs more per row
_MIDDLE = 16


@dataclass(frozen=True)
class Need:
    """Seconds of a call and bytes beyond what was resident before."""

    seconds: float
    bytes: float


def observe(call: Callable[[], Any]) -> tuple[Any, Need]:
    """The result of a call on the host, its time and its peak of memory.

    What was freed before goes back to the system first; the high-water mark is the kernel's, and
    without one (outside Linux) the bytes are those by which the highest ever grew.
    """
    release()
    before = resident() if reset_peak() else peak()
    begin = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - begin
    return result, Need(seconds, float(max(0, peak() - before)))


def few(row: Row) -> int:
    """Rows that are enough for a small call: every covariance shall keep its rank."""
    n, k, d = row.shape
    each = 8 * d if row.structure == "full" else 16
    return min(max(each * k, 1_000), n)


def part(row: Row) -> int:
    """Rows of a call that tells about the time of all on a device, whose memory guards itself."""
    return min(max(few(row), row.shape[0] // _MIDDLE), row.shape[0])


def harmless(row: Row, seconds: float) -> bool:
    """Whether the row is so small that any implementation can run it a few times."""
    n, k, d = row.shape
    numbers = n * k * d * (d if row.structure in ("full", "tied") else 1)
    return 4.0 * numbers < _SMALL_BYTES and 10 * numbers / _SLOW_RATE < seconds


def predict(row: Row, call: Callable[[int], Any]) -> Need:
    """What a call on all rows needs, by the line through two calls on few of them.

    And by a call on a part of them, if that says more. ``call(n)`` runs the task on the first n
    rows; each is run once before, so that compilation and start-up are in none.
    """

    def tried(n: int) -> Need:
        call(n)
        return observe(lambda: call(n))[1]

    sizes = (few(row) // 2 + 1, few(row))
    middle = row.shape[0] // _MIDDLE
    small, large = (tried(n) for n in sizes)
    factor = (row.shape[0] - sizes[1]) / max(sizes[1] - sizes[0], 1)

    def line(a: float, b: float) -> float:
        return b + max(0.0, b - a) * factor

    need = Need(line(small.seconds, large.seconds), line(small.bytes, large.bytes))
    if middle <= 2 * sizes[1] or need.bytes > most_bytes():
        return need
    part = tried(middle)
    return Need(max(need.seconds, _MIDDLE * part.seconds), max(need.bytes, _MIDDLE * part.bytes))


def too_much(need: Need, calls: float, seconds: float) -> str | None:
    """Why so many calls of this need are not run, or None when they are."""
    if need.bytes > (limit := most_bytes()):
        return (
            f"would need about {need.bytes / 1e9:.1f} GB (limit {limit / 1e9:.1f} GB),"
            " by smaller calls"
        )
    if need.seconds * calls > seconds:
        return f"one call would need about {need.seconds:.2g} s, by smaller ones"
    return None


def most_bytes() -> float:
    """Bytes that a call may take: a limit, or a share of what is free now if that is less."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return MOST_BYTES
    line = next((t for t in info.read_text().splitlines() if t.startswith("MemAvailable")), "")
    free = float(line.split()[1]) * 1024 if line else MOST_BYTES / MOST_SHARE
    return min(MOST_BYTES, MOST_SHARE * free)
