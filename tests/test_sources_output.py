"""Results that are written as they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fastgmm
import streams
from fastgmm.errors import InputError

METHODS = ("score_samples", "predict", "predict_proba", "predict_log_proba", "component_log_prob")


@pytest.fixture(scope="module")
def model():
    return fastgmm.GaussianMixture(3, random_state=0, batch_size=700).fit(streams.rows())


def read(path):
    if path.suffix == ".npy":
        return np.load(path)
    table = pytest.importorskip("pyarrow.parquet").read_table(path)
    columns = [table.column(name).to_numpy() for name in table.column_names]
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [".npy", ".parquet"])
@pytest.mark.parametrize("from_file", [True, False], ids=["file", "array"])
def test_files_have_what_arrays_have(model, method, kind, from_file, tmp_path):
    x = streams.rows(2001, np.float32)
    out = tmp_path / f"out{kind}"
    out.write_bytes(b"something older")
    given = streams.npy(x, tmp_path) if from_file else x
    path = getattr(model, method)(given, out=out)
    assert path == out
    expected = getattr(model, method)(x)
    got = read(path)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".npy" or p == out) == [
        out.name
    ]


def test_names_of_columns(model, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    path = model.predict_proba(streams.rows(50), out=tmp_path / "p.parquet")
    assert pq.read_schema(path).names == ["component_0", "component_1", "component_2"]
    path = model.predict(streams.rows(50), out=str(tmp_path / "l.parquet"))
    assert path == Path(tmp_path / "l.parquet")
    assert pq.read_schema(path).names == ["label"]


def test_a_failure_leaves_the_old_file(model, tmp_path):
    x = streams.rows(2000)
    bad = x.copy()
    bad[1500, 1] = np.nan
    out = model.predict(lambda: np.array_split(x, 4), out=tmp_path / "o.npy")
    before = out.read_bytes()
    with pytest.raises(InputError, match="chunk 3"):
        model.predict(lambda: np.array_split(bad, 4), out=out)
    assert out.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["o.npy"]


def test_outputs_are_refused_before_any_work(model, tmp_path):
    read = []
    for out in (tmp_path / "o.csv", tmp_path / "no" / "o.npy"):
        with pytest.raises(InputError, match="o\\."):
            model.predict(lambda: iter([read.append(1)]), out=out)
    assert not read


def test_a_generator_is_enough_to_score(model):
    x = streams.rows()
    parts = np.array_split(x, 9)
    np.testing.assert_array_equal(model.predict(iter(parts)), model.predict(x))
    assert model.score(iter(parts)) == pytest.approx(model.score(x), rel=1e-12)


def test_tensors_give_tensors(model):
    torch = pytest.importorskip("torch")
    x = streams.rows()
    labels = model.predict(lambda: torch.tensor(x).split(400))
    assert torch.is_tensor(labels)
    np.testing.assert_array_equal(labels.numpy(), model.predict(x))
