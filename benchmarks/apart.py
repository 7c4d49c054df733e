"""Implementations in a process of their own, which is ended when it gives no answer.

The threads of a compiler such as XLA and those of BLAS or Numba can wait for each other in one
process, and such a run never ends. Here the measured side lives in a child that stays for a row, so
that turns with the others go on: it draws the same rows from the same seeds, inherits environment
and cores, and sleeps in a read of its pipe while others are measured.
"""

from __future__ import annotations

import multiprocessing
import operator
from collections.abc import Callable
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from .adapters import Adapter
from .adapters.base import Device
from .clock import Clock, Told, describe, failures
from .rows import Row
from .subject import Subject
from .timing import settle

#: seconds that an answer may take, whatever time is left: packages must be loaded; and at most
LEAST, MOST = 30.0, 45.0


def patience(clock: Clock) -> float:
    """Seconds to wait for an answer, by the time that is left."""
    return min(max(clock.left(), LEAST), MOST)


class Child:
    """A process that makes an object and applies functions to it.

    Parameters
    ----------
    seconds : float
        Within which each answer must come; may be set anew for each.
    make : callable
        Its result is what the child keeps.
    *arguments
        Of ``make``. They are pickled, as is all that is asked and answered.
    daemon : bool
        Ends with the process that made it; only what does not may have children of its own.
    """

    def __init__(
        self, seconds: float, make: Callable[..., Any], *arguments: Any, daemon: bool = True
    ) -> None:
        # a fresh interpreter: a fork would inherit locks of threads that it does not have
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self.seconds = seconds
        self._process = context.Process(target=_serve, args=(end, make, arguments), daemon=daemon)
        self._process.start()
        end.close()

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of ``function(kept, *arguments)`` in the child.

        Raises
        ------
        Told
            With the reason: an error there, the end of the process, no answer in time.
        """
        try:
            self._pipe.send((function, arguments))
            if not self._pipe.poll(self.seconds):
                self.close()
                raise Told(f"no answer within {self.seconds:.0f} s")
            failed, found = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(1.0)
            self.close()
            raise Told(f"its process ended with {self._process.exitcode}") from None
        if failed:
            raise Told(found)
        return found

    def close(self) -> None:
        """End the process; it need not agree."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Answer until the process is ended; errors of an implementation are answers in words."""
    kept: list[Any] = []
    while True:
        try:
            function, more = pipe.recv()
        except EOFError:  # the other side is gone
            return
        try:
            if not kept:
                kept.append(make(*arguments))
            pipe.send((False, function(kept[0], *more)))
        except failures() as error:
            pipe.send((True, describe(error)))


def call(seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of one function in a process of its own; raises `Told` where there is none."""
    with closing(Child(seconds, partial, function, *arguments)) as child:
        return child.ask(operator.call)


class Apart:
    """A `Subject` in a process of its own; what it records comes back with each answer."""

    def __init__(
        self, kind: type[Adapter], row: Row, device: Device, mode: str, seconds: float
    ) -> None:
        self._child = Child(seconds, _subject, kind, row, device, mode)
        self.close = self._child.close

    def first(self, entry: dict[str, Any], seconds: float) -> str | None:
        found: str | None = self._ask("first", entry, seconds)
        return found

    def check(self, entry: dict[str, Any], truth: Any) -> bool:
        return bool(self._ask("check", entry, truth))

    def plan(self, entry: dict[str, Any], seconds: float) -> bool:
        return bool(self._ask("plan", entry, seconds))

    def seconds(self) -> float:
        return float(self._child.ask(Subject.seconds))

    def _ask(self, name: str, entry: dict[str, Any], *arguments: Any) -> Any:
        found, recorded = self._child.ask(_recorded, name, entry, *arguments)
        entry.update(recorded)
        return found


def _subject(kind: type[Adapter], row: Row, device: Device, mode: str) -> Subject:
    workload = row.workload(device)
    adapter = kind(workload.start, row.precision, device=device, mode=mode)
    subject = Subject(adapter, row, workload.x, host=device is None)
    settle()
    return subject


def _recorded(
    subject: Subject, name: str, entry: dict[str, Any], *arguments: Any
) -> tuple[Any, dict[str, Any]]:
    return getattr(subject, name)(entry, *arguments), entry
