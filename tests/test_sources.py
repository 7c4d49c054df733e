"""Rows from files, loaders and functions: read chunk by chunk, they give what an array gives."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest

import fastgmm
import helpers
import oracle
import streams
from fastgmm import frames
from fastgmm.errors import InputError
from fastgmm.sources import ArraySource, batch_rows, batches, open_source, read_parquet
from fastgmm.sources.batches import rebatch
from fastgmm.sources.prefetch import prefetch


def mixture(k=3, **params):
    return fastgmm.GaussianMixture(k, **{"random_state": 0, "max_iter": 6, "tol": 0.0} | params)


def numbers(value):
    return np.asarray(value)


@pytest.mark.parametrize("batch_size", [None, 1, 7, 999, "5kB"])
@pytest.mark.parametrize("place", streams.PLACES)
def test_every_place_gives_the_rows(place, batch_size, tmp_path, dtype):
    x = streams.rows(dtype=dtype)[: 60 if batch_size == 1 else None]
    with open_source(streams.PLACES[place](x, tmp_path), None, batch_size) as source:
        for _ in range(2):
            chunks = list(source)
            assert np.concatenate([numbers(c.x) for c in chunks]).tobytes() == x.tobytes()
            assert [c.start for c in chunks] == list(
                np.cumsum([0, *(len(c.x) for c in chunks[:-1])])
            )
            sizes = {len(c.x) for c in chunks[:-1]}
            if batch_size is not None:
                wanted = batch_rows(batch_size, x[0].nbytes)
                assert sizes <= {wanted}
                assert 0 < len(chunks[-1].x) <= wanted
        assert source.n_rows == len(x)
        assert source.n_features == 3


@pytest.mark.parametrize("place", streams.PLACES)
def test_a_fit_is_that_of_the_array(place, tmp_path):
    x = streams.rows()
    whole = mixture().fit(x)
    found = streams.PLACES[place](x, tmp_path)
    model = mixture(batch_size=400).fit(found)
    helpers.assert_close(numbers(model.means_), whole.means_, 1e-10)
    helpers.assert_close(numbers(model.covariances_), whole.covariances_, 1e-10)
    helpers.assert_close(model.lower_bounds_, whole.lower_bounds_, 1e-11)
    assert model.n_features_in_ == 3
    assert model.score(found) == pytest.approx(whole.score(x), rel=1e-12)
    assert model.bic(found) == pytest.approx(whole.bic(x), rel=1e-12)
    assert model.aic(found) == pytest.approx(whole.aic(x), rel=1e-12)
    np.testing.assert_array_equal(numbers(model.predict(found)), whole.predict(x))
    helpers.assert_close(numbers(model.predict_proba(found)), whole.predict_proba(x), 1e-8)
    helpers.assert_close(numbers(model.score_samples(found)), whole.score_samples(x), 1e-9)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 599, 600, 10_000])
def test_batches_change_nothing(structure, batch_size, tmp_path):
    x, start, rng = helpers.problem(structure, np.float64, n=600)
    weight = rng.uniform(0.1, 5.0, size=len(x))
    x[:, 1] += 1e5
    start = oracle.m_step(x, rng.dirichlet(np.ones(3), size=len(x)), structure)
    expected = oracle.em(x, start, max_iter=3, reg_covar=1e-3, sample_weight=weight)
    np.save(tmp_path / "w.npy", weight)
    path = streams.npy(x, tmp_path)
    for rows, given in ((x, weight), (x, tmp_path / "w.npy"), (path, str(tmp_path / "w.npy"))):
        model = helpers.estimator(
            start, "cpu", max_iter=3, tol=0.0, reg_covar=1e-3, batch_size=batch_size
        ).fit(rows, sample_weight=given)
        helpers.assert_close(model.means_, expected.mixture.means, 1e-9)
        helpers.assert_close(model.covariances_, expected.mixture.covariances, 1e-7)
        helpers.assert_close(model.lower_bounds_, expected.lower_bounds, 1e-9)


@pytest.mark.parametrize(
    "method", ["kmeans", "k-means++", "random", "random_from_data", "k-means||"]
)
def test_starts_do_not_depend_on_batches(method, tmp_path):
    # More rows than a start is chosen from, so that some of them are drawn.
    x = streams.rows(40_000, np.float32)
    path = streams.npy(x, tmp_path)
    models = [
        mixture(5, init_params=method, max_iter=0, batch_size=b).fit(path) for b in (30_000, 3001)
    ]
    for model in models[1:]:
        helpers.assert_close(model.means_, models[0].means_, 1e-5)
    other = mixture(5, init_params=method, max_iter=0, random_state=1).fit(path)
    assert np.abs(other.means_ - models[0].means_).max() > 1e-3


@pytest.mark.parametrize("method", ["kmeans", "k-means||"])
def test_starts_find_clusters_among_many(method, tmp_path):
    grid = 12.0 * np.stack(np.meshgrid(range(6), range(5)), -1).reshape(-1, 2)
    rng = np.random.default_rng(0)
    x = rng.permutation(np.repeat(grid, 1000, axis=0) + rng.standard_normal((30_000, 2)))
    model = mixture(30, init_params=method, max_iter=0).fit(streams.npy(x, tmp_path))
    gap = np.linalg.norm(grid[:, None] - model.means_, axis=2).min(axis=1)
    assert (gap < 2.0).sum() >= 27


def test_weights_draw_the_sample():
    x = streams.rows(40_000)
    weight = np.where(x[:, 0] > 2.0, 1.0, 0.0)

    def chunks():
        for i in range(0, len(x), 9000):
            yield x[i : i + 9000], weight[i : i + 9000]

    for method in ("kmeans", "k-means++", "random_from_data", "k-means||"):
        model = mixture(4, init_params=method, max_iter=0).fit(chunks)
        assert model.means_[:, 0].min() > 2.0


def test_weights_of_a_stream_are_those_of_an_array(tmp_path):
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    x = streams.rows()
    weight = np.random.default_rng(1).uniform(0.0, 4.0, size=len(x))
    columns = {name: x[:, j] for j, name in enumerate(streams.NAMES)}
    pq.write_table(pa.table(columns | {"w": weight}), tmp_path / "w.parquet")
    start = mixture().fit(x, sample_weight=weight)
    given = {
        "reader": (read_parquet(tmp_path / "w.parquet", weight="w"), None),
        "tuples": (lambda: ((x[i : i + 99], weight[i : i + 99]) for i in range(0, 2500, 99)), None),
        "array": (streams.npy(x, tmp_path), weight),
    }
    for found, w in given.values():
        model = mixture(batch_size=1000).fit(found, sample_weight=w)
        helpers.assert_close(model.means_, start.means_, 1e-9)
        helpers.assert_close(model.weights_, start.weights_, 1e-9)
        score = model.score(found, sample_weight=w)
        assert score == pytest.approx(start.score(x, sample_weight=weight), rel=1e-9)


def test_each_iteration_reads_the_rows_once():
    x, passes = streams.rows(), []

    def chunks():
        passes.append(1)
        yield from np.array_split(x, 7)

    counts = []
    for max_iter in (3, 8):
        passes.clear()
        fastgmm.GaussianMixture(
            3, tol=0.0, max_iter=max_iter, means_init=x[:3], covariance_type="tied", random_state=0
        ).fit(chunks)
        counts.append(len(passes))
    assert counts[1] - counts[0] == 5


def test_nothing_is_remembered_of_rows_that_are_read_again(monkeypatch):
    from fastgmm.backends.cpu import CPUBackend

    asked = []
    monkeypatch.setattr(CPUBackend, "new_order", lambda self: asked.append(1))
    x = streams.rows()
    mixture().fit(lambda: np.array_split(x, 3))
    assert not asked
    mixture().fit(x)
    assert asked


def test_reseeding_takes_the_worst_row(tmp_path):
    x = streams.rows(500)
    means = np.array([[0.0, 0.0, 0.0], [1.0, 4.0, 1.0], [1e6, 0.0, 0.0]])
    settings = {"means_init": means, "max_iter": 1}
    with pytest.warns(fastgmm.errors.DegenerateDataWarning, match="empty"):
        kept = mixture(**settings).fit(x)
    worst = x[kept.score_samples(x).argmin()]
    for rows, batch_size in ((x, None), (streams.npy(x, tmp_path), 99)):
        model = mixture(**settings, empty="reseed", batch_size=batch_size).fit(rows)
        helpers.assert_close(model.means_[2], worst, 1e-12)


@pytest.mark.parametrize(
    ("size", "rows"),
    [(5, 5), ("1kB", 10), ("1 KiB", 10), ("2.5MB", 25_000), ("1B", 1), ("1GiB", 10_737_418)],
)
def test_batch_sizes(size, rows):
    assert batch_rows(size, 100) == rows


@pytest.mark.parametrize("size", ["", "64", "-1MB", "0MB", "1TB", "many", 0, -3])
def test_batch_sizes_that_are_none(size):
    with pytest.raises(InputError, match="batch_size"):
        batch_rows(size, 100)
    with pytest.raises(InputError, match="batch_size"):
        open_source(lambda: iter([streams.rows(100)]), batch_size=size)
    with pytest.raises(ValueError, match="batch_size"):
        mixture(batch_size=size).fit(streams.rows(100))


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 100])
def test_rebatching_keeps_rows_and_weights(rows):
    x = np.arange(24.0).reshape(12, 2)
    weight = np.arange(12.0)
    edges = [0, 1, 4, 4, 11, 12]
    parts = [(x[a:b], weight[a:b]) for a, b in pairwise(edges)]
    got = list(rebatch(iter(parts), rows))
    assert [len(a) for a, _ in got] == [min(rows, 12 - i) for i in range(0, 12, rows)]
    np.testing.assert_array_equal(np.concatenate([a for a, _ in got]), x)
    np.testing.assert_array_equal(np.concatenate([w for _, w in got]), weight)


def test_the_reader_has_the_stream_of_its_caller(monkeypatch):
    """torch knows the current device and stream by thread."""
    torch, entered = pytest.importorskip("torch"), []

    @contextmanager
    def stream(which):
        entered.append((which, threading.current_thread().name))
        yield

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "that of the caller")
    monkeypatch.setattr(torch.cuda, "stream", stream)
    assert list(prefetch(iter([1, 2]))) == [1, 2]
    assert entered == [("that of the caller", "fastgmm-reader")]


def test_the_next_chunk_is_read_ahead():
    """The reader is at the second chunk before the first has been taken away, and no further."""
    x, read, ahead = streams.rows(400), [], threading.Event()

    def chunks():
        for i in range(4):
            read.append(i)
            if i == 2:
                ahead.set()
            yield x[100 * i : 100 * i + 100]

    with open_source(chunks, None, 100) as source:
        passing = iter(source)
        next(passing)
        next(passing)
        assert ahead.wait(10)
        assert read == [0, 1, 2]


def test_a_path_may_be_an_array_source_too():
    x = streams.rows()
    models = [mixture().fit(rows) for rows in (x, ArraySource(x))]
    helpers.assert_same_bits(*models)


def test_large_tables_are_converted_batch_by_batch(dtype, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    x = streams.rows(dtype=dtype)
    # Of two pieces, whose border is none of a chunk.
    table = pa.concat_tables([streams.table(x[:901]), streams.table(x[901:])])
    whole = mixture(batch_size=400).fit(lambda: iter([x]))
    converted, convert = [], frames.to_array
    monkeypatch.setattr(frames, "to_array", lambda t: converted.append(len(t)) or convert(t))
    small = mixture(batch_size=400).fit(table)
    assert set(converted) == {len(x)}
    converted.clear()
    monkeypatch.setattr(batches, "DEFAULT_BYTES", x.nbytes // 2)
    model = mixture(batch_size=400).fit(table)
    assert max(converted) <= 400
    assert sum(converted) >= 6 * len(x)
    assert model.feature_names_in_.tolist() == list(streams.NAMES)
    helpers.assert_same_bits(model, whole)
    for other in (model, small):
        np.testing.assert_array_equal(other.predict(table), other.predict(streams.table(x)))
        assert other.score(table) == pytest.approx(other.score_samples(table).mean(), rel=1e-6)
    assert max(converted) <= 400
    with pytest.raises(InputError, match=r"column 'b' .*missing"):
        model.predict(table.set_column(1, "b", pa.array([None, *range(len(x) - 1)])))
    with pytest.raises(InputError, match="feature names should match"):
        model.predict(table.rename_columns(["a", "b", "d"]))
