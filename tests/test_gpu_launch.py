"""The launch table: what it must hold, how it is read, and that tuning writes it back."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from types import SimpleNamespace

import pytest

from conftest import CUDA
from fastgmm.backends import launch


def test_every_row_is_a_launch_and_every_dtype_is_there():
    table = launch.read_table()
    names = {field.name for field in dataclasses.fields(launch.Launch)}
    for rows in table["kernels"].values():
        assert {row["dtype"] for row in rows} == {"float32", "float64"}
        for row in rows:
            assert row.keys() == {"dtype", "capability", "features", "launch"}
            assert row["launch"].keys() <= names
            for name in ("rows", "features", "components", "warps"):
                value = row["launch"].get(name, 1)
                assert value & (value - 1) == 0


def test_a_table_says_where_it_comes_from():
    table = launch.read_table()
    if table["device"] is None:
        assert table["origin"].startswith("reasoned")
    else:
        assert table["versions"]
        assert table["date"]


def test_the_nearest_row_counts(monkeypatch):
    def row(capability, features, rows):
        key = {"dtype": "float32", "capability": capability, "features": features}
        return {**key, "launch": {"rows": rows}}

    rows = [row(80, 16, 1), row(80, 64, 2), row(90, 16, 3), row(90, 64, 4), row(100, 16, 5)]
    monkeypatch.setattr(launch, "read_table", lambda: {"kernels": {"k": rows}})

    def found(features, capability):
        return launch.find.__wrapped__("k", features, "float32", capability).rows

    assert found(16, 90) == 3
    assert found(17, 90) == 4
    assert found(1024, 90) == 4
    assert found(16, 86) == 1
    assert found(64, 103) == 5
    # Without a row of its generation: one that needs little shared memory.
    assert found(16, 120) == 1
    assert found(64, 75) == 2
    assert found(64, 0) == 2


@pytest.mark.parametrize(
    ("hip", "version", "capability"), [(None, (9, 0), 90), (None, (12, 1), 121), ("6.4", (9, 4), 0)]
)
def test_numbers_of_amd_are_not_those_of_nvidia(monkeypatch, hip, version, capability):
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    from fastgmm.backends.gpu import GPUBackend

    about = SimpleNamespace(major=version[0], minor=version[1], multi_processor_count=4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert GPUBackend(torch.device("cuda:0")).target.capability == capability


def test_a_table_is_written_as_it_is_read(tmp_path):
    path = tmp_path / "table.json"
    launch.write_table(launch.read_table(), path)
    assert path.read_text() == launch.table_path().read_text()


@pytest.mark.skipif(
    CUDA or importlib.util.find_spec("triton") is None, reason="there is no interpreter"
)
def test_tuning_keeps_the_fastest(monkeypatch):
    from fastgmm import backends
    from fastgmm.backends import tune

    monkeypatch.setattr(tune, "GRIDS", {name: {"warps": (2, 16, 8)} for name in tune.GRIDS})
    ran, kept = [], []

    def timer(call):
        call()
        ran.append(call)
        if len(ran) % 3 == 1:
            raise RuntimeError("what a compiler may say")
        return {2: 1.0, 0: 2.0}[len(ran) % 3]

    backend = backends.choose("interpreter")[0]
    cases = [("full", 2, 4, "float32"), ("full", 2, 4, "float64"), ("tied", 2, 3, "float32")]

    def keep(table):
        kept.append(json.dumps(table))

    table = tune.tune(backend, timer, n_rows=130, cases=cases, keep=keep)
    assert len(ran) % 3 == 0
    assert len(ran) > 3
    assert json.dumps(table)
    new = [row for row in table["kernels"]["expect_small"] if row["capability"] == 0]
    assert [row["launch"]["warps"] for row in new] == [16, 16]
    assert 3 * len(kept) == len(ran)
    rows = json.loads(kept[-1])["kernels"]["load_rows"]
    assert 16 in [row["launch"]["warps"] for row in rows if row["capability"] == 0]
    done = len(ran)
    assert tune.tune(backend, timer, n_rows=130, cases=cases, seconds=-1.0)
    assert len(ran) == done
    assert table["versions"].keys() == {"torch", "triton"}
    # Rows of other devices stay.
    old = launch.read_table()["kernels"]["expect_full"]
    assert table["kernels"]["expect_full"][: len(old)] == old
