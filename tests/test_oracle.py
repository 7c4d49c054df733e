"""The oracle itself, against SciPy and scikit-learn: it must be beyond doubt."""

from __future__ import annotations

import ast
import pathlib
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import mixture as sklearn_mixture

import oracle

SIZES = [(1, 1), (3, 2), (4, 5)]


def test_imports_neither_the_library_nor_its_kernels():
    tree = ast.parse(pathlib.Path(oracle.__file__).read_text())
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(node.module.split(".")[0])
    assert roots <= {"__future__", "dataclasses", "numpy", "scipy"}


@pytest.mark.parametrize("structure", oracle.STRUCTURES)
@pytest.mark.parametrize(("k", "d"), SIZES)
def test_density_is_scipys(structure, k, d):
    rng = np.random.default_rng(k * 10 + d)
    mixture = oracle.random_mixture(rng, structure, k, d)
    x, _ = mixture.sample(rng, 50)
    expected = sum(
        w * stats.multivariate_normal(m, c).pdf(x)
        for w, m, c in zip(mixture.weights, mixture.means, mixture.dense(), strict=True)
    )
    np.testing.assert_allclose(np.exp(mixture.score_samples(x)), expected, rtol=1e-10)
    np.testing.assert_allclose(mixture.responsibilities(x).sum(axis=1), 1.0, rtol=1e-14)


@pytest.mark.parametrize("structure", oracle.STRUCTURES)
@pytest.mark.parametrize(("k", "d"), SIZES)
def test_factor_inverts_covariance(structure, k, d):
    mixture = oracle.random_mixture(np.random.default_rng(3), structure, k, d)
    factor = mixture.precisions_cholesky()
    if structure in ("full", "tied"):
        np.testing.assert_array_equal(np.tril(factor, -1), 0.0)
        product = factor @ np.swapaxes(factor, -1, -2) @ mixture.covariances
        np.testing.assert_allclose(product, np.broadcast_to(np.eye(d), product.shape), atol=1e-10)
        np.testing.assert_allclose(
            mixture.precisions(), factor @ np.swapaxes(factor, -1, -2), rtol=1e-8, atol=1e-9
        )
    else:
        np.testing.assert_allclose(factor**2 * mixture.covariances, 1.0, rtol=1e-12)


@pytest.mark.parametrize("structure", oracle.SHARED_WITH_SKLEARN)
@pytest.mark.parametrize("d", [1, 4])
def test_em_is_scikit_learns(structure, d):
    rng = np.random.default_rng(d)
    truth = oracle.random_mixture(rng, structure, 3, d)
    x, labels = truth.sample(rng, 300)
    start = oracle.start_from_labels(x, labels, structure, n_components=3, reg_covar=1e-4)
    peer = sklearn_mixture.GaussianMixture(
        3,
        covariance_type=structure,
        tol=0,
        max_iter=5,
        reg_covar=1e-4,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=start.precisions(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer.fit(x)
    ours = oracle.em(x, start, max_iter=5, reg_covar=1e-4)
    np.testing.assert_allclose(ours.lower_bounds, peer.lower_bounds_, rtol=1e-10)
    np.testing.assert_allclose(ours.mixture.weights, peer.weights_, rtol=1e-9)
    np.testing.assert_allclose(ours.mixture.means, peer.means_, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(ours.mixture.covariances, peer.covariances_, rtol=1e-8, atol=1e-9)
    assert oracle.n_parameters(structure, 3, d) == peer._n_parameters()


@pytest.mark.parametrize("structure", oracle.STRUCTURES)
def test_weighted_m_step_is_duplication(structure):
    rng = np.random.default_rng(9)
    x = rng.standard_normal((60, 3))
    resp = rng.dirichlet(np.ones(2), size=60)
    times = rng.integers(1, 4, size=60)
    once = oracle.m_step(x, resp, structure, sample_weight=times)
    again = oracle.m_step(np.repeat(x, times, 0), np.repeat(resp, times, 0), structure)
    np.testing.assert_allclose(once.weights, again.weights, rtol=1e-13)
    np.testing.assert_allclose(once.means, again.means, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(once.covariances, again.covariances, rtol=1e-12, atol=1e-13)


def test_tied_variants_are_projections_of_tied():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((80, 3))
    resp = rng.dirichlet(np.ones(3), size=80)
    tied = oracle.m_step(x, resp, "tied").covariances
    np.testing.assert_allclose(oracle.m_step(x, resp, "tied_diag").covariances, np.diag(tied))
    np.testing.assert_allclose(
        oracle.m_step(x, resp, "tied_spherical").covariances, np.trace(tied) / 3
    )
