"""From the estimator to distributions and modules, and back."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sklearn.exceptions import NotFittedError  # noqa: E402

import fastgmm  # noqa: E402
import oracle  # noqa: E402
from fastgmm.distributions import GaussianMixture  # noqa: E402
from fastgmm.errors import InputError  # noqa: E402
from fastgmm.nn import GMM  # noqa: E402
from helpers import fitted  # noqa: E402


@pytest.mark.parametrize("structure", oracle.STRUCTURES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_there_and_back(structure, dtype, rng):
    truth = oracle.random_mixture(rng, structure, 4, 3)
    x = truth.sample(rng, 200)[0].astype(dtype)
    start = fitted(truth, "cpu")
    estimator = fastgmm.GaussianMixture.from_parameters(
        start.weights_,
        truth.means.astype(dtype),
        truth.covariances.astype(dtype),
        covariance_type=structure,
    )
    expected = truth.score_samples(x)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-11}
    rows = torch.from_numpy(x)
    distribution, module = estimator.to_distribution(), estimator.to_module()
    assert isinstance(distribution, GaussianMixture)
    assert isinstance(module, GMM)
    assert distribution.covariance_type == structure
    for got in (
        distribution.log_prob(rows).numpy(),
        module().log_prob(rows).detach().numpy(),
        distribution.to_estimator().score_samples(x),
        module.to_estimator().score_samples(x),
        GMM.from_estimator(estimator)().log_prob(rows).detach().numpy(),
    ):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, **tolerance)
    back = module.to_estimator()
    assert back.covariance_type == structure
    np.testing.assert_allclose(back.weights_.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(back.covariances_, truth.covariances, rtol=1e-4, atol=1e-6)


def test_em_then_gradient_then_em(rng):
    truth = oracle.random_mixture(rng, "full", 3, 2)
    x = truth.sample(rng, 500)[0]
    estimator = fastgmm.GaussianMixture(
        3, init_params="random", max_iter=2, tol=0, random_state=0
    ).fit(x)
    module = estimator.to_module()
    rows = torch.from_numpy(x)
    optimiser = torch.optim.Adam(module.parameters(), 0.02)
    for _ in range(30):
        optimiser.zero_grad()
        loss = -module().log_prob(rows).mean()
        loss.backward()
        optimiser.step()
    tuned = module.to_estimator()
    assert tuned.score(x) > estimator.score(x)
    assert tuned.predict(x).shape == (500,)


def test_after_a_fit_on_a_device(monkeypatch):
    rows = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    estimator = fastgmm.GaussianMixture(2, device="reference", random_state=0).fit(rows)
    expected = estimator.score_samples(rows)

    def refuse(*_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__array__", refuse)
        distribution = estimator.to_distribution()
    assert distribution.means.dtype == torch.float32
    torch.testing.assert_close(distribution.log_prob(rows), expected)


def test_epsilon_gives_way_to_small_variances():
    estimator = fastgmm.GaussianMixture.from_parameters(
        [1.0], [[0.0, 0.0]], [[1.0, 1e-8]], covariance_type="diag"
    )
    module = estimator.to_module(epsilon=1e-3)
    assert module.epsilon == pytest.approx(5e-9)
    np.testing.assert_allclose(
        module().covariances[0].diagonal().detach().numpy(), [1, 1e-8], rtol=1e-9
    )


def test_a_fit_is_needed():
    for convert in ("to_distribution", "to_module"):
        with pytest.raises(NotFittedError):
            getattr(fastgmm.GaussianMixture(2), convert)()


def test_batches_are_no_estimator():
    mixture = GaussianMixture(torch.ones(3, 2), torch.zeros(3, 2, 1), variances=torch.ones(3, 2, 1))
    with pytest.raises(InputError, match=r"batch_shape \(3,\)"):
        mixture.to_estimator()
    with pytest.raises(InputError, match=r"batch_shape \(3,\)"):
        GMM.from_distribution(mixture)
    with pytest.raises(InputError, match="conditional"):
        GMM(2, context=3).to_estimator()


@pytest.mark.parametrize("structure", ["full", "tied"])
def test_factors_are_taken_as_they_are(structure):
    """The covariance rounds to a singular matrix."""
    factor = np.array([[1.0, 1e9], [0.0, 1.0]])
    estimator = fastgmm.GaussianMixture.from_parameters(
        [1.0],
        [[0.0, 0.0]],
        precisions_cholesky=factor if structure == "tied" else factor[None],
        covariance_type=structure,
    )
    x = np.array([[0.0, 0.0], [1.0, -1e9], [2.0, 1.0]])
    distribution, module = estimator.to_distribution(), estimator.to_module()
    for got in (
        distribution.log_prob(torch.from_numpy(x)).numpy(),
        module().log_prob(torch.from_numpy(x)).detach().numpy(),
        distribution.to_estimator().score_samples(x),
        module.to_estimator().score_samples(x),
    ):
        np.testing.assert_allclose(got, estimator.score_samples(x), rtol=1e-12)
