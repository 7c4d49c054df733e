"""Suites of benchmarks at tiny shapes: what their reports hold, and what compare says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape

import pytest

from benchmarks import __main__ as command
from benchmarks import page, provenance, seeds, suites
from benchmarks.adapters import FastGMM, ScikitLearn
from benchmarks.compare import changes, text
from benchmarks.document import Heading, Items, Table, Text, parse, to_html, to_markdown
from benchmarks.report import behind, standing
from benchmarks.rows import ROWS
from benchmarks.suites import SUITES, Suite
from tiny_rows import Absent, Wrong, hasty_timing, positive_times, row_of  # noqa: F401


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
                      adapters=(FastGMM, ScikitLearn, Wrong, Absent))  # fmt: skip


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


def test_rows_of_a_later_run_take_their_places(result):
    names = [row["name"] for row in result["rows"]]
    about = {"date": "tomorrow", "commit": "abcdef"}
    again = {**result["rows"][1], "title": "the second"}
    new = {**result["rows"][2], "name": "new", "title": "the last"}
    whole = {**result, "not_run": ["new", "other"]}
    found = command._merged(whole, {"provenance": about, "rows": [again, new]})
    assert [row["name"] for row in found["rows"]] == [*names, "new"]
    marks = [row.get("measured") for row in found["rows"]]
    before = marks[1].pop("ratios")
    assert before == {p: entry["ratio"] for p, entry in result["rows"][1]["ratios"].items()}
    assert marks == [about if i in (1, len(names)) else None for i in range(len(names) + 1)]
    marks[1]["ratios"] = before
    assert found["not_run"] == ["other"]
    shown = unescape(page.page(found))
    assert "2 rows from a later run" in shown
    assert f"the second: tomorrow, abcdef; before {before['scikit-learn']:.2f} x" in shown


def test_rows_may_go_into_the_file_that_they_are_read_from(result, monkeypatch, tmp_path):
    file = tmp_path / "full.json"
    file.write_text(json.dumps({**result, "not_run": []}))
    again = {**result, "rows": [{**result["rows"][1], "title": "the second"}]}

    def run(name, suite, say, save):
        save(again)
        assert len(json.loads(file.read_text())["rows"]) == len(result["rows"])
        return again

    monkeypatch.setattr(command, "run", run)
    assert command.main(["full", "--into", str(file), "--json", str(file)]) == 0
    titles = [row["title"] for row in json.loads(file.read_text())["rows"]]
    assert titles == [r["title"] if i != 1 else "the second" for i, r in enumerate(result["rows"])]


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [((3, 2.1, 4), (1, 0, 0)), ((3, 1.9, 4), (0, 1, 0)), ((0.9, 0.8, 1), (0, 1, 0)),
     ((0.5, 0.4, 0.9), (0, 0, 1))],
)  # fmt: skip
def test_what_lies_within_the_spread_is_level(theirs, expected):
    def timed(median, least, most):
        return {"seconds": {"median": median, "min": least, "max": most, "repeats": 3}}

    both = {
        "fastgmm": timed(1.5, 1, 2),
        "scikit-learn": timed(*theirs),
        "np.matmul": timed(9, 9, 9),
    }
    ratios = {name: {"ratio": both[name]["seconds"]["median"] / 1.5} for name in list(both)[1:]}
    row = {"implementations": both, "ratios": ratios}
    assert standing([row, {**row, "same_as": "the first"}]) == expected


def test_packages_of_another_place_are_not_measured(monkeypatch, tmp_path, capsys):
    import fastgmm_kernels

    assert provenance.strays() is None
    monkeypatch.setattr(fastgmm_kernels, "__file__", str(tmp_path / "__init__.py"))
    assert command.main(["quick"]) == 2
    assert "fastgmm_kernels in" in capsys.readouterr().out


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
    one, other = (
        row_of(),
        replace(row_of(), name="other", title="other", group="other"),
    )
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
