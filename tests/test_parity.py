"""The same start gives what scikit-learn gives, on its bundled data sets."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
from sklearn import cluster, datasets, preprocessing
from sklearn.mixture import GaussianMixture as Peer

import fastgmm
import helpers
import oracle

# name -> (loader, components, reg_covar)
DATA = {
    "iris": (datasets.load_iris, 3, 1e-6),
    "wine": (datasets.load_wine, 3, 1e-6),
    "breast_cancer": (datasets.load_breast_cancer, 2, 1e-3),
    # Pixels at the border never change: without this much there is no density.
    "digits": (datasets.load_digits, 10, 1e-1),
}


@functools.cache
def rows(name):
    x = DATA[name][0](return_X_y=True)[0].astype(np.float64)
    if name != "digits":
        x = preprocessing.StandardScaler().fit_transform(x)
    return x


@functools.cache
def labels(name):
    model = cluster.KMeans(DATA[name][1], n_init=1, random_state=0)
    return model.fit(rows(name)).labels_


def both(name, structure, dtype):
    _, k, reg_covar = DATA[name]
    x = rows(name).astype(dtype)
    start = oracle.start_from_labels(x, labels(name), structure, reg_covar=reg_covar)
    fits = []
    for cls in (Peer, fastgmm.GaussianMixture):
        model = cls(
            k,
            covariance_type=structure,
            reg_covar=reg_covar,
            weights_init=start.weights.astype(dtype),
            means_init=start.means.astype(dtype),
            precisions_init=start.precisions().astype(dtype),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fits.append(model.fit(x))
    return x, *fits


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("structure", oracle.SHARED_WITH_SKLEARN)
def test_float64_is_scikit_learn(name, structure):
    x, peer, ours = both(name, structure, np.float64)
    assert ours.converged_ == peer.converged_
    assert ours.n_iter_ == peer.n_iter_
    for attribute in ("weights_", "means_", "covariances_", "lower_bound_", "lower_bounds_"):
        helpers.assert_close(getattr(ours, attribute), getattr(peer, attribute), 1e-8, attribute)
    for attribute in ("precisions_", "precisions_cholesky_"):
        helpers.assert_close(getattr(ours, attribute), getattr(peer, attribute), 1e-7, attribute)
    np.testing.assert_array_equal(ours.predict(x), peer.predict(x))
    helpers.assert_close(ours.score_samples(x), peer.score_samples(x), 1e-8)
    helpers.assert_close(ours.predict_proba(x), peer.predict_proba(x), 1e-6)
    assert ours.aic(x) == pytest.approx(peer.aic(x), rel=1e-8)
    assert ours.bic(x) == pytest.approx(peer.bic(x), rel=1e-8)


@pytest.mark.parametrize("name", ["iris", "wine"])
@pytest.mark.parametrize("structure", oracle.SHARED_WITH_SKLEARN)
def test_float32_is_scikit_learn(name, structure):
    x, peer, ours = both(name, structure, np.float32)
    # The true trajectory is the float64 one; both are within its rounding.
    _, truth, _ = both(name, structure, np.float64)
    assert ours.means_.dtype == peer.means_.dtype == np.float32
    if ours.n_iter_ == truth.n_iter_:
        for attribute in ("weights_", "means_", "covariances_"):
            helpers.assert_close(
                getattr(ours, attribute), getattr(truth, attribute), 1e-3, attribute
            )
    assert ours.lower_bound_ == pytest.approx(truth.lower_bound_, rel=1e-4, abs=1e-3)
    assert (ours.predict(x) == peer.predict(x)).mean() >= 0.99


@pytest.mark.parametrize("structure", oracle.SHARED_WITH_SKLEARN)
def test_conversion_both_ways(structure):
    x, peer, ours = both("iris", structure, np.float64)
    there = ours.to_sklearn()
    assert isinstance(there, Peer)
    helpers.assert_close(there.score_samples(x), ours.score_samples(x), 1e-9)
    np.testing.assert_array_equal(there.predict(x), ours.predict(x))
    back = fastgmm.GaussianMixture.from_sklearn(peer)
    helpers.assert_close(back.score_samples(x), peer.score_samples(x), 1e-9)
    np.testing.assert_array_equal(back.means_, peer.means_)


@pytest.mark.parametrize("structure", ["tied_diag", "tied_spherical"])
def test_structures_scikit_learn_lacks_become_tied(structure):
    mixture = oracle.random_mixture(np.random.default_rng(0), structure, 3, 4)
    x, _ = mixture.sample(np.random.default_rng(1), 50)
    there = helpers.fitted(mixture, "cpu").to_sklearn()
    assert there.covariance_type == "tied"
    helpers.assert_close(there.covariances_, mixture.dense()[0], 1e-12)
    helpers.assert_close(there.score_samples(x), mixture.score_samples(x), 1e-9)
