"""What the benchmarks refuse to time, at tiny shapes."""

from __future__ import annotations

import json
import math
import re
import time
from contextlib import closing

import numpy as np
import pytest

from benchmarks import apart, guard, oracle, subject
from benchmarks.adapters import ADAPTERS, Adapter, FastGMM, Reference, ScikitLearn, VisitingAll
from benchmarks.clock import Clock
from benchmarks.measure import measure
from benchmarks.report import cells, notes
from benchmarks.workloads import make
from tiny_rows import Absent, Wrong, hasty_timing, positive_times, row_of  # noqa: F401

STRUCTURES = ("full", "tied", "diag", "spherical")


def _measure(row, *adapters, seconds=1e6):
    return measure(row, 0.01, adapters=adapters, seconds=seconds)


class _Fails(ScikitLearn):
    name = "fails"

    def fit(self, x, n_iter):
        raise MemoryError("no room\nfor more")


class _Hasty(ScikitLearn):
    name = "hasty"

    def fit(self, x, n_iter):
        return super().fit(x, 1)


class _Ten(Adapter):
    """The example of the README: an implementation in ten lines."""

    name = "ten"
    package = "numpy"
    tasks = frozenset({"score"})
    structures = frozenset({"spherical"})

    def prepare(self):
        self.p = self.parameters

    def score(self, x):
        return oracle.score_samples(x, self.p)


@pytest.mark.parametrize("task", ["score", "predict", "fit"])
def test_wrong_results_have_no_time(task):
    found = _measure(row_of(task=task), FastGMM, Wrong)
    entries = found["implementations"]
    assert "seconds" in entries["fastgmm"]
    assert "seconds" not in entries["wrong"]
    assert "differs from the float64 oracle by" in entries["wrong"]["disagrees"]
    assert found["ratios"] == {}
    _, lines = cells([found])
    assert lines[0][2] == "wrong"
    assert any("wrong: differs" in line for line in notes([found]))


def test_what_is_absent_or_fails_says_why():
    entries = _measure(row_of(), FastGMM, Absent, _Fails, _Hasty)["implementations"]
    assert entries["absent"] == {
        "installed": False,
        "missing": "the package a-package-that-nobody-has is not installed",
    }
    assert entries["fails"]["failed"] == "out of memory: no room"
    assert entries["hasty"]["failed"] == "ran 1 of 2 iterations"
    assert [name for name, entry in entries.items() if "seconds" in entry] == ["fastgmm"]


def test_an_adapter_needs_a_score_alone():
    found = _measure(row_of("spherical", "score", precision="float64"), FastGMM, _Ten)
    assert set(found["ratios"]) == {"ten"}
    assert "no fit" in _measure(row_of("spherical"), _Ten)["implementations"]["ten"]["missing"]


def test_a_row_says_how_it_was_measured():
    found = _measure(row_of(iterations=(1, 3)), FastGMM, ScikitLearn)
    for entry in found["implementations"].values():
        assert entry["iterations"] == [1, 3]
        assert entry["seconds"]["repeats"] >= 2
        assert entry["seconds"]["min"] <= entry["seconds"]["median"] <= entry["seconds"]["max"]
        assert entry["first_call_seconds"] > 0
        assert entry["peak_memory_bytes"] >= 0
        assert entry["max_difference"] < 1e-3
        assert entry["passes"] == 1
    ours, theirs = (found["implementations"][name] for name in ("fastgmm", "scikit-learn"))
    ratio = theirs["seconds"]["median"] / ours["seconds"]["median"]
    assert found["ratios"]["scikit-learn"]["ratio"] == ratio
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("structure", STRUCTURES)
def test_adapters_of_fastgmm_and_sklearn_agree(structure):
    work = make(structure, 500, 3, 4, "float64")
    ours, reference, theirs = (
        kind(work.start, "float64") for kind in (FastGMM, Reference, ScikitLearn)
    )
    np.testing.assert_allclose(ours.score(work.x), theirs.score(work.x), rtol=1e-12)
    np.testing.assert_array_equal(ours.predict(work.x), theirs.predict(work.x))
    expected = theirs.em_pass(work.x)
    assert ours.em_pass(work.x).difference(expected) < 1e-9
    assert reference.em_pass(work.x).difference(expected) < 1e-9
    assert VisitingAll(work.start, "float64").em_pass(work.x).difference(expected) < 1e-9
    assert np.abs(ours.kmeans(work.x, 2) - theirs.kmeans(work.x, 2)).max() < 1e-12


@pytest.mark.parametrize("kind", ADAPTERS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("task", ["score", "predict", "fit", "kmeans"])
def test_every_adapter_that_is_installed_agrees_with_the_oracle(kind, task):
    ran = []
    for structure in STRUCTURES:
        for precision in ("float32", "float64"):
            if kind.yardstick or kind.cannot(task, structure, precision):
                continue
            row = row_of(structure, task, (600, 3, 4), precision=precision)
            work = row.workload()
            truth = {
                "score": oracle.score_samples,
                "predict": oracle.predict,
                "fit": lambda x, p: oracle.fit(x, p, 2),
                "kmeans": lambda x, p: oracle.kmeans(x, p.means, 2),
            }[task](work.x, work.start)
            entry = {}
            if kind.own_process:
                with closing(apart.Apart(kind, row, None, "highest", 60.0)) as tried:
                    assert tried.check(entry, truth), entry
            else:
                tried = subject.Subject(kind(work.start, precision), row, work.x, host=True)
                assert tried.check(entry, truth), entry
            ran.append(structure)
    if not ran:
        pytest.skip("not installed, or not offered")


def test_what_would_be_too_much_is_not_run(monkeypatch):
    calls = []

    class Greedy(ScikitLearn):
        name = "greedy"

        def score(self, x):
            calls.append(len(x))
            self.kept = np.ones(len(x) * 4_000)
            return super().score(x)

    row = row_of("diag", "score", (200_000, 2, 2))
    monkeypatch.setattr(guard, "harmless", lambda row, seconds: False)
    monkeypatch.setattr(guard, "MOST_BYTES", 1e9)
    entry = _measure(row, Greedy)["implementations"]["greedy"]
    assert re.match(r"would need about [\d.]+ GB \(limit 1.0 GB\)", entry["skipped"])
    assert max(calls) <= 1_000
    assert "seconds" not in entry
    slow = guard.too_much(guard.Need(seconds=10.0, bytes=0.0), calls=4, seconds=30.0)
    assert slow == "one call would need about 10 s, by smaller ones"
    assert guard.too_much(guard.Need(5.0, 0.0), calls=4, seconds=30.0) is None


def test_what_grows_faster_than_its_rows_is_tried_on_more():
    row, calls = row_of("diag", "score", (200_000, 2, 2)), []

    def call(n):
        calls.append(n)
        time.sleep(0.0 if n < 10_000 else 0.05)

    need = guard.predict(row, call)
    assert max(calls) == 12_500
    assert need.seconds >= 16 * 0.05


def test_nothing_is_started_after_the_time_of_a_row():
    entry = _measure(row_of(), ScikitLearn, seconds=0.0)["implementations"]["scikit-learn"]
    assert entry["skipped"] == "the time of the row was over"
    assert Clock(10.0).share(4).left() == pytest.approx(5.0, abs=0.1)
    assert Clock().left() == math.inf


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_oracle_is_the_mixture_of_scipy(structure):
    from scipy.stats import multivariate_normal

    work = make(structure, 50, 3, 2, "float64")
    p = work.start
    whole = {"full": lambda j: p.covariances[j], "tied": lambda j: p.covariances,
             "diag": lambda j: np.diag(p.covariances[j]),
             "spherical": lambda j: p.covariances[j] * np.eye(2)}[structure]  # fmt: skip
    density = sum(
        w * multivariate_normal(m, whole(j)).pdf(work.x)
        for j, (w, m) in enumerate(zip(p.weights, p.means, strict=True))
    )
    np.testing.assert_allclose(oracle.score_samples(work.x, p), np.log(density), rtol=1e-12)
    resp = oracle.responsibilities(work.x, p)
    np.testing.assert_array_equal(oracle.predict(work.x, p), resp.argmax(axis=1))
