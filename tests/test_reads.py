"""How often a fit waits for the device that its tensors are on."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

import helpers
import oracle
from fastgmm import covariance, em
from fastgmm.arrays import to_numpy
from fastgmm.backends.reference import ReferenceBackend
from fastgmm.errors import InputError, SingularCovarianceError
from fastgmm.kmeans import kmeans, kmeans_plusplus
from fastgmm.model import MixtureModel
from fastgmm.sources import ArraySource
from fastgmm.statistics import SufficientStatistics

torch = pytest.importorskip("torch")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

# Operations whose outcome the host must know before it can go on, and copies to and from the host.
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select"}
COPYING = ("tolist", "numpy", "cpu", "__array__")
PASSES = (
    "accumulate",
    "accumulate_given",
    "closest",
    "kmeans_step",
    "potentials",
    "responsibilities",
    "score_samples",
)


class Watch(TorchDispatchMode):
    """Counts what would wait for a device, were the tensors on one."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count, self._paused = 0, False
        for name in COPYING:
            monkeypatch.setattr(torch.Tensor, name, self._counted(getattr(torch.Tensor, name)))
        monkeypatch.setattr(torch, "from_numpy", self._counted(torch.from_numpy))

    @contextmanager
    def paused(self):
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def _note(self):
        self.count += not self._paused

    def _counted(self, method):
        def call(*args, **kwargs):
            self._note()
            with self.paused():
                return method(*args, **kwargs)

        return call

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        masks = function.name().startswith("aten::index") and any(
            index is not None and index.dtype == torch.bool
            for index in (args[1] if isinstance(args[1], list | tuple) else ())
        )
        if function.name().split(".")[0] in WAITING or masks:
            self._note()
        return function(*args, **(kwargs or {}))


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


@pytest.fixture
def backend(watch):
    """The reference on tensors; what its passes do inside is not counted."""

    class Quiet(ReferenceBackend):
        pass

    def quietly(method):
        def call(*args, **kwargs):
            with watch.paused():
                return method(*args, **kwargs)

        return call

    for name in PASSES:
        setattr(Quiet, name, quietly(getattr(ReferenceBackend, name)))
    return Quiet("cpu")


def source_and_model(structure, n=150, d=3):
    x, start, _ = helpers.problem(structure, np.float64, n=n, d=d)
    own = covariance.get(structure)
    model = MixtureModel.from_covariances(start.weights, start.means, start.covariances, own)
    return ArraySource(torch.tensor(x), batch_size=60), model


def test_what_waits_is_counted(watch):
    x = torch.arange(6.0)
    actions = (
        lambda: float(x[0]),
        lambda: bool(x[0] > 1),
        lambda: x[torch.tensor(1)],
        lambda: x[x > 2],
        lambda: x.tolist(),
        lambda: to_numpy(x),
        lambda: np.asarray(x),
        lambda: x.nonzero(),
        lambda: torch.equal(x, x),
    )
    for action in actions:
        before = watch.count
        with watch:
            action()
        assert watch.count > before


def test_an_iteration_reads_once(structure, watch, backend):
    source, model = source_and_model(structure)
    counts = []
    for max_iter in (2, 7):
        before = watch.count
        with watch:
            result = em.fit(source, model, tol=0.0, max_iter=max_iter, backend=backend)
        assert result.n_iter == max_iter
        counts.append(watch.count - before)
    assert counts[1] - counts[0] == 5


def test_kmeans_reads_once_per_iteration(watch, backend):
    source, model = source_and_model("full")
    start = backend.own(model.means + 1.0)
    for max_iter in (1, 3):
        before = watch.count
        with watch:
            kmeans(source, start, backend, 0.0, max_iter=max_iter)
        assert watch.count - before == max_iter


def test_kmeans_plusplus_reads_once(watch, backend):
    source, _ = source_and_model("full")
    counts = []
    for k in (3, 12):
        before = watch.count
        with watch:
            centroids = kmeans_plusplus(source, k, np.random.RandomState(0), backend)
        counts.append(watch.count - before)
        assert centroids.shape == (k, 3)
    assert counts[0] == counts[1]


def test_failures_have_the_same_text_on_tensors(structure, kind):
    own = covariance.get(structure)
    mixture = oracle.random_mixture(np.random.default_rng(1), structure, 2, 3)
    model = MixtureModel.from_covariances(
        mixture.weights, mixture.means, mixture.covariances, own
    ).map(kind)
    # No second moments, but means that move: the covariance of component 1 is the more negative.
    sizes = {"full": (2, 3, 3), "diag": (2, 3), "none": (0,)}
    statistics = SufficientStatistics(
        kind(np.array([10.0, 20.0])),
        kind(np.array([[1.0, 1.0, 1.0], [80.0, 80.0, 80.0]])),
        kind(np.zeros(sizes[own.moments])),
        model.means,
        0.0,
        30.0,
        30,
    )
    scatter = kind(np.zeros((3, 3) if own.family == "full" else 3)) if own.tied else None
    with pytest.raises(SingularCovarianceError) as caught:
        em.m_step(statistics, model, scatter, 0.0, context="M-step, iteration 7")
    which = "the shared covariance" if own.tied else "covariance of component 1 of 2"
    rows = 30 if own.tied else 20
    wanted = f"iteration 7: {which} is not positive definite (effective samples {rows}.0, smallest"
    assert wanted in str(caught.value)


def test_empty_components_are_an_error_on_tensors_too():
    x, start, _ = helpers.problem("diag", np.float64)
    means = start.means.copy()
    means[1] = 1e6
    model = MixtureModel.from_covariances(
        start.weights, means, start.covariances, covariance.get("diag")
    )
    source, backend = ArraySource(torch.tensor(x)), ReferenceBackend("cpu")
    with pytest.raises(InputError, match=r"components \[1\] of 3 are empty"):
        em.fit(source, model, empty="error", backend=backend)
    kept = em.fit(source, model, max_iter=2, backend=backend)
    assert to_numpy(kept.model.weights)[1] == 0.0
    np.testing.assert_array_equal(to_numpy(kept.model.means)[1], 1e6)
    seeded = em.fit(source, model, max_iter=2, empty="reseed", backend=backend)
    assert to_numpy(seeded.model.weights).min() > 0.0
