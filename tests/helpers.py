"""Problems, fits and comparisons that the tests of the library share."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

import fastgmm
import oracle

PARAMETERS = ("weights_", "means_", "covariances_")
ATTRIBUTES = (*PARAMETERS, "precisions_", "precisions_cholesky_")
METHODS = (
    "score_samples",
    "predict",
    "predict_proba",
    "predict_log_proba",
    "component_log_prob",
)


def tolerance(dtype, double, single):
    return single if np.dtype(dtype) == np.float32 else double


def generator(structure, salt=0):
    return np.random.default_rng([oracle.STRUCTURES.index(structure), salt])


def rows(n=200, d=3, dtype=np.float64, seed=0):
    """Three clusters on a line, without a mixture that they came from."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) + 5.0 * rng.integers(3, size=(n, 1))).astype(dtype)


def mixture_and_rows(structure, k=3, d=2, n=200, separation=3.0):
    """A mixture, and rows drawn from it."""
    rng = np.random.default_rng(8)
    mixture = oracle.random_mixture(rng, structure, k, d, separation=separation)
    return mixture, mixture.sample(rng, n)[0]


def problem(structure, dtype, *, n=240, k=3, d=3, separation=1.5, salt=0):
    """Rows from a mixture with overlap, and a start that is not their truth."""
    rng = generator(structure, salt)
    truth = oracle.random_mixture(rng, structure, k, d, separation=separation)
    x, _ = truth.sample(rng, n)
    x = x.astype(dtype)
    resp = 0.8 * truth.responsibilities(x) + 0.2 / k
    return x, oracle.m_step(x, resp, structure), rng


class OnTensors:
    """An estimator that gets tensors for arrays, and whose tensors are looked at as arrays."""

    def __init__(self, model, home):
        self._model, self._home = model, home

    def __getattr__(self, name):
        value = getattr(self._model, name)
        if not callable(value):
            return self._out(value)

        def call(*args, **kwargs):
            kwargs = {key: self._in(arg) for key, arg in kwargs.items()}
            return self._out(value(*map(self._in, args), **kwargs))

        return call

    def _in(self, value):
        import torch

        return torch.tensor(value, device=self._home) if isinstance(value, np.ndarray) else value

    def _out(self, value):
        if value is self._model:
            return self
        if isinstance(value, tuple):
            return tuple(map(self._out, value))
        assert not isinstance(value, np.ndarray), "tensors went in"
        if not hasattr(value, "cpu"):
            return value
        assert str(value.device) == self._home
        return value.cpu().numpy()


def make(n_components, device, **params):
    """An unfitted estimator for a device, or for a pair of it and the device of tensors."""
    if isinstance(device, str):
        return fastgmm.GaussianMixture(n_components, device=device, **params)
    home, device = device
    return OnTensors(fastgmm.GaussianMixture(n_components, device=device, **params), home)


def estimator(start, device, **params):
    """An unfitted estimator that begins at ``start``."""
    return make(
        start.n_components,
        covariance_type=start.structure,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=start.precisions(),
        device=device,
        **{"tol": 0.0, "max_iter": 5, "reg_covar": 0.0, **params},
    )


def fit(x, start, device, sample_weight=None, **params):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator(start, device, **params).fit(x, sample_weight=sample_weight)


def fitted(mixture, device, **params):
    """An estimator that has the oracle's parameters without a fit."""
    model = make(mixture.n_components, device, covariance_type=mixture.structure, **params)
    given, settings = (mixture.weights, mixture.means, mixture.covariances), model.get_params()
    if not isinstance(model, OnTensors):
        return fastgmm.GaussianMixture.from_parameters(*given, **settings)
    tensors = map(model._in, given)
    return OnTensors(fastgmm.GaussianMixture.from_parameters(*tensors, **settings), model._home)


def learnt(model):
    """The fitted parameters as an oracle mixture."""
    return oracle.Mixture(
        model.covariance_type,
        np.asarray(model.weights_, dtype=np.float64),
        np.asarray(model.means_, dtype=np.float64),
        np.asarray(model.covariances_, dtype=np.float64),
    )


def learnt_responsibilities(start, x, n_iter, reg_covar):
    """Responsibilities of the E-step that follows ``n_iter`` iterations."""
    return oracle.em(x, start, max_iter=n_iter, reg_covar=reg_covar).mixture.responsibilities(x)


def assert_close(got, expected, rtol, what=""):
    """Relative to the largest entry: parameters near zero have no digits of their own."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape, (what, got.shape, expected.shape)
    scale = np.abs(expected).max(initial=0.0)
    np.testing.assert_allclose(got, expected, rtol=0.0, atol=rtol * scale, err_msg=what)


def assert_same_mixture(got, expected, rtol):
    for name in ("weights", "means", "covariances"):
        assert_close(getattr(got, name), getattr(expected, name), rtol, name)


def assert_same_bits(a, b):
    for name in PARAMETERS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    np.testing.assert_array_equal(a.lower_bounds_, b.lower_bounds_, err_msg="lower bounds")


def state(model):
    return {
        key: np.copy(value) if isinstance(value, np.ndarray) else value
        for key, value in vars(model).items()
        if key.endswith("_") and not key.startswith("_")
    }


def assert_same_state(model, before):
    after = state(model)
    assert after.keys() == before.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)
