"""Rows of the table, measured in a process that is replaced when its device is lost."""

from __future__ import annotations

from typing import Any

from ..apart import Child
from ..clock import Clock, Told, describe, failures
from ..console import say
from ..rows import Row

#: seconds beyond the time of a row for what is not in it: imports, rows, the oracle
_GRACE = 45.0


class Bench:
    """The process that measures.

    Parameters
    ----------
    device : {"cuda", "interpreter", "cpu"}
    budget : float
        Seconds of timing of each implementation in each row.
    """

    def __init__(self, device: str, budget: float) -> None:
        import torch

        from ..adapters import FastGMM
        from ..small import quiet_convergence

        quiet_convergence()
        cuda = device == "cuda"
        FastGMM.host_backend = "cpu" if cuda else device
        self._device = torch.device("cuda", 0) if cuda else torch.device("cpu")
        self._budget = budget

    def measure(self, row: Row, seconds: float, known: dict[str, Any]) -> dict[str, Any]:
        """The row; ``broken`` names an implementation after which the device was lost, if any."""
        from ..adapters import ADAPTERS
        from ..measure import Broken, measure
        from .device import free

        kinds = tuple(kind for kind in ADAPTERS if kind.on_devices)
        try:
            found = measure(
                row, self._budget, say, kinds, device=self._device, seconds=seconds, known=known
            )
        except Broken as broken:
            return {"broken": broken.name, "entry": broken.entry}
        except failures() as error:
            found = not_measured(row, describe(error), known)
        try:
            free(self._device)
        except failures() as error:
            found["lost_after"] = describe(error)
        return found


class Table:
    """Gives rows as `measure` does, whatever becomes of the device or of a process."""

    def __init__(self, device: str, budget: float) -> None:
        self._arguments = device, budget
        self._child: Child | None = None

    def row(self, row: Row, seconds: float) -> dict[str, Any]:
        """The row; without an implementation that broke the device it is measured again."""
        clock = Clock(seconds)
        known: dict[str, Any] = {}
        while clock.left() > 0:
            try:
                found = self._ask(row, clock.left(), known)
            except Told as told:
                self.close()
                return not_measured(row, str(told), known)
            if "broken" not in found:
                if "lost_after" in found:
                    self.close()
                return found
            self.close()
            known[found["broken"]] = found["entry"]
        return not_measured(row, "the time of the row was over after a fault", known)

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def _ask(self, row: Row, seconds: float, known: dict[str, Any]) -> dict[str, Any]:
        if self._child is None:
            # gmmx has a process of its own within
            self._child = Child(_GRACE, Bench, *self._arguments, daemon=False)
        self._child.seconds = seconds + _GRACE
        found: dict[str, Any] = self._child.ask(Bench.measure, row, seconds, known)
        return found


def not_measured(row: Row, reason: str, known: dict[str, Any]) -> dict[str, Any]:
    """What there is of a row that was not measured."""
    from ..measure import about

    return {
        **about(row),
        "workload": f"not measured: {reason}",
        "overlap": None,
        "implementations": known,
        "ratios": {},
        "failed": reason,
    }
