"""Starts: k-means quality, weights, seeds, and what given parameters leave to the method."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import cluster, datasets

import fastgmm
import helpers
import oracle
from fastgmm.arrays import home, to_numpy
from fastgmm.backends import choose
from fastgmm.errors import DegenerateDataWarning, InputError
from fastgmm.kmeans import kmeans_plusplus
from fastgmm.sources import ArraySource

METHODS = ("kmeans", "k-means++", "random", "random_from_data")


def start(x, k, method="kmeans", structure="full", weight=None, seed=0, **params):
    """The start alone: no iteration follows."""
    return fastgmm.GaussianMixture(
        k, covariance_type=structure, init_params=method, max_iter=0, random_state=seed, **params
    ).fit(x, sample_weight=weight)


def inertia(x, centres):
    return ((x[:, None] - centres) ** 2).sum(-1).min(1).sum()


def test_kmeans_is_as_good_as_scikit_learns(dtype):
    x = datasets.load_digits(return_X_y=True)[0].astype(dtype)
    x = x[:, x.var(axis=0) > 1.0]
    ours = [inertia(x, start(x, 10, structure="spherical", seed=s).means_) for s in range(5)]
    theirs = [cluster.KMeans(10, n_init=1, random_state=s).fit(x).inertia_ for s in range(5)]
    assert np.median(ours) < 1.03 * np.median(theirs)


def test_kmeans_start_is_the_m_step_of_its_labels(structure, device):
    centres = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 30.0]])
    labels = np.random.default_rng(1).integers(0, 3, size=300)
    x = centres[labels] + np.random.default_rng(2).standard_normal((300, 2))
    model = start(x, 3, structure=structure, device=device)
    expected = oracle.start_from_labels(x, labels, structure, reg_covar=1e-6)
    order = np.argsort(model.means_ @ [1.0, 2.0])
    helpers.assert_same_mixture(helpers.learnt(model).permuted(order), expected, 1e-10)


@pytest.mark.parametrize("method", ["k-means++", "random_from_data"])
def test_means_are_rows(method):
    x = np.random.default_rng(0).standard_normal((100, 3))
    means = start(x, 5, method).means_
    assert len(np.unique(means, axis=0)) == 5
    for mean in means:
        assert (np.abs(x - mean).max(axis=1) < 1e-14).any()


@pytest.mark.parametrize("method", METHODS)
def test_seeds_decide(method):
    x = np.random.default_rng(0).standard_normal((200, 3))
    first, again, other = (start(x, 4, method, seed=s) for s in (0, 0, 1))
    helpers.assert_same_bits(first, again)
    assert (first.means_ != other.means_).any()


@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_valid(structure, device, method):
    x = np.random.default_rng(0).standard_normal((200, 3))
    model = start(x, 4, method, structure, device=device)
    assert model.weights_.sum() == pytest.approx(1.0, rel=1e-12)
    assert np.isfinite(model.covariances_).all()
    assert np.isfinite(model.score_samples(x)).all()


@pytest.mark.parametrize("method", METHODS)
def test_weights_draw_the_start(method):
    # All the weight is on one side: so are the starting means.
    rng = np.random.default_rng(0)
    x = np.vstack([rng.standard_normal((100, 2)), rng.standard_normal((100, 2)) + 50.0])
    weight = np.r_[np.full(100, 1e-12), np.ones(100)]
    means = start(x, 3, method, weight=weight).means_
    if method == "random":
        assert means.min() > 45.0
    elif method != "k-means++":
        assert np.median(means) > 45.0


@pytest.mark.parametrize("method", [*METHODS, "k-means||"])
@pytest.mark.parametrize("batch_size", [None, 60])
def test_rows_without_weight_are_as_if_they_were_not_there(method, batch_size, dtype):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((200, 2)) + 6.0 * rng.integers(3, size=(200, 1))).astype(dtype)
    weight, none, k = rng.uniform(0.5, 2.0, size=200), np.zeros(90), 3
    expected = start(x, k, method, weight=weight, batch_size=batch_size)
    for value in (-9999.0, 1e12, 1e37 if dtype == np.float32 else 1e200):
        masked = np.full((90, 2), value, dtype)
        # Random numbers belong to the numbers of rows, which rows before them change.
        given = [(np.r_[x, masked], np.r_[weight, none])]
        if method in ("kmeans", "k-means++") and batch_size is None:
            given.append((np.r_[masked, x], np.r_[none, weight]))
        for rows, v in given:
            found = start(rows, k, method, weight=v, batch_size=batch_size)
            accuracy = helpers.tolerance(dtype, 1e-10, 1e-4)
            helpers.assert_same_mixture(helpers.learnt(found), helpers.learnt(expected), accuracy)


def test_rows_without_weight_are_not_looked_at(kind):
    x = np.random.default_rng(0).standard_normal((40, 2))
    x[:, 1] = np.where(np.arange(40) < 30, 3.0, 1e100)
    weight = (np.arange(40) < 30).astype(float)
    with pytest.warns(DegenerateDataWarning, match=r"features \[1\] are constant"):
        start(kind(x), 2, weight=weight, device="reference")
    with (
        pytest.warns(DegenerateDataWarning, match="constant"),
        pytest.warns(DegenerateDataWarning, match="X has 1 distinct rows"),
    ):
        start(kind(np.where(weight[:, None] > 0, 3.0, x)), 2, weight=weight, device="reference")
    with pytest.raises(InputError, match=r"1 sample\(s\)"):
        start(kind(x), 1, weight=np.arange(40) == 3, device="reference")
    with pytest.raises(InputError, match="n_samples = 30"):
        start(kind(x), 31, weight=weight, device="reference")
    x[35] = np.nan
    with pytest.raises(InputError, match="first at row 35"):
        start(kind(x), 2, weight=weight, device="reference")


def test_reference_and_cpu_draw_the_same_start(dtype):
    x = np.random.default_rng(0).standard_normal((300, 3)).astype(dtype)
    for method in METHODS:
        a, b = (start(x, 4, method, device=d) for d in ("reference", "cpu"))
        helpers.assert_close(a.means_, b.means_, helpers.tolerance(dtype, 1e-10, 1e-4))


@pytest.mark.parametrize("batch_size", [None, 70])
@pytest.mark.parametrize("method", METHODS)
def test_arrays_and_tensors_draw_the_same_start(method, batch_size, dtype):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((300, 3)).astype(dtype)
    settings = {"structure": "diag", "device": "reference", "batch_size": batch_size}
    for weight in (None, np.random.default_rng(1).uniform(size=300)):
        a, b = (start(rows, 4, method, weight=weight, **settings) for rows in (x, torch.tensor(x)))
        helpers.assert_close(b.means_, a.means_, helpers.tolerance(dtype, 1e-10, 1e-6))
        helpers.assert_close(b.covariances_, a.covariances_, 1e-5)


def test_centroids_repeat_only_where_rows_do(kind):
    x = np.repeat(np.random.default_rng(0).standard_normal((3, 2)), 20, axis=0)
    backend = choose("reference", home(kind(x)))[0]
    source = ArraySource(kind(x), batch_size=25)
    centroids = to_numpy(kmeans_plusplus(source, 8, np.random.RandomState(0), backend))
    assert len(np.unique(centroids[:3], axis=0)) == 3
    np.testing.assert_array_equal(np.unique(centroids, axis=0), np.unique(x, axis=0))
    np.testing.assert_array_equal(centroids[3:6], centroids[:3])


def test_clusters_are_found_among_many(dtype):
    grid = 12.0 * np.stack(np.meshgrid(range(6), range(5)), -1).reshape(-1, 2)
    rng = np.random.default_rng(0)
    x = (np.repeat(grid, 50, axis=0) + rng.standard_normal((1500, 2))).astype(dtype)
    model = start(rng.permutation(x), 30)
    gap = np.linalg.norm(grid[:, None] - model.means_, axis=2).min(axis=1)
    # Greedy k-means++ and Lloyd leave few of thirty clusters without a mean of their own.
    assert (gap < 2.0).sum() >= 27
