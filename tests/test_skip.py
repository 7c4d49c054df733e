"""What is skipped changes nothing beyond rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import helpers
import oracle
from fastgmm import covariance
from fastgmm.backends import sizes
from fastgmm.backends.cpu import CPUBackend
from fastgmm.model import MixtureModel


def _model(mixture):
    return MixtureModel.from_covariances(
        mixture.weights, mixture.means, mixture.covariances, covariance.get(mixture.structure)
    )


def _passes(backend, model, x, weight, n_passes):
    """Statistics of the last of several passes, the later ones over rows in order; 0 for none."""
    prepared = backend.prepare(model, x.dtype)
    order = backend.new_order() if n_passes else None
    for _ in range(max(n_passes, 1)):
        statistics = backend.accumulate(prepared, x, weight, None, order)
    return statistics, order


def _agree(model, x, weight, got, expected):
    eps = np.finfo(x.dtype).eps
    n_features = x.shape[1]
    shares = np.asarray(model.weights) / np.sum(model.weights)
    # What may be left out of a component, and the rounding of what it has.
    mass = len(x) * shares + expected.counts
    slack = 40 * eps * mass * n_features
    assert (np.abs(got.counts - expected.counts) <= slack).all()
    spread = np.sqrt(np.abs(x - model.means[:, None]).max(axis=(0, 1)) ** 2 + 1e-30)
    assert (np.abs(got.first - expected.first) <= slack[:, None] * spread).all()
    if got.second.size:
        square = spread**2 if got.second.ndim == 2 else np.multiply.outer(spread, spread)
        limit = slack.reshape((-1,) + (1,) * square.ndim) * square
        assert (np.abs(got.second - expected.second) <= limit).all()
    distance = np.abs(expected.log_likelihood) + len(x)
    assert abs(got.log_likelihood - expected.log_likelihood) <= 40 * eps * distance


@pytest.fixture(autouse=True)
def _order_small_problems(monkeypatch):
    monkeypatch.setattr(sizes, "ORDER_WORK", 0)
    monkeypatch.setattr(sizes, "ORDER_ROWS", 1)


@given(
    structure=st.sampled_from(oracle.STRUCTURES),
    dtype=st.sampled_from([np.float32, np.float64]),
    k=st.sampled_from([1, 2, 3, 7, 40]),
    d=st.sampled_from([1, 2, 5, 9, 17]),
    n=st.integers(50, 900),
    separation=st.sampled_from([0.0, 1.0, 3.0, 6.0, 12.0, 40.0]),
    weighted=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_skipping_changes_nothing(structure, dtype, k, d, n, separation, weighted, seed):
    rng = np.random.default_rng(seed)
    mixture = oracle.random_mixture(rng, structure, k, d, separation=separation)
    x = mixture.sample(rng, n)[0].astype(dtype)
    x[rng.integers(n)] *= 30  # a row far from everything
    weight = None
    if weighted:
        weight = rng.gamma(0.3, size=n) + 1e-6
        weight /= weight.mean()
    model = _model(mixture)
    everything, _ = _passes(CPUBackend(skip=False), model, x, weight, 0)
    for n_passes in (0, 1, 2):
        skipping, _ = _passes(CPUBackend(), model, x, weight, n_passes)
        _agree(model, x, weight, skipping, everything)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_a_dying_component_keeps_its_statistics(dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 3)).astype(dtype)
    weights = np.array([1 - 1e-6, 1e-6])
    mixture = oracle.Mixture(
        "full", weights, np.array([[0.0] * 3, [3.0] * 3]), np.stack([np.eye(3)] * 2)
    )
    model = _model(mixture)
    skipping, _ = _passes(CPUBackend(), model, x, None, 2)
    resp = mixture.responsibilities(x.astype(np.float64))
    rtol = helpers.tolerance(dtype, 1e-12, 2e-5)
    np.testing.assert_allclose(skipping.counts, resp.sum(axis=0), rtol=rtol)
    assert skipping.counts[1] > 0


@pytest.mark.parametrize("separation", [0.5, 40.0])
def test_rows_are_ordered_only_where_that_pays(separation):
    rng = np.random.default_rng(0)
    mixture = oracle.random_mixture(rng, "full", 40, 6, separation=separation)
    x = mixture.sample(rng, 8000)[0]
    _, order = _passes(CPUBackend(), _model(mixture), x, None, 2)
    assert (len(order.index) > 0) == (separation > 10)
    if len(order.index):
        np.testing.assert_array_equal(np.sort(order.index), np.arange(len(x)))
        expected = mixture.responsibilities(x).argmax(axis=1)
        np.testing.assert_array_equal(order.labels, expected)


def test_a_fit_with_and_without_an_order(monkeypatch):
    rng = np.random.default_rng(0)
    mixture = oracle.random_mixture(rng, "full", 30, 5, separation=15.0)
    x = mixture.sample(rng, 5000)[0]
    with_order = helpers.fit(x, mixture, "cpu", max_iter=6, reg_covar=1e-3)
    monkeypatch.setattr(sizes, "ORDER_WORK", np.inf)
    without = helpers.fit(x, mixture, "cpu", max_iter=6, reg_covar=1e-3)
    helpers.assert_same_mixture(helpers.learnt(with_order), helpers.learnt(without), 1e-10)
    np.testing.assert_allclose(with_order.lower_bounds_, without.lower_bounds_, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("separation", [0.0, 2.0, 20.0])
@pytest.mark.parametrize("d", [1, 3, 17])
def test_kmeans_finds_the_same_labels_from_a_guess(monkeypatch, dtype, separation, d):
    rng = np.random.default_rng(0)
    mixture = oracle.random_mixture(rng, "spherical", 33, d, separation=separation)
    x = mixture.sample(rng, 2001)[0].astype(dtype)
    centroids = mixture.means + 0.1
    backend = CPUBackend()
    plain = backend.kmeans_step(x, None, centroids)
    monkeypatch.setattr(sizes, "GUESS_COMPONENTS", 1)
    for guess in (plain.labels, rng.integers(33, size=len(x)).astype(np.int32)):
        before = guess.copy()
        again = backend.kmeans_step(x, None, centroids, guess)
        np.testing.assert_array_equal(guess, before)
        np.testing.assert_array_equal(again.labels, plain.labels)
        np.testing.assert_array_equal(again.sums, plain.sums)
        assert again.inertia == plain.inertia
