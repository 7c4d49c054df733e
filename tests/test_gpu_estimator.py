"""The estimator on the GPU backend: dispatch, EM, k-means and kinds, end to end."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import fastgmm
import helpers
import oracle
from conftest import CUDA
from fastgmm import backends
from fastgmm.errors import BackendUnavailableError, DeviceMemoryError, InputError

torch = pytest.importorskip("torch")
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

WHERE = [
    pytest.param(
        ("cpu", "interpreter"),
        marks=pytest.mark.skipif(CUDA, reason="a device is there: no interpreter"),
        id="interpreter",
    ),
    pytest.param(
        ("cuda:0", "cuda"),
        marks=[pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="there is no CUDA device")],
        id="cuda",
    ),
]


@pytest.fixture(params=WHERE)
def place(request):
    return request.param


def test_a_fit_on_tensors_is_that_of_the_oracle(place, structure):
    x, start, _ = helpers.problem(structure, np.float64, n=150)
    model = helpers.fit(x, start, place, max_iter=3, reg_covar=1e-6)
    expected = oracle.em(x, start, max_iter=3, reg_covar=1e-6)
    helpers.assert_same_mixture(helpers.learnt(model), expected.mixture, 1e-9)
    np.testing.assert_allclose(model.lower_bounds_, expected.lower_bounds, rtol=1e-11)
    resp = expected.mixture.responsibilities(x)
    np.testing.assert_allclose(model.predict_proba(x), resp, rtol=0, atol=1e-8)


def test_a_fit_on_arrays_is_that_of_the_oracle(place):
    x, start, rng = helpers.problem("full", np.float32, n=150)
    weight = rng.gamma(2.0, size=150)
    model = helpers.fit(x, start, place[1], weight, max_iter=3, batch_size=64)
    expected = oracle.em(x, start, max_iter=3, sample_weight=weight)
    helpers.assert_same_mixture(helpers.learnt(model), expected.mixture, 2e-5)
    scores = model.score_samples(x)
    assert isinstance(scores, np.ndarray)
    assert scores.dtype == np.float32
    helpers.assert_close(scores, expected.mixture.score_samples(x), 2e-5)


@pytest.mark.parametrize("init", ["kmeans", "k-means++", "random", "random_from_data"])
def test_every_start_finds_clusters_far_apart(place, init):
    rng = np.random.default_rng(0)
    centres = np.array([[-20.0, 0.0], [20.0, 10.0]])
    x = centres[np.repeat([0, 1], 60)] + rng.standard_normal((120, 2))
    rows = torch.tensor(x, device=place[0])
    mixture = fastgmm.GaussianMixture(
        2, init_params=init, random_state=0, max_iter=3, device=place[1]
    )
    if init != "random":
        labels = mixture.fit(rows).predict(rows)
        assert labels.device == rows.device
        assert len(set(labels[:60].tolist())) == len(set(labels[60:].tolist())) == 1
    assert np.isfinite(float(mixture.fit(rows).lower_bound_))


@pytest.mark.parametrize(
    ("precision", "rtol"), [("highest", 2e-5), ("high", 2e-3), ("medium", 0.1)]
)
def test_every_precision(place, precision, rtol):
    x, start, _ = helpers.problem("full", np.float32, n=100, d=9)
    backend, _ = backends.choose(place[1], precision=precision)
    prepared = backend.prepare(helpers.fitted(start, "cpu")._model, x.dtype)
    helpers.assert_close(backend.score_samples(prepared, x), start.score_samples(x), rtol)


def test_precision_names(place):
    with pytest.raises(InputError, match="precision"):
        backends.choose(place[1], precision="low")


@pytest.mark.skipif(CUDA, reason="a device is there")
def test_a_missing_device_is_named_when_it_is_chosen():
    with pytest.raises(BackendUnavailableError, match="finds no CUDA device"):
        backends.choose("cuda")


def test_the_name_of_no_number_is_the_current_device(monkeypatch):
    from fastgmm.backends import availability

    monkeypatch.setattr(availability, "_need_device", lambda device: None)
    monkeypatch.setattr(backends, "_gpu", lambda where, precision: where)
    for number in (1, 0, 1):
        monkeypatch.setattr(torch.cuda, "current_device", lambda number=number: number)
        assert backends.choose("cuda")[0] == f"cuda:{number}"
    assert backends.choose("cuda", "cuda:3")[0] == "cuda:3"


@pytest.mark.parametrize(
    ("missing", "text"), [("torch", "torch is not installed"), ("triton", "triton is not")]
)
def test_a_missing_package_is_named(monkeypatch, missing, text):
    from fastgmm.backends import availability

    found = availability.find_spec
    monkeypatch.setattr(
        availability, "find_spec", lambda name: None if name == missing else found(name)
    )
    with pytest.raises(BackendUnavailableError, match=text):
        availability.gpu_backend("cuda", "highest")


def test_a_missing_compiler_or_header_is_named(monkeypatch):
    from fastgmm.backends import availability

    monkeypatch.setattr(availability, "_need_device", lambda device: None)
    monkeypatch.setenv("CC", "/nowhere/gcc")
    with pytest.raises(BackendUnavailableError, match="needs one to launch kernels"):
        availability.gpu_backend("cuda", "highest")
    monkeypatch.delenv("CC")
    monkeypatch.setattr(availability.shutil, "which", lambda name: "/usr/bin/cc")
    monkeypatch.setattr(availability.sysconfig, "get_paths", lambda: {"include": "/nowhere"})
    with pytest.raises(BackendUnavailableError, match="headers of Python"):
        availability.gpu_backend("cuda", "highest")


@pytest.mark.skipif(CUDA, reason="a device is there: no interpreter")
def test_short_memory_halves_chunks_and_then_says_so(monkeypatch):
    from fastgmm.backends.gpu import GPUBackend
    from fastgmm.backends.passes import ChunkPass

    x, start, _ = helpers.problem("full", np.float64, n=3000)
    backend = backends.choose("interpreter")[0]
    assert isinstance(backend, GPUBackend)
    prepared = backend.prepare(helpers.fitted(start, "cpu")._model, x.dtype)
    sizes, limit = [], 600
    plain = ChunkPass.__init__

    def init(self, target, parameters, size, **options):
        sizes.append(size)
        if size > limit:
            raise torch.cuda.OutOfMemoryError
        plain(self, target, parameters, size, **options)

    monkeypatch.setattr(ChunkPass, "__init__", init)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1, 2))
    helpers.assert_close(backend.score_samples(prepared, x), start.score_samples(x), 1e-12)
    assert sizes[-1] <= limit < sizes[0]
    limit = 0
    with pytest.raises(DeviceMemoryError, match="1 of 2 are free"):
        backend.accumulate(prepared, x, None)


@pytest.mark.skipif(CUDA, reason="a device is there: no interpreter")
@pytest.mark.parametrize("structure", ["full", "tied"])
def test_the_default_device_of_torch_changes_nothing(structure):
    x, start, _ = helpers.problem(structure, np.float64, n=150)

    def learn():
        model = helpers.fit(x, start, "interpreter", max_iter=2, batch_size=64)
        seeded = fastgmm.GaussianMixture(2, device="interpreter", max_iter=1, random_state=0)
        seeded = seeded.fit(x[:60])
        names = ("score_samples", "predict", "predict_proba")
        return [model.means_, seeded.means_, *(getattr(model, name)(x) for name in names)]

    expected = learn()
    with torch.device("meta"):
        found = learn()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(CUDA, reason="a device is there: no interpreter")
def test_short_memory_leaves_the_parts_of_potentials_as_they_were(monkeypatch):
    """k-means++ draws by the parts of its first call."""
    from fastgmm.backends import clusters

    x = helpers.rows(n=700)
    backend = backends.choose("interpreter")[0]
    near = backend.closest(x, x[0], None)
    expected = backend.potentials(x, None, x[1:3], near)
    plain = clusters._rows_for

    def limited(target, chunk, centre):
        if len(chunk) > 300:
            raise torch.cuda.OutOfMemoryError
        return plain(target, chunk, centre)

    monkeypatch.setattr(clusters, "_rows_for", limited)
    found = backend.potentials(x, None, x[1:3], near)
    assert found.shape == expected.shape
    helpers.assert_close(found.numpy(), expected.numpy(), 1e-12)
