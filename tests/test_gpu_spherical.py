"""Squared distances by products: one variance each, and what else is scored as such."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import pytest

import oracle
from fastgmm import covariance
from fastgmm.backends.base import settle_unreachable
from fastgmm.backends.reference import ReferenceBackend
from fastgmm.model import MixtureModel
from helpers import assert_close, tolerance

torch = pytest.importorskip("torch")
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from fastgmm.backends import gpu as gpu_backend  # noqa: E402
from fastgmm.backends import launch, passes  # noqa: E402
from fastgmm.backends.gpu import GPUBackend  # noqa: E402
from fastgmm_kernels.gpu import spherical, trace  # noqa: E402

pytestmark = pytest.mark.usefixtures("_unwritten_memory_is_nan", "any_size")
# N, K, D: part of a block of features and several, of components, of rows.
SIZES = [(65, 1, 17), (70, 2, 33), (129, 7, 65), (30, 130, 17), (40, 7, 128)]


@pytest.fixture
def any_size(monkeypatch):
    """Products for any number of components; chunks and orders as for large problems."""
    sizes = {**launch.device_sizes(), "product_components": 1, "least_rows": 128, "chunk_bytes": 0}
    sizes |= {"order_components": 1, "order_features": 1, "skip_components": 1}
    for module in (passes, gpu_backend):
        monkeypatch.setattr(module, "device_sizes", lambda: sizes)


@pytest.fixture
def launches(monkeypatch):
    """How often each way to score components with one variance was taken."""
    seen = {"expect_product": 0, "expect_spherical": 0}

    def count(name, plain):
        def run(*args, **kwargs):
            seen[name] += 1
            plain(*args, **kwargs)

        monkeypatch.setattr(passes.kernels, name, run)

    for name in seen:
        count(name, getattr(passes.kernels, name))
    return seen


def _problem(structure, dtype, n, k, d, separation=2.0):
    rng = np.random.default_rng([n, k, d])
    mixture = oracle.random_mixture(rng, structure, k, d, separation=separation)
    model = MixtureModel.from_covariances(
        mixture.weights, mixture.means, mixture.covariances, covariance.get(structure)
    )
    return mixture, model, mixture.sample(rng, n)[0].astype(dtype), rng


def _far(offset):
    """Components at this many standard deviations from the centre, some near each other."""
    mixture, _, _, rng = _problem("spherical", np.float32, 60, 4, 17)
    means = mixture.means + offset * np.array([[1.0], [1.0], [-1.0], [0.0]])
    mixture = oracle.Mixture("spherical", mixture.weights, means, mixture.covariances)
    model = MixtureModel.from_covariances(
        mixture.weights, means, mixture.covariances, covariance.get("spherical")
    )
    return mixture, model, mixture.sample(rng, 60)[0].astype(np.float32)


def _same(got, expected, rtol):
    for name in ("counts", "first", "second", "log_likelihood"):
        a, b = getattr(got, name), getattr(expected, name)
        a, b = (v.cpu().numpy() if isinstance(v, torch.Tensor) else v for v in (a, b))
        if name == "second" and np.size(b):
            assert (a == a[:, :1]).all()  # equal shares: the sum alone is known
            a, b = a.sum(axis=1), b.sum(axis=1)
        assert_close(a, b, rtol, name)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("structure", ["spherical", "tied"])
def test_rows_against_the_oracle(where, structure, dtype, size, launches):
    mixture, model, x, _ = _problem(structure, dtype, *size)
    backend = GPUBackend(where)
    prepared = backend.prepare(model, x.dtype)
    rtol = tolerance(dtype, 1e-12, 3e-6)
    assert_close(backend.score_samples(prepared, x), mixture.score_samples(x), rtol)
    np.testing.assert_array_equal(backend.predict(prepared, x), mixture.predict(x))
    assert_close(backend.weighted_log_prob(prepared, x), mixture.weighted_log_prob(x), rtol)
    assert launches["expect_product"] > 0
    assert launches["expect_spherical"] == 0


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8])
def test_few_features_need_no_product(where, launches, d):
    mixture, model, x, _ = _problem("spherical", np.float32, 40, 20, d)
    backend = GPUBackend(where)
    got = backend.score_samples(backend.prepare(model, x.dtype), x)
    assert_close(got, mixture.score_samples(x), 3e-6)
    assert launches == {"expect_product": 0, "expect_spherical": 1}


@pytest.mark.parametrize("offset", [300, 10000])
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_clusters_far_apart_are_evaluated_by_differences(where, monkeypatch, offset, precision):
    """Many standard deviations from the centre, where the sum of squares and product cancels."""
    mixture, model, x = _far(offset)

    def error():
        backend = GPUBackend(where, precision=precision)
        got = backend.score_samples(backend.prepare(model, x.dtype), x)
        return np.abs(got - mixture.score_samples(x)).max()

    # The means themselves are rounded, relative to the centre.
    assert error() < 1e-6 * offset
    if offset == 300:
        monkeypatch.setattr(spherical, "RATIO", 1e30)
        assert error() > 1e-4 * offset


@pytest.mark.parametrize("separation", [0.5, 20.0])
def test_order_and_skipping_change_nothing(where, dtype, separation, launches):
    _, model, x, rng = _problem("spherical", dtype, 140, 20, 33, separation)
    weight = rng.gamma(1.0, size=140)
    expected = ReferenceBackend().accumulate(model, x, weight)
    backend = GPUBackend(where)
    prepared, order = backend.prepare(model, dtype), backend.new_order()
    for _ in range(2):
        got = backend.accumulate(prepared, x, weight, None, order)
        _same(got, expected, tolerance(dtype, 1e-12, 1e-5))
    np.testing.assert_array_equal(order.labels.cpu().numpy(), ReferenceBackend().predict(model, x))
    assert launches["expect_product"] > 0


def test_skipping_leaves_blocks_of_components_out(where, monkeypatch):
    """Of clusters far apart, a tile of rows in order meets few blocks."""
    _, model, x, _ = _problem("spherical", np.float32, 128, 64, 33, 50.0)
    backend = GPUBackend(where)
    backend.target = dataclasses.replace(backend.target, programs=1)  # one group of components
    prepared, order = backend.prepare(model, x.dtype), backend.new_order()
    backend.accumulate(prepared, x, None, None, order)
    seen = []
    plain = passes.kernels.respond

    def look(lp, *args, **kwargs):
        seen.append(torch.isneginf(lp[:64]).all(dim=0).sum().item())
        plain(lp, *args, **kwargs)

    monkeypatch.setattr(passes.kernels, "respond", look)
    backend.accumulate(prepared, x, None, None, order)
    assert seen[0] > 0


@pytest.mark.parametrize("size", [(130, 1, 17), (60, 7, 33)], ids=str)
def test_statistics_about_any_points(where, dtype, size):
    _, model, x, rng = _problem("spherical", dtype, *size)
    weight = rng.gamma(1.0, size=len(x))
    weight[::5] = 0
    about = model.means + 0.3
    backend = GPUBackend(where)
    got = backend.accumulate(backend.prepare(model, x.dtype), x, weight, about)
    expected = ReferenceBackend().accumulate(model, x, weight, about)
    _same(got, expected, tolerance(dtype, 1e-12, 1e-5))


def test_sums_of_clusters_far_apart_are_taken_of_differences(where, monkeypatch):
    """Beside their width: products of responsibilities and rows cancel with what is subtracted."""
    _, model, x = _far(300)
    expected = ReferenceBackend().accumulate(model, x, None)
    backend = GPUBackend(where)
    prepared = backend.prepare(model, x.dtype)
    _same(backend.accumulate(prepared, x, None), expected, 1e-5)
    monkeypatch.setattr(trace, "LIMIT", 1e30)
    first = backend.accumulate(prepared, x, None).first.cpu().numpy()
    assert np.abs(first - expected.first).max() > 1e-5 * np.abs(expected.first).max()


def test_rows_far_from_everything_belong_to_one_component(where):
    _, model, x, _ = _problem("spherical", np.float32, 20, 3, 17)
    x[3], x[11] = 1e30, -3e38
    backend = GPUBackend(where)
    prepared = backend.prepare(model, x.dtype)
    expected = ReferenceBackend().predict(model, x)
    expected[[3, 11]] = settle_unreachable(model, x[[3, 11]])
    np.testing.assert_array_equal(backend.predict(prepared, x), expected)
    resp = backend.responsibilities(prepared, x)
    np.testing.assert_allclose(resp.sum(axis=1), 1, rtol=1e-5)


def test_kmeans_against_the_reference(where, dtype, launches):
    mixture, _, x, rng = _problem("spherical", dtype, 129, 20, 17)
    weight = rng.gamma(1.0, size=len(x))
    got = GPUBackend(where).kmeans_step(x, weight, mixture.means)
    expected = ReferenceBackend().kmeans_step(x, weight, mixture.means)
    np.testing.assert_array_equal(got.labels, expected.labels)
    for name in ("counts", "sums", "inertia"):
        a = getattr(got, name).cpu().numpy()
        assert_close(a, getattr(expected, name), tolerance(dtype, 1e-12, 1e-5), name)
    assert launches["expect_product"] > 0


def test_rows_on_a_centroid_have_distance_zero(where, dtype):
    rng = np.random.default_rng(0)
    centroids = rng.standard_normal((20, 17)).astype(dtype).astype(np.float64)
    centroids -= centroids.mean(axis=0)
    centroids = np.round(8 * centroids) / 8
    centroids = np.concatenate([centroids, -centroids, centroids])  # the first of equals wins
    step = GPUBackend(where).kmeans_step(centroids.astype(dtype), None, centroids)
    np.testing.assert_array_equal(step.labels, np.arange(60) % 40)
    assert float(step.inertia) == 0


def test_the_same_input_gives_the_same_bits(where):
    _, model, x, _ = _problem("spherical", np.float32, 150, 20, 17)
    backend = GPUBackend(where)
    prepared = backend.prepare(model, x.dtype)
    one, other = (backend.accumulate(prepared, x, None) for _ in range(2))
    for name in ("counts", "first", "second", "log_likelihood"):
        np.testing.assert_array_equal(
            getattr(one, name).cpu().numpy(), getattr(other, name).cpu().numpy()
        )


def test_passes_add_nothing_to_what_is_prepared(where):
    """Threads share it once the device has been waited for."""
    _, model, x, _ = _problem("spherical", np.float32, 40, 7, 17)
    backend = GPUBackend(where)
    prepared = backend.prepare(model, x.dtype)
    names = set(vars(prepared))
    backend.accumulate(prepared, x, None)
    assert set(vars(prepared)) == names


@pytest.mark.parametrize("structure", ["spherical", "tied_spherical"])
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_deviations_whose_squares_have_no_float32(where, structure, scale):
    mixture, _, x, _ = _problem(structure, np.float64, 40, 3, 5)
    model = MixtureModel.from_covariances(
        mixture.weights,
        scale * mixture.means,
        scale**2 * mixture.covariances,
        covariance.get(structure),
    )
    backend = GPUBackend(where)
    got = backend.score_samples(backend.prepare(model, np.float32), (scale * x).astype(np.float32))
    expected = mixture.score_samples(x) - 5 * np.log(scale)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
