"""When a run or a row must be over, and what an implementation may raise without ending it."""

from __future__ import annotations

import math
import sys
import time


class Clock:
    """Seconds until something must be over."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        return self._end - time.monotonic()

    def share(self, parts: int, least: float = 5.0) -> Clock:
        """A clock for the next of so many equal parts, which may take twice its share."""
        return Clock(min(self.left(), max(least, 2 * self.left() / max(parts, 1))))


class Ended(RuntimeError):
    """A fit that ran fewer iterations than were asked for."""

    def __init__(self, n_iter: int, wanted: int) -> None:
        super().__init__(f"ran {n_iter} of {wanted} iterations")
        self.n_iter = n_iter


class Told(RuntimeError):
    """What became of a call in another process, in words that need no more."""


def failures() -> tuple[type[Exception], ...]:
    """What an implementation may raise without ending the run: its row says what it was.

    Time is dear, and code of many authors meets a machine and sizes that it may not have seen
    before. Running out of memory is among them.
    """
    from fastgmm.errors import FastGMMError

    found = [RuntimeError, ValueError, TypeError, AttributeError, ImportError, MemoryError]
    if "triton" in sys.modules:
        from triton.errors import TritonError

        found.append(TritonError)
    # numpy.linalg.LinAlgError is a ValueError, torch's own a RuntimeError, as is JAX's error.
    return (*found, AssertionError, ArithmeticError, LookupError, FastGMMError)


def describe(error: Exception) -> str:
    """The kind of an error and the beginning of its text."""
    if isinstance(error, Ended | Told):
        return str(error)
    kind = type(error).__name__
    if kind in ("OutOfMemoryError", "MemoryError", "ArrayMemoryError", "_ArrayMemoryError"):
        kind = "out of memory"
    text = str(error).strip() or "without text"
    return f"{kind}: {text.splitlines()[0][:200]}"
