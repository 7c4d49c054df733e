"""The GPU kernels: on the device where there is one, else in Triton's interpreter."""

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

from conftest import LAYOUTS  # noqa: E402
from fastgmm.backends import gpu as gpu_backend  # noqa: E402
from fastgmm.backends import launch, ordering_gpu, passes  # noqa: E402
from fastgmm.backends.gpu import GPUBackend  # noqa: E402

pytestmark = pytest.mark.usefixtures("_unwritten_memory_is_nan")
# N, K, D: every padding of features, rows that fill no tile, components that fill no group.
SIZES = [(1, 1, 1), (130, 7, 2), (150, 2, 5), (129, 3, 17), (60, 2, 33)]


def _problem(structure, dtype, n, k, d, separation=2.0):
    rng = np.random.default_rng([oracle.STRUCTURES.index(structure), n, k, d])
    mixture = oracle.random_mixture(rng, structure, k, d, separation=separation)
    model = MixtureModel.from_covariances(
        mixture.weights, mixture.means, mixture.covariances, covariance.get(structure)
    )
    return mixture, model, mixture.sample(rng, n)[0].astype(dtype), rng


def _numpy(value):
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _same_statistics(got, expected, rtol):
    for name in ("counts", "first", "second", "log_likelihood", "weight"):
        assert_close(_numpy(getattr(got, name)), getattr(expected, name), rtol, name)
    assert got.n_rows == expected.n_rows


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_rows_against_the_oracle(where, structure, dtype, size):
    mixture, model, x, _ = _problem(structure, dtype, *size)
    backend = GPUBackend(where)
    prepared = backend.prepare(model, x.dtype)
    rtol = tolerance(dtype, 1e-12, 3e-6)
    rows = torch.tensor(x, device=where)
    scores = backend.score_samples(prepared, rows)
    assert scores.device.type == where.type
    assert scores.dtype == rows.dtype
    assert_close(_numpy(scores), mixture.score_samples(x), rtol)
    np.testing.assert_array_equal(_numpy(backend.predict(prepared, rows)), mixture.predict(x))
    resp = mixture.responsibilities(x)
    np.testing.assert_allclose(
        _numpy(backend.responsibilities(prepared, rows)), resp, rtol=0, atol=5 * rtol
    )
    log_prob = mixture.weighted_log_prob(x)
    assert_close(_numpy(backend.weighted_log_prob(prepared, rows)), log_prob, rtol)
    log_resp = log_prob - mixture.score_samples(x)[:, None]
    assert_close(_numpy(backend.responsibilities(prepared, rows, log=True)), log_resp, 2 * rtol)


@pytest.mark.parametrize("size", [(130, 7, 2), (129, 3, 17)], ids=str)
def test_statistics_against_the_reference(where, structure, dtype, size):
    _, model, x, rng = _problem(structure, dtype, *size)
    n, k, _ = size
    backend, reference = GPUBackend(where), ReferenceBackend()
    prepared = backend.prepare(model, x.dtype)
    rtol = tolerance(dtype, 1e-12, 1e-5)
    weight = rng.gamma(1.0, size=n)
    weight[::5] = 0
    about = model.means + 0.3
    for v, a in ((None, None), (weight, about)):
        got = backend.accumulate(prepared, x, v, a)
        _same_statistics(got, reference.accumulate(model, x, v, a), rtol)
    labels, resp = rng.integers(k, size=n), rng.dirichlet(np.ones(k), size=n)
    for given in ({"labels": labels}, {"resp": resp}):
        got = backend.accumulate_given(x, weight, model.structure, about, **given)
        expected = reference.accumulate_given(x, weight, model.structure, about, **given)
        _same_statistics(got, expected, rtol)


def test_many_features(where, dtype):
    """More than one block of features."""
    mixture, model, x, _ = _problem("full", dtype, 150, 2, 65)
    backend = GPUBackend(where)
    prepared = backend.prepare(model, x.dtype)
    assert_close(
        backend.score_samples(prepared, x), mixture.score_samples(x), tolerance(dtype, 1e-12, 3e-6)
    )
    got = backend.accumulate(prepared, x, None)
    expected = ReferenceBackend().accumulate(model, x, None)
    _same_statistics(got, expected, tolerance(dtype, 1e-12, 1e-5))


@pytest.mark.parametrize(("structure", "dtype"), [("full", "f8"), ("spherical", "f4")])
def test_many_components(where, structure, dtype):
    mixture, model, x, _ = _problem(structure, dtype, 40, 130, 3)
    backend = GPUBackend(where)
    prepared = backend.prepare(model, x.dtype)
    rtol = tolerance(dtype, 1e-12, 3e-6)
    assert_close(backend.score_samples(prepared, x), mixture.score_samples(x), rtol)
    np.testing.assert_array_equal(backend.predict(prepared, x), mixture.predict(x))
    _same_statistics(
        backend.accumulate(prepared, x, None),
        ReferenceBackend().accumulate(model, x, None),
        tolerance(dtype, 1e-12, 1e-5),
    )


@pytest.mark.parametrize("size", [(130, 7, 2), (129, 3, 17)], ids=str)
def test_kmeans_against_the_reference(where, dtype, size):
    mixture, _, x, rng = _problem("spherical", dtype, *size)
    backend, reference = GPUBackend(where), ReferenceBackend()
    rtol = tolerance(dtype, 1e-12, 1e-5)
    weight = rng.gamma(1.0, size=len(x))
    for v in (None, weight):
        got = backend.kmeans_step(x, v, mixture.means)
        expected = reference.kmeans_step(x, v, mixture.means)
        np.testing.assert_array_equal(got.labels, expected.labels)
        for name in ("counts", "sums", "inertia"):
            assert_close(_numpy(getattr(got, name)), getattr(expected, name), rtol, name)
    near = backend.closest(x, mixture.means[0], None)
    assert near.dtype == x.dtype
    assert_close(near, reference.closest(x, mixture.means[0], None), rtol)
    again = backend.closest(x, mixture.means[1], near)
    assert again is near
    assert_close(near, reference.closest(x, mixture.means[1], near.copy()), rtol)
    got = backend.potentials(x, weight, mixture.means[:2], near)
    expected = reference.potentials(x, weight, mixture.means[:2], near).sum(axis=0)
    assert_close(_numpy(got).sum(axis=0), expected, rtol)
    _same_summary(backend.summarise(x), reference.summarise(x))


def _same_summary(got, expected):
    for name in ("mean", "variance", "minimum", "maximum"):
        assert_close(_numpy(getattr(got, name)), getattr(expected, name), 1e-12, name)


def test_the_first_centroid_wins_a_tie(where):
    x = np.array([[0.0], [2.0], [2.0]])
    step = GPUBackend(where).kmeans_step(x, None, np.array([[1.0], [1.0], [3.0]]))
    np.testing.assert_array_equal(step.labels, [0, 0, 0])


@pytest.mark.parametrize("layout", [*LAYOUTS, "big-endian"])
def test_rows_of_the_host_in_any_layout(where, dtype, layout):
    mixture, model, x, _ = _problem("full", dtype, 70, 3, 5)
    given = x.astype(x.dtype.newbyteorder(">")) if layout == "big-endian" else LAYOUTS[layout](x)
    before = given.copy()
    backend = GPUBackend(where)
    prepared = backend.prepare(model, x.dtype)
    scores = backend.score_samples(prepared, given)
    assert isinstance(scores, np.ndarray)
    assert scores.dtype == x.dtype
    assert_close(scores, mixture.score_samples(x), tolerance(dtype, 1e-12, 3e-6))
    _same_summary(backend.summarise(given), ReferenceBackend().summarise(x))
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("view", ["transposed", "strided", "expanded"])
@pytest.mark.parametrize("d", [5, 17])
def test_tensors_of_any_strides(where, view, d):
    mixture, model, x, _ = _problem("full", np.float32, 90, 2, d)
    if view == "expanded":
        x = np.broadcast_to(x[:1], x.shape)
    rows = torch.tensor(x.copy(), device=where)
    if view == "transposed":
        rows = rows.T.contiguous().T
    elif view == "strided":
        wide = torch.full((180, 3 * d), torch.nan, device=where)
        wide[::2, ::3] = rows
        rows = wide[::2, ::3]
    else:
        rows = rows[:1].expand(90, d)
    backend = GPUBackend(where)
    prepared = backend.prepare(model, rows.dtype)
    assert_close(_numpy(backend.score_samples(prepared, rows)), mixture.score_samples(x), 3e-6)
    got = backend.accumulate(prepared, rows, None)
    _same_statistics(got, ReferenceBackend().accumulate(model, x, None), 1e-5)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_rows_are_computed_in_float32(where, half):
    mixture, model, x, _ = _problem("diag", np.float32, 90, 3, 5)
    rows = torch.tensor(x, device=where).to(half)
    stored = rows.double().cpu().numpy()
    backend = GPUBackend(where)
    prepared = backend.prepare(model, half)
    scores = backend.score_samples(prepared, rows)
    assert scores.dtype == torch.float32
    assert_close(_numpy(scores), mixture.score_samples(stored), 3e-6)
    got = backend.accumulate(prepared, rows, None)
    _same_statistics(got, ReferenceBackend().accumulate(model, stored, None), 1e-5)


@pytest.mark.parametrize("structure", ["full", "tied", "diag"])
def test_rows_far_from_everything_belong_to_one_component(where, structure):
    _, model, x, _ = _problem(structure, np.float32, 20, 3, 17)
    x[3], x[11] = 1e30, -3e38
    backend, reference = GPUBackend(where), ReferenceBackend()
    prepared = backend.prepare(model, x.dtype)
    expected = reference.predict(model, x)
    expected[[3, 11]] = settle_unreachable(model, x[[3, 11]])
    np.testing.assert_array_equal(backend.predict(prepared, x)[[3, 11]], expected[[3, 11]])
    resp = backend.responsibilities(prepared, x)
    np.testing.assert_allclose(resp.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(resp.argmax(axis=1), expected)
    log_resp = backend.responsibilities(prepared, x, log=True)
    assert (log_resp[[3, 11]].max(axis=1) == 0).all()
    weight = np.ones(20)
    weight[[3, 11]] = 0
    got = backend.accumulate(prepared, x, weight)
    near = np.delete(x, [3, 11], axis=0)
    assert_close(_numpy(got.counts), reference.accumulate(model, near, None).counts, 1e-5)
    assert np.isfinite(float(got.log_likelihood))


def test_a_component_without_weight_gets_nothing(where, dtype):
    _, model, x, _ = _problem("full", dtype, 50, 3, 2)
    weights = np.array([0.4, 0.6, 0.0])
    model = MixtureModel.from_covariances(weights, model.means, model.covariances, model.structure)
    backend = GPUBackend(where)
    prepared = backend.prepare(model, x.dtype)
    assert (backend.responsibilities(prepared, x)[:, 2] == 0).all()
    assert float(backend.accumulate(prepared, x, None).counts[2]) == 0


@pytest.fixture
def small_chunks(monkeypatch):
    """Several chunks, and rows in the order of their labels, for problems of any size."""
    sizes = {**launch.device_sizes(), "chunk_bytes": 0, "least_rows": 128}
    sizes |= {"order_components": 1, "order_features": 1, "skip_components": 1}
    for module in (passes, gpu_backend):
        monkeypatch.setattr(module, "device_sizes", lambda: sizes)
    return sizes


@pytest.mark.parametrize(("structure", "d"), [("full", 33), ("diag", 12), ("spherical", 12)])
@pytest.mark.parametrize("separation", [1.0, 20.0])
@pytest.mark.usefixtures("small_chunks")
def test_order_and_skipping_change_nothing(where, structure, dtype, d, separation):
    _, model, x, rng = _problem(structure, dtype, 200, 5, d, separation)
    weight = rng.gamma(1.0, size=200)
    everything = GPUBackend(where, skip=False)
    expected = everything.accumulate(everything.prepare(model, dtype), x, weight)
    backend = GPUBackend(where)
    prepared, order = backend.prepare(model, dtype), backend.new_order()
    for _ in range(2):
        got = backend.accumulate(prepared, x, weight, None, order)
        for name in ("counts", "first", "second", "log_likelihood"):
            a, b = _numpy(getattr(got, name)), _numpy(getattr(expected, name))
            assert_close(a, b, tolerance(dtype, 1e-13, 2e-6), name)
    labels = ReferenceBackend().predict(model, x)
    np.testing.assert_array_equal(_numpy(order.labels), labels)


@pytest.mark.parametrize("structure", ["full", "diag", "spherical"])
@pytest.mark.usefixtures("small_chunks")
def test_order_and_groups_of_components(where, structure):
    """Few rows and many components: a tile's first label lies in one of the groups alone."""
    mixture, model, x, _ = _problem(structure, np.float64, 200, 40, 12, 3.0)
    backend = GPUBackend(where)
    backend.target = dataclasses.replace(backend.target, programs=16)
    prepared, order = backend.prepare(model, x.dtype), backend.new_order()
    for _ in range(2):
        got = backend.accumulate(prepared, x, None, None, order)
        assert_close(float(got.log_likelihood), mixture.score_samples(x).sum(), 1e-12)


def test_skipping_leaves_components_out(where, small_chunks):
    """Of clusters far apart, a tile of rows in order meets its own alone."""
    small_chunks["least_rows"] = 512
    _, model, x, _ = _problem("full", np.float32, 400, 4, 33, 50.0)
    backend = GPUBackend(where)
    prepared, order = backend.prepare(model, x.dtype), backend.new_order()
    backend.accumulate(prepared, x, None, None, order)
    seen = {}
    moments = passes.kernels.respond

    def look(lp, *args, **kwargs):
        seen["left out"] = torch.isneginf(lp[:128, :4]).all(dim=0).sum().item()
        moments(lp, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes.kernels, "respond", look)
        backend.accumulate(prepared, x, None, None, order)
    assert seen["left out"] > 0


@pytest.mark.usefixtures("small_chunks")
def test_chunks_change_nothing_but_rounding(where, structure, dtype):
    mixture, model, x, _ = _problem(structure, dtype, 300, 3, 3)
    backend = GPUBackend(where, skip=False)
    prepared = backend.prepare(model, x.dtype)
    rtol = tolerance(dtype, 1e-12, 1e-5)
    assert_close(backend.score_samples(prepared, x), mixture.score_samples(x), rtol)
    got = backend.accumulate(prepared, x, None)
    _same_statistics(got, ReferenceBackend().accumulate(model, x, None), rtol)


def test_the_same_input_gives_the_same_bits(where, structure):
    _, model, x, _ = _problem(structure, np.float32, 300, 3, 5)
    backend = GPUBackend(where)
    prepared = backend.prepare(model, x.dtype)
    one, other = (backend.accumulate(prepared, x, None) for _ in range(2))
    for name in ("counts", "first", "second", "log_likelihood"):
        np.testing.assert_array_equal(_numpy(getattr(one, name)), _numpy(getattr(other, name)))


@pytest.mark.parametrize(("separation", "rests"), [(0.0, 3), (50.0, 0)], ids=["alike", "apart"])
def test_an_order_that_saves_too_little_is_given_up_for_a_while(
    where, small_chunks, monkeypatch, separation, rests
):
    small_chunks["least_rows"] = 512
    monkeypatch.setattr(ordering_gpu, "REST", 3)
    _, model, x, _ = _problem("full", np.float32, 512, 2, 2, separation)
    backend = GPUBackend(where)
    prepared, order = backend.prepare(model, x.dtype), backend.new_order()
    seen, plain = [], passes.kernels.moments

    def look(*args, skip, **kwargs):
        seen.append(skip)
        plain(*args, skip=skip, **kwargs)

    monkeypatch.setattr(passes.kernels, "moments", look)
    ordered = []
    for _ in range(7):
        backend.accumulate(prepared, x, None, None, order)
        # Labels are kept for another pass; where all pairs matter none is looked at.
        ordered.append(order.labels is not None)
    # A pass without an order and one with it; then it is known. After the rest it is tried again.
    assert ordered == 2 * [True] + rests * [False] + (5 - rests) * [True]
    assert seen == ordered


@pytest.mark.parametrize(
    ("programs", "most", "splits"), [(32, 512, 8), (64, 3, 3), (192, 512, 4), (1024, 512, 1)]
)
def test_parts_of_the_rows_leave_little_of_a_device_idle(programs, most, splits):
    """Of an H200 with two programs on each of its 132 multiprocessors."""
    assert passes.splits_of(programs, 264, most) == splits
