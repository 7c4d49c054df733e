"""Fault cases 18-27: values and their scale."""

from __future__ import annotations

import numpy as np
import pytest
from catching import messages, warns

import fastgmm
import helpers
import oracle
from fastgmm.backends import choose
from fastgmm.errors import DegenerateDataWarning, InputError, PrecisionWarning

READERS = ("predict", "predict_proba", "score_samples", "score", "component_log_prob")


def rows(n=300, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("n", [300, 4000])
def test_case_18_nan_is_located(batch_size, order, n, dtype):
    # More than 10,000 numbers are looked at by a kernel.
    x = np.array(rows(n), dtype=dtype, order=order)
    x[157, 2] = x[280, 0] = np.nan
    model = fastgmm.GaussianMixture(2, random_state=0, batch_size=batch_size)
    with pytest.raises(ValueError, match=r"(?s)NaN.*\brow 157\b.*\b(column|feature) 2\b") as caught:
        model.fit(x)
    counted = f"2 not finite among {n} rows" if batch_size is None else "1 not finite among 16 rows"
    assert counted in str(caught.value)
    model.fit(rows().astype(dtype))
    for name in READERS:
        with pytest.raises(ValueError, match=r"(?s)NaN.*\b157\b"):
            getattr(model, name)(x)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("n", [300, 4000])
def test_case_19_infinity_is_located(value, n, dtype):
    x = rows(n).astype(dtype)
    model = fastgmm.GaussianMixture(2, random_state=0).fit(x)
    x[-1, 1] = value
    for name in ("fit", *READERS):
        with pytest.raises(ValueError, match=rf"(?s)inf.*\brow {n - 1}\b.*\b(column|feature) 1\b"):
            getattr(model, name)(x)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 4001])
def test_what_is_finite_is_not_refused(n, dtype):
    x = np.full((n, 3), np.finfo(dtype).max / 1e6, dtype)
    backend = choose("cpu")[0]
    assert backend.all_finite(x)
    for place in (0, 3 * n // 2, 3 * n - 1):
        for value in (np.nan, np.inf, -np.inf):
            bad = x.copy()
            bad.flat[place] = value
            assert not backend.all_finite(bad)


def test_case_26_far_rows_between_components_are_shared(dtype):
    """At 1e9 standard deviations a log-probability cannot hold log 2 any more."""
    ends = [[0.0, 1.0], [0.0, -1.0]]
    model = fastgmm.GaussianMixture.from_parameters(
        [0.5, 0.5], ends, covariances=[1.0, 1.0], covariance_type="spherical"
    )
    far = np.array([[1e9 if dtype == np.float64 else 1e5, 0.0]] * 40, dtype)
    helpers.assert_close(model.predict_log_proba(far), np.full((40, 2), -np.log(2.0)), 1e-6)


@pytest.mark.parametrize(("offset", "rtol"), [(1e6, 1e-8), (1e8, 1e-6)])
def test_case_20_offset_in_double(structure, place, offset, rtol):
    x = rows() + offset
    near = x - offset
    truth = oracle.m_step(near, np.ones((len(x), 1)), structure, reg_covar=1e-6)
    model = helpers.make(1, place, covariance_type=structure).fit(x)
    helpers.assert_close(model.covariances_, truth.covariances, rtol)
    start = oracle.start_from_labels(near, near[:, 0] > 0, structure)
    several = helpers.fit(x, start.mapped(1.0, offset), place, max_iter=5, reg_covar=1e-6)
    expected = oracle.em(near, start, max_iter=5, reg_covar=1e-6).mixture
    helpers.assert_close(several.covariances_, expected.covariances, rtol)
    helpers.assert_close(several.weights_, expected.weights, rtol)


def test_case_20_offset_in_single(structure, place):
    x = (rows() + 1e4).astype(np.float32)
    near = x.astype(np.float64) - 1e4
    truth = oracle.m_step(near, np.ones((len(x), 1)), structure, reg_covar=1e-6)
    model = helpers.make(1, place, covariance_type=structure).fit(x)
    helpers.assert_close(model.covariances_, truth.covariances, 1e-3)


@pytest.mark.parametrize("structure", ["full", "diag"])
def test_case_21_spacing_too_coarse_warns(structure):
    x = (rows() + 1e8).astype(np.float32)
    model = fastgmm.GaussianMixture(1, covariance_type=structure)
    with warns(PrecisionWarning, r"(?s)spacing.*float64") as found:
        model.fit(x)
    assert len(messages(found, PrecisionWarning)) == 1
    assert np.isfinite(model.means_).all()


def test_case_21_fine_enough_does_not_warn():
    # The suite turns warnings into errors: spacing 0.06 against a spread of 1 is silent.
    fastgmm.GaussianMixture(1).fit((rows() + 1e6).astype(np.float32))


@pytest.mark.parametrize(("scale", "kind"), [(1e155, np.float64), (1e20, np.float32)])
def test_case_22_squares_overflow(structure, scale, kind):
    x = rows()
    x[:, 1] *= scale
    with pytest.raises(InputError, match=r"(?is)feature 1\b.*scale"):
        fastgmm.GaussianMixture(2, covariance_type=structure).fit(x.astype(kind))


def test_case_23_tiny_magnitudes(structure, dtype):
    x = (rows() * 1e-8).astype(dtype)
    with warns(DegenerateDataWarning, "reg_covar"):
        model = fastgmm.GaussianMixture(1, covariance_type=structure).fit(x)
    diagonal = np.einsum("kii->ki", helpers.learnt(model).dense())
    np.testing.assert_allclose(diagonal, 1e-6, rtol=1e-3)


def test_case_24_mixed_scales_name_the_column():
    x = rows() * [1e6, 1.0, 1e-6]
    with warns(DegenerateDataWarning, r"(?s)(\b2\b.*reg_covar|reg_covar.*\b2\b)"):
        fastgmm.GaussianMixture(1, covariance_type="diag").fit(x)


def test_case_24_mixed_scales_name_the_columns_name():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows() * [1e6, 1.0, 1e-6], columns=["metres", "unit", "microns"])
    with warns(DegenerateDataWarning, r"reg_covar.*features \[2 \('microns'\)\]") as found:
        fastgmm.GaussianMixture(1).fit(frame)
    assert not any("metres" in text for text in messages(found))


@pytest.mark.parametrize(("tiny", "kind"), [(1e-310, np.float64), (1e-40, np.float32)])
def test_case_25_subnormals(structure, place, tiny, kind):
    x = (rows() * [1.0, tiny, tiny]).astype(kind)
    with warns(DegenerateDataWarning, "reg_covar"):
        model = helpers.make(2, place, covariance_type=structure, random_state=0).fit(x)
    assert np.isfinite(model.score_samples(x)).all()
    assert np.isfinite(model.covariances_).all()


def test_case_25_zero_weight_is_minus_infinity(structure, place, dtype):
    mixture = oracle.random_mixture(np.random.default_rng(0), structure, 3, 2)
    x = mixture.sample(np.random.default_rng(1), 40)[0].astype(dtype)
    weights = np.array([0.0, 0.25, 0.75])
    with_dead = oracle.Mixture(structure, weights, mixture.means, mixture.covariances)
    model = helpers.fitted(with_dead, place)
    resp = model.predict_proba(x)
    np.testing.assert_array_equal(resp[:, 0], 0.0)
    np.testing.assert_allclose(resp.sum(1), 1.0, rtol=1e-6)
    helpers.assert_close(
        model.score_samples(x),
        with_dead.score_samples(x),
        helpers.tolerance(dtype, 1e-12, 1e-5),
    )
    assert (model.predict(x) != 0).all()
    assert np.isneginf(model.predict_log_proba(x)[:, 0]).all()


@pytest.mark.parametrize("far", [1e8, 1e18, 1e160])
def test_case_26_far_points(structure, place, dtype, far):
    if far > float(np.finfo(dtype).max):
        pytest.skip("not a number of this precision")
    mixture = oracle.random_mixture(np.random.default_rng(0), structure, 3, 2)
    directions = np.array([[1.0, 0.0], [0.0, -1.0], [1.0, 1.0], [-1.0, 0.5]])
    x = (far * directions).astype(dtype)
    model = helpers.fitted(mixture, place)
    resp = model.predict_proba(x)
    assert np.isfinite(resp).all()
    np.testing.assert_allclose(resp.sum(1), 1.0, rtol=1e-6)
    score = model.score_samples(x)
    assert not np.isnan(score).any()
    assert (score < -1e10).all()
    labels = model.predict(x)
    assert ((labels >= 0) & (labels < 3)).all()
    np.testing.assert_array_equal(labels, resp.argmax(1))
    if not oracle.is_tied(structure) and far == 1e8:
        np.testing.assert_array_equal(labels, mixture.predict(x.astype(np.float64)))
    log_resp = model.predict_log_proba(x)
    assert not np.isnan(log_resp).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("which", ["weights", "means", "covariances"])
def test_case_27_parameters_that_are_not_finite(structure, which, bad):
    mixture = oracle.random_mixture(np.random.default_rng(0), structure, 3, 2)
    arrays = {
        "weights": mixture.weights.copy(),
        "means": mixture.means.copy(),
        "covariances": np.array(mixture.covariances),
    }
    arrays[which][(1,) + (0,) * (arrays[which].ndim - 1) if arrays[which].ndim else ()] = bad
    with pytest.raises(ValueError, match=which.removesuffix("s")) as caught:
        fastgmm.GaussianMixture.from_parameters(**arrays, covariance_type=structure)
    if which != "covariances" or not oracle.is_tied(structure):
        assert "1" in str(caught.value)


@pytest.mark.parametrize("name", ["weights_init", "means_init", "precisions_init"])
def test_case_27_starts_that_are_not_finite(name):
    mixture = oracle.random_mixture(np.random.default_rng(0), "diag", 3, 2)
    start = {
        "weights_init": mixture.weights.copy(),
        "means_init": mixture.means.copy(),
        "precisions_init": mixture.precisions().copy(),
    }
    start[name][1] = np.nan
    with pytest.raises(ValueError, match=name.removesuffix("_init").removesuffix("s")):
        fastgmm.GaussianMixture(3, covariance_type="diag", **start).fit(rows(d=2))


@pytest.mark.filterwarnings("ignore::fastgmm.errors.DegenerateDataWarning")
@pytest.mark.parametrize("k", [2, 9], ids=["pairs", "lists"])
def test_case_26_far_rows_count_in_a_fit(structure, device, dtype, k):
    # Their log-probabilities are so large that a rounding of them is an exponent of many nats.
    rng = np.random.default_rng(0)
    start = oracle.random_mixture(rng, structure, k, 3)
    x = start.sample(rng, 60)[0]
    far = 1e7 if dtype == np.float32 else 1e13
    x[::3] = far * rng.uniform(0.1, 1.0, size=(20, 1)) * rng.standard_normal((20, 3))
    x = x.astype(dtype)
    settings = {"max_iter": 1, "reg_covar": 1e-3 * float(np.abs(x).max()) ** 2}
    model = helpers.fit(x, start, device, **settings)
    expected = oracle.em(x, start, **settings).mixture
    got = helpers.learnt(model)
    # Where components share a covariance rounding may decide what a row belongs to; it counts once.
    helpers.assert_close(got.weights @ got.means, x.astype(np.float64).mean(axis=0), 1e-5)
    if not oracle.is_tied(structure):
        np.testing.assert_allclose(got.weights, expected.weights, atol=1e-4)
        helpers.assert_same_mixture(got, expected, 1e-4)


@pytest.mark.parametrize("deviation", [1e-25, 1e-21, 1e-18, 1e17, 1e21])
@pytest.mark.parametrize("structure", ["spherical", "tied_spherical"])
def test_variances_whose_inverses_are_no_float32(structure, deviation, device):
    rng = np.random.default_rng(0)
    means = deviation * np.array([[0.0, 0.0, 0.0], [3.0, 1.0, -2.0]])
    x = (means[rng.integers(2, size=50)] + deviation * rng.standard_normal((50, 3))).astype("f4")
    shape = (2,) if structure == "spherical" else ()
    weights, variances = np.array([0.3, 0.7]), np.full(shape, deviation**2)
    model = fastgmm.GaussianMixture.from_parameters(
        weights, means, variances, covariance_type=structure, device=device
    )
    truth = oracle.Mixture(structure, weights, means, variances)
    np.testing.assert_allclose(model.score_samples(x), truth.score_samples(x), rtol=1e-5)
    np.testing.assert_array_equal(model.predict(x), truth.responsibilities(x).argmax(axis=1))
