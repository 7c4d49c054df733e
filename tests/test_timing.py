"""How often the benchmarks repeat what they time."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import pytest

pytest.importorskip("resource", reason="what benchmarks ask of the system")

from benchmarks import timing
from benchmarks.adapters import Reference, ScikitLearn
from benchmarks.measure import measure
from benchmarks.rows import Row
from benchmarks.timing import PerCall, PerIteration, interleave
from tiny_rows import positive_times  # noqa: F401


def test_turns_that_are_wanted_are_made_beyond_the_budget():
    found = interleave({"a": lambda: 1.0}, 0.0, wanted=lambda name, turn: turn < 5)
    assert found["a"].seconds == [1.0] * 5
    assert len(interleave({"a": lambda: 1.0}, 0.0)["a"].seconds) == 2


def test_the_repeats_of_a_row_are_for_the_peers_of_its_targets(monkeypatch):
    monkeypatch.setattr(PerIteration, "__call__", lambda self: 1.0)
    targets = {"scikit-learn": 1.0}
    row = Row("row", "row", "fit", "diag", (400, 3, 4), targets=targets, iterations=(1, 2),
              repeats=4)  # fmt: skip
    found = measure(row, 0.0, adapters=(ScikitLearn, Reference))["implementations"]
    assert [entry["seconds"]["repeats"] for entry in found.values()] == [4, 2]
    assert replace(row, shape=(100_000, 3, 4)).shrunk(20).repeats == 2


def test_noise_is_no_time(monkeypatch):
    monkeypatch.setattr(PerIteration, "__call__", lambda self: -1.0)
    row = Row("row", "row", "fit", "diag", (400, 3, 4))
    (entry,) = measure(row, 0.0, adapters=(Reference,))["implementations"].values()
    assert "seconds" not in entry
    assert "differ by less" in entry["failed"]
    # A median of two is above 0 where one of them is noise.
    both = cycle([-1.0, 1.5])
    monkeypatch.setattr(PerIteration, "__call__", lambda self: next(both))
    (entry,) = measure(row, 0.0, adapters=(Reference,))["implementations"].values()
    assert "differ by less" in entry["failed"]


@pytest.fixture
def clock(monkeypatch):
    """Calls tell what they take: [seconds so far, measurements]."""
    state = [0.0, 0]

    def once(call):
        begin = state[0]
        call()
        state[1] += 1
        return state[0] - begin

    monkeypatch.setattr(timing, "once", once)
    return state


def test_short_calls_are_repeated_and_how_often_is_remembered(clock):
    def call():
        clock[0] += 1e-4

    measured = PerCall(call, at_least=0.05)
    assert measured() == pytest.approx(1e-4)
    searched = clock[1]
    assert searched > 1
    assert clock[0] < 0.2
    assert measured() == pytest.approx(1e-4)
    assert clock[1] == searched + 1


def test_the_difference_of_two_fits_leaves_their_set_up_out(clock):
    def fit(n_iter):
        clock[0] += 3e-3 + 2e-4 * n_iter

    measured = PerIteration(fit, 2, 12)
    assert [measured(), measured()] == pytest.approx([2e-4, 2e-4])


class EndsSometime(Reference):
    """Stops by itself, now sooner, now later."""

    ends = cycle((24, 30))

    def fit(self, x, n_iter):
        return super().fit(x, min(n_iter, next(self.ends)))


def test_fits_that_end_by_themselves_are_timed_well_before():
    row = Row("row", "row", "fit", "diag", (400, 3, 4))
    (entry,) = measure(row, 0.0, adapters=(EndsSometime,))["implementations"].values()
    assert "failed" not in entry
    assert entry["iterations"][1] in (2 + 22 * 2 // 3, 2 + 28 * 2 // 3)
