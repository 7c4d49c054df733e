"""One implementation with the rows of a workload: what is called, checked and timed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from . import guard
from .adapters import Adapter
from .adapters.base import to_host
from .clock import Ended
from .rows import Row
from .timing import PerCall, PerIteration

#: Largest error for which a time is printed, by precision: root mean square of log-likelihoods in
#: nats, share of the rows with another label, difference of a parameter or a centre in units of the
#: data (whose scale is 1). It tells whether the same thing was computed; how well it was computed
#: is in the report. float32 sums over a million rows cost scikit-learn 1e-2.
TOLERANCE = {
    "highest": {"score": 5e-3, "predict": 1e-3, "fit": 5e-2, "kmeans": 5e-2},
    "high": {"score": 5e-2, "predict": 5e-3, "fit": 5e-2, "kmeans": 5e-2},
    "medium": {"score": 5e-1, "predict": 5e-2, "fit": 2e-1, "kmeans": 2e-1},
    "float64": {"score": 1e-9, "predict": 1e-6, "fit": 1e-9, "kmeans": 1e-9},
}
#: lengths of fits where a row states none; the longer one grows to what the time allows
SHORT, LONGEST = 2, 102
#: seconds of iterations that the difference of two fits shall hold
_ITERATIONS = 0.25
#: seconds of an iteration from which few are enough
_LONG_ITERATION = 0.5
#: rows x components x squared features of an iteration that is much for the oracle
_HEAVY = 1e11


def checked_length(row: Row) -> int:
    """Iterations of the fit that is compared with the oracle.

    The longest where lengths are stated, the shortest where each takes the oracle half a minute.
    """
    if row.iterations is None:
        return SHORT
    n, k, d = row.shape
    heavy = row.structure == "full" and n * k * d * d > _HEAVY
    return row.iterations[0 if heavy else 1]


def limit(row: Row, mode: str = "highest") -> float:
    """The largest error for which a time is printed."""
    return TOLERANCE[mode if row.precision == "float32" else row.precision][row.task]


def errors(row: Row, result: Any, truth: Any) -> dict[str, float]:
    """Differences from the oracle by name; the first is what the limit is for."""
    if row.task == "fit":
        return {"max_difference": float(result.difference(truth))}
    difference = np.abs(to_host(result) - to_host(truth))
    if row.task == "predict":
        return {"other_labels": float(np.mean(difference > 0))}
    largest = {"max_difference": float(difference.max())}
    if row.task == "kmeans":
        return largest
    return {"rms_nats": float(np.sqrt(np.mean(difference**2))), **largest}


def complaint(row: Row, error: float, mode: str = "highest") -> str | None:
    """Why no time may be shown for a result with this error, or None when it may."""
    return disagreement(error, limit(row, mode))


def disagreement(error: float, most: float) -> str | None:
    """The words for an error above a limit, NaN included; None for one that is within it."""
    if error <= most:
        return None
    return f"differs from the float64 oracle by {error:.1e} (limit {most:.0e})"


class Subject:
    """One implementation with the rows of a workload."""

    def __init__(self, adapter: Adapter, row: Row, x: Any, *, host: bool) -> None:
        self.adapter, self.row, self.host = adapter, row, host
        self.x = adapter.rows(x)
        self._checked = checked_length(row)
        self._one_pass = row.task in ("score", "predict")

    def call(self, n_iter: int, x: Any = None) -> Any:
        """The whole task, its results complete: scores, labels, parameters or centres."""
        x = self.x if x is None else x
        if self._one_pass:
            found = self.adapter.score(x) if self.row.task == "score" else self.adapter.predict(x)
            if not self.host:
                from .gpu.device import synchronise

                synchronise(self.adapter.device)
            return found
        if self.row.task == "kmeans":
            return self.adapter.kmeans(x, n_iter)
        fitted = self.adapter.fit(x, n_iter)
        if fitted.n_iter != n_iter:
            raise Ended(fitted.n_iter, n_iter)
        return fitted.parameters

    def first(self, entry: dict[str, Any], seconds: float) -> str | None:
        """Record the first call; why the call at full size is not made, if so."""
        begin = time.perf_counter()
        # On a device what compiles by the number of rows compiles once, and has its own limits.
        whole = not self.host and self.adapter.compiles_shapes
        x = self.x if whole else self.x[: guard.few(self.row)]
        # few rows are overfitted, and covariances singular, after many iterations
        length = min(self._checked, SHORT)
        self.call(length, x)
        entry["first_call_seconds"] = time.perf_counter() - begin
        if whole or guard.harmless(self.row, seconds):
            return None
        if not self.host:
            part = guard.part(self.row)
            begin = time.perf_counter()
            self.call(length, self.x[:part])
            need = guard.Need((time.perf_counter() - begin) * self.row.shape[0] / part, 0.0)
            return guard.too_much(need, 3.0, seconds)
        need = guard.predict(self.row, lambda n: self.call(length, self.x[:n]))
        # the check, which may compile first, then two turns of a call, or of a short and a long fit
        checks = self._checked / length * (2 if self.adapter.compiles_shapes else 1)
        return guard.too_much(need, 3.0 if self._one_pass else checks + 2, seconds)

    def check(self, entry: dict[str, Any], truth: Any) -> bool:
        """Record memory and error of a call at full size; whether a time may be shown."""
        if self.host:
            self._compile(self._checked)
        result = self._observed(entry)
        if self.adapter.yardstick:
            return True
        found = errors(self.row, result, truth)
        entry.update(found)
        wrong = complaint(self.row, next(iter(found.values())), self.adapter.mode)
        if wrong is not None:
            entry["disagrees"] = wrong
        return wrong is None

    def plan(self, entry: dict[str, Any], seconds: float) -> bool:
        """Choose the lengths of fits; whether there is time to repeat them."""
        if (3 if self._one_pass else 5) * self._warm > seconds:
            entry["slow"] = (
                f"one call took {self._warm:.2g} s, too long to repeat it in the row's time"
            )
            return False
        if self._one_pass:
            self._measured = PerCall(lambda: self.call(0))
            return True
        if self.row.iterations is not None:
            short, long = self.row.iterations
            self._compile(long)
        else:
            middle = SHORT + 2
            self._compile(middle)
            begin = time.perf_counter()
            self.call(middle)
            each = max((time.perf_counter() - begin - self._warm) / 2, 1e-4)
            # What a fit does besides its iterations varies by as much as one of them may take.
            least = 4 if each < _LONG_ITERATION else 1
            count = min(max(round(_ITERATIONS / each), least), LONGEST - SHORT)
            short, long = SHORT, self._possible(SHORT + count)
        self._compile(short)
        entry["iterations"] = [short, long]
        self._measured = PerIteration(self.call, short, long)
        return True

    def seconds(self) -> float:
        """Of one pass, or of one iteration."""
        return self._measured()

    def _possible(self, n_iter: int) -> int:
        """So many iterations, or fewer where it stops before: some do where nothing changes."""
        try:
            self.call(n_iter)
        except Ended as ended:
            if ended.n_iter <= SHORT:
                raise
            # Threads that add in no order of their own stop now sooner, now later.
            return SHORT + max(2 * (ended.n_iter - SHORT) // 3, 1)
        return n_iter

    def _compile(self, n_iter: int) -> None:
        if self.adapter.compiles_shapes:
            self.call(n_iter)

    def _observed(self, entry: dict[str, Any]) -> Any:
        """The result of a warm call; record its memory and keep its time."""
        if self.host:
            result, need = guard.observe(lambda: self.call(self._checked))
            self._warm, entry["peak_memory_bytes"] = need.seconds, int(need.bytes)
            return result
        from .gpu.device import peak_memory

        found: list[Any] = []
        begin = time.perf_counter()
        memory = peak_memory(self.adapter.device, lambda: found.append(self.call(self._checked)))
        self._warm = time.perf_counter() - begin
        if self.adapter.memory_counted:
            entry["peak_memory_bytes"] = memory
        return found[0]
