"""Parameters that users put in the place of fitted ones, as they do with scikit-learn."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import fastgmm
import helpers
from fastgmm import GaussianMixture, plot
from helpers import mixture_and_rows


def test_assigned_parameters_count(structure, tmp_path):
    _, x = mixture_and_rows(structure)
    x = x.astype(np.float32)
    model = GaussianMixture(3, covariance_type=structure, max_iter=3, tol=0, random_state=0)
    with pytest.warns(ConvergenceWarning):
        model.fit(x)
    score, covariances = model.score_samples(x), model.covariances_
    # The weights of this fit, float32, sum to 1 within the rounding of float32 alone.
    model.weights_ = np.array([0.3, 0.3, 0.4], np.float32)
    model.means_ = means = model.means_ + np.float32(1)
    model.precisions_cholesky_ = factors = model.precisions_cholesky_ * np.float32(0.5)
    copied, restored = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    model.save(tmp_path / "model.safetensors")
    others = (model, copied, restored, fastgmm.load(tmp_path / "model.safetensors"))
    for other in others:
        assert (other.score_samples(x) != score).any()
        np.testing.assert_array_equal(other.means_, means)
        np.testing.assert_array_equal(other.precisions_cholesky_, factors)
        helpers.assert_close(other.covariances_, 4 * covariances, 1e-5)
        helpers.assert_close(other.to_sklearn().score_samples(x), model.score_samples(x), 1e-4)
        for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
            array = getattr(other, name)
            assert array.dtype == np.float32
            assert not array.flags.writeable, name
    means[0] = 99  # too late
    np.testing.assert_array_equal(model.score_samples(x), copied.score_samples(x))
    # A fit goes on from them too.
    model.means_ = copied.means_ + np.float32(0.5)
    model.precisions_cholesky_ = 2 * model.precisions_cholesky_
    spread = plot.marginal(model)[2]
    helpers.assert_close(spread, plot.marginal(restored)[2] / 4, 1e-5)
    model.set_params(warm_start=True, max_iter=0).fit(x)
    np.testing.assert_array_equal(model.means_, copied.means_ + np.float32(0.5))


def test_assigned_parameters_are_checked():
    _, x = mixture_and_rows("full")
    model = GaussianMixture(3, random_state=0).fit(x)
    model.precisions_cholesky_ = model.precisions_cholesky_[:, :1]
    with pytest.raises(fastgmm.errors.InputError, match=r"precisions_cholesky.*\(3, 1, 2\)"):
        model.predict(x)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_assigned_covariances_count(structure, dtype, tmp_path):
    mixture, x = mixture_and_rows(structure)
    model = helpers.fitted(mixture, "cpu", random_state=0)
    if dtype == np.float32:
        model = helpers.fit(x.astype(dtype), mixture, "cpu", max_iter=1)
    model.covariances_ = wide = (4 * model.covariances_).astype(dtype)
    model.save(tmp_path / "model.safetensors")
    others = (pickle.loads(pickle.dumps(model)), fastgmm.load(tmp_path / "model.safetensors"))
    spread = plot.marginal(model)[2]
    for other in (model, copy.copy(model), *others):
        helpers.assert_close(other.covariances_, wide, 1e-6)
        helpers.assert_close(other.score_samples(x), model.to_sklearn().score_samples(x), 1e-6)
        helpers.assert_close(plot.marginal(other)[2], spread, 1e-6)
    alone = np.cov(model.sample(4000)[0].T)
    model.covariances_ = model.covariances_ / 4
    assert (np.diag(np.cov(model.sample(4000)[0].T)) < np.diag(alone)).all()
    # Both: one follows from the other, or nobody knows which is meant.
    model.covariances_ = 4 * model.covariances_
    model.precisions_cholesky_ = model.precisions_cholesky_ / 2
    before = model.means_
    model.set_params(warm_start=True, max_iter=0, reg_covar=0).fit(x.astype(dtype))
    helpers.assert_close(model.covariances_, wide, 1e-6)
    model.partial_fit(x.astype(dtype))
    assert (model.means_ != before).any()
    model.covariances_, model.precisions_cholesky_ = wide, model.precisions_cholesky_ * dtype(1.01)
    pattern = "covariances_ and precisions_cholesky_ were both assigned"
    with pytest.raises(fastgmm.errors.InputError, match=pattern):
        model.predict(x)


@pytest.mark.parametrize("first", ["score_samples", "predict", "sample", "stream"])
@pytest.mark.parametrize("spread", ["covariances", "precisions_cholesky", "both"])
def test_parameters_assigned_without_a_fit(first, spread):
    mixture, x = mixture_and_rows("diag")
    model = GaussianMixture(3, covariance_type="diag")
    model.weights_, model.means_ = mixture.weights, mixture.means.tolist()
    if spread != "precisions_cholesky":
        model.covariances_ = mixture.covariances
    if spread != "covariances":
        model.precisions_cholesky_ = mixture.precisions_cholesky()
    if first == "sample":
        assert model.sample(5)[0].shape == (5, 2)
    elif first == "stream":
        assert model.score(iter([x])) == pytest.approx(mixture.score_samples(x).mean())
    else:
        getattr(model, first)(x)
    helpers.assert_close(model.score_samples(x), mixture.score_samples(x), 1e-10)
    assert model.n_features_in_ == 2
