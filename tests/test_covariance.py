"""The covariance structures one by one against the oracle, and their registry."""

from __future__ import annotations

import numpy as np
import pytest

import helpers
import oracle
from fastgmm import covariance
from fastgmm.arrays import is_tensor, to_numpy
from fastgmm.errors import InputError
from fastgmm.statistics import SufficientStatistics


def case(structure, k=3, d=4):
    rng = np.random.default_rng(6)
    mixture = oracle.random_mixture(rng, structure, k, d)
    return rng, mixture, covariance.get(structure)


def test_shapes_and_counts(structure):
    for k, d in ((1, 1), (3, 4), (7, 2)):
        own = covariance.get(structure)
        assert own.name == structure
        assert own.tied == oracle.is_tied(structure)
        assert own.shape(k, d) == oracle.covariance_shape(structure, k, d)
        total = k - 1 + k * d + own.n_parameters(k, d)
        assert total == oracle.n_parameters(structure, k, d)


def test_factors_go_both_ways(structure, kind):
    _, mixture, own = case(structure)
    factor = own.precisions_cholesky(kind(mixture.covariances))
    assert is_tensor(factor) == is_tensor(kind(mixture.means))
    helpers.assert_close(factor, mixture.precisions_cholesky(), 1e-12)
    helpers.assert_close(own.covariances(factor), mixture.covariances, 1e-12)
    helpers.assert_close(own.precisions(factor), mixture.precisions(), 1e-11)
    other = own.factor_precisions(kind(mixture.precisions()))
    helpers.assert_close(own.precisions(other), mixture.precisions(), 1e-11)
    if structure in ("full", "tied"):
        for upper in (factor, other):
            np.testing.assert_array_equal(np.tril(to_numpy(upper), -1), 0.0)


def test_log_determinants(structure, kind):
    _, mixture, own = case(structure)
    got = own.log_determinants(kind(mixture.precisions_cholesky()), 4)
    expected = -0.5 * np.linalg.slogdet(mixture.dense())[1]
    np.testing.assert_allclose(np.broadcast_to(got, (3,)), expected, rtol=1e-11)


def test_one_covariance_as_a_matrix(structure):
    _, mixture, own = case(structure)
    for k, matrix in enumerate(mixture.dense()):
        np.testing.assert_array_equal(own.covariance_matrix(mixture.covariances, k, 4), matrix)


def test_m_step(structure, kind):
    rng, mixture, own = case(structure)
    x = mixture.sample(rng, 80)[0]
    resp = rng.dirichlet(np.ones(3), size=80)
    about = mixture.means
    difference = x[:, None] - about
    second = np.einsum("nk,nki,nkj->kij", resp, difference, difference)
    if own.moments == "diag":
        second = np.einsum("kii->ki", second)
    elif own.moments == "none":
        second = np.empty(0)
    first = np.einsum("nk,nkd->kd", resp, difference)
    parts = map(kind, (resp.sum(0), first, second, about))
    statistics = SufficientStatistics(*parts, 0.0, 80.0, 80)
    expected = oracle.m_step(x, resp, structure, reg_covar=1e-2)
    centre = expected.weights @ expected.means
    scatter = (x - centre).T @ (x - centre) / len(x)
    if own.tied and own.family != "full":
        scatter = np.diag(scatter)
    got = own.maximise(statistics, kind(scatter) if own.tied else None, 1e-2)
    mask = kind(np.array([False, True, False]))
    kept = own.replace(got, mask, kind(mixture.covariances))
    if not own.tied:
        helpers.assert_close(kept[1], mixture.covariances[1], 1e-15)
        helpers.assert_close(kept[[0, 2]], got[[0, 2]], 0.0)
    helpers.assert_close(got, expected.covariances, 1e-12)
    helpers.assert_close(statistics.means, expected.means, 1e-12)
    helpers.assert_close(statistics.weights, expected.weights, 1e-13)


def test_not_positive_definite_is_nan_where_it_is(structure, kind):
    _, mixture, own = case(structure)
    bad = np.array(mixture.covariances)
    which = (...,) if own.tied else (1,)
    bad[which] *= -1
    factor = to_numpy(own.precisions_cholesky(kind(bad)))
    assert np.isnan(factor[which]).any()
    if not own.tied:
        expected = mixture.precisions_cholesky()[[0, 2]]
        helpers.assert_close(factor[[0, 2]], expected, 1e-12)


def test_noise_gets_the_covariance(structure):
    rng, mixture, own = case(structure)
    noise = rng.standard_normal((20_000, 4))
    for k, matrix in enumerate(mixture.dense()):
        rows = own.colour(mixture.covariances, k, noise)
        np.testing.assert_allclose(np.cov(rows.T), matrix, atol=0.05 * matrix.max())


def test_registry_lists_and_refuses():
    assert covariance.names()[:6] == oracle.STRUCTURES
    with pytest.raises(InputError, match=r"full.*tied_spherical.*quux"):
        covariance.get("quux")


def test_users_can_register_their_own(monkeypatch):
    from fastgmm.covariance import base

    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    class Isotropic(covariance.Spherical):
        name = "isotropic"

    covariance.register(Isotropic())
    assert "isotropic" in covariance.names()
    import fastgmm

    x = np.random.default_rng(0).standard_normal((100, 3))
    own = fastgmm.GaussianMixture(2, covariance_type="isotropic", random_state=0).fit(x)
    same = fastgmm.GaussianMixture(2, covariance_type="spherical", random_state=0).fit(x)
    helpers.assert_same_bits(own, same)
