"""Implementations in processes of their own: the same figures, and an end to those that hang."""

from __future__ import annotations

import multiprocessing
import os
import time
from contextlib import closing

import pytest

pytest.importorskip("resource", reason="what benchmarks ask of the system")

from benchmarks import apart, oracle
from benchmarks.adapters import Adapter, Fitted
from benchmarks.clock import Told
from benchmarks.measure import measure
from benchmarks.rows import Row

_ROW = Row("row", "row", "fit", "full", (400, 3, 4), iterations=(1, 3))


class _Here(Adapter):
    """The oracle with a little error, which is the same only for the same rows."""

    name = "here"
    package = "numpy"
    tasks = frozenset({"fit"})
    structures = frozenset({"full"})

    def fit(self, x, n_iter):
        time.sleep(0.01 * n_iter)  # more than noise
        p = oracle.fit(x, self.parameters, n_iter)
        return Fitted(type(p)(p.structure, p.weights, p.means + 1e-3 * x[0], p.covariances), n_iter)


class _Apart(_Here):
    name = "apart"
    own_process = True


class _Ends(_Apart):
    name = "ends"

    def fit(self, x, n_iter):
        os._exit(3)


class _Hangs(_Apart):
    """It agrees with the oracle, and hangs in its first timing."""

    name = "hangs"
    calls = 0

    def fit(self, x, n_iter):
        self.calls += 1
        if self.calls > 3:
            time.sleep(1e6)
        return super().fit(x, n_iter)


def test_a_process_of_its_own_measures_the_same():
    found = measure(_ROW, 0.01, adapters=(_Ends, _Here, _Apart))["implementations"]
    here, there = found["here"], found["apart"]
    assert there["max_difference"] == here["max_difference"] > 0
    assert there.keys() == here.keys()
    assert there["iterations"] == [1, 3]
    assert there["seconds"]["repeats"] >= 2
    assert found["ends"]["failed"] == "its process ended with 3"
    assert multiprocessing.active_children() == []


def test_what_gives_no_answer_says_so_and_the_row_goes_on(monkeypatch):
    monkeypatch.setattr(apart, "MOST", 3.0)
    found = measure(_ROW, 0.01, adapters=(_Hangs, _Here))["implementations"]
    assert found["hangs"]["failed"] == "no answer within 3 s"
    assert "seconds" not in found["hangs"]
    assert found["here"]["seconds"]["repeats"] >= 2
    assert multiprocessing.active_children() == []


def test_a_child_keeps_what_it_made_and_tells_of_errors():
    with closing(apart.Child(60.0, dict)) as child:
        child.ask(dict.update, {"a": 1})
        assert child.ask(len) == 1
        with pytest.raises(Told, match="KeyError: 'b'"):
            child.ask(dict.__delitem__, "b")
        assert child.ask(dict.copy) == {"a": 1}
    assert apart.call(60.0, os.getpid) != os.getpid()
