"""The studies of the benchmarks at sizes where they take a moment."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

import oracle
from benchmarks import fuzz, likelihood, page, scaling, torch_side
from benchmarks.adapters import FastGMM, PlainTorch, ScikitLearn
from benchmarks.fuzz import campaign
from benchmarks.fuzz.bounds import U64, distances, posterior, unit
from benchmarks.fuzz.campaign import Tally, run_case
from benchmarks.fuzz.cases import draw
from benchmarks.fuzz.engines import by_name
from benchmarks.fuzz.steps import em_step
from fastgmm.backends.cpu import CPUBackend

CPU = (by_name("cpu"),)


@pytest.mark.parametrize("seed", range(12))
def test_a_random_case_agrees_with_the_oracle(seed):
    tally = Tally()
    engines = (*CPU, by_name("cpu, nothing skipped"), by_name("reference"))
    assert run_case(seed, engines, tally, small=True) == []
    assert sum(tally.cases.values()) == 3


def test_a_case_is_drawn_again_from_its_seed():
    one, other = draw(7), draw(7)
    assert one.describe() == other.describe()
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.mixture.means, other.mixture.means)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("score_samples", lambda result: result * (1 + 1e-3) + 1e-3),
        ("predict", lambda result: (result + 1) % 2),
        ("responsibilities", lambda result: result * (1 + 1e-3)),
    ],
)
def test_a_wrong_result_is_a_failure(monkeypatch, name, spoil):
    plain = getattr(CPUBackend, name)

    def wrong(self, *args, **kwargs):
        return spoil(plain(self, *args, **kwargs))

    monkeypatch.setattr(CPUBackend, name, wrong)
    seed = next(s for s in range(200) if _is_plain(draw(s, small=True)))
    failures = run_case(seed, CPU, Tally(), small=True)
    assert failures
    assert {f["seed"] for f in failures} == {seed}


def _is_plain(case):
    n, k, _ = case.shape
    return k == 2 and n > 20 and not case.traits


def test_a_wrong_statistic_is_a_failure(monkeypatch):
    plain = CPUBackend.accumulate_all

    def wrong(self, *args, **kwargs):
        found = plain(self, *args, **kwargs)
        return replace(found, first=found.first * (1 + 1e-2))

    monkeypatch.setattr(CPUBackend, "accumulate_all", wrong)
    seed = next(s for s in range(200) if _is_plain(draw(s, small=True)))
    checks = {f["check"] for f in run_case(seed, CPU, Tally(), small=True)}
    assert any(check.startswith("means") for check in checks)


@pytest.mark.parametrize("structure", oracle.STRUCTURES)
def test_bounds_are_small_where_a_mixture_is_plain(structure):
    """Bounds that hold everything would find nothing."""
    rng = np.random.default_rng(0)
    mixture = oracle.random_mixture(rng, structure, 5, 6, separation=3.0)
    x = mixture.sample(rng, 400)[0]
    at = distances(mixture, x)
    for dtype, most in (("float32", 2e-3), ("float64", 1e-10)):
        post = posterior(mixture, at, unit(dtype), dtype)
        assert post.score_error.max() < most
        step = em_step(mixture, x, None, 0.0, at, post, unit(dtype), dtype)
        for value, error in (step.weights, step.means, step.covariances):
            assert (error <= 5 * most * np.abs(value).max()).all()
    exact = posterior(mixture, at, U64, "float64").score
    np.testing.assert_allclose(exact, mixture.score_samples(x), rtol=1e-14)


def test_a_short_run_has_a_summary(monkeypatch):
    # Small cases run without threads, whose kernels other tests have compiled.
    monkeypatch.setattr(campaign, "draw", lambda seed, small: draw(seed, small=True))
    result = json.loads(json.dumps(fuzz.run(0.3, seed=1, engines=("cpu",))))
    assert result["n_failures"] == 0
    assert result["cases"]["cpu"] >= 1
    assert "score_samples" in fuzz.markdown(result)
    assert set(fuzz.figures(result)) == {"fuzz"}


def test_curves_of_likelihood(monkeypatch):
    monkeypatch.setattr(likelihood, "ADAPTERS", (FastGMM, ScikitLearn))
    data = likelihood.data_sets(quick=True)[0]
    monkeypatch.setattr(likelihood, "data_sets", lambda quick: [data])
    result = likelihood.run(3.0, checkpoints=(1, 2))
    assert {table["start"] for table in result["tables"]} == {"random", "k-means"}
    for table in result["tables"]:
        ours, theirs = (table["curves"][n]["points"] for n in ("fastgmm", "scikit-learn"))
        assert len(ours) >= 1
        for a, b in zip(ours, theirs, strict=False):
            assert a["iterations"] == b["iterations"]
            assert a["likelihood"] == pytest.approx(b["likelihood"], abs=1e-6)
            assert a["likelihood"] > table["likelihood_of_start"]
    text = likelihood.markdown(json.loads(json.dumps(result)))
    assert data.name in text
    assert set(likelihood.figures(result)) == {"likelihood"}


def test_nobody_runs_alone():
    def curve(*points):
        names = ("iterations", "seconds", "likelihood")
        points = [dict(zip(names, p, strict=True)) for p in points]
        return {"points": points, "start_seconds": 0.0, "start_counted": True}

    curves = {
        "fastgmm": curve((1, 0.1, 4.0), (2, 0.2, 5.0), (5, 0.5, 9.0)),
        "scikit-learn": curve((1, 1.0, 4.0), (2, 3.0, 5.0)),
        "fastgmm reference": curve((1, 2.0, 4.0), (5, 7.0, 9.0)),
    }
    table = {"data": "d", "start": "s", "curves": curves, "absent": {}}
    assert likelihood.common(table) == 5.0
    assert likelihood.beside(curves["scikit-learn"], curves["fastgmm"]) == (2, pytest.approx(15))
    ours, theirs = likelihood.markdown({"tables": [table]}).splitlines()[4:6]
    assert "200 ms" in ours
    assert "3 s" in theirs
    assert "15.0 x in 2" in theirs


def test_another_regularisation_has_no_curve(monkeypatch):
    class Without(FastGMM):
        name = "without"

        def __init__(self, parameters, precision, reg_covar=0.0, **options):
            super().__init__(parameters, precision, reg_covar / 2, **options)

    monkeypatch.setattr(likelihood, "ADAPTERS", (FastGMM, Without, PlainTorch))
    for data in likelihood.data_sets(quick=True)[:2]:
        monkeypatch.setattr(likelihood, "data_sets", lambda quick, data=data: [data])
        result = likelihood.run(3.0, checkpoints=(1,))
        for table in result["tables"]:
            assert "fastgmm" in table["curves"]
            assert "without" not in table["curves"]
            assert "differs from the float64 oracle" in table["absent"]["without"]
            if PlainTorch.missing() is None:
                assert PlainTorch.name in table["curves"]


def test_exponents_of_scaling(monkeypatch):
    monkeypatch.setattr(scaling, "STRUCTURES", ("diag",))
    monkeypatch.setattr(scaling, "_threads", lambda budget, say: [])
    monkeypatch.setattr(scaling, "IMPLEMENTATIONS", ("fastgmm",))
    monkeypatch.setattr(scaling, "_REPEATS", 1)
    result = scaling.run(60.0, sweeps={"N": (500, 1000), "K": (1, 2)}, memory={})
    assert len(result["time"]) == 2
    assert all(len(line["points"]) == 2 for line in result["time"])
    assert "diag" in scaling.markdown(json.loads(json.dumps(result)))
    assert set(scaling.figures(result)) == {"scaling"}
    whole = {"suite": "scaling", "provenance": result["provenance"]}
    for found in (result, {**result, "absent": {"oneDAL": "not installed"}}):
        shown = page.markdown({**whole, "sections": {"scaling": found}})
        assert ("oneDAL: not installed" in shown) == bool(found["absent"])
    assert scaling.slope([1, 10, 100], [2.0, 20.0, 200.0]) == pytest.approx(1.0)


def test_who_differs_from_the_oracle_has_no_line():
    class Wrong(FastGMM):
        def fit(self, x, n_iter):
            found = super().fit(x, n_iter)
            p = found.parameters
            return replace(found, parameters=replace(p, means=p.means + 1))

    points = [scaling.Point("diag", "N", n) for n in (500, 1000)]
    line = scaling._line(Wrong, points, 5.0)
    assert line["points"] == []
    assert "differs from the float64 oracle" in line["left_out"]["all sizes"]
    assert scaling._line(FastGMM, points, 5.0)["left_out"] == {}


def test_sizes_beyond_memory_are_left_out(monkeypatch):
    monkeypatch.setattr(scaling, "LIMIT_BYTES", 1e4)
    line = scaling._line(FastGMM, [scaling.Point("diag", "N", 10_000)], 1.0)
    assert line["points"] == []
    assert "GB" in line["left_out"]["10000"]


@pytest.mark.skipif(os.name != "posix", reason="the peak is read from the system")
def test_memory_of_a_fit_in_a_process_of_its_own():
    found = scaling._fresh(scaling.Point("diag", "N", 10_000), "fastgmm")
    assert 0 <= found["beyond_mb"] < 1_000


def test_a_sample_of_another_mixture_is_told(monkeypatch):
    pytest.importorskip("torch")
    logits, means, factors = torch_side._problem((10, 4, 3))[1:]
    assert torch_side._sampled("fastgmm", logits, means, factors) < torch_side._ERRORS
    plain = torch_side._mixture
    monkeypatch.setattr(torch_side, "_mixture", lambda n, w, m, f: plain(n, w, m, 2.0 * f))
    assert torch_side._sampled("fastgmm", logits, means, factors) > torch_side._ERRORS
