"""``fastgmm.functional``: the passes as plain functions on arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import helpers
import oracle
from conftest import CUDA
from fastgmm import functional
from fastgmm.errors import InputError
from fastgmm.sources import arrays, batches


def case(structure, dtype, n=150):
    rng = np.random.default_rng(2)
    mixture = oracle.random_mixture(rng, structure, 4, 3, separation=1.5)
    x = mixture.sample(rng, n)[0].astype(dtype)
    return rng, mixture, x, (mixture.means, mixture.precisions_cholesky(), structure)


def test_log_prob(structure, dtype):
    _, mixture, x, (means, factor, name) = case(structure, dtype)
    got = functional.log_prob(x, means, factor, name)
    assert got.shape == (150, 4)
    rtol = helpers.tolerance(dtype, 1e-12, 1e-5)
    helpers.assert_close(got, mixture.component_log_prob(x), rtol)


def test_readers(structure, dtype):
    _, mixture, x, (means, factor, name) = case(structure, dtype)
    rest = (mixture.weights, means, factor, name)
    rtol = helpers.tolerance(dtype, 1e-12, 1e-5)
    helpers.assert_close(functional.score_samples(x, *rest), mixture.score_samples(x), rtol)
    resp = functional.responsibilities(x, *rest)
    helpers.assert_close(resp, mixture.responsibilities(x), 10 * rtol)
    np.testing.assert_array_equal(functional.predict(x, *rest), resp.argmax(axis=1))


def test_sufficient_statistics_are_additive(structure, dtype):
    rng, mixture, x, (means, factor, name) = case(structure, dtype)
    weight = rng.uniform(size=len(x))
    rest = (mixture.weights, means, factor, name)
    whole = functional.sufficient_statistics(x, *rest, weight)
    parts = [
        functional.sufficient_statistics(x[part], *rest, weight[part])
        for part in (slice(0, 40), slice(40, 41), slice(41, None))
    ]
    nothing = functional.sufficient_statistics(x[:0], *rest)
    assert nothing.n_rows == 0
    # Far rows, whose log-likelihood overflows, count as little as others.
    unweighted = functional.sufficient_statistics(1e30 * x, *rest, 0 * weight)
    total = nothing + parts[0] + parts[1] + parts[2] + replace(unweighted, n_rows=0)
    for part in (nothing, unweighted):
        for field in ("counts", "first", "second", "log_likelihood", "weight"):
            assert not np.any(getattr(part, field)), field
    rtol = helpers.tolerance(dtype, 1e-12, 1e-6)
    for field in ("counts", "first", "second", "log_likelihood", "weight"):
        helpers.assert_close(getattr(total, field), getattr(whole, field), rtol, field)
    assert total.n_rows == whole.n_rows == 150
    resp = mixture.responsibilities(x) * weight[:, None]
    rtol = helpers.tolerance(dtype, 1e-11, 2e-5)
    helpers.assert_close(whole.counts, resp.sum(axis=0), rtol)
    expected = float(weight @ mixture.score_samples(x))
    assert float(whole.log_likelihood) == pytest.approx(expected, rel=rtol)
    assert float(whole.weight) == pytest.approx(weight.sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": np.zeros((5, 2))}, r"\(N, 3\).*\(5, 2\)"),
        ({"x": np.zeros(3)}, r"\(N, 3\).*\(3,\)"),
        ({"weights": np.ones(3) / 3}, "weights"),
        ({"covariance_type": "quux"}, "full"),
    ],
)
def test_bad_arguments_are_named(change, match):
    _, mixture, x, (means, factor, name) = case("full", np.float64)
    arguments = {
        "x": x,
        "weights": mixture.weights,
        "means": means,
        "precisions_cholesky": factor,
        "covariance_type": name,
        **change,
    }
    with pytest.raises(ValueError, match=match):
        functional.score_samples(**arguments)


@pytest.mark.parametrize("name", ["score_samples", "predict", "responsibilities"])
def test_rows_that_are_not_finite_are_refused(name):
    means = np.array([[100.0, 100.0], [0.0, 0.0]])
    x = np.r_[[[0.0, 0.0]], np.full((15, 2), 100.0), [[np.nan, 0.0]]]
    mixture = [0.5, 0.5], means, np.stack([np.eye(2)] * 2), "full"
    with pytest.raises(InputError, match=r"NaN: first at row 16, column 0"):
        getattr(functional, name)(x, *mixture)
    with pytest.raises(InputError, match=r"NaN: first at row 16, column 0"):
        functional.sufficient_statistics(x, *mixture)
    assert np.isfinite(getattr(functional, name)(x[:16], *mixture)).all()


def test_statistics_of_a_mapped_file(monkeypatch, tmp_path):
    monkeypatch.setattr(arrays, "MAPPED_BYTES", 0)
    monkeypatch.setattr(batches, "DEFAULT_BYTES", 1000)
    x = np.random.default_rng(0).standard_normal((300, 2))
    np.save(tmp_path / "x.npy", x)
    mixture = np.full(2, 0.5), np.eye(2), np.ones((2, 2)), "diag"
    weight = np.random.default_rng(1).uniform(size=300)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for given in (None, weight):
        found = functional.sufficient_statistics(mapped, *mixture, given)
        whole = functional.sufficient_statistics(x, *mixture, given)
        helpers.assert_close(found.second, whole.second, 1e-12)
        assert found.n_rows == 300
        assert found.weight == pytest.approx(whole.weight)


def tensors(torch, x_dtype=None):
    """Rows (5, 2) and the mixture of three components, with numbers that all dtypes have."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"x": (5, 2), "weights": (3,), "means": (3, 2), "precisions_cholesky": (3, 2)}
    given = {
        name: torch.randint(1, 5, size, generator=generator).double()
        for name, size in sizes.items()
    }
    given["weights"] /= given["weights"].sum()
    return given | {"x": given["x"].to(x_dtype or torch.float64)}


@pytest.mark.parametrize("batched", ["x", "weights", "means", "precisions_cholesky"])
def test_batches_need_no_gradients(batched):
    torch = pytest.importorskip("torch")
    given = tensors(torch)
    parts = [given[batched], given[batched].flip(0)]
    found, *expected = (
        functional.score_samples(**given | {batched: value}, covariance_type="diag")
        for value in (torch.stack(parts), *parts)
    )
    torch.testing.assert_close(found, torch.stack(expected))
    with pytest.raises(InputError, match="batches of mixtures"):
        functional.score_samples(
            **given | {batched: torch.stack(parts)}, covariance_type="diag", device="cpu"
        )


@pytest.mark.parametrize("dtype", ["int64", "float16", "bfloat16", "float32", "float64"])
def test_gradients_change_no_dtype(dtype):
    torch = pytest.importorskip("torch")
    given = tensors(torch, getattr(torch, dtype))
    differentiable = given | {"means": given["means"].clone().requires_grad_()}
    for name in ("score_samples", "responsibilities", "log_prob"):
        known = {k: v for k, v in given.items() if (k, name) != ("weights", "log_prob")}
        expected, found = (
            getattr(functional, name)(**{k: values[k] for k in known}, covariance_type="diag")
            for values in (given, differentiable)
        )
        assert found.requires_grad
        torch.testing.assert_close(found.detach(), expected)


def test_statistics_lie_where_the_rows_do():
    pytest.importorskip("torch")
    pytest.importorskip("triton")
    _, mixture, x, (means, factor, name) = case("diag", np.float64, n=20)
    given = mixture.weights, means, factor, name
    expected = functional.sufficient_statistics(x, *given)
    for rows in (x, x[:0]):
        found = functional.sufficient_statistics(
            rows, *given, device="cuda" if CUDA else "interpreter"
        )
        assert isinstance(found.log_likelihood, float)
        assert isinstance(found.weight, float)
        for field in ("counts", "first", "second", "about"):
            assert isinstance(getattr(found, field), np.ndarray), field
        assert (found + expected).n_rows == len(rows) + 20
