"""Scoring against the oracle at awkward sizes, and in every memory layout."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

import helpers
import oracle

ROWS = (1, 2, 63, 65, 255, 257, 511, 513)
# (K, D): every K and every D appears, the large ones not with each other.
SHAPES = (
    (1, 1),
    (2, 1),
    (130, 1),
    (7, 2),
    (1, 3),
    (2, 3),
    (7, 5),
    (130, 5),
    (7, 17),
    (1, 33),
    (2, 33),
    (2, 65),
    (7, 65),
)


def assert_scores_match(model, mixture, x, dtype):
    """Per-row comparison with an absolute floor of the precision's own rounding."""
    eps = np.finfo(dtype).eps
    expected = mixture.component_log_prob(x)
    log_joint = expected + np.log(mixture.weights)
    truth = special.logsumexp(log_joint, axis=1)
    # A sum of D squares of size up to |log p| is rounded about sqrt(D) times.
    size = np.abs(expected).max(axis=1, keepdims=True) + x.shape[1]
    components = model.component_log_prob(x)
    assert components.dtype == np.dtype(dtype)
    assert (np.abs(components - expected) <= 40 * eps * size).all()
    score = model.score_samples(x)
    assert score.shape == (len(x),)
    near = 40 * eps * (np.abs(truth) + x.shape[1] + 10)
    assert (np.abs(score - truth) <= near).all()
    resp = model.predict_proba(x)
    np.testing.assert_allclose(resp, np.exp(log_joint - truth[:, None]), atol=4 * near.max())
    likely = resp > 0.1
    np.testing.assert_allclose(
        model.predict_log_proba(x)[likely], np.log(resp[likely]), atol=40 * eps
    )
    labels = model.predict(x)
    assert labels.dtype == np.int64
    # Where two components tie to within rounding either label is right.
    lost = log_joint.max(axis=1) - log_joint[np.arange(len(x)), labels]
    assert (lost <= near).all()


@pytest.mark.parametrize(("k", "d"), SHAPES, ids=[f"K{k}-D{d}" for k, d in SHAPES])
def test_scores(structure, device, dtype, k, d):
    rng = np.random.default_rng([k, d])
    mixture = oracle.random_mixture(rng, structure, k, d, separation=2.0)
    x = mixture.sample(rng, max(ROWS))[0].astype(dtype)
    model = helpers.fitted(mixture, device)
    assert_scores_match(model, mixture, x, dtype)
    whole = model.score_samples(x)
    for n in ROWS if device == "cpu" else (1,):
        part = model.score_samples(x[:n])
        np.testing.assert_allclose(part, whole[:n], rtol=10 * np.finfo(dtype).eps)
        assert (model.predict(x[:n]) == model.predict(x)[:n]).all()


# Two rows cannot fill two covariances: that is warned of.
@pytest.mark.filterwarnings("ignore::fastgmm.errors.DegenerateDataWarning")
@pytest.mark.parametrize("n", [*ROWS[1:], 1025])
def test_fit_at_odd_row_counts(structure, dtype, n):
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, 2)).astype(dtype)
    start = oracle.Mixture(
        structure,
        np.array([0.4, 0.6]),
        np.array([[-0.5, 0.0], [0.5, 0.2]]),
        np.ones(oracle.covariance_shape(structure, 2, 2))
        if structure not in ("full", "tied")
        else np.broadcast_to(np.eye(2), oracle.covariance_shape(structure, 2, 2)),
    )
    model = helpers.fit(x, start, "cpu", max_iter=1, reg_covar=1e-3)
    expected = oracle.em(x, start, max_iter=1, reg_covar=1e-3)
    helpers.assert_same_mixture(
        helpers.learnt(model), expected.mixture, helpers.tolerance(dtype, 1e-12, 5e-6)
    )


@pytest.mark.parametrize(("k", "d"), [(1, 1), (7, 17), (130, 3), (2, 65)])
def test_fit_at_odd_shapes(structure, dtype, k, d):
    rng = np.random.default_rng([k, d, 7])
    mixture = oracle.random_mixture(rng, structure, k, d, separation=0.5)
    x = mixture.sample(rng, 600)[0].astype(dtype)
    model = helpers.fit(x, mixture, "cpu", max_iter=1, reg_covar=1e-2)
    expected = oracle.em(x, mixture, max_iter=1, reg_covar=1e-2)
    helpers.assert_same_mixture(
        helpers.learnt(model), expected.mixture, helpers.tolerance(dtype, 1e-11, 2e-5)
    )
    helpers.assert_close(
        model.lower_bound_, expected.lower_bounds[0], helpers.tolerance(dtype, 1e-12, 2e-6)
    )


def test_layouts_do_not_matter(structure, dtype, layout):
    x, start, _ = helpers.problem(structure, dtype, n=333)
    other = layout(x)
    np.testing.assert_array_equal(other, x)
    plain, same = helpers.fit(x, start, "cpu"), helpers.fit(other, start, "cpu")
    helpers.assert_same_bits(plain, same)
    for method in ("score_samples", "predict", "predict_proba", "component_log_prob"):
        np.testing.assert_array_equal(getattr(same, method)(other), getattr(plain, method)(x))
