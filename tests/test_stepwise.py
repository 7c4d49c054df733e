"""Stepwise EM: decayed statistics of streams that never repeat, and as a start of EM."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

import fastgmm
import helpers
import oracle
import streams
from fastgmm import covariance
from fastgmm.backends import choose
from fastgmm.em import e_step
from fastgmm.errors import (
    DegenerateDataWarning,
    EmptyComponentError,
    InputError,
    PrecisionWarning,
    SingularCovarianceError,
)
from fastgmm.model import MixtureModel
from fastgmm.sources import ArraySource, Joined
from fastgmm.stepwise import about_model, advance, moved, step_size


def model_of(mixture):
    return MixtureModel.from_covariances(
        mixture.weights, mixture.means, mixture.covariances, covariance.get(mixture.structure)
    )


def estimator(k, **params):
    return fastgmm.GaussianMixture(k, **{"random_state": 0} | params)


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_moments_move_to_other_points(kind):
    x, start, rng = helpers.problem(kind, np.float64)
    backend, _ = choose("cpu")
    source, model = ArraySource(x), model_of(start)
    elsewhere = start.means + rng.standard_normal(start.means.shape)
    expected = e_step(source, model, backend, elsewhere)
    got = moved(e_step(source, model, backend), elsewhere)
    np.testing.assert_array_equal(got.about, elsewhere)
    for name in ("counts", "first", "second"):
        helpers.assert_close(getattr(got, name), getattr(expected, name), 1e-11)


def test_a_model_is_the_m_step_of_its_statistics(structure):
    _, start, _ = helpers.problem(structure, np.float64)
    model = model_of(start)
    online = about_model(model)
    found = covariance.get(structure).maximise(online.statistics, online.scatter(), 0.0)
    helpers.assert_close(found, model.covariances, 1e-12)
    helpers.assert_close(online.statistics.weights, model.weights, 1e-15)
    helpers.assert_close(online.statistics.means, model.means, 1e-15)


def test_one_component_is_a_running_mean(structure):
    # Statistics of one component depend on no parameters: steps 1/t give all rows the same weight.
    x = streams.rows(1200) + 1e4
    model = estimator(1, covariance_type=structure, reg_covar=0.0)
    for number, part in enumerate(np.array_split(x, 8)):
        model.partial_fit(part, alpha=1.0)
        assert model.n_iter_ == number + 1
    expected = oracle.m_step(x, np.ones((len(x), 1)), structure)
    helpers.assert_close(model.means_, expected.means, 1e-12)
    helpers.assert_close(model.covariances_, expected.covariances, 1e-8)


def test_a_step_is_the_blend_that_is_documented(structure):
    x, start, _ = helpers.problem(structure, np.float64, n=300)
    y, _, _ = helpers.problem(structure, np.float64, n=200, salt=1)
    backend, size = choose("cpu")[0], 0.3
    online = advance(about_model(model_of(start)), ArraySource(x), backend, reg_covar=0.0, size=1.0)
    online = advance(online, ArraySource(y), backend, reg_covar=0.0, size=size)
    middle = oracle.m_step(x, start.responsibilities(x), structure)
    # The same with weights: rows of the first chunk share 1 - size, those of the second size.
    rows = np.r_[x, y]
    resp = np.r_[start.responsibilities(x), middle.responsibilities(y)]
    weight = np.r_[np.full(300, (1 - size) / 300), np.full(200, size / 200)]
    expected = oracle.m_step(rows, resp, structure, sample_weight=weight)
    helpers.assert_close(online.model.means, expected.means, 1e-10)
    helpers.assert_close(online.model.covariances, expected.covariances, 1e-9)
    helpers.assert_close(online.model.weights, expected.weights, 1e-11)


@pytest.mark.parametrize(("step", "alpha", "t0"), [(0, 0.6, 1), (1, 0.6, 1), (7, 0.9, 3.5)])
def test_step_sizes(step, alpha, t0):
    assert step_size(step, alpha, t0) == pytest.approx((step + t0) ** -alpha)


def test_a_stream_comes_near_the_optimum(structure):
    x = streams.rows(40_000)
    best = estimator(3, covariance_type=structure, tol=1e-6, max_iter=500).fit(x)
    model = estimator(3, covariance_type=structure, batch_size=500)
    model.partial_fit(iter(np.array_split(x, 80)))
    assert model.n_iter_ == 80
    assert model.score(x) > best.score(x) - 0.01


def test_it_forgets():
    x = streams.rows(4000)
    model = estimator(3, batch_size=400)
    model.partial_fit(x)
    for _ in range(30):
        model.partial_fit(x + 20.0)
    # A component that the stream has left behind keeps its place and loses its weight.
    assert model.weights_[(model.means_ < 15.0).any(axis=1)].sum() < 0.01
    assert model.score(x + 20.0) > model.score(x) + 10.0


def test_chunks_of_a_stream_are_steps():
    x = streams.rows(2000)
    one, many = estimator(3), estimator(3, batch_size=200)
    for part in np.array_split(x, 10):
        one.partial_fit(part)
    many.partial_fit(iter(np.array_split(x, 10)))
    assert many.n_iter_ == one.n_iter_ == 10
    helpers.assert_same_bits(one, many)


def test_it_goes_on_from_a_fit_and_from_a_pickle():
    x = streams.rows(3000)
    fitted = estimator(3).fit(x)
    score = fitted.score(x)
    fitted.partial_fit(x[:1500])
    assert fitted.score(x) > score - 0.01
    copy = pickle.loads(pickle.dumps(fitted))
    for model in (fitted, copy):
        model.partial_fit(x[1500:])
    helpers.assert_same_bits(fitted, copy)
    # The fit counts as the first.
    assert copy.n_iter_ == 3


def test_chunks_without_weight_are_left_out():
    x = streams.rows(600)
    ones, zeros = np.ones(200), np.zeros(200)
    parts = [(x[:200], zeros), (x[:200], ones), (x[200:400], zeros), (x[400:], ones)]
    model, plain = (estimator(3, batch_size=200) for _ in range(2))
    model.partial_fit(iter(parts))
    plain.partial_fit(iter([parts[1], parts[3]]))
    helpers.assert_same_bits(model, plain)
    for fresh in (model, estimator(3)):
        with pytest.raises(InputError, match="non-zero"):
            fresh.partial_fit(iter([parts[0]]))


def test_parameters_set_by_hand_count():
    x = streams.rows(3000)
    model = estimator(3).partial_fit(x)
    model.means_ = model.means_ + 0.25
    model.partial_fit(x[:500])
    assert model.n_iter_ == 2


def test_one_row_does_not_replace_a_fit(tmp_path):
    x = streams.rows(3000)
    fitted = estimator(3).fit(x)
    score = fitted.score(x)
    fitted.save(tmp_path / "m.safetensors")
    for model in (fitted, fastgmm.load(tmp_path / "m.safetensors")):
        model.partial_fit(x[:50], alpha=1.0, t0=100.0)
        assert model.score(x) > score - 0.05
    again = estimator(3).fit(x).partial_fit(x[:1])
    # The step of a second chunk, 2^-0.6: a third of the weight stays where it was.
    assert np.sort(again.weights_)[1] > 0.05


def test_a_step_that_fails_changes_nothing():
    x = streams.rows(600)
    model = estimator(3).partial_fit(x)
    before, steps = model.means_, model.n_iter_
    with pytest.raises(InputError):
        model.partial_fit(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(x[:, :2])
    model.set_params(reg_covar=0.0)
    model.set_params(covariance_type="diag")
    with pytest.raises(InputError, match="covariance_type"):
        model.partial_fit(x)
    assert model.means_ is before
    assert model.n_iter_ == steps
    unfitted = estimator(3, reg_covar=0.0, init_params="k-means++")
    with (
        pytest.warns(DegenerateDataWarning, match="constant"),
        pytest.raises((SingularCovarianceError, InputError)),
    ):
        unfitted.partial_fit(np.zeros((5, 3)))
    assert not hasattr(unfitted, "n_features_in_")


@pytest.mark.parametrize(
    ("given", "name"), [({"alpha": 0.5}, "alpha"), ({"alpha": 1.1}, "alpha"), ({"t0": 0.5}, "t0")]
)
def test_steps_that_would_not_converge_are_refused(given, name):
    with pytest.raises(InputError, match=name):
        estimator(2).partial_fit(streams.rows(100), **given)


def test_tensors(structure):
    torch = pytest.importorskip("torch")
    x = streams.rows(2000)
    plain = estimator(3, covariance_type=structure)
    model = estimator(3, covariance_type=structure)
    for part in np.array_split(x, 4):
        plain.partial_fit(part)
        model.partial_fit(torch.tensor(part))
    assert torch.is_tensor(model.means_)
    helpers.assert_close(model.means_.numpy(), plain.means_, 1e-10)


@pytest.mark.parametrize("from_file", [True, False], ids=["file", "array"])
def test_a_warm_up_ends_at_the_same_optimum(structure, from_file, tmp_path):
    x = streams.rows(30_000)
    rows = streams.npy(x, tmp_path) if from_file else x
    settings = {"covariance_type": structure, "tol": 1e-9, "max_iter": 2000, "random_state": 0}
    # A start with a way to go, but on the right side of the saddles.
    means = np.array([[-1.0, -1.0, 0.0], [2.0, -1.0, 0.0], [1.0, 2.0, 0.0]])
    plain = fastgmm.GaussianMixture(3, means_init=means, **settings).fit(rows)
    warmed = fastgmm.GaussianMixture(3, means_init=means, **settings).fit(rows, warm_up=1)
    order = [np.argsort(m.means_ @ [1.0, 2.0, 0.0]) for m in (plain, warmed)]
    helpers.assert_close(warmed.means_[order[1]], plain.means_[order[0]], 1e-2)
    assert warmed.lower_bound_ == pytest.approx(plain.lower_bound_, abs=1e-5)
    # One read of the rows, in many small steps, comes further than one in a large step.
    assert warmed.lower_bounds_[0] > plain.lower_bounds_[1]


@pytest.mark.parametrize("scored", [False, True])
def test_parameters_set_by_hand_are_a_start(scored):
    x = streams.rows(900)
    fitted = estimator(3).fit(x)
    model = estimator(3)
    for name in ("weights_", "means_", "precisions_cholesky_"):
        setattr(model, name, getattr(fitted, name))
    if scored:
        model.predict(x)
    model.partial_fit(x[:300])
    assert model.n_iter_ == 2
    np.testing.assert_array_equal(model.means_, fitted.partial_fit(x[:300]).means_)


@pytest.mark.parametrize("structure", ["full", "diag", "spherical"])
@pytest.mark.parametrize("fitted", [False, True])
def test_rows_whose_squares_overflow_are_refused(structure, fitted):
    x = streams.rows(300).astype(np.float32)
    model = estimator(2, covariance_type=structure)
    if fitted:
        model.partial_fit(x)
    before = dict(vars(model))
    with pytest.raises(InputError, match="squares overflow"):
        # Narrow, but far from all before.
        model.partial_fit(x + np.float32(1e20) if fitted else x * np.float32(1e20))
    assert vars(model) == before


FIRST = {
    "far away": (1, (np.random.default_rng(0).normal(size=(300, 2)) + 1e8).astype(np.float32)),
    "identical": (3, np.full((30, 2), 3.25)),
    "tiny": (2, np.random.default_rng(0).normal(size=(300, 2)) * 1e-8),
    "collinear": (2, np.random.default_rng(0).normal(size=(300, 1)) * [1.0, 2.0]),
}


@pytest.mark.parametrize("case", FIRST)
def test_the_first_chunk_is_looked_at_as_a_fit_looks_at_its_rows(case):
    said, (k, x) = [], FIRST[case]
    for act in (lambda m: m.fit(x), lambda m: m.partial_fit(x).partial_fit(x)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            act(fastgmm.GaussianMixture(k, max_iter=1, tol=1e9, random_state=0))
        ours = (
            w for w in caught if issubclass(w.category, (DegenerateDataWarning, PrecisionWarning))
        )
        said.append([(w.category, str(w.message)) for w in ours])
    assert said[0] == said[1]
    assert said[0]


def test_a_first_chunk_of_one_row_is_refused():
    with pytest.raises(InputError, match="minimum of 2"):
        estimator(1).partial_fit([[1.0, 2.0]])


def test_components_without_rows(structure):
    x = np.random.default_rng(0).standard_normal((200, 2))
    eye = np.eye(2) if structure in ("full", "tied") else np.ones(2)
    precisions = np.resize(eye, covariance.get(structure).shape(2, 2))
    start = {"weights_init": [0.5, 0.5], "means_init": [[0.0, 0.0], [1e6, 1e6]]}
    settings = {**start, "precisions_init": precisions, "covariance_type": structure}
    kept, moved_on, strict = (
        estimator(2, empty=empty, **settings) for empty in ("keep", "reseed", "error")
    )
    with pytest.warns(DegenerateDataWarning, match=r"components \[1\] of 2 are empty"):
        kept.partial_fit(x)
    assert kept.weights_.tolist() == [1.0, 0.0]
    moved_on.partial_fit(x)
    assert moved_on.weights_.min() == pytest.approx(1 / 201)
    assert moved_on.partial_fit(x).weights_.min() > 1e-3
    with pytest.raises(EmptyComponentError, match=r"components \[1\] of 2 are empty"):
        strict.partial_fit(x)
    assert not hasattr(strict, "means_")
    settings |= {"means_init": [[1e10] * 2, [2e10] * 2], "precisions_init": 1e300 * precisions}
    with pytest.raises(EmptyComponentError, match="all components are empty"):
        estimator(2, **settings).partial_fit(x)


def test_a_row_that_cannot_be_used_has_its_number_in_the_stream():
    a, b = np.split(streams.rows(200), 2)
    b[3, 1] = np.nan
    model = estimator(2)
    with pytest.raises(InputError, match="first at row 103, column 1"):
        model.partial_fit(Joined([a, b]))
    # The chunk before it has been taken.
    helpers.assert_same_bits(model, estimator(2).partial_fit(a))


def test_rounding_is_mended_and_told():
    # A direction whose spread float32 cannot tell from 0.
    z = np.random.default_rng(0).standard_normal((4000, 4))
    near = np.column_stack([z[:, :3], z[:, 0] + 1e-5 * z[:, 3]]).astype(np.float32)
    settings = {"reg_covar": 1e-12, "max_iter": 4, "tol": 0.0}
    model = estimator(1, **settings)
    with pytest.warns(PrecisionWarning, match="partial_fit: rounding in float32"):
        model.partial_fit(iter(np.split(near, 4)))
    assert model.n_jitter_ > 0
    assert np.isfinite(model.precisions_cholesky_).all()
