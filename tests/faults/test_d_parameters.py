"""Fault cases 38-45: parameters and control of a fit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from catching import warns
from sklearn.exceptions import ConvergenceWarning

import fastgmm
import helpers
import oracle
from fastgmm.errors import DegenerateDataWarning, NotFiniteError, SingularCovarianceError


def rows(n=200, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ([0.5, 0.6], r"should be normalized.*1\.1"),
        ([1.5, -0.5], r"should be in the range \[0, 1\]"),
        ([0.5, 0.25, 0.25], r"should have the shape of \(2,\).*\(3,\)"),
    ],
)
def test_case_38_weights_init(weights, match):
    with pytest.raises(ValueError, match=match):
        fastgmm.GaussianMixture(2, weights_init=weights).fit(rows())
    with pytest.raises(ValueError, match="weights"):
        fastgmm.GaussianMixture.from_parameters(weights, np.zeros((2, 1)), np.ones((2, 1, 1)))


def test_case_38_means_init():
    with pytest.raises(ValueError, match=r"'means' should have the shape of \(2, 3\).*\(2, 4\)"):
        fastgmm.GaussianMixture(2, means_init=np.zeros((2, 4))).fit(rows())


@pytest.mark.parametrize("kind", ["asymmetric", "indefinite"])
@pytest.mark.parametrize("structure", ["full", "tied"])
def test_case_38_precision_matrices(structure, kind):
    bad = np.eye(3)
    bad[0, 1] = 5.0
    if kind == "indefinite":
        bad[1, 0] = 5.0
    precisions = bad if structure == "tied" else np.stack([np.eye(3), bad])
    with pytest.raises(ValueError, match="should be symmetric, positive-definite") as caught:
        fastgmm.GaussianMixture(2, covariance_type=structure, precisions_init=precisions).fit(
            rows()
        )
    if structure == "full":
        assert "component 1" in str(caught.value)


@pytest.mark.parametrize("structure", ["diag", "spherical", "tied_diag", "tied_spherical"])
def test_case_38_precision_values(structure):
    shape = oracle.covariance_shape(structure, 2, 3)
    bad = np.ones(shape)
    bad[np.unravel_index(bad.size - 1, shape) if shape else ()] = -1.0
    with pytest.raises(ValueError, match=f"'{structure} precision' should be positive"):
        fastgmm.GaussianMixture(2, covariance_type=structure, precisions_init=bad).fit(rows())


def test_case_38_precisions_shape(structure):
    bad = np.ones((4, 4, 4))
    with pytest.raises(ValueError, match=f"'{structure} precision' should have the shape of"):
        fastgmm.GaussianMixture(2, covariance_type=structure, precisions_init=bad).fit(rows())


def test_case_39_no_iterations(structure, device):
    x, start, _ = helpers.problem(structure, np.float64)
    # No ConvergenceWarning: nobody asked it to converge.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = helpers.estimator(start, device, max_iter=0).fit(x)
    assert model.n_iter_ == 0
    assert not model.converged_
    helpers.assert_same_mixture(helpers.learnt(model), start, 1e-10)
    assert model.lower_bound_ == pytest.approx(start.score_samples(x).mean(), rel=1e-10)


def test_case_39_one_iteration():
    x, start, _ = helpers.problem("full", np.float64)
    model = helpers.fit(x, start, "cpu", max_iter=1)
    assert model.n_iter_ == 1
    assert len(model.lower_bounds_) == 1


def test_case_40_zero_tolerance_uses_every_iteration(structure):
    x, start, _ = helpers.problem(structure, np.float64)
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        model = helpers.estimator(start, "cpu", tol=0.0, max_iter=30).fit(x)
    assert model.n_iter_ == 30
    assert not model.converged_


@pytest.mark.parametrize("tol", [-1e-3, np.nan])
def test_case_40_bad_tolerances(tol):
    with pytest.raises(ValueError, match="tol"):
        fastgmm.GaussianMixture(2, tol=tol).fit(rows())


def test_case_40_converging_on_the_last_iteration_counts():
    x, start, _ = helpers.problem("diag", np.float64)
    model = helpers.fit(x, start, "cpu", tol=1e-3, max_iter=200)
    assert 2 < model.n_iter_ < 200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = helpers.estimator(start, "cpu", tol=1e-3, max_iter=model.n_iter_).fit(x)
    assert again.converged_
    assert again.n_iter_ == model.n_iter_
    shorter = helpers.fit(x, start, "cpu", tol=1e-3, max_iter=model.n_iter_ - 1)
    assert not shorter.converged_


def test_case_41_the_best_start_is_kept():
    x, _, _ = helpers.problem("full", np.float64, k=4, separation=3.0)
    last = {}
    model = fastgmm.GaussianMixture(
        4, n_init=6, init_params="random_from_data", random_state=1, max_iter=8, tol=1e-9
    )
    model.fit(x, callback=lambda s: last.update({s.init: (s.lower_bound, s.iteration)}))
    assert len(last) == 6
    bounds = [bound for bound, _ in last.values()]
    assert model.lower_bound_ == max(bounds)
    assert model.lower_bounds_[-1] == model.lower_bound_
    assert len(set(bounds)) > 1
    # The parameters belong to that run: one more step starts where the bound left off.
    assert model.score(x) >= model.lower_bound_ - 1e-12


def test_case_41_a_failed_start_is_skipped():
    # Starts that put one component on the pile of duplicates fail; others live.
    x = np.vstack([np.full((4, 2), 50.0), rows(12, 2), rows(40, 2) + 20.0])
    failed = []
    for seed in range(20):
        try:
            fit_without_regularisation(x, seed, n_init=1)
        except SingularCovarianceError:
            failed.append(seed)
    assert 0 < len(failed) < 20
    # The first start of this seed fails; a later one does not.
    with warns(DegenerateDataWarning, r"(?i)(skip|fail)"):
        model = fit_without_regularisation(x, failed[0], n_init=6)
    assert np.isfinite(model.lower_bound_)
    assert np.isfinite(model.means_).all()


def fit_without_regularisation(x, seed, n_init):
    return fastgmm.GaussianMixture(
        2,
        reg_covar=0.0,
        n_init=n_init,
        init_params="kmeans",
        random_state=seed,
        covariance_type="diag",
    ).fit(x)


def test_case_41_all_failed_starts_are_reported():
    x = np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0)
    with pytest.raises(SingularCovarianceError, match=r"\b3\b"):
        fastgmm.GaussianMixture(2, reg_covar=0.0, n_init=3, random_state=0).fit(x)


@pytest.mark.parametrize("max_iter", [0, 5])
def test_case_41_a_start_that_is_not_a_number_is_skipped(max_iter, monkeypatch):
    from dataclasses import replace

    from fastgmm import fitting

    x, _, _ = helpers.problem("full", np.float64)
    made, initial_model = [], fitting.initial_model

    def broken_first(*args, **kwargs):
        model = initial_model(*args, **kwargs)
        made.append(model)
        return replace(model, means=np.nan * model.means) if len(made) == 1 else model

    monkeypatch.setattr(fitting, "initial_model", broken_first)
    model = fastgmm.GaussianMixture(3, n_init=3, random_state=0, max_iter=max_iter)
    with warns(DegenerateDataWarning, r"1 of 3 starts failed and were skipped.*(?i:nan|finite)"):
        model.fit(x)
    assert len(made) == 3
    assert np.isfinite(model.lower_bound_)
    assert np.isfinite(model.means_).all()
    made.clear()
    with pytest.raises(NotFiniteError, match=r"(?i)nan|finite"):
        fastgmm.GaussianMixture(3, random_state=0, max_iter=max_iter).fit(x)


@pytest.mark.parametrize("make", [lambda: 5, np.random.RandomState, np.random.default_rng])
def test_case_42_seeds(make):
    x = rows()
    states = [make() if make() == 5 else make(5) for _ in range(2)]
    a, b = (
        fastgmm.GaussianMixture(3, random_state=s, init_params="random", max_iter=3).fit(x)
        for s in states
    )
    helpers.assert_same_bits(a, b)


def test_case_42_sample_repeats_for_an_int_and_advances_otherwise(structure):
    mixture = oracle.random_mixture(np.random.default_rng(0), structure, 3, 2)
    fixed = helpers.fitted(mixture, "cpu", random_state=3)
    np.testing.assert_array_equal(fixed.sample(50)[0], fixed.sample(50)[0])
    other = fixed.sample(50, random_state=4)[0]
    assert (fixed.sample(50)[0] != other).any()
    for source in (None, np.random.RandomState(3)):
        moving = helpers.fitted(mixture, "cpu", random_state=source)
        assert (moving.sample(50)[0] != moving.sample(50)[0]).any()


def test_case_42_labels_are_shuffled_or_grouped(structure):
    mixture = oracle.random_mixture(np.random.default_rng(0), structure, 3, 2)
    model = helpers.fitted(mixture, "cpu", random_state=0)
    _, shuffled = model.sample(200, shuffle=True)
    assert (np.diff(shuffled) < 0).any()
    # scikit-learn's order is what code relies on.
    x, grouped = model.sample(200)
    assert (np.diff(grouped) >= 0).all()
    assert x.shape == (200, 2)


@pytest.mark.parametrize("n_samples", [0, -3, 2.7, True, float("nan")])
def test_case_43_sample_size(n_samples):
    model = fastgmm.GaussianMixture(2, random_state=0).fit(rows())
    with pytest.raises(ValueError, match="n_samples") as caught:
        model.sample(n_samples)
    assert "n_components" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::fastgmm.errors.DegenerateDataWarning")
def test_case_43_single_precision_weights_sum_to_nearly_one():
    weights = np.full(7, 1 / 7, dtype=np.float32)
    assert weights.astype(np.float64).sum() > 1.0
    model = fastgmm.GaussianMixture.from_parameters(
        weights, np.zeros((7, 1), np.float32), np.ones((7, 1), np.float32), covariance_type="diag"
    )
    assert model.sample(1000)[0].shape == (1000, 1)
    x = rows(50, 2).astype(np.float32)
    for k in (1, 3, 6):
        fastgmm.GaussianMixture(k, random_state=0, reg_covar=1e-2, max_iter=2).fit(x).sample(100)


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (np.r_[-1.0, np.ones(199)], "got -1.0 at row 0"),
        (np.r_[np.nan, np.ones(199)], "got nan at row 0"),
        (np.r_[np.inf, np.ones(199)], "got inf at row 0"),
        (np.ones(199), "(?s)199.*200|200.*199"),
        (np.ones((200, 2)), r"(?i)sample.weight.*1D"),
        (np.zeros(200), "(?i)zero"),
    ],
    ids=["negative", "nan", "inf", "short", "2d", "all-zero"],
)
def test_case_44_sample_weight(weight, match):
    model = fastgmm.GaussianMixture(2, random_state=0)
    with pytest.raises(ValueError, match=match):
        model.fit(rows(), sample_weight=weight)
    model.fit(rows())
    with pytest.raises(ValueError, match=match):
        model.score(rows(), sample_weight=weight)


def test_case_44_zero_weight_rows_are_never_chosen(structure):
    x = np.vstack([rows(), rows(50) + 1e4])
    weight = np.r_[np.ones(200), np.zeros(50)]
    for init_params in ("kmeans", "k-means++", "random", "random_from_data"):
        model = fastgmm.GaussianMixture(
            3, covariance_type=structure, init_params=init_params, random_state=0, max_iter=2
        ).fit(x, sample_weight=weight)
        assert np.abs(model.means_).max() < 10.0


@pytest.mark.filterwarnings("ignore::fastgmm.errors.DegenerateDataWarning")
def test_case_44_huge_spread_of_weights(structure, device):
    x = rows()
    weight = 10.0 ** np.random.default_rng(0).uniform(-300, 300, size=200)
    weight[:2] = 1e-300, 1e300
    model = fastgmm.GaussianMixture(
        2, covariance_type=structure, random_state=0, device=device
    ).fit(x, sample_weight=weight)
    for name in helpers.PARAMETERS:
        assert np.isfinite(getattr(model, name)).all()
    assert np.isfinite(model.lower_bounds_).all()
    assert model.weights_.sum() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-280, 1e-30, 1e30, 1e280])
def test_case_44_the_scale_of_the_weights_does_not_matter(scale):
    x, start, rng = helpers.problem("full", np.float64)
    weight = rng.uniform(0.5, 2.0, size=len(x))
    plain = helpers.fit(x, start, "cpu", sample_weight=weight)
    scaled = helpers.fit(x, start, "cpu", sample_weight=weight * scale)
    helpers.assert_same_mixture(helpers.learnt(scaled), helpers.learnt(plain), 1e-10)


@pytest.mark.parametrize("change", ["components", "features", "structure"])
def test_case_45_warm_start_that_cannot_continue(change):
    x = rows()
    model = fastgmm.GaussianMixture(2, warm_start=True, random_state=0).fit(x)
    before = helpers.state(model)
    if change == "components":
        model.set_params(n_components=3)
    elif change == "structure":
        model.set_params(covariance_type="diag")
    with pytest.raises(ValueError, match="warm_start"):
        model.fit(x[:, :2] if change == "features" else x)
    helpers.assert_same_state(model, before)


@pytest.mark.parametrize("trouble", ["rows", "weights", "parameter", "singular", "callback"])
def test_case_45_a_failed_fit_leaves_the_previous_one(trouble):
    x = rows()
    model = fastgmm.GaussianMixture(2, random_state=0).fit(x)
    before, labels = helpers.state(model), model.predict(x)
    arguments = {"X": x[:50, :2]}
    if trouble == "rows":
        arguments["X"] = np.full((10, 2), np.nan)
    elif trouble == "weights":
        arguments["sample_weight"] = -np.ones(50)
    elif trouble == "parameter":
        model.set_params(tol=-1.0)
    elif trouble == "singular":
        model.set_params(reg_covar=0.0)
        arguments["X"] = np.repeat([[0.0, 0.0], [1.0, 1.0]], 9, axis=0)
    else:
        arguments["callback"] = lambda s: 1 / 0
    with pytest.raises((ValueError, ZeroDivisionError)):
        model.fit(**arguments)
    helpers.assert_same_state(model, before)
    np.testing.assert_array_equal(model.predict(x), labels)
