"""Rows that stay on the host while parameters are tensors: what a device does with arrays."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

import helpers
from fastgmm import GaussianMixture, chunked, rows, scoring
from fastgmm.arrays import to_numpy
from fastgmm.backends import Backend
from fastgmm.backends.reference import ReferenceBackend
from fastgmm.errors import DegenerateDataWarning
from fastgmm.initialise import METHODS

torch = pytest.importorskip("torch")


def carried(x):
    assert x is None or isinstance(x, np.ndarray)
    return x if x is None else torch.tensor(x)


class Carrying(Backend):
    """Carries rows over in every pass, and what there is per row back."""

    name = "carrying"

    def __init__(self):
        self._inner = ReferenceBackend("cpu")

    def own(self, x):
        return self._inner.own(x)

    def prepare(self, model, dtype):
        assert isinstance(model.means, torch.Tensor)
        return model

    def score_samples(self, prepared, x):
        return to_numpy(self._inner.score_samples(prepared, carried(x)))

    def predict(self, prepared, x):
        return to_numpy(self._inner.predict(prepared, carried(x)))

    def responsibilities(self, prepared, x, *, log=False):
        return to_numpy(self._inner.responsibilities(prepared, carried(x), log=log))

    def weighted_log_prob(self, prepared, x):
        return to_numpy(self._inner.weighted_log_prob(prepared, carried(x)))

    def accumulate(self, prepared, x, weight, about=None, order=None):
        return self._inner.accumulate(prepared, carried(x), carried(weight), about)

    def accumulate_given(self, x, weight, structure, about, *, labels=None, resp=None):
        given = {"labels": carried(labels), "resp": carried(resp)}
        return self._inner.accumulate_given(carried(x), carried(weight), structure, about, **given)

    def summarise(self, x):
        return self._inner.summarise(carried(x))

    def kmeans_step(self, x, weight, centroids, guess=None):
        assert isinstance(centroids, torch.Tensor)
        step = self._inner.kmeans_step(carried(x), carried(weight), centroids, carried(guess))
        return replace(step, labels=to_numpy(step.labels))

    def closest(self, x, point, closest):
        result = to_numpy(self._inner.closest(carried(x), point, carried(closest)))
        if closest is None:
            return result
        closest[:] = result
        return closest

    def potentials(self, x, weight, candidates, closest):
        return self._inner.potentials(carried(x), carried(weight), candidates, carried(closest))


@pytest.fixture
def carrying(monkeypatch):
    backend = Carrying()
    for module in (chunked, rows, scoring):
        monkeypatch.setattr(module, "choose", lambda *_: (backend, "carrying"))


# "k-means||" clusters a few of the rows where the parameters are.
@pytest.mark.parametrize("method", [method for method in METHODS if method != "k-means||"])
@pytest.mark.parametrize("batch_size", [None, 70])
def test_arrays_in_and_arrays_out(structure, method, batch_size, carrying):
    x, _, rng = helpers.problem(structure, np.float64)
    weight = rng.uniform(size=len(x))
    settings = {
        "covariance_type": structure,
        "init_params": method,
        "random_state": 0,
        "batch_size": batch_size,
        "max_iter": 5,
        "tol": 1.0,
    }
    model = GaussianMixture(3, **settings).fit(x, sample_weight=weight)
    assert model.backend_.startswith("carrying")
    assert isinstance(model._model.means, torch.Tensor)
    got = [getattr(model, name)(x) for name in ("score_samples", "predict", "predict_proba")]
    assert all(isinstance(part, np.ndarray) for part in [*got, model.means_])
    assert model.n_iter_ > 0
    expected = Expected(settings, x, weight)
    helpers.assert_close(model.means_, expected.means, 1e-9)
    helpers.assert_close(model.covariances_, expected.covariances, 1e-9)
    helpers.assert_close(got[0], expected.scores, 1e-9)


class Expected:
    """What plain NumPy gives, with the choice of backends as it is."""

    def __init__(self, settings, x, weight):
        with pytest.MonkeyPatch.context() as patch:
            from fastgmm import backends

            for module in (chunked, rows, scoring):
                patch.setattr(module, "choose", backends.choose)
            model = GaussianMixture(3, device="reference", **settings).fit(x, sample_weight=weight)
            self.means, self.covariances = model.means_, model.covariances_
            self.scores = model.score_samples(x)


def test_far_components_and_empty_ones(carrying):
    x, start, _ = helpers.problem("tied", np.float64)
    far = np.concatenate([x, x + 1e7])
    model = GaussianMixture(2, covariance_type="tied", random_state=0).fit(far)
    within = ((x - x.mean(axis=0)).T @ (x - x.mean(axis=0))) / len(x)
    helpers.assert_close(model.covariances_, within, 1e-6)
    means = np.vstack([start.means[:2], np.full((1, 3), 1e6)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        seeded = GaussianMixture(3, empty="reseed", means_init=means, random_state=0).fit(x)
    assert seeded.weights_.min() > 0.0
