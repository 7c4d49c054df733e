"""How often the benchmarks repeat what they time."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("resource", reason="what benchmarks ask of the system")

from benchmarks.adapters import Reference, ScikitLearn
from benchmarks.measure import measure
from benchmarks.rows import Row
from benchmarks.timing import interleave


def test_turns_that_are_wanted_are_made_beyond_the_budget():
    found = interleave({"a": lambda: 1.0}, 0.0, wanted=lambda name, turn: turn < 5)
    assert found["a"].seconds == [1.0] * 5
    assert len(interleave({"a": lambda: 1.0}, 0.0)["a"].seconds) == 2


def test_the_repeats_of_a_row_are_for_the_peers_of_its_targets():
    targets = {"scikit-learn": 1.0}
    row = Row("row", "row", "fit", "diag", (400, 3, 4), targets=targets, iterations=(1, 2),
              repeats=4)  # fmt: skip
    found = measure(row, 0.0, adapters=(ScikitLearn, Reference))["implementations"]
    assert [entry["seconds"]["repeats"] for entry in found.values()] == [4, 2]
    assert replace(row, shape=(100_000, 3, 4)).shrunk(20).repeats == 2
