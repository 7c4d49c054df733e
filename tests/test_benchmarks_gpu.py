"""The GPU benchmark, as far as it runs without a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import oracle as host_oracle  # noqa: E402
from benchmarks.adapters import FastGMM, PlainTorch  # noqa: E402
from benchmarks.gpu import __main__ as command  # noqa: E402
from benchmarks.gpu import ceilings, data, oracle, report  # noqa: E402
from benchmarks.gpu.floors import set_floors  # noqa: E402
from benchmarks.gpu.report import text, times  # noqa: E402
from benchmarks.gpu.rows import MODES, ROWS, STATED_FLOORS, shrunk  # noqa: E402
from benchmarks.measure import measure  # noqa: E402
from benchmarks.rows import Row  # noqa: E402
from benchmarks.workloads import draw_truth  # noqa: E402
from tiny_rows import hasty_timing, positive_times  # noqa: E402, F401

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
STRUCTURES = ("full", "tied", "diag", "spherical")


def _row(structure, task="fit", shape=(300, 4, 5), precision="float32"):
    return Row("row", "row", task, structure, shape, precision)


def _measure(row, *adapters, seconds=60.0):
    return measure(row, 0.01, adapters=adapters, device=CPU, seconds=seconds)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_both_oracles_agree(structure, monkeypatch):
    monkeypatch.setattr(oracle, "ROWS", 70)
    monkeypatch.setattr(oracle, "NUMBERS", 2 * 70 * 5)
    work = data.make(_row(structure, precision="float64"), CPU)
    x = work.x.numpy()
    scores = oracle.score_samples(work.x, work.start)
    np.testing.assert_allclose(scores, host_oracle.score_samples(x, work.start), rtol=1e-12)
    found = oracle.fit(work.x, work.start, 3)
    assert found.difference(host_oracle.fit(x, work.start, 3)) < 1e-12
    centres = oracle.kmeans(work.x, work.start.means, 3)
    np.testing.assert_allclose(centres, host_oracle.kmeans(x, work.start.means, 3), atol=1e-12)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_rows_are_drawn_from_the_mixture_of_the_host(structure):
    row = _row(structure, shape=(40_000, 3, 4), precision="float64")
    work = data.make(row, CPU)
    assert torch.equal(work.x, data.make(row, CPU).x)
    assert work.precision == "float64"
    # moments of the mixture that the host would draw from
    rng = np.random.default_rng(0)
    weights, means, factors = draw_truth(structure, 3, 4, "overlapping", rng)
    within = [np.diag(f**2) if f.ndim == 1 else f.T @ f for f in factors]
    second = sum(
        w * (within[j % len(within)] + np.outer(m, m))
        for j, (w, m) in enumerate(zip(weights, means, strict=True))
    )
    x = work.x.numpy()
    np.testing.assert_allclose(x.mean(axis=0), weights @ means, atol=0.05)
    np.testing.assert_allclose(x.T @ x / len(x), second, atol=0.15)


def test_a_row_has_times_and_errors():
    row = _row("diag", "score", precision="float64")
    found = _measure(row, FastGMM, PlainTorch)
    assert set(found["implementations"]) == {"fastgmm", "plain PyTorch"}
    for entry in found["implementations"].values():
        assert entry["seconds"]["repeats"] >= 2
        assert entry["seconds"]["median"] > 0
        assert entry["rms_nats"] < 1e-12


def test_kmeans_that_ends_early_has_no_time():
    found = _measure(_row("spherical", "kmeans"), FastGMM)
    for entry in found["implementations"].values():
        assert entry["max_difference"] < 1e-5
        assert "no label changed" in entry["failed"]
        assert "seconds" not in entry


class _Wrong(PlainTorch):
    name = "wrong"
    modes = ("highest",)

    def fit(self, x, n_iter):
        fitted = super().fit(x, n_iter)
        fitted.parameters.means[0, 0] += 0.1
        return fitted


class _Greedy(PlainTorch):
    name = "greedy"
    modes = ("highest",)

    def fit(self, x, n_iter):
        raise torch.OutOfMemoryError("tried to allocate too much\nand more")


class _Hasty(PlainTorch):
    name = "hasty"
    modes = ("highest",)

    def fit(self, x, n_iter):
        return super().fit(x, 1)


class _Fails(PlainTorch):
    name = "fails later"
    modes = ("highest",)
    calls = 0

    def fit(self, x, n_iter):
        self.calls += 1
        if self.calls > 5:
            raise RuntimeError("tired")
        return super().fit(x, n_iter)


def test_what_is_wrong_or_fails_has_no_time_and_stops_nothing():
    kinds = (_Wrong, _Greedy, _Hasty, _Fails, PlainTorch)
    found = _measure(_row("full"), *kinds)
    entries = found["implementations"]
    assert entries["wrong"]["disagrees"].startswith("differs from the float64 oracle by 1.0e-01")
    assert entries["greedy"]["failed"] == "out of memory: tried to allocate too much"
    assert entries["hasty"]["failed"] == "ran 1 of 2 iterations"
    assert entries["fails later"]["failed"] == "RuntimeError: tired"
    assert {name for name, entry in entries.items() if "seconds" in entry} == {
        "plain PyTorch, highest",
        "plain PyTorch, medium",
    }
    table = times([found])
    assert "wrong" in table
    assert "failed" in table


def test_nothing_is_started_after_the_time_of_a_row():
    found = _measure(_row("full"), PlainTorch, seconds=0.0)
    for entry in found["implementations"].values():
        assert entry["skipped"] == "the time of the row was over"


def _measured(row, mode, median):
    entry = {"mode": mode, "own": True, "seconds": {"median": median}}
    return {
        "name": row.name,
        "task": row.task,
        "structure": row.structure,
        "shape": list(row.shape),
        "precision": row.precision,
        "targets": row.targets,
        "implementations": {"fastgmm": entry},
    }, entry


def test_floors_are_counted_work_over_rates():
    rates = {"float32": 10e12, "3xtf32": 40e12, "tf32": 120e12, "float64": 5e12, "copy": 1e12}
    rows = {row.name: row for row in ROWS}
    published = ceilings.published("NVIDIA H200")
    measured, entry = _measured(rows["score-spherical"], "highest", 10e-3)
    set_floors([measured], rates, published)
    n, k, d = rows["score-spherical"].shape
    assert entry["floor_seconds"] == pytest.approx(2 * n * k * d / 40e12)
    assert entry["fraction"] == pytest.approx(entry["floor_seconds"] / 10e-3)
    assert entry["published_floor_seconds"] == pytest.approx(2 * n * k * d / 120e12)
    assert entry["reached"] is False
    # no matrix unit for diagonal covariances; few components cost no more than reading the rows
    measured, entry = _measured(rows["em-diag"], "medium", 1.0)
    set_floors([measured], rates, None)
    n, k, d = rows["em-diag"].shape
    assert entry["floor_seconds"] == pytest.approx(8 * n * k * d / 10e12)
    assert "published_floor_seconds" not in entry
    measured, entry = _measured(_row("spherical", "score", (1000, 1, 8)), "medium", 1.0)
    set_floors([measured], rates, None)
    assert entry["floor_seconds"] == pytest.approx(1000 * 8 * 4 / 1e12)


def test_targets_are_judged_by_stated_floors():
    row = next(row for row in ROWS if row.name == "em-full")
    floor = STATED_FLOORS["em-full"]["highest"]
    published = ceilings.published("NVIDIA H200 NVL")
    for factor, reached in ((1.9, True), (2.1, False)):
        measured, entry = _measured(row, "highest", factor * floor)
        set_floors([measured], published, published)
        assert entry["reached"] is reached
    assert ceilings.published("Some other device") is None


def test_rows():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    by_name = {row.name: row for row in ROWS}
    for name, floors in STATED_FLOORS.items():
        assert set(floors) <= set(MODES[by_name[name].precision])
    assert shrunk(by_name["em-full"], tiny=False).shape == (50_000, 64, 64)
    assert max(shrunk(by_name["em-full-large"], tiny=True).shape) <= 300


def test_ceilings_of_a_host():
    rates = ceilings.measure(CPU, quick=True)
    assert set(rates) == {"float32", "float64", "copy"}
    assert min(rates.values()) > 0
    assert torch.get_float32_matmul_precision() == "highest"


def test_ceilings_that_fail_are_told(monkeypatch):
    def fails(*arguments, quick):
        raise RuntimeError("no products here")

    monkeypatch.setattr(ceilings, "measure", fails)
    result = {"rates": {}, "published_rates": None}
    command._ceilings(result, CPU, quick=True)
    assert "no products here" in report.ceilings(result)
    measured, entry = _measured(ROWS[0], "highest", 1e-3)
    set_floors([measured], result["rates"], ceilings.published("NVIDIA H200"))
    assert "fraction" not in entry
    assert entry["published_fraction"] > 0
    assert ROWS[0].title in report.floors([measured | {"title": ROWS[0].title}])


def _run(tmp_path, *arguments):
    path = tmp_path / "result.json"
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--quick", "--budget", "0.01",
         "--json", str(path), *arguments],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout, json.loads(path.read_text())


@pytest.mark.slow
def test_the_command_on_the_cpu(tmp_path):
    printed, result = _run(tmp_path, "--device", "cpu", "--rows", "em-full-f64", "score-tied")
    assert [row["name"] for row in result["rows"]] == ["em-full-f64", "score-tied"]
    for row in result["rows"]:
        entries = row["implementations"]
        own = [entry for entry in entries.values() if entry.get("own")]
        assert len(own) == len(MODES[row["precision"]])
        for entry in own:
            assert entry["seconds"]["repeats"] >= 2
            assert entry["fraction"] > 0
            assert entry.get("rms_nats", 0.0) < 1e-5
            assert "rms_nats" in entry or entry["max_difference"] < 1e-12
        peer = entries["scikit-learn"]
        # Of two small fits on a busy machine the difference may be noise.
        assert "seconds" in peer or "spread" in peer["failed"]
    assert result["provenance"]["device"]["type"] == "cpu"
    assert result["provenance"]["versions"]["torch"] == torch.__version__
    assert result["tests"] == {"summary": "not run"}
    assert printed.strip() == text(result).strip()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_command_in_the_interpreter(tmp_path):
    _, result = _run(tmp_path, "--device", "interpreter", "--rows", "score-spherical")
    (row,) = result["rows"]
    entry = row["implementations"]["fastgmm, highest"]
    assert entry["rms_nats"] < 1e-5
    assert entry["seconds"]["repeats"] >= 2


def test_unknown_rows_are_named():
    from benchmarks.gpu.__main__ import main

    assert main(["--rows", "nothing"]) == 2
