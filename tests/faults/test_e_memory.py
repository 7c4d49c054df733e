"""Fault cases 47-51: memory layout and size."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from processes import run_python

import fastgmm
import helpers
import oracle
from fastgmm import budget, functional
from fastgmm.errors import InputError
from fastgmm.sources import ArraySource, batches

READERS = ("score_samples", "predict", "predict_proba", "component_log_prob")

# Peak growth is read from the kernel: it sees what Numba allocates, too.
PEAK = """
import resource, sys, warnings
import numpy as np
import fastgmm
warnings.simplefilter("ignore")

def peak():
    # Kilobytes on Linux, bytes on macOS.
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 2**10

def model(structure, k, **params):
    return fastgmm.GaussianMixture(
        k, covariance_type=structure, max_iter=1, init_params="random_from_data",
        random_state=0, **params)
"""


def rows(n=500, d=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def test_case_47_views_equal_their_copies(structure, dtype):
    base = rows(400, 6).astype(dtype)
    views = (base[::-1], base[:, ::2], base[50:-50:3, 1:4], np.asfortranarray(base), base.T[:3].T)
    for view in views:
        copy = np.ascontiguousarray(view)
        start = oracle.start_from_labels(copy, copy[:, 0] > 0, structure)
        a, b = helpers.fit(view, start, "cpu"), helpers.fit(copy, start, "cpu")
        helpers.assert_same_bits(a, b)
        for name in READERS:
            np.testing.assert_array_equal(getattr(a, name)(view), getattr(a, name)(copy))


def test_case_47_byte_swapped_rows_keep_their_dtype(structure, device, dtype):
    x = rows(300, 3).astype(dtype)
    swapped = x.astype(x.dtype.newbyteorder())
    start = oracle.start_from_labels(x, x[:, 0] > 0, structure)
    a, b = helpers.fit(swapped, start, device), helpers.fit(x, start, device)
    helpers.assert_same_bits(a, b)
    assert a.means_.dtype == np.dtype(dtype)
    for name in READERS:
        np.testing.assert_array_equal(getattr(b, name)(swapped), getattr(b, name)(x))
    given = (b.weights_, b.means_, b.precisions_cholesky_, structure)
    score = fastgmm.functional.score_samples(swapped, *given, device=device)
    assert score.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(score, fastgmm.functional.score_samples(x, *given, device=device))


def test_case_47_repeated_row_with_stride_zero(structure, device, dtype):
    mixture = oracle.random_mixture(np.random.default_rng(0), structure, 3, 4)
    model = helpers.fitted(mixture, device)
    view = np.broadcast_to(rows(1).astype(dtype), (700, 4))
    assert view.strides[0] == 0
    for name in READERS:
        np.testing.assert_array_equal(getattr(model, name)(view), getattr(model, name)(view.copy()))


@pytest.mark.parametrize("kind", ["writeable", "readonly", "memmap"])
def test_case_48_input_is_never_modified(structure, device, dtype, kind, tmp_path):
    x = (rows() + 100.0).astype(dtype)
    weight = np.random.default_rng(1).uniform(size=len(x))
    if kind == "readonly":
        x.flags.writeable = weight.flags.writeable = False
    elif kind == "memmap":
        np.save(tmp_path / "x.npy", x)
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
    before = [hashlib.sha256(a.tobytes()).digest() for a in (x, weight)]
    model = fastgmm.GaussianMixture(
        3, covariance_type=structure, device=device, random_state=0, max_iter=2
    ).fit(x, sample_weight=weight)
    for name in READERS:
        getattr(model, name)(x)
    assert [hashlib.sha256(a.tobytes()).digest() for a in (x, weight)] == before


def test_case_48_given_starts_may_be_read_only(structure):
    x, start, _ = helpers.problem(structure, np.float64)
    for array in (start.weights, start.means, start.covariances):
        array.flags.writeable = False
    plain = helpers.fit(x, start, "cpu")
    precisions = start.precisions()
    precisions.flags.writeable = False
    frozen = fastgmm.GaussianMixture(
        3,
        covariance_type=structure,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=precisions,
        tol=0.0,
        max_iter=5,
        reg_covar=0.0,
    ).fit(x)
    helpers.assert_same_bits(plain, frozen)


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++"])
def test_case_48_weights_of_a_source_may_be_read_only(structure, init_params):
    class Frozen(ArraySource):
        def __iter__(self):
            for chunk in super().__iter__():
                weight = chunk.weight.copy()
                weight.flags.writeable = False
                yield replace(chunk, weight=weight)

    x = rows()
    weight = np.random.default_rng(1).uniform(size=len(x))
    fits = [
        fastgmm.GaussianMixture(
            3, covariance_type=structure, init_params=init_params, random_state=0, max_iter=2, tol=1
        ).fit(source(x, weight))
        for source in (ArraySource, Frozen)
    ]
    helpers.assert_same_bits(*fits)


def test_case_49_memory_map_is_not_copied(dtype, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400_000, 8), dtype=dtype)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    start = oracle.random_mixture(rng, "diag", 4, 8)
    # What could copy the file is NumPy's; compilation happens before it is counted.
    params = {"max_iter": 2, "reg_covar": 1e-6}
    helpers.fit(x[:30_000], start, "cpu", batch_size=10_000, **params)
    tracemalloc.start()
    model = helpers.fit(mapped, start, "cpu", batch_size=10_000, **params)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.5 * x.nbytes
    whole = helpers.fit(x, start, "cpu", **params)
    helpers.assert_same_mixture(
        helpers.learnt(model), helpers.learnt(whole), helpers.tolerance(dtype, 1e-11, 1e-5)
    )


@pytest.mark.skipif(os.name == "nt", reason="an open map keeps its file from being cut there")
@pytest.mark.parametrize("batch_size", [None, 700])
def test_case_49_a_mapped_file_that_is_cut_short(batch_size, tmp_path):
    x = rows(4000)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")

    def cut(state):
        with open(tmp_path / "x.npy", "r+b") as file:
            file.truncate(20_000)

    model = fastgmm.GaussianMixture(2, random_state=0, tol=0.0, batch_size=batch_size)
    # A slice of the map needs no less of the file than all of it.
    with pytest.raises(InputError, match=r"x\.npy: 108128 bytes of the 128128.*cut short"):
        model.fit(mapped[100:], callback=cut)
    assert not hasattr(model, "means_")


def test_case_49_large_maps_count_as_rows_that_are_not_in_memory(tmp_path, monkeypatch):
    from fastgmm.sources import arrays

    x = rows(4000).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert ArraySource(mapped).resident
    assert len(list(ArraySource(mapped))) == 1
    monkeypatch.setattr(arrays, "MAPPED_BYTES", x.nbytes - 1)
    monkeypatch.setattr(batches, "DEFAULT_BYTES", x.nbytes // 4)
    large = ArraySource(mapped)
    assert not large.resident
    assert [len(chunk.x) for chunk in large] == [1000] * 4
    assert ArraySource(x).resident
    start = oracle.random_mixture(np.random.default_rng(0), "full", 3, 4)
    fits = [helpers.fit(given, start, "cpu", reg_covar=1e-6) for given in (mapped, x)]
    a, b = map(helpers.learnt, fits)
    helpers.assert_same_mixture(a, b, 1e-5)


@pytest.mark.parametrize("kind", ["<i2", "<f2", ">f8"])
def test_case_49_large_maps_of_other_types_are_converted_in_slices(kind, tmp_path, monkeypatch):
    from fastgmm import checks
    from fastgmm.sources import arrays, items

    x = (rows(4000) * 20).astype(kind)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    start = oracle.random_mixture(np.random.default_rng(0), "full", 3, 4)
    whole = helpers.fit(x, start, "cpu", reg_covar=1e-6)
    seen, floating = [], items.floating
    for module in (checks, items):
        monkeypatch.setattr(
            module, "floating", lambda x, where: seen.append(len(x)) or floating(x, where)
        )
    bytes_ = x.size * (4 if kind == "<f2" else 8)
    monkeypatch.setattr(arrays, "MAPPED_BYTES", bytes_ - 1)
    monkeypatch.setattr(batches, "DEFAULT_BYTES", bytes_ // 4)
    model = helpers.fit(mapped, start, "cpu", reg_covar=1e-6)
    helpers.assert_same_mixture(helpers.learnt(model), helpers.learnt(whole), 1e-5)
    found = [getattr(whole, name)(mapped) for name in READERS]
    assert max(seen) == 1000
    for name, result in zip(READERS, found, strict=True):
        np.testing.assert_array_equal(result, getattr(whole, name)(x))
    assert ("float16" in model.backend_) == (kind == "<f2")
    assert model.means_.dtype == whole.means_.dtype


@pytest.mark.skipif(os.name == "nt", reason="an open map keeps its file from being cut there")
@pytest.mark.parametrize("limit", [0, 2**30])
@pytest.mark.parametrize("kind", [np.float64, np.int16])
def test_case_49_a_map_that_was_cut_before_it_is_scored(kind, limit, tmp_path, monkeypatch):
    from fastgmm.sources import arrays

    x = (rows(4000) * 20).astype(kind)
    model = fastgmm.GaussianMixture(2, random_state=0, max_iter=1, tol=100).fit(x)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    os.truncate(tmp_path / "x.npy", 20_000)
    monkeypatch.setattr(arrays, "MAPPED_BYTES", limit)
    for name in (*READERS, "fit"):
        for given in (mapped, np.asarray(mapped)[100:]):
            with pytest.raises(InputError, match=r"x\.npy: .*cut short"):
                getattr(model, name)(given)


@pytest.mark.slow
def test_case_50_many_rows_of_many_components():
    # 34 million rows and 64 components: N K = 2.2e9, while the rows take 130 MB.
    n = 34_000_000
    x = np.zeros((n, 1), dtype=np.float32)
    x[-1] = 2.0
    mixture = oracle.Mixture(
        "spherical", np.full(64, 1 / 64), np.linspace(-1, 1, 64)[:, None], np.ones(64)
    )
    labels = helpers.fitted(mixture, "cpu").predict(x)
    assert labels[-1] == 63
    assert len(np.unique(labels[:-1])) == 1


def test_case_50_strides_beyond_32_bits(tmp_path):
    # A sparse file of 8.6 GB, of which rows that lie 8 MB apart are there.
    step, extra = 2**21, 2
    flat = np.memmap(tmp_path / "sparse", np.float32, "w+", shape=2**31 + extra * step)
    x = flat[::step][:, None]
    x[:, 0] = np.linspace(-2, 2, len(x))
    mixture = oracle.Mixture(
        "spherical", np.full(3, 1 / 3), np.array([[-2.0], [0], [2]]), np.ones(3)
    )
    model = helpers.fitted(mixture, "cpu")
    for name in ("score_samples", "predict", "predict_proba"):
        np.testing.assert_array_equal(getattr(model, name)(x), getattr(model, name)(x.copy()))
    fits = [helpers.fit(given, mixture, "cpu", max_iter=2) for given in (x, np.array(x))]
    helpers.assert_same_bits(*fits)


@pytest.mark.slow
def test_case_50_rows_times_features_beyond_32_bits():
    # Rows of stride 0 stand for 8.6 GB that nobody has to hold: N D = 2.15e9.
    out = run_python(
        PEAK
        + """
row = np.linspace(-1, 1, 64, dtype=np.float32)[None]
mixture = fastgmm.GaussianMixture.from_parameters(
    np.ones(1), np.zeros((1, 64)), np.ones(1), covariance_type="spherical")
one = mixture.score_samples(row)
before = peak()
many = mixture.score_samples(np.broadcast_to(row, (2**31 // 64 + 1000, 64)))
print((many == one).all(), peak() - before < 1500)
"""
    )
    assert out.split() == ["True", "True"]


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "diag", "spherical", "tied"])
def test_case_51_no_rows_by_components_array(structure):
    pytest.importorskip("resource")
    # One N-by-K array of float32 would take 305 MB.
    out = run_python(
        PEAK
        + f"""
rng = np.random.default_rng(0)
x = rng.standard_normal((400_000, 2), dtype=np.float32)
model("{structure}", 2).fit(x[:1000]).predict(x[:1000])
before = peak()
fitted = model("{structure}", 200).fit(x)
fitted.score_samples(x), fitted.predict(x), fitted.score(x)
print(peak() - before)
"""
    )
    assert float(out) < 120.0


@pytest.mark.parametrize("name", ["predict_proba", "predict_log_proba", "component_log_prob"])
@pytest.mark.parametrize("place", ["array", "tensor", "file", "chunks"])
def test_case_51_results_beyond_the_memory_are_refused(name, place, tmp_path, monkeypatch):
    mixture = oracle.random_mixture(np.random.default_rng(0), "diag", 5, 4)
    model, x = helpers.fitted(mixture, "cpu", batch_size=100), rows(1000)
    expected = getattr(model, name)(x)
    np.save(tmp_path / "x.npy", x)
    given = {"array": x, "file": tmp_path / "x.npy", "chunks": lambda: iter(np.split(x, 10))}
    if place == "tensor":
        given["tensor"] = pytest.importorskip("torch").tensor(x)
    # 40,000 bytes of results in a machine that has 39,999.
    monkeypatch.setattr(budget, "memory_bytes", lambda: 39_999)
    monkeypatch.setattr(budget, "_ALWAYS", 1000)
    with pytest.raises(InputError, match=r"\(1000, 5\).*out='results\.npy'"):
        getattr(model, name)(given[place])
    # Fewer, or as they come, are fine.
    assert getattr(model, name)(x[:900]).shape == (900, 5)
    written = getattr(model, name)(given[place], out=tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(written), expected)


@pytest.mark.parametrize("on", [np.asarray, "torch"])
def test_case_51_so_are_those_of_functions(on, monkeypatch):
    on = pytest.importorskip("torch").tensor if on == "torch" else on
    mixture = oracle.random_mixture(np.random.default_rng(0), "diag", 5, 4)
    means, factors = mixture.means, mixture.precisions_cholesky()
    monkeypatch.setattr(budget, "memory_bytes", lambda: 39_999)
    monkeypatch.setattr(budget, "_ALWAYS", 1000)
    x = on(rows(1000))
    for call in (
        lambda x: functional.log_prob(x, means, factors, "diag"),
        lambda x: functional.responsibilities(x, mixture.weights, means, factors, "diag"),
    ):
        with pytest.raises(InputError, match=r"\(1000, 5\).*Pass fewer rows at a time"):
            call(x)
        assert call(x[:900]).shape == (900, 5)


def test_case_51_results_of_arrays_are_written_part_by_part(tmp_path, monkeypatch):
    from fastgmm.backends.cpu import CPUBackend

    mixture = oracle.random_mixture(np.random.default_rng(0), "diag", 5, 4)
    model, x = helpers.fitted(mixture, "cpu"), rows(1000)
    expected, seen = model.predict_proba(x), []
    compute = CPUBackend.responsibilities

    def counted(self, prepared, part, **options):
        seen.append(len(part))
        return compute(self, prepared, part, **options)

    monkeypatch.setattr(CPUBackend, "responsibilities", counted)
    monkeypatch.setattr(batches, "DEFAULT_BYTES", 300 * 5 * 8)
    out = model.predict_proba(x, out=tmp_path / "out.npy")
    assert seen == [300, 300, 300, 100]
    np.testing.assert_array_equal(np.load(out), expected)


def test_case_51_the_memory_is_that_of_the_machine_or_its_container(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(budget, "_LIMITS", (str(limit), str(tmp_path / "missing")))
    memory = budget.memory_bytes.__wrapped__
    machine = memory()
    assert machine is None or machine > 2**28
    for text, expected in (("max\n", machine), ("4096\n", 4096)):
        limit.write_text(text)
        assert memory() == expected
