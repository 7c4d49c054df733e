"""The estimator's own face: constructors, attributes, callbacks, frames, progress."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import fastgmm
import helpers
import oracle
from fastgmm import GaussianMixture
from helpers import mixture_and_rows


@pytest.mark.parametrize("given", ["covariances", "precisions", "precisions_cholesky"])
def test_from_parameters(structure, given):
    mixture, x = mixture_and_rows(structure)
    value = getattr(mixture, given)
    value = value() if callable(value) else value
    model = GaussianMixture.from_parameters(
        mixture.weights, mixture.means, covariance_type=structure, **{given: value}
    )
    helpers.assert_same_mixture(helpers.learnt(model), mixture, 1e-10)
    helpers.assert_close(model.precisions_, mixture.precisions(), 1e-9)
    helpers.assert_close(model.precisions_cholesky_, mixture.precisions_cholesky(), 1e-9)
    helpers.assert_close(model.score_samples(x), mixture.score_samples(x), 1e-10)
    assert model.n_components == 3
    assert model.n_features_in_ == 2
    assert model.n_parameters() == model._n_parameters() == oracle.n_parameters(structure, 3, 2)


def test_from_parameters_refuses_contradictions():
    mixture, _ = mixture_and_rows("diag")
    with pytest.raises(ValueError, match="covariances"):
        GaussianMixture.from_parameters(mixture.weights, mixture.means, covariance_type="diag")
    with pytest.raises(ValueError, match="precisions"):
        GaussianMixture.from_parameters(
            mixture.weights,
            mixture.means,
            mixture.covariances,
            precisions=mixture.precisions(),
            covariance_type="diag",
        )
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        GaussianMixture.from_parameters(
            mixture.weights, mixture.means, mixture.covariances[:, :1], covariance_type="diag"
        )
    with pytest.raises(ValueError, match="component 1"):
        GaussianMixture.from_parameters(
            mixture.weights,
            mixture.means,
            mixture.covariances * [[1.0], [-1.0], [1.0]],
            covariance_type="diag",
        )


def test_from_responsibilities(structure):
    mixture, x = mixture_and_rows(structure)
    resp = mixture.responsibilities(x)
    weight = np.random.default_rng(0).uniform(size=len(x))
    # Rows that count for less: in all, in part, and not at all.
    partial = resp * np.random.default_rng(1).integers(0, 3, len(x))[:, None]
    for r, w in ((resp, None), (resp, weight), (partial, None), (partial, weight)):
        model = GaussianMixture.from_responsibilities(
            x, r, covariance_type=structure, reg_covar=1e-3, sample_weight=w
        )
        expected = oracle.m_step(x, r, structure, reg_covar=1e-3, sample_weight=w)
        helpers.assert_same_mixture(helpers.learnt(model), expected, 1e-10)
    single = GaussianMixture.from_responsibilities(
        x.astype(np.float32), 1e200 * resp, covariance_type=structure
    )
    helpers.assert_close(single.weights_, resp.mean(axis=0), 1e-5)
    scores = oracle.m_step(x, resp, structure, reg_covar=1e-6).score_samples(x)
    wider = np.pad(resp, ((0, 0), (0, 1)))
    wider.flags.writeable = False
    model = GaussianMixture.from_responsibilities(x, wider, covariance_type=structure)
    assert model.weights_[3] == 0
    helpers.assert_close(model.score_samples(x), scores, 1e-10)
    with pytest.raises(ValueError, match="resp"):
        GaussianMixture.from_responsibilities(x, resp[:-1], covariance_type=structure)
    with pytest.raises(ValueError, match="resp"):
        GaussianMixture.from_responsibilities(x, -resp, covariance_type=structure)
    with pytest.raises(ValueError, match="resp"):
        GaussianMixture.from_responsibilities(x, 0 * resp, covariance_type=structure)
    first = np.zeros((len(x), 2))
    first[0] = 1.0
    with pytest.raises(ValueError, match="non-zero"):
        GaussianMixture.from_responsibilities(
            x, first, covariance_type=structure, sample_weight=np.r_[0.0, np.ones(len(x) - 1)]
        )


def test_fitted_attributes(structure, dtype):
    _, x = mixture_and_rows(structure)
    model = GaussianMixture(3, covariance_type=structure, random_state=0).fit(x.astype(dtype))
    shape = oracle.covariance_shape(structure, 3, 2)
    for name in ("covariances_", "precisions_", "precisions_cholesky_"):
        assert getattr(model, name).shape == shape, name
        assert getattr(model, name).dtype == np.dtype(dtype)
    assert model.weights_.shape == (3,)
    assert model.means_.shape == (3, 2)
    assert isinstance(model.converged_, bool)
    assert isinstance(model.n_iter_, int)
    assert model.lower_bound_ == model.lower_bounds_[-1]
    assert len(model.lower_bounds_) == model.n_iter_
    assert isinstance(model.backend_, str)
    learnt = helpers.learnt(model)
    helpers.assert_close(model.precisions_, learnt.precisions(), 1e-4)
    assert model.fit_predict(x.astype(dtype)).dtype == np.int64


def test_fit_predict_is_fit_then_predict(structure):
    _, x = mixture_and_rows(structure)
    weight = np.random.default_rng(0).uniform(size=len(x))
    make = lambda: GaussianMixture(3, covariance_type=structure, random_state=0)  # noqa: E731
    labels = make().fit_predict(x, sample_weight=weight)
    np.testing.assert_array_equal(labels, make().fit(x, sample_weight=weight).predict(x))


def test_criteria_are_their_definitions(structure):
    mixture, x = mixture_and_rows(structure)
    model = helpers.fitted(mixture, "cpu")
    total = mixture.score_samples(x).sum()
    p = oracle.n_parameters(structure, 3, 2)
    assert model.aic(x) == pytest.approx(-2 * total + 2 * p, rel=1e-12)
    assert model.bic(x) == pytest.approx(-2 * total + np.log(len(x)) * p, rel=1e-12)
    weight = np.random.default_rng(0).uniform(size=len(x))
    expected = np.average(mixture.score_samples(x), weights=weight)
    assert model.score(x, sample_weight=weight) == pytest.approx(expected, rel=1e-12)
    # An integer weight counts as so many rows, wherever they are.
    times = np.arange(len(x)) % 3
    for name in ("aic", "bic"):
        repeated = getattr(model, name)(np.repeat(x, times, axis=0))
        for rows in (x, lambda: iter([x])):
            assert getattr(model, name)(rows, times) == pytest.approx(repeated, rel=1e-12)


@pytest.mark.parametrize("kind", [np.asarray, "torch"])
def test_criteria_of_single_precision_scores_are_exact(kind):
    kind = pytest.importorskip("torch").as_tensor if kind == "torch" else kind
    model = GaussianMixture.from_parameters([1.0], [[0.0]], [[1.0]], covariance_type="diag")
    x = np.full((100_001, 1), 30.0, np.float32)
    x[0] = 3e5
    expected = -2 * model.score_samples(x).sum(dtype=np.float64) + 2 * 2
    assert model.aic(kind(x)) == pytest.approx(expected, rel=1e-14)


def test_unweighted_component_densities(structure, device):
    mixture, x = mixture_and_rows(structure)
    got = helpers.fitted(mixture, device).component_log_prob(x)
    helpers.assert_close(got, mixture.component_log_prob(x), 1e-11)


def test_warm_start_continues(structure):
    x, start, _ = helpers.problem(structure, np.float64)
    whole = helpers.fit(x, start, "cpu", max_iter=6)
    parts = helpers.estimator(start, "cpu", max_iter=3, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        parts.fit(x).fit(x)
    helpers.assert_same_mixture(helpers.learnt(parts), helpers.learnt(whole), 1e-10)
    assert parts.lower_bound_ == pytest.approx(whole.lower_bound_, rel=1e-12)


def test_callback_sees_every_iteration():
    x, start, _ = helpers.problem("full", np.float64)
    seen = []
    model = helpers.estimator(start, "cpu", max_iter=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, callback=seen.append)
    assert [s.iteration for s in seen] == [1, 2, 3, 4]
    assert [s.lower_bound for s in seen] == model.lower_bounds_
    np.testing.assert_allclose([s.change for s in seen[1:]], np.diff(model.lower_bounds_))
    assert {s.init for s in seen} == {0}
    helpers.assert_close(seen[-1].model.means, model.means_, 1e-12)
    with pytest.raises(ValueError, match="read-only"):
        seen[-1].model.means[0, 0] = 1.0


def test_callback_may_stop_the_fit():
    x, start, _ = helpers.problem("full", np.float64)
    model = helpers.estimator(start, "cpu", max_iter=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, callback=lambda s: s.iteration == 3)
    assert model.n_iter_ == 3
    expected = helpers.fit(x, start, "cpu", max_iter=3)
    helpers.assert_same_mixture(helpers.learnt(model), helpers.learnt(expected), 1e-12)
    # So does what a comparison with a number of NumPy gives.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, callback=lambda s: np.float64(s.iteration) >= 3)
    assert model.n_iter_ == 3
    # It ends one start: the others have their turn.
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        GaussianMixture(3, n_init=2, random_state=0).fit(
            x, callback=lambda s: seen.append(s) or True
        )
    assert [(s.init, s.iteration) for s in seen] == [(0, 1), (1, 1)]


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_data_frames(library):
    module = pytest.importorskip(library)
    _, x = mixture_and_rows("full")
    columns = {"width": x[:, 0], "height": x[:, 1]}
    make = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "table"}[library]
    frame = getattr(module, make)(columns)
    model = GaussianMixture(3, random_state=0).fit(frame)
    assert list(model.feature_names_in_) == ["width", "height"]
    plain = GaussianMixture(3, random_state=0).fit(x)
    helpers.assert_same_bits(model, plain)
    np.testing.assert_array_equal(model.predict(frame), plain.predict(x))
    assert model.score(frame) == plain.score(x)


def test_verbose_prints_scikit_learns_lines(capsys):
    _, x = mixture_and_rows("full", separation=0.5)
    GaussianMixture(3, random_state=0, verbose=1, verbose_interval=2, tol=1e-6, n_init=2).fit(x)
    captured = capsys.readouterr()
    assert "Initialization 0" in captured.out
    assert "Initialization 1" in captured.out
    assert "  Iteration 2" in captured.out
    assert "Initialization converged." in captured.out
    assert "EM 0" in captured.err
    assert "rows_per_s" in captured.err
    GaussianMixture(3, random_state=0, verbose=2, verbose_interval=2, tol=1e-6).fit(x)
    captured = capsys.readouterr()
    assert "ll change" in captured.out
    assert captured.err == ""
    GaussianMixture(3, random_state=0).fit(x)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random_from_data"])
def test_every_start_finds_separated_blobs(structure, init_params, dtype):
    centres = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 30.0]])
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, size=600)
    x = (centres[labels] + rng.standard_normal((600, 2))).astype(dtype)
    model = GaussianMixture(
        3,
        covariance_type=structure,
        init_params=init_params,
        random_state=0,
        n_init=10,
        max_iter=300,
        tol=1e-4,
    ).fit(x)
    gap = np.linalg.norm(model.means_[:, None] - centres, axis=2)
    assert (gap.min(axis=0) < 0.5).all()


def test_some_starting_parameters_are_given(structure):
    mixture, x = mixture_and_rows(structure)
    parts = {
        "weights_init": mixture.weights,
        "means_init": mixture.means,
        "precisions_init": mixture.precisions(),
    }
    attributes = ("weights_", "means_", "precisions_")
    for name, attribute in zip(parts, attributes, strict=True):
        model = GaussianMixture(
            3, covariance_type=structure, random_state=0, max_iter=0, **{name: parts[name]}
        ).fit(x)
        helpers.assert_close(getattr(model, attribute), parts[name], 1e-9, name)
        for other in set(attributes) - {attribute}:
            assert np.isfinite(getattr(model, other)).all()


def test_sample_has_the_models_moments(structure, dtype):
    mixture, _ = mixture_and_rows(structure, separation=10.0)
    params = (mixture.weights, mixture.means, mixture.covariances)
    model = GaussianMixture.from_parameters(
        *(np.asarray(p, dtype) for p in params), covariance_type=structure, random_state=0
    )
    n = 40_000
    x, labels = model.sample(n, shuffle=True)
    assert x.shape == (n, 2)
    assert labels.dtype == np.int64
    dense = mixture.dense()
    for k in range(3):
        mine = x[labels == k].astype(np.float64)
        assert len(mine) == pytest.approx(n * mixture.weights[k], abs=5 * np.sqrt(n))
        error = 5 * np.sqrt(np.diag(dense[k]) / len(mine))
        assert (np.abs(mine.mean(0) - mixture.means[k]) < error).all()
        np.testing.assert_allclose(np.cov(mine.T), dense[k], atol=0.1 * dense[k].max())
    # Rows are exchangeable: neighbours say nothing about each other.
    assert abs(np.corrcoef(labels[:-1], labels[1:])[0, 1]) < 5 / np.sqrt(n)


def test_saved_and_loaded(structure, dtype, tmp_path):
    _, x = mixture_and_rows(structure)
    model = GaussianMixture(3, covariance_type=structure, random_state=0).fit(x.astype(dtype))
    model.save(tmp_path / "model.safetensors")
    again = fastgmm.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    np.testing.assert_array_equal(again.means_, model.means_)
    assert again.means_.dtype == np.dtype(dtype)
