"""Random shapes, scales, offsets and weights against the oracle."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import helpers
import oracle

CASES = {
    "structure": st.sampled_from(oracle.STRUCTURES),
    "device": st.sampled_from(["reference", "cpu"]),
    "dtype": st.sampled_from([np.float32, np.float64]),
    "k": st.integers(1, 6),
    "d": st.integers(1, 9),
    "n": st.integers(1, 90),
    "exponent": st.integers(-6, 6),
    "separation": st.floats(0.0, 8.0),
    "seed": st.integers(0, 2**32 - 1),
}


def build(structure, dtype, k, d, n, exponent, separation, seed):
    rng = np.random.default_rng(seed)
    mixture = oracle.random_mixture(
        rng, structure, k, d, separation=separation, scale=10.0**exponent
    )
    return rng, mixture, mixture.sample(rng, n)[0].astype(dtype)


@given(**CASES)
def test_scoring(structure, device, dtype, k, d, n, exponent, separation, seed):
    _, mixture, x = build(structure, dtype, k, d, n, exponent, separation, seed)
    model = helpers.fitted(mixture, device)
    eps = np.finfo(dtype).eps
    expected = mixture.score_samples(x)
    slack = 100 * eps * (np.abs(mixture.component_log_prob(x)).max(axis=1) + d)
    assert (np.abs(model.score_samples(x) - expected) <= slack).all()
    resp = model.predict_proba(x)
    np.testing.assert_allclose(resp, mixture.responsibilities(x), atol=4 * slack.max())
    assert (resp[np.arange(n), model.predict(x)] >= resp.max(axis=1) - 4 * slack).all()
    assert np.isclose(model.score(x), expected.mean(), rtol=0, atol=slack.max())


@given(**CASES)
def test_one_weighted_step(structure, device, dtype, k, d, n, exponent, separation, seed):
    n += 2 * k + 2 * d
    rng, mixture, x = build(structure, dtype, k, d, n, exponent, separation, seed)
    weight = rng.gamma(1.0, size=n) * 10.0 ** rng.integers(-5, 5)
    weight[rng.uniform(size=n) < 0.1] = 0.0
    reg_covar = 10.0 ** (2 * exponent - 2)
    # Responsibilities that are smooth: no component lives on fewer rows than it needs.
    flat = oracle.Mixture(structure, mixture.weights, mixture.means, mixture.covariances * 20)
    model = helpers.fit(x, flat, device, sample_weight=weight, max_iter=1, reg_covar=reg_covar)
    expected = oracle.em(x, flat, max_iter=1, sample_weight=weight, reg_covar=reg_covar)
    # The smallest component has the fewest digits.
    least = expected.mixture.weights.min()
    rtol = helpers.tolerance(dtype, 1e-10, 2e-5) / min(1.0, 10 * least)
    helpers.assert_same_mixture(helpers.learnt(model), expected.mixture, rtol)
    helpers.assert_close(
        model.lower_bound_, expected.lower_bounds[0], helpers.tolerance(dtype, 1e-11, 1e-5)
    )


@given(
    structure=CASES["structure"],
    dtype=CASES["dtype"],
    seed=CASES["seed"],
    batch_size=st.integers(1, 120),
    n=st.integers(10, 100),
)
def test_any_batch_size(structure, dtype, seed, batch_size, n):
    _, mixture, x = build(structure, dtype, 2, 3, n, 0, 2.0, seed)
    whole = helpers.fit(x, mixture, "cpu", max_iter=2, reg_covar=1e-2)
    chunked = helpers.fit(x, mixture, "cpu", max_iter=2, reg_covar=1e-2, batch_size=batch_size)
    rtol = helpers.tolerance(dtype, 1e-11, 5e-6)
    helpers.assert_same_mixture(helpers.learnt(chunked), helpers.learnt(whole), rtol)


@given(structure=CASES["structure"], seed=CASES["seed"], k=CASES["k"], d=CASES["d"])
def test_model_passes_through_scikit_learn(structure, seed, k, d):
    _, mixture, x = build(structure, np.float64, k, d, 20, 0, 3.0, seed)
    model = helpers.fitted(mixture, "cpu")
    assert model.n_parameters() == oracle.n_parameters(structure, k, d)
    back = type(model).from_sklearn(model.to_sklearn())
    helpers.assert_close(back.score_samples(x), model.score_samples(x), 1e-9)
