"""Tests of reading tables (fastgmm.tables) and writing results (fastgmm.results)."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fastgmm import results, tables
from fastgmm.errors import InputError, PrecisionWarning


def test_npy_is_memory_mapped_and_untouched(tmp_path):
    rows = np.random.default_rng(0).normal(size=(20, 3))
    np.save(tmp_path / "x.npy", rows)
    table = tables.read(tmp_path / "x.npy")
    assert isinstance(table.values, np.memmap)
    assert not table.values.flags.writeable
    np.testing.assert_array_equal(table.values, rows)


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        ("1,2\n3,4\n", None, [1, 2]),
        ("a,b\n1,2\n", ("a", "b"), [1, 2]),
        ('"a, b";"c"\n1;2\n', ("a, b", "c"), [1, 2]),
        ("a\tb\n1e3\t-2.5\n", ("a", "b"), [1000, -2.5]),
        ("\ufeffa,b\r\n1,2\r\n\r\n3,4\r\n", ("a", "b"), [1, 2]),
        ("a\n1\n2\n", ("a",), [1]),
        ("a,2020\n1,2\n", ("a", "2020"), [1, 2]),
        ("\n\na, b\n1, 2\n", ("a", "b"), [1, 2]),
        ('"first\nline",b\n1,2\n', ("first\nline", "b"), [1, 2]),
        ('a,b\n"1","2"\n', ("a", "b"), [1, 2]),
    ],
)
def test_csv_header_and_delimiter_are_found(tmp_path, text, names, first):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    table = tables.read(path)
    assert table.names == names
    assert table.values.dtype == np.float64
    np.testing.assert_array_equal(table.values[0], first)
    assert tables.has_names(path) == (names is not None)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", "0 rows"),
        ("\n \n", "0 rows"),
        ("a,b\n", "0 rows"),
        ("a,b\n1,red\n2,blue\n", "column 'b' is not numeric: line 2 has 'red'"),
        ("a,b\n1,2\n3,\n", "column 'b' is not numeric: line 3 has an empty cell"),
        ("a,b\n1,2\n3\n", "line 3 has 1 cells, expected 2"),
        ("1,2\n3,4,5\n", "line 2 has 3 cells, expected 2"),
        ("1,2\n3,x\n", "column 1 is not numeric: line 2 has 'x'"),
        ("a,a\n1,2\n", "same name"),
    ],
)
def test_a_bad_csv_file_is_explained(tmp_path, text, pattern):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=pattern):
        tables.read(path)


def test_integers_that_are_rounded_are_told_of(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"a,key\n1,2\n1e300,{2**53}\n3,-{2**53 + 1}\n")
    with pytest.warns(PrecisionWarning, match=r"t\.csv: line 4 has -9007199254740993.*2\^53"):
        tables.read(path)
    tables.read(path, columns=["a"])
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"a": [1, 2], "key": [2**53 + 1, 5]}), tmp_path / "t.parquet")
    with pytest.warns(PrecisionWarning, match=r"t\.parquet: column 'key' has int64 values"):
        tables.read(tmp_path / "t.parquet")


def test_a_text_column_can_be_left_out(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("name,x,y\noak,1,2\nelm,3,4\n")
    np.testing.assert_array_equal(tables.read(path, columns=["y", "x"]).values, [[2, 1], [4, 3]])
    np.testing.assert_array_equal(tables.read(path, columns=["1"]).values, [[1], [3]])


def test_csv_that_is_not_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n1,\xff\xfe\n")
    with pytest.raises(InputError, match="UTF-8"):
        tables.read(path)


class _Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_nothing_is_unpickled(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    payload = np.array([[_Bomb()]], dtype=object)
    if suffix == "npy":
        np.save("bomb.npy", payload, allow_pickle=True)
    else:
        np.savez("bomb.npz", payload)
    with pytest.raises(InputError, match="not a readable"):
        tables.read(f"bomb.{suffix}")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.parquet"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 broken", b"\x93NUMPY\x01"])
def test_damaged_files_are_input_errors(tmp_path, name, content):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        tables.read(tmp_path / name)


@pytest.mark.parametrize("dtype", ["complex128", "datetime64[s]", "U3", [("a", "f8")]])
def test_arrays_that_are_not_numbers(tmp_path, dtype):
    np.save(tmp_path / "x.npy", np.zeros((3, 2), dtype=dtype))
    with pytest.raises(InputError, match="expected real numbers"):
        tables.read(tmp_path / "x.npy")


def test_arrays_of_the_wrong_rank(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"\(3,\)"):
        tables.read(tmp_path / "x.npy")
    np.save(tmp_path / "w.npy", np.zeros((3, 2)))
    with pytest.raises(InputError, match="one number per row"):
        tables.read_vector(tmp_path / "w.npy")


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    x, n = np.arange(5, dtype=np.float32), np.arange(5)
    pq.write_table(
        pa.table({"x": x, "n": n, "s": list("abcde"), "m": [1.0, None, 2, 3, 4]}),
        path,
        row_group_size=2,
    )
    table = tables.read(path, columns=["n", "x"])
    assert table.names == ("n", "x")
    assert table.values.dtype == np.float64
    np.testing.assert_array_equal(table.values, np.c_[n, x])
    assert tables.read(path, columns=["x"]).values.dtype == np.float32
    with pytest.raises(InputError, match="column 's' is not numeric but string"):
        tables.read(path)
    with pytest.raises(InputError, match="column 'm' has missing values"):
        tables.read(path, columns=["m"])
    with pytest.raises(InputError, match="no column 'z'; the file has columns x, n, s, m"):
        tables.read(path, columns=["z"])


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "fastgmm\[parquet\]"'):
        tables.read(tmp_path / "x.parquet")
    with pytest.raises(ImportError, match=r'pip install "fastgmm\[parquet\]"'):
        results.write(tmp_path / "x.parquet", np.zeros(2), ["a"])


# results


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet"])
def test_what_is_written_reads_back_exactly(tmp_path, suffix, dtype):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    values = (np.random.default_rng(0).normal(size=(7, 2)) * 1e3).astype(dtype)
    path = tmp_path / f"r.{suffix}"
    results.write(path, (values[:3], values[3:]), ["a", "b"])
    table = tables.read(path, dtype=dtype if dtype != np.int64 else None)
    np.testing.assert_array_equal(table.values, values)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "r.csv"
    path.write_text("old")

    def fail(file, *_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_csv", fail)
    with pytest.raises(OSError, match="No space"):
        results.write(path, np.zeros(3), ["a"])
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.csv"]
