"""The benchmark suite, at tiny shapes: what it refuses to time, and what its reports hold."""

from __future__ import annotations

import json
import math
import re
from contextlib import closing
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    apart,
    extras,
    guard,
    oracle,
    page,
    provenance,
    seeds,
    subject,
    suites,
    timing,
)
from benchmarks.adapters import ADAPTERS, Adapter, FastGMM, Reference, ScikitLearn, VisitingAll
from benchmarks.clock import Clock
from benchmarks.compare import changes, text
from benchmarks.document import Heading, Items, Table, Text, parse, to_html, to_markdown
from benchmarks.measure import measure
from benchmarks.report import behind, cells, notes
from benchmarks.rows import ROWS, Row
from benchmarks.suites import SUITES, Suite
from benchmarks.workloads import make

STRUCTURES = ("full", "tied", "diag", "spherical")


def _row(structure="full", task="fit", shape=(400, 3, 4), **keywords):
    return Row(f"{task}-{structure}", f"{task}, {structure}", task, structure, shape, **keywords)


@pytest.fixture(autouse=True, scope="module")
def _hasty_timing():
    """Whether times are good is not tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "SETTLE", 0.0)
        patch.setattr(timing, "AT_LEAST", 1e-4)
        patch.setattr(subject, "_ITERATIONS", 1e-3)
        patch.setattr(extras, "fma_peak", lambda precision: 1e11)
        yield


def _measure(row, *adapters, seconds=1e6):
    return measure(row, 0.01, adapters=adapters, seconds=seconds)


class _Wrong(ScikitLearn):
    name = "wrong"

    def score(self, x):
        return super().score(x) + 0.1

    def predict(self, x):
        return np.zeros(len(x), dtype=int)

    def fit(self, x, n_iter):
        fitted = super().fit(x, n_iter)
        fitted.parameters.covariances[0] *= 1.5
        return fitted


class _Absent(ScikitLearn):
    name = "absent"
    package = "a-package-that-nobody-has"


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
    found = _measure(_row(task=task), FastGMM, _Wrong)
    entries = found["implementations"]
    assert "seconds" in entries["fastgmm"]
    assert "seconds" not in entries["wrong"]
    assert "differs from the float64 oracle by" in entries["wrong"]["disagrees"]
    assert found["ratios"] == {}
    _, lines = cells([found])
    assert lines[0][2] == "wrong"
    assert any("wrong: differs" in line for line in notes([found]))


def test_what_is_absent_or_fails_says_why():
    entries = _measure(_row(), FastGMM, _Absent, _Fails, _Hasty)["implementations"]
    assert entries["absent"] == {
        "installed": False,
        "missing": "the package a-package-that-nobody-has is not installed",
    }
    assert entries["fails"]["failed"] == "out of memory: no room"
    assert entries["hasty"]["failed"] == "ran 1 of 2 iterations"
    assert [name for name, entry in entries.items() if "seconds" in entry] == ["fastgmm"]


def test_an_adapter_needs_a_score_alone():
    found = _measure(_row("spherical", "score", precision="float64"), FastGMM, _Ten)
    assert set(found["ratios"]) == {"ten"}
    assert "no fit" in _measure(_row("spherical"), _Ten)["implementations"]["ten"]["missing"]


def test_a_row_says_how_it_was_measured():
    found = _measure(_row(iterations=(1, 3)), FastGMM, ScikitLearn)
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
            row = _row(structure, task, (600, 3, 4), precision=precision)
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

    row = _row("diag", "score", (200_000, 2, 2))
    monkeypatch.setattr(guard, "harmless", lambda row, seconds: False)
    monkeypatch.setattr(guard, "MOST_BYTES", 1e9)
    entry = _measure(row, Greedy)["implementations"]["greedy"]
    assert re.match(r"would need about [\d.]+ GB \(limit 1.0 GB\)", entry["skipped"])
    assert max(calls) <= 1_000
    assert "seconds" not in entry
    slow = guard.too_much(guard.Need(seconds=10.0, bytes=0.0), calls=4, seconds=30.0)
    assert slow == "one call would need about 10 s, by two smaller ones"
    assert guard.too_much(guard.Need(5.0, 0.0), calls=4, seconds=30.0) is None


def test_nothing_is_started_after_the_time_of_a_row():
    entry = _measure(_row(), ScikitLearn, seconds=0.0)["implementations"]["scikit-learn"]
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


def _tiny(**keywords):
    rows = (
        replace(ROWS[0], shape=(300, 3, 4)),
        *(replace(row, shape=(300 * (i + 1), 3, 4)) for i, row in enumerate(seeds.GMMX_FIT[3:6])),
        replace(seeds.PYCAVE[0], shape=(300, 3, 4)),
    )
    return Suite("tiny", 1e6, rows, repeats=0.01, **keywords)


@pytest.fixture(scope="module")
def result():
    return suites.run("tiny", _tiny(small=("score-one-row",)), lambda _: None,
                      adapters=(FastGMM, ScikitLearn, _Wrong, _Absent))  # fmt: skip


def test_the_page_holds_every_row(result):
    html = page.page(result)
    shown = unescape(html)
    rows = result["rows"]
    assert len(rows) == 6
    for row in rows:
        assert row["title"] in shown
        assert row["workload"] in shown
    for group in {row["group"] for row in rows}:
        assert group in html
    assert html.count("<svg") == 4
    assert result["provenance"]["commit"] in html
    assert "a-package-that-nobody-has is not installed" in html
    assert "wrong: differs from the float64 oracle" in html
    # nothing is loaded from elsewhere, and every id is used by one figure
    assert not re.search(r'(src|href)="(?!#)', re.sub(r"<!DOCTYPE.*?>|xmlns\S*", "", html))
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_what_the_environment_chooses_for_libraries_is_told(result):
    assert provenance.overrides({"OPENBLAS_CORETYPE": "Haswell", "HOME": "/", "OMP": "1"}) == {
        "OPENBLAS_CORETYPE": "Haswell"
    }
    origin = {**result["provenance"], "environment": {"OPENBLAS_CORETYPE": "Haswell"}}
    assert "OPENBLAS_CORETYPE=Haswell" in page.page({**result, "provenance": origin})
    origin["environment"] = {}
    assert "set in the environment" not in page.page({**result, "provenance": origin})


def test_the_markdown_holds_every_row(result):
    shown = page.markdown(result)
    for row in result["rows"]:
        assert f"| {row['title']} " in shown
    assert "svg" not in shown


def test_a_slower_row_is_named(result):
    row = result["rows"][0]
    ours = row["implementations"]["fastgmm"]["seconds"]
    peer = row["ratios"]["scikit-learn"]
    assert behind([{**row, "ratios": {"scikit-learn": {**peer, "ratio": 3.0}}}]) == []
    (line,) = behind([{**row, "ratios": {"scikit-learn": {**peer, "ratio": 0.5}}}])
    assert line.endswith("2 times as long")
    assert ours["median"] > 0


def test_a_row_of_the_same_shape_is_measured_once(monkeypatch):
    seen = []
    real = suites.measure
    monkeypatch.setattr(
        suites, "measure", lambda row, *a, **k: seen.append(row) or real(row, *a, **k)
    )
    one, other = _row(), replace(_row(), name="other", title="other", group="other")
    found = suites.run("two", Suite("", 1e6, (one, other), repeats=0.01), lambda _: None,
                       adapters=(FastGMM,))  # fmt: skip
    assert len(seen) == 1
    assert [row["name"] for row in found["rows"]] == ["fit-full", "other"]


def _changed(result, factor, names=None):
    copy = json.loads(json.dumps(result))
    for row in copy["rows"]:
        for name in names or row["implementations"]:
            timing = row["implementations"][name].get("seconds", {})
            for key in timing.keys() & {"median", "min", "max"}:
                timing[key] *= factor
    return copy


def _steady(result):
    """The result with repeats that do not differ, so that the machine's mood is out of it."""
    copy = json.loads(json.dumps(result))
    for row in copy["rows"]:
        for entry in row["implementations"].values():
            if "seconds" in entry:
                entry["seconds"] |= dict.fromkeys(("min", "median", "max"), 0.1)
    return copy


def test_compare_shows_what_got_slower_and_faster(result, tmp_path, capsys):
    before = _steady(result)
    assert {line["verdict"] for line in changes(before, before)} == {"same"}
    slower = _changed(before, 2.0, ("fastgmm",))
    assert {line["verdict"] for line in changes(before, slower)} == {"slower"}
    assert {line["verdict"] for line in changes(slower, before)} == {"faster"}
    # the machine was slower, and everything with it
    both = _changed(before, 2.0)
    assert {line["verdict"] for line in changes(before, both)} == {"same"}
    little = _changed(before, 1.05, ("fastgmm",))
    assert {line["verdict"] for line in changes(before, little)} == {"same"}
    # another shape under the same name is another row
    other = _steady(result)
    other["rows"][0]["workload"] += ", longer"
    assert len(changes(before, other)) == len(result["rows"]) - 1
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, found in zip(paths, (before, slower), strict=True):
        path.write_text(json.dumps(found))
    assert command.main(["compare", *map(str, paths)]) == 1
    assert command.main(["compare", str(paths[0]), str(paths[0])]) == 0
    printed = capsys.readouterr().out
    assert "slower: " in printed
    assert result["rows"][0]["title"] in printed
    assert "2.00" in text(before, slower, changes(before, slower))


def test_the_command_writes_json_html_and_markdown(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SUITES, "quick", _tiny())
    monkeypatch.setattr(suites.run, "__defaults__", (lambda _: None, (FastGMM, ScikitLearn)))
    paths = {kind: tmp_path / f"out.{kind}" for kind in ("json", "html", "markdown")}
    arguments = [text for kind, path in paths.items() for text in (f"--{kind}", str(path))]
    assert command.main(["--rows", "score-full-f32", *arguments]) == 0
    found = json.loads(paths["json"].read_text())
    assert found["suite"] == "quick"
    assert [row["name"] for row in found["rows"]] == ["score-full-f32"]
    assert found["fma_peak"]["float32"] > 0
    assert "<svg" in paths["html"].read_text()
    assert capsys.readouterr().out.strip() == paths["markdown"].read_text().strip()
    assert command.main(["--rows", "nothing"]) == 2
    # the same report again from the file
    again = tmp_path / "again.html"
    assert command.main(["report", str(paths["json"]), "--html", str(again)]) == 0
    assert again.read_text() == paths["html"].read_text()


def test_time_that_is_over_leaves_rows_out():
    found = suites.run("none", replace(_tiny(), seconds=0.0), lambda _: None, adapters=(FastGMM,))
    assert found["rows"] == []
    assert len(found["not_run"]) == 5
    assert "Not run" in page.markdown(found) or found["not_run"]


def test_suites_name_rows_that_differ():
    for suite in SUITES.values():
        names = [row.name for row in suite.rows]
        assert len(names) == len(set(names))
    shapes = {row.shape for row in SUITES["full"].rows}
    # the seeds' own: pycave, pomegranate, Flash-GMM
    assert {(10_000, 4, 8), (100_000, 16, 32), (1_000_000, 64, 64)} <= shapes
    assert {(200_000, 8, 2), (200_000, 8, 25), (10_000, 1024, 128)} <= shapes
    assert SUITES["quick"].seconds < 180


def test_documents():
    blocks = [
        Heading("Title", 1),
        Text("A paragraph, 1 < 2."),
        Table(("a", "b"), (("1", "wrong"), ("x", "-"))),
        Items(("one", "two")),
    ]
    assert parse(to_markdown(blocks)) == blocks
    html = to_html("t", blocks)
    assert "1 &lt; 2" in html
    assert '<td class="bad">wrong</td>' in html
