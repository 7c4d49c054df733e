"""The launch table: what it must hold, how it is read, and that tuning writes it back."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from types import SimpleNamespace

import numpy as np
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


@pytest.fixture
def tune(monkeypatch):
    """The module, with three numbers of warps to try of each kernel."""
    if CUDA or importlib.util.find_spec("triton") is None:
        pytest.skip("there is no interpreter")
    from fastgmm.backends import tune

    monkeypatch.setattr(tune, "GRIDS", {name: {"warps": (2, 16, 8)} for name in tune.GRIDS})
    monkeypatch.setattr(tune, "_ROWS", 130)
    return tune


def _launch_of(call):
    options = call.keywords
    if "launch" in options:
        return options["launch"]
    # The one of the pair that is tried differs from those of the table.
    return max(options["launches"], key=lambda launch: launch.warps in (2, 16))


def test_tuning_keeps_the_fastest(monkeypatch, tune):
    from fastgmm import backends

    ran, kept = [], []

    def timer(call):
        call()
        warps = _launch_of(call).warps
        ran.append(warps)
        if warps == 2:
            raise RuntimeError("what a compiler may say")
        return {16: 1.0}.get(warps, 2.0)

    backend = backends.choose("interpreter")[0]
    cases = [("full", 2, 4, "float32"), ("full", 2, 4, "float64"), ("tied", 2, 3, "float32")]

    def keep(table):
        kept.append(json.dumps(table))

    asked = []

    def compiled(case, sizes, seconds):
        asked.append(sizes)
        assert seconds > 0

    table = tune.tune(backend, timer, n_rows=130, cases=cases, keep=keep, compiled=compiled)
    assert len(ran) == sum(count for sizes in asked for count in sizes.values())
    assert ran.count(16) == ran.count(2) == len(kept) == sum(map(len, asked))
    assert json.dumps(table)
    new = [row for row in table["kernels"]["expect_small"] if row["capability"] == 0]
    assert [row["launch"]["warps"] for row in new] == [16, 16]
    rows = json.loads(kept[-1])["kernels"]["load_rows"]
    assert 16 in [row["launch"]["warps"] for row in rows if row["capability"] == 0]
    done = len(ran)
    assert tune.tune(backend, timer, n_rows=130, cases=cases, seconds=-1.0)
    assert len(ran) == done
    assert table["versions"].keys() == {"torch", "triton"}
    # Rows of other devices stay.
    old = launch.read_table()["kernels"]["expect_full"]
    assert table["kernels"]["expect_full"][: len(old)] == old


@pytest.mark.parametrize("case", [("full", 33, 4, "float32"), ("spherical", 40, 16, "float32")])
def test_what_is_measured_finds_what_a_pass_left(tune, case):
    """Responsibilities, and which tiles say anything: what is skipped decides about times."""
    from fastgmm import backends

    backend = backends.choose("interpreter")[0]
    calls, _ = tune._kernels(backend, case, 130)
    kernels = list(calls)
    assert kernels[0].startswith("moments")
    assert kernels[-2] == "respond"
    assert kernels[-1].startswith("expect")
    resp, active = (calls[kernels[0]][2][name] for name in ("resp", "active"))
    resp = resp[:, :130]
    before = resp.clone(), active.clone()
    np.testing.assert_allclose(resp.sum(dim=0), 1.0, rtol=1e-3)
    with backend.guard():
        for _, run in [*tune._launches("respond", calls["respond"])] * 2:
            run()
    assert (resp == before[0]).all()
    assert (active == before[1]).all()


def test_all_sizes_are_launched_before_they_are_measured(monkeypatch, tune):
    from fastgmm import backends

    case = ("full", 2, 4, "float32")
    calls, _ = tune._kernels(backends.choose("interpreter")[0], case, 130)
    sizes = {kernel: len(list(tune._launches(kernel, call))) for kernel, call in calls.items()}
    plain, ran = tune._launches, []

    def launches(kernel, call):
        for size, run in plain(kernel, call):
            yield size, lambda key=(kernel, size), run=run: (ran.append(key), run())

    monkeypatch.setattr(tune, "_launches", launches)

    class Pool:
        def starmap_async(self, function, tasks, chunksize):
            for task in tasks:
                function(*task)
            return self

        def wait(self, seconds):
            assert seconds == 7.0

    tune._captured.cache_clear()
    tune._compile(Pool(), "interpreter", case, sizes | {"nothing": 1}, 7.0)
    assert sorted(map(repr, ran)) == sorted(
        repr((kernel, size)) for kernel, call in calls.items() for size, _ in plain(kernel, call)
    )
    tune._captured.cache_clear()
