"""Dask arrays and data frames on a cluster of two workers."""

from __future__ import annotations

import os
import pickle
import threading
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest

import fastgmm
import helpers
import streams
from fastgmm.errors import InputError
from fastgmm.sources import dask as dask_source
from fastgmm.sources import open_source

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
pd = pytest.importorskip("pandas")
distributed = pytest.importorskip("distributed")

# What the cluster itself warns of is none of the library's.
pytestmark = pytest.mark.filterwarnings("default:::distributed", "default:::dask")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def mixture(**params):
    return fastgmm.GaussianMixture(3, **{"random_state": 0, "tol": 0.0, "max_iter": 4} | params)


def array(x):
    return da.from_array(x, chunks=(700, 2))


def frame(x):
    return dd.from_pandas(pd.DataFrame(x, columns=list(streams.NAMES)), npartitions=4)


@pytest.mark.parametrize("collection", [array, frame])
def test_fits_are_those_of_the_rows(client, collection, structure):
    x = streams.rows(2000)
    whole = mixture(covariance_type=structure).fit(x)
    found = collection(x)
    model = mixture(covariance_type=structure).fit(found)
    helpers.assert_close(model.means_, whole.means_, 1e-9)
    helpers.assert_close(model.covariances_, whole.covariances_, 1e-9)
    helpers.assert_close(model.lower_bounds_, whole.lower_bounds_, 1e-10)
    if collection is frame:
        assert model.feature_names_in_.tolist() == list(streams.NAMES)


def test_work_is_done_by_the_workers(client):
    with open_source(array(streams.rows(3000))) as source:
        here = os.getpid()
        pids = source.total(lambda chunk: [os.getpid()] * len(chunk.x))
    assert len(pids) == 3000
    assert here not in pids


def test_weights_and_scores(client, tmp_path):
    x = streams.rows(2000)
    weight = np.random.default_rng(0).uniform(0.1, 4.0, size=len(x))
    whole = mixture().fit(x, sample_weight=weight)
    np.save(tmp_path / "w.npy", weight)
    for given in (weight, da.from_array(weight, chunks=300), str(tmp_path / "w.npy")):
        model = mixture().fit(array(x), sample_weight=given)
        helpers.assert_close(model.means_, whole.means_, 1e-9)
    np.testing.assert_array_equal(model.predict(array(x)), whole.predict(x))
    assert model.score(array(x)) == pytest.approx(whole.score(x), rel=1e-9)


@pytest.mark.parametrize("method", ["k-means++", "random", "random_from_data", "k-means||"])
def test_starts(client, method):
    x = streams.rows(2000)
    whole = mixture(init_params=method, max_iter=0).fit(x)
    model = mixture(init_params=method, max_iter=0).fit(array(x))
    helpers.assert_close(model.means_, whole.means_, 1e-9)


def test_faults(client):
    x = streams.rows(2000)
    bad = x.copy()
    bad[1500, 1] = np.nan
    with pytest.raises(InputError, match="NaN: first at row 1500, column 1"):
        mixture().fit(array(bad))
    with pytest.raises(InputError, match="dimensions"):
        mixture().fit(da.from_array(x[:, 0], chunks=100))
    with pytest.raises(InputError, match=r"sample_weight\.shape"):
        mixture().fit(array(x), sample_weight=np.ones(5))


@pytest.mark.parametrize("read", ["fit", "predict"])
def test_case_66_the_number_of_rows_changes(read):
    x, looks = streams.rows(2000), []

    def part(block):
        looks.append(1)
        return block[: 700 if len(looks) <= 3 else 690]

    model = mixture().fit(x)
    with dask.config.set(scheduler="sync"):
        whole = da.from_array(x, chunks=(700, -1))
        changing = whole.map_blocks(part, dtype=x.dtype, meta=x[:0])
        with pytest.raises(InputError, match=r"at row (0|700) gave 690 rows, 700 when"):
            getattr(model, read)(changing)
        with pytest.raises(InputError, match=r"0 sample\(s\)"):
            getattr(model, read)(array(x)[:0])


def test_no_cluster_is_needed():
    x = streams.rows(2000)
    # A client of another test may be there.
    with dask.config.set(scheduler="threads"):
        source = open_source(array(x))
        pids = source.total(lambda chunk: [os.getpid()])
        model = mixture().fit(array(x))
    assert set(pids) == {os.getpid()}
    assert len(pids) > 1
    helpers.assert_close(model.means_, mixture().fit(x).means_, 1e-9)


def test_threads_have_the_stream_of_their_caller(monkeypatch):
    """torch knows the current device and stream by thread."""
    torch, here, entered = pytest.importorskip("torch"), threading.local(), []

    @contextmanager
    def stream(which):
        entered.append(which)
        here.stream = which
        yield
        here.stream = None

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: threading.current_thread().name)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    with dask.config.set(scheduler="threads"):
        source = open_source(array(streams.rows(2000)))
        found = source.total(lambda chunk: [here.stream])
    caller = threading.current_thread().name
    assert found == [caller] * 3
    assert entered == [caller] * 4, "sums are added in threads too"
    assert isinstance(pickle.loads(pickle.dumps(dask_source._Here())), nullcontext)


def test_chunks_of_no_rows_are_left_out():
    x = streams.rows(2000)
    table = frame(x)
    some = table[table["a"] > -100.0]
    none = table[table["a"] > 100.0]
    model = mixture().fit(dd.concat([none, some]))
    helpers.assert_close(model.means_, mixture().fit(x).means_, 1e-9)
