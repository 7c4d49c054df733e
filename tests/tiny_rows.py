"""Tiny rows of benchmarks and implementations that misbehave."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import extras, subject, timing
from benchmarks.adapters import ScikitLearn
from benchmarks.rows import Row


def row_of(structure="full", task="fit", shape=(400, 3, 4), **keywords):
    return Row(f"{task}-{structure}", f"{task}, {structure}", task, structure, shape, **keywords)


@pytest.fixture(autouse=True, scope="module")
def positive_times():
    """The difference of two tiny fits is noise, which is no time elsewhere."""
    plain = timing.PerIteration.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing.PerIteration, "__call__", lambda self: max(abs(plain(self)), 1e-9))
        yield


@pytest.fixture(autouse=True, scope="module")
def hasty_timing(positive_times):
    """Whether times are good is not tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "SETTLE", 0.0)
        patch.setattr(timing, "AT_LEAST", 1e-4)
        patch.setattr(subject, "_ITERATIONS", 1e-3)
        patch.setattr(extras, "fma_peak", lambda precision: 1e11)
        yield


class Wrong(ScikitLearn):
    name = "wrong"

    def score(self, x):
        return super().score(x) + 0.1

    def predict(self, x):
        return np.zeros(len(x), dtype=int)

    def fit(self, x, n_iter):
        fitted = super().fit(x, n_iter)
        fitted.parameters.covariances[0] *= 1.5
        return fitted


class Absent(ScikitLearn):
    name = "absent"
    package = "a-package-that-nobody-has"
