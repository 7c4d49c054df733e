"""Streams that do not keep to the rules: every error names the place and the way out."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import fastgmm
import streams
from fastgmm import tables
from fastgmm.errors import InputError


def fit(rows, **params):
    return fastgmm.GaussianMixture(2, random_state=0, max_iter=3, tol=0.0, **params).fit(rows)


def readers():
    return [t for t in threading.enumerate() if t.name == "fastgmm-reader"]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert readers() == []


def good():
    return np.array_split(streams.rows(600), 6)


def test_case_66_a_generator_is_refused_before_it_is_used_up():
    generator = (part for part in good())
    with pytest.raises(InputError, match=r"gives its rows once.*lambda"):
        fit(generator)
    assert len(list(generator)) == 6


def test_case_66_a_function_that_gives_one_generator():
    generator = (part for part in good())
    with pytest.raises(InputError, match=r"same iterator a second time.*lambda"):
        fit(lambda: generator)


@pytest.mark.parametrize("lost", [0, 1, 100, 600])
def test_case_66_fewer_rows_in_a_later_pass(lost):
    passes = []

    def chunks():
        passes.append(1)
        x = streams.rows(600)
        if len(passes) == 3:
            x = np.concatenate([x, x[:5]]) if lost == 0 else x[: 600 - lost]
        return iter(np.array_split(x, 6))

    found = 605 if lost == 0 else 600 - lost
    with pytest.raises(InputError, match=rf"pass 3 gave {found} rows, the first 600"):
        fit(chunks)


def test_case_66_another_width():
    for number in (2, 5):
        parts = good()
        parts[number] = parts[number][:, :2]
        with pytest.raises(InputError, match=rf"chunk {number} has 2 features.*first had 3"):
            fit(lambda parts=parts: iter(parts))


def test_case_66_another_dtype():
    parts = good()
    parts[3] = parts[3].astype(np.float32)
    with pytest.raises(InputError, match="chunk 3 is float32 on the host, the first was float64"):
        fit(lambda: iter(parts))


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (np.zeros(5), r"chunk 4 has shape \(5,\)"),
        (np.zeros((5, 3), complex), "chunk 4 has dtype complex128"),
        (np.array([["a", "b", "c"]]), "chunk 4 has dtype <U1"),
        ((1, 2, 3), "chunk 4 is a tuple of 3"),
        (None, r"chunk 4 has shape \(\)"),
        ((np.zeros((2, 3)), np.ones(3)), r"chunk 4 has 2 rows and weights of shape \(3,\)"),
        ((np.zeros((2, 3)), [1, -1]), "chunk 4: weights must be finite and not negative"),
    ],
    ids=["1-D", "complex", "text", "triple", "None", "long weights", "negative weights"],
)
def test_case_66_items_that_are_no_rows(item, text):
    parts = good()
    parts[4] = item
    with pytest.raises(InputError, match=text):
        fit(lambda: iter(parts))


def test_weights_in_some_chunks_only():
    parts = good()
    parts[2] = (parts[2], np.ones(len(parts[2])))
    with pytest.raises(InputError, match="chunk 2 has weights, the first had none"):
        fit(lambda: iter(parts))


@pytest.mark.parametrize("empty", [list, lambda: [np.zeros((0, 3))]], ids=["none", "of no rows"])
def test_case_66_no_rows(empty):
    with pytest.raises(InputError, match="there are no rows"):
        fit(lambda: iter(empty()))


def test_one_row_is_too_few():
    with pytest.raises(InputError, match="1 sample"):
        fit(lambda: iter([np.zeros((1, 3))]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("batch_size", [None, 30])
def test_cases_18_and_19_the_chunk_and_the_row_are_named(value, batch_size):
    parts = good()
    parts[4] = parts[4].copy()
    parts[4][[7, 9], 2] = value
    what = "NaN" if np.isnan(value) else "infinity"
    with pytest.raises(
        InputError, match=rf"chunk 4.*{what}.*its row 7 \(row 407 of all\), column 2"
    ):
        fit(lambda: iter(parts), batch_size=batch_size)


def test_columns_of_one_name_are_refused(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    column = pa.array(streams.rows(50)[:, 0])
    pq.write_table(pa.table([column, column], names=["x", "x"]), tmp_path / "twice.parquet")
    with pytest.raises(InputError, match=r"\['x'\] are there twice"):
        fit(tmp_path / "twice.parquet")
    with pytest.raises(InputError, match=r"\['x'\] are there twice"):
        tables.read(tmp_path / "twice.parquet")


def test_nan_in_a_parquet_file_names_the_column(tmp_path):
    x = streams.rows(900)
    x[700, 1] = np.nan
    with pytest.raises(InputError, match=r"row 700 of all.*column 1 \('b'\)"):
        fit(streams.parquet(x, tmp_path))


@pytest.mark.parametrize("late", [0, 4])
def test_errors_of_a_reader_come_with_their_own_traceback(late):
    def chunks():
        for number, part in enumerate(good()):
            if number == late:
                raise ZeroDivisionError("in the reader")
            yield part

    with pytest.raises(ZeroDivisionError, match="in the reader") as caught:
        fit(chunks)
    assert "chunks" in [entry.name for entry in caught.traceback]


def test_an_error_in_the_middle_of_a_pass_ends_the_thread():
    class Stop(Exception):
        pass

    def stop(state):
        raise Stop

    with pytest.raises(Stop):
        fastgmm.GaussianMixture(2, random_state=0).fit(lambda: iter(good()), callback=stop)
    assert readers() == []


@pytest.mark.parametrize("method", ["summarise", "_add"])
def test_a_pass_that_fails_in_computing_ends_the_thread(monkeypatch, method):
    from fastgmm.backends.cpu import CPUBackend

    def fail(self, *args, **kwargs):
        raise MemoryError("no room")

    monkeypatch.setattr(CPUBackend, method, fail)
    with pytest.raises(MemoryError, match="no room") as caught:
        fit(lambda: iter(good()))
    assert caught.traceback
    assert readers() == []


def test_case_49_a_file_that_is_cut_short(tmp_path):
    path = streams.npy(streams.rows(2000), tmp_path)

    def cut(state):
        with open(path, "r+b") as file:
            file.truncate(20_000)

    model = fastgmm.GaussianMixture(2, random_state=0, tol=0.0, batch_size=300)
    with pytest.raises(InputError, match="cut short"):
        model.fit(path, callback=cut)


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.npy").write_text("not an array")
    np.save(tmp_path / "line.npy", np.zeros(5))
    np.save(tmp_path / "text2.npy", np.array([["a", "b"]]))
    (tmp_path / "rows.csv").write_text("1,2\n3,4\n")
    (tmp_path / "empty").mkdir()
    for name in ("text.npy", "line.npy", "text2.npy", "rows.csv", "empty"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            fit(tmp_path / name)
    for name in ("missing.npy", "missing.parquet", "missing"):
        with pytest.raises(FileNotFoundError, match=name):
            fit(tmp_path / name)


def test_features_must_be_those_of_the_fit(tmp_path):
    x = streams.rows(600)
    model = fit(streams.parquet(x, tmp_path))
    assert model.feature_names_in_.tolist() == list(streams.NAMES)
    with pytest.raises(InputError, match="X has 2 features, but GaussianMixture is expecting 3"):
        model.predict(lambda: iter([x[:, :2]]))
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(dict.fromkeys("abd", x[:, 0])), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="feature names should match"):
        model.predict(tmp_path / "other.parquet")


def test_loaders_of_rows_and_labels_are_ambiguous():
    torch = pytest.importorskip("torch")
    data = torch.utils.data
    pairs = data.TensorDataset(torch.tensor(streams.rows(60)), torch.zeros(60))
    with pytest.raises(InputError, match=r"gives 2 things per row.*lambda"):
        fit(data.DataLoader(pairs, batch_size=10))


def test_a_fit_that_fails_leaves_the_one_before():
    model = fit(lambda: iter(good()))
    before = model.means_
    with pytest.raises(InputError):
        model.fit(lambda: iter([np.full((5, 2), np.nan)]))
    assert model.means_ is before
    assert model.n_features_in_ == 3


def test_weights_given_twice():
    weighted = [(part, np.ones(len(part))) for part in good()]
    with pytest.raises(InputError, match=r"sample_weight: .* gives weights itself"):
        fastgmm.GaussianMixture(2).fit(lambda: iter(weighted), sample_weight=np.ones(600))


def test_wrong_number_of_weights():
    for n in (599, 601, 0):
        with pytest.raises(InputError, match=rf"\({n},\).*600 rows"):
            fastgmm.GaussianMixture(2).fit(lambda: iter(good()), sample_weight=np.ones(n))
    with pytest.raises(InputError, match="non-zero"):
        fastgmm.GaussianMixture(2).fit(lambda: iter(good()), sample_weight=np.zeros(600))
