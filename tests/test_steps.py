"""A loop of one's own: parameters, M-step and samples of ``fastgmm.functional``."""

from __future__ import annotations

import numpy as np
import pytest

import helpers
import oracle
from fastgmm import GaussianMixture, functional
from fastgmm.errors import InputError, SingularCovarianceError


def mixture_of(structure, seed=2):
    rng = np.random.default_rng(seed)
    return rng, oracle.random_mixture(rng, structure, 4, 3, separation=1.5)


def test_factors_and_covariances_are_each_others_inverse(structure, dtype):
    _, mixture = mixture_of(structure)
    rtol = helpers.tolerance(dtype, 1e-12, 1e-5)
    given = np.asarray(mixture.covariances, dtype)
    factors = functional.precisions_cholesky(given, structure)
    assert factors.dtype == dtype
    helpers.assert_close(factors, mixture.precisions_cholesky(), rtol)
    helpers.assert_close(functional.covariances(factors, structure), given, 10 * rtol)


def test_a_loop_of_ones_own_is_a_fit(structure):
    rng, mixture = mixture_of(structure)
    x, _ = mixture.sample(rng, 400)
    weight = rng.uniform(size=len(x))
    start = mixture.weights, mixture.means, mixture.precisions_cholesky()
    tied = structure.startswith("tied")
    scatter = functional.row_scatter(x, weight, structure) if tied else None
    found = start
    for _ in range(3):
        parts = [
            functional.sufficient_statistics(x[part], *found, structure, weight[part])
            for part in (slice(0, 150), slice(150, None))
        ]
        found = functional.m_step(parts[0] + parts[1], *found, structure, scatter=scatter)
    fit = GaussianMixture.from_parameters(
        *start[:2], precisions_cholesky=start[2], covariance_type=structure
    ).set_params(warm_start=True, max_iter=3, tol=0)
    with pytest.warns(UserWarning, match="did not converge"):
        fit.fit(x, sample_weight=weight)
    for got, expected in zip(
        found, (fit.weights_, fit.means_, fit.precisions_cholesky_), strict=True
    ):
        helpers.assert_close(got, expected, 1e-9)
    found[1][:] = 0  # the caller's own


def test_samples(structure, dtype):
    _, mixture = mixture_of(structure)
    arguments = (
        mixture.weights,
        mixture.means.astype(dtype),
        mixture.precisions_cholesky(),
        structure,
    )
    x, labels = functional.sample(20_000, *arguments, random_state=0)
    assert x.dtype == dtype
    assert (np.diff(labels) >= 0).all()
    assert np.abs(x.mean(axis=0) - mixture.weights @ mixture.means).max() < 0.1
    again, _ = functional.sample(20_000, *arguments, random_state=0)
    np.testing.assert_array_equal(x, again)


def test_tensors():
    torch = pytest.importorskip("torch")
    rng, mixture = mixture_of("tied")
    x = mixture.sample(rng, 300)[0]
    start = mixture.weights, mixture.means, mixture.precisions_cholesky()

    def step(rows, parameters):
        statistics = functional.sufficient_statistics(rows, *parameters, "tied")
        scatter = functional.row_scatter(rows)
        return functional.m_step(statistics, *parameters, "tied", scatter=scatter)

    expected = step(x, start)
    found = step(torch.from_numpy(x), tuple(map(torch.from_numpy, start)))
    for a, b in zip(found, expected, strict=True):
        assert isinstance(a, torch.Tensor)
        helpers.assert_close(a.numpy(), b, 1e-9)
    rows, labels = functional.sample(5, *map(torch.from_numpy, start), "tied")
    assert rows.shape == (5, 3)
    assert labels.dtype == torch.int64


def test_faults():
    _, mixture = mixture_of("tied")
    start = mixture.weights, mixture.means, mixture.precisions_cholesky()
    x = np.zeros((5, 3))
    statistics = functional.sufficient_statistics(x, *start, "tied")
    with pytest.raises(InputError, match="row_scatter"):
        functional.m_step(statistics, *start, "tied")
    with pytest.raises(InputError, match="tied"):
        functional.row_scatter(x, covariance_type="diag")
    with pytest.raises(InputError, match="row 1"):
        functional.row_scatter([[0.0], [np.nan]])
    with pytest.raises(SingularCovarianceError, match="component 1"):
        functional.precisions_cholesky([[1.0], [-1.0]], "diag")
    with pytest.raises(InputError, match="shape"):
        functional.precisions_cholesky(np.eye(2), "full")
    with pytest.raises(InputError, match="upper triangular"):
        functional.covariances(np.tril(np.ones((1, 2, 2))))
    with pytest.raises(InputError, match="n_samples"):
        functional.sample(0, *start, "tied")
