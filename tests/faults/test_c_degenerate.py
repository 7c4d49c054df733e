"""Fault cases 28-37: degenerate geometry."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from catching import caught_warnings, messages, warns

import fastgmm
import helpers
import oracle
from fastgmm import covariance, fitting
from fastgmm.errors import (
    DegenerateDataWarning,
    EmptyComponentError,
    PrecisionWarning,
    SingularCovarianceError,
)
from fastgmm.jitter import restored
from fastgmm.model import MixtureModel

INITS = ("kmeans", "k-means++", "random", "random_from_data")


def rows(n=200, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def assert_finite(model):
    for name in (*helpers.PARAMETERS, "precisions_", "precisions_cholesky_", "lower_bounds_"):
        assert np.isfinite(getattr(model, name)).all(), name
    assert np.sum(model.weights_) == pytest.approx(1.0, rel=1e-6)


def test_case_28_constant_feature(structure, place):
    x = rows()
    x[:, 1] = 4.5
    with caught_warnings() as found:
        model = helpers.make(2, place, covariance_type=structure, random_state=0).fit(x)
    about_it = [m for m in messages(found) if "feature" in m]
    assert len(about_it) == 1
    assert "features [1] are" in about_it[0]
    assert "reg_covar" in about_it[0]
    assert_finite(model)
    np.testing.assert_allclose(model.means_[:, 1], 4.5, rtol=1e-12)
    if not structure.endswith("spherical"):
        variance = np.einsum("kii->ki", helpers.learnt(model).dense())[:, 1]
        np.testing.assert_allclose(variance, 1e-6, rtol=1e-9)


@pytest.mark.parametrize("init_params", INITS)
def test_case_29_identical_rows(structure, init_params):
    x = np.full((30, 2), 3.25)
    with warns(DegenerateDataWarning, r"\b1 distinct"):
        model = fastgmm.GaussianMixture(
            3, covariance_type=structure, init_params=init_params, random_state=0
        ).fit(x)
    assert_finite(model)
    live = model.weights_ > 0
    np.testing.assert_allclose(model.means_[live], 3.25, rtol=1e-9)


@pytest.mark.parametrize("init_params", INITS)
def test_case_30_singular_covariance_is_named(structure, place, init_params):
    x = np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        with pytest.raises(SingularCovarianceError, match="ill-defined empirical cov") as caught:
            helpers.make(
                2,
                place,
                covariance_type=structure,
                reg_covar=0.0,
                init_params=init_params,
                random_state=0,
                tol=0.0,
            ).fit(x)
    message = str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert "reg_covar" in message
    assert "eigenvalue" in message
    assert "effective" in message
    if not oracle.is_tied(structure):
        assert "component" in message


def test_case_31_rank_deficient_warns_with_rank():
    x = rows(n=6, d=10)
    with warns(DegenerateDataWarning, r"(?s)rank.*\b5\b.*diag"):
        model = fastgmm.GaussianMixture(1, reg_covar=1e-3).fit(x)
    assert_finite(model)


def test_case_31_collinear_columns_warn_with_rank():
    x = rows(d=2)
    x = np.column_stack([x, x[:, 0] + 2.0 * x[:, 1]])
    with warns(DegenerateDataWarning, r"(?s)rank.*\b2\b.*diag"):
        model = fastgmm.GaussianMixture(1).fit(x)
    assert_finite(model)


@pytest.mark.parametrize("structure", ["full", "tied"])
def test_case_32_covariances_are_symmetric(structure, place, dtype):
    # Condition number 1e10: a covariance that rounding could push over the edge.
    basis = np.linalg.qr(rows(5, 5))[0]
    x = (rows(400, 5) * np.logspace(0, -5, 5)) @ basis
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        model = helpers.make(
            2, place, covariance_type=structure, random_state=0, max_iter=5, tol=0
        ).fit(x.astype(dtype))
    for name in ("covariances_", "precisions_"):
        matrix = getattr(model, name)
        np.testing.assert_array_equal(matrix, np.swapaxes(matrix, -1, -2))
    assert np.linalg.eigvalsh(model.covariances_.astype(np.float64)).min() > 0
    assert_finite(model)


@pytest.mark.parametrize("structure", ["full", "tied"])
def test_case_32_rounding_is_mended_within_bounds_and_told(structure):
    # Two piles, and a direction whose spread float32 cannot tell from 0.
    z, pile = rows(4000, 4), np.random.default_rng(1).integers(2, size=(4000, 1))
    near = np.column_stack([z[:, :3], z[:, 0] + 1e-5 * z[:, 3]]) + 100.0 * pile
    settings = {"covariance_type": structure, "reg_covar": 1e-12, "max_iter": 8, "tol": 0.0}
    model = fastgmm.GaussianMixture(2, random_state=0, **settings)
    with warns(PrecisionWarning, r"M-steps: rounding in float32.*indefinite.*1e-04.*float64"):
        model.fit(near.astype(np.float32))
    assert model.n_jitter_ > 0
    assert_finite(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        exact = fastgmm.GaussianMixture(2, random_state=0, **settings).fit(near)
    assert exact.n_jitter_ == 0


def broken(structure, dtype, share):
    """A model of two components whose smallest eigenvalues are -share of the largest."""
    structure = covariance.get(structure)
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    matrix = (basis * [-share, 0.1, 0.5, 1.0]) @ basis.T
    scale = np.array([1e-3, 1.0, 1.0, 1e3])
    matrix = (matrix + matrix.T) / 2 * scale[:, None] * scale
    matrices = matrix if structure.tied else np.stack([np.eye(4), matrix])
    return MixtureModel.factorised(np.full(2, 0.5), np.zeros((2, 4)), matrices, structure)


@pytest.mark.parametrize("structure", ["full", "tied"])
@pytest.mark.parametrize("share", [1e-15, 1e-7, 1e-2])
def test_case_32_the_ladder_is_bounded(structure, dtype, share):
    model = broken(structure, dtype, share)
    found, count = restored(model, 1e-12, np.dtype(dtype))
    eps = np.finfo(dtype).eps
    if share > 800 * eps:
        assert count == 0
        assert found is model
        return
    assert found.sound()
    assert count == 1
    before, after = (np.atleast_3d(m.covariances).reshape(-1, 4, 4) for m in (model, found))
    added = after - before
    for matrix, more in zip(before, added, strict=True):
        variances = np.diag(matrix)
        np.testing.assert_array_equal(more, np.diag(np.diag(more)))
        assert (np.diag(more) <= np.maximum(900 * eps * variances, 1.1e-12)).all()
    if structure == "full":
        np.testing.assert_array_equal(added[0], 0.0)
    # Without regularisation the caller wants to know.
    assert restored(model, 0.0, np.dtype(dtype)) == (model, 0)


@pytest.mark.parametrize("structure", ["diag", "spherical", "tied_diag", "tied_spherical"])
def test_case_32_variances_below_reg_covar_are_raised_to_it(structure):
    structure = covariance.get(structure)
    variances = np.full(structure.shape(2, 3), 2.0)
    variances[(-1,) * variances.ndim] = -1e-9
    model = MixtureModel.factorised(np.full(2, 0.5), np.zeros((2, 3)), variances, structure)
    found, count = restored(model, 1e-6, np.dtype(np.float64))
    assert count == 1
    assert found.sound()
    np.testing.assert_array_equal(found.covariances, np.where(variances < 0, 1e-6, variances))


def test_case_32_what_is_not_finite_is_left_alone():
    model = broken("full", np.float32, np.nan)
    assert restored(model, 1e-6, np.dtype(np.float32)) == (model, 0)


@pytest.mark.parametrize("structure", ["full", "diag", "spherical"])
def test_case_33_collapse_onto_one_point(structure, place):
    x = np.vstack([rows(), np.full((5, 3), 0.1)])
    start = oracle.Mixture(
        structure,
        np.array([0.95, 0.05]),
        np.array([[0.0, 0.0, 0.0], [0.1, 0.1, 0.1]]),
        oracle.pack(structure, np.stack([np.eye(3), 1e-5 * np.eye(3)]), np.ones(2)),
    )
    with warns(DegenerateDataWarning, r"components \[1\] have directions .* reg_covar"):
        model = helpers.fit(x, start, place, reg_covar=1e-6, max_iter=50)
    assert_finite(model)
    variance = np.einsum("ii->i", helpers.learnt(model).dense()[1])
    np.testing.assert_allclose(variance, 1e-6, rtol=1e-3)
    assert model.weights_[1] == pytest.approx(5 / 205, rel=1e-2)


def lonely_start(structure):
    """The second component is so far away that every responsibility underflows."""
    return oracle.Mixture(
        structure,
        np.array([0.5, 0.5]),
        np.array([[0.0, 0.0, 0.0], [1e3, 1e3, 1e3]]),
        oracle.pack(structure, np.stack([np.eye(3)] * 2), np.ones(2)),
    )


def test_case_34_empty_component_is_kept(structure, place, dtype):
    x = rows().astype(dtype)
    with warns(DegenerateDataWarning, r"components? \[?1\b.*empty") as found:
        model = helpers.fit(x, lonely_start(structure), place, empty="keep")
    assert len([m for m in messages(found) if "empty" in m]) == 1
    np.testing.assert_array_equal(model.means_[1], 1e3)
    assert model.weights_[1] == 0.0
    assert model.weights_[0] == 1.0
    if not oracle.is_tied(structure):
        np.testing.assert_array_equal(helpers.learnt(model).dense()[1], np.eye(3))
    assert_finite(model)
    np.testing.assert_allclose(model.means_[0], x.mean(0, dtype=np.float64), atol=1e-6)
    resp = model.predict_proba(x)
    np.testing.assert_array_equal(resp[:, 0], 1.0)


def test_case_34_empty_component_is_reseeded(structure, place):
    x = np.vstack([rows(), rows(20) * 0.1 + 8.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        model = helpers.fit(
            x, lonely_start(structure), place, empty="reseed", max_iter=50, reg_covar=1e-6
        )
    assert_finite(model)
    assert model.weights_.min() > 0.0
    assert np.abs(model.means_).max() < 20.0


def test_case_34_empty_component_is_an_error(structure, place):
    with pytest.raises(EmptyComponentError, match=r"components? \[?1\b"):
        helpers.fit(rows(), lonely_start(structure), place, empty="error")


def test_case_34_rows_are_seen_after_a_component_was_moved():
    # The first iteration finds a component empty, and the bound as the fit before had left it.
    x = np.vstack([rows(), rows(50, seed=1) * 0.1 + 8.0])
    start = {"means_init": [[0.0] * 3, [1e3] * 3], "weights_init": [0.5, 0.5]}
    start["precisions_init"] = np.stack([np.eye(3)] * 2)
    model = fastgmm.GaussianMixture(2, **start, warm_start=True)
    with caught_warnings():
        model.fit(x)
        assert model.weights_[1] == 0
        model.set_params(empty="reseed").fit(x)
    assert model.n_iter_ > 1
    assert model.weights_.min() == pytest.approx(50 / 250, rel=1e-6)


@pytest.mark.parametrize("empty", ["keep", "reseed", "error"])
def test_case_34_all_components_empty(empty, dtype):
    variances = np.full(2, 1e-40 if dtype == np.float32 else 1e-300)
    start = oracle.Mixture("spherical", np.full(2, 0.5), np.array([[1e10], [2e10]]), variances)
    with pytest.raises(EmptyComponentError, match="all components are empty"):
        helpers.fit(rows(50, 1).astype(dtype), start, "cpu", empty=empty)


def test_case_41_a_start_that_loses_a_component_is_skipped(monkeypatch):
    x, found = rows(), fitting.initial_model
    starts = iter([1e4, 0.0, 1e4])

    def initial_model(*args, **kwargs):
        model = found(*args, **kwargs)
        means = np.array(model.means)
        means[1] += next(starts)
        return replace(model, means=means)

    monkeypatch.setattr(fitting, "initial_model", initial_model)
    model = fastgmm.GaussianMixture(2, n_init=3, empty="error", random_state=0)
    with warns(DegenerateDataWarning, "2 of 3 starts failed"):
        model.fit(x)
    assert model.weights_.min() > 0
    starts = iter([1e4, 1e4, 1e4])
    with pytest.raises(EmptyComponentError, match="all 3 starts failed"), caught_warnings():
        model.fit(x)


@pytest.mark.parametrize("far", [1e12, 1e16])
def test_case_34_an_empty_component_far_away_costs_tied_covariances_nothing(far):
    x = np.vstack([rows(), rows(seed=1) + 6.0])
    settings = {"covariance_type": "tied", "max_iter": 4, "tol": 0.0}
    near, all_weights = np.array([[0.0] * 3, [6.0] * 3]), np.full(3, 1 / 3)
    precisions = np.eye(3)
    with caught_warnings():
        plain = fastgmm.GaussianMixture(
            2, means_init=near, weights_init=[0.5, 0.5], precisions_init=precisions, **settings
        ).fit(x)
        model = fastgmm.GaussianMixture(
            3,
            means_init=np.vstack([np.full((1, 3), far), near]),
            weights_init=all_weights,
            precisions_init=precisions,
            **settings,
        ).fit(x)
    assert model.weights_[0] == 0
    np.testing.assert_allclose(model.covariances_, plain.covariances_, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("structure", oracle.STRUCTURES)
def test_a_component_too_far_away_for_its_spread_is_told(structure):
    z, pile = rows(1000, 1), 1.0 * np.random.default_rng(1).integers(2, size=(1000, 1))
    model = fastgmm.GaussianMixture(2, covariance_type=structure, random_state=0)
    with warns(PrecisionWarning, r"component \d lies .* Pass float64"):
        model.fit((z + 1e8 * pile).astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        model.fit((z + 1e4 * pile).astype(np.float32))


@pytest.mark.parametrize("init_params", INITS)
def test_case_35_fewer_distinct_rows_than_components(structure, init_params):
    x = np.repeat(rows(3, 2), 20, axis=0)
    with warns(DegenerateDataWarning, r"\b3 distinct"):
        model = fastgmm.GaussianMixture(
            5, covariance_type=structure, init_params=init_params, random_state=0
        ).fit(x)
    assert_finite(model)


def test_case_36_duplicate_initial_means_are_perturbed(structure):
    x = np.vstack([rows(), rows(seed=1) + 6.0])
    means = np.zeros((3, 3))
    means[2] = 6.0
    with warns(DegenerateDataWarning, r"means_init.*\b1\b"):
        model = fastgmm.GaussianMixture(
            3, covariance_type=structure, means_init=means, random_state=0, max_iter=0
        ).fit(x)
    gap = np.abs(model.means_[0] - model.means_[1]).max()
    assert 0.0 < gap < 3.0
    np.testing.assert_array_equal(model.means_[2], 6.0)
    np.testing.assert_array_equal(means[:2], 0.0)


@pytest.mark.parametrize("init_params", [*INITS, "k-means||"])
def test_case_37_one_extreme_outlier(structure, init_params):
    x = rows(200, 2)
    x[17] = 1e12
    with warnings.catch_warnings():
        # One row alone has no variance, and the rest none beside 1e12: both may be said.
        warnings.simplefilter("ignore", UserWarning)
        model = fastgmm.GaussianMixture(
            2, covariance_type=structure, init_params=init_params, random_state=0
        ).fit(x)
    assert_finite(model)
    assert np.isfinite(model.score(x))
    if init_params.startswith("k"):
        assert model.weights_.min() == pytest.approx(1 / 200, rel=1e-6)
        assert model.means_.max() == pytest.approx(1e12, rel=1e-9)
