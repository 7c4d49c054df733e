"""Compiled linear algebra of the M-step against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from fastgmm import linalg
from fastgmm_kernels import cpu as kernels

SIZES = [(1, 1), (130, 2), (7, 3), (2, 5), (7, 17), (2, 33), (2, 65), (1, 130)]


def covariances(n_components, n_features, seed=0):
    """Of a condition number of about 1e4, with what is above the diagonal made useless."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((n_components, n_features, n_features)))[0]
    spread = np.logspace(-2, 2, n_features) if n_features > 1 else np.array([3.0])
    return (basis * spread) @ basis.mT


@pytest.mark.parametrize(("n_components", "n_features"), SIZES)
def test_factors_of_precisions(n_components, n_features):
    matrices = covariances(n_components, n_features)
    factors = linalg.inverse_cholesky(np.tril(matrices))  # only the lower triangle is read
    assert np.array_equal(factors, np.triu(factors))
    assert (linalg.diagonal(factors) > 0).all()
    eye = np.eye(n_features)
    assert np.abs(factors.mT @ matrices @ factors - eye).max() < 1e-11
    lower = np.linalg.cholesky(matrices)
    found = linalg.cholesky(np.tril(matrices))
    assert np.abs(found - lower).max() < 1e-13 * np.abs(lower).max()
    expected = np.linalg.inv(lower).mT
    assert np.abs(factors - expected).max() < 1e-11 * np.abs(expected).max()


@pytest.mark.parametrize("layout", ["C", "F", "strided", "readonly"])
def test_layouts_and_unset_output(layout):
    matrices = covariances(5, 9)
    expected = linalg.inverse_cholesky(matrices)
    if layout == "F":
        matrices = np.asfortranarray(matrices)
    elif layout == "strided":
        matrices = np.repeat(np.repeat(matrices, 2, axis=0), 3, axis=2)[::2, :, ::3]
    elif layout == "readonly":
        matrices.setflags(write=False)
    for threads in (0, 2):
        factors = np.full((5, 9, 9), np.nan)
        kernels.cholesky(matrices, True, 3, factors, threads=threads)
        assert np.array_equal(factors, expected)


@pytest.mark.parametrize("n_features", [1, 4, 6, 33])
def test_what_is_not_positive_definite_is_nan_and_nothing_else(n_features):
    matrices = covariances(8, n_features)
    last = n_features - 1
    expected = linalg.inverse_cholesky(matrices)
    matrices[1, last, last] = -1
    matrices[2, 0, 0] = np.nan
    matrices[4, last, last] = np.inf
    matrices[5] = 0
    matrices[7, last, 0] = np.nan
    bad = [1, 2, 4, 5, 7]
    factors = linalg.inverse_cholesky(matrices)
    assert np.isnan(factors[bad]).all()
    assert np.array_equal(np.delete(factors, bad, axis=0), np.delete(expected, bad, axis=0))


def test_tiny_and_huge_variances():
    scale = np.array([1e-300, 1e-150, 1.0, 1e150, 1e300])
    factors = linalg.inverse_cholesky(scale[:, None, None] * np.eye(5))
    np.testing.assert_allclose(linalg.diagonal(factors), (scale**-0.5)[:, None] * np.ones(5))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 2), (65, 33, 17), (130, 7, 66), (64, 100, 64)])
def test_product(sizes, monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(sizes[:2]), rng.standard_normal(sizes[1:])
    monkeypatch.setattr(linalg, "_QUIET", 0)
    for left, right in [(a, b), (np.asfortranarray(a), np.asfortranarray(b)), (a[::-1], b[::-1])]:
        right.setflags(write=False)
        np.testing.assert_allclose(linalg.product(left, right), left @ right, rtol=0, atol=1e-12)
