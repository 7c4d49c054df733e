"""What keeps a run of the GPU benchmark going: faults, slow peers, tests that hang."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from benchmarks import guard  # noqa: E402
from benchmarks.adapters import FastGMM, PlainTorch  # noqa: E402
from benchmarks.adapters.distributions import TorchDistributions  # noqa: E402
from benchmarks.gpu import device, once, suite, table  # noqa: E402
from benchmarks.gpu.floors import set_floors  # noqa: E402
from benchmarks.gpu.report import notes, times  # noqa: E402
from benchmarks.gpu.rows import ROWS  # noqa: E402
from benchmarks.measure import measure  # noqa: E402
from tiny_rows import hasty_timing, positive_times, row_of  # noqa: E402, F401

ROOT = Path(__file__).resolve().parents[1]

_TESTS = """
import time
import pytest
pytestmark = pytest.mark.gpu

def test_passes():
    pass

def test_fails():
    assert 1 == 2, "why"

@pytest.fixture
def thing():
    yield
    raise RuntimeError("left open")

def test_ends_badly(thing):
    pass

@pytest.mark.skip(reason="today")
def test_is_skipped():
    pass

def test_takes_long():
    time.sleep(SECONDS)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 60], ids=["ends", "hangs"])
def test_tests_tell_what_failed_also_when_they_are_stopped(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(suite, "cores", lambda: 2)
    if seconds:
        monkeypatch.setattr(suite, "_PATIENCE", 2.0)
        monkeypatch.setattr(suite, "find_spec", lambda name: None)  # no xdist
    path = tmp_path / "test_some.py"
    path.write_text(_TESTS.replace("SECONDS", str(seconds)))
    torn = tmp_path / "test_torn.py"
    torn.write_text("import nothing_of_this_name")
    found = suite.run(12.0, [str(path), str(torn)]) if seconds else suite.run(100.0, [str(path)])
    (file, *others) = found["files"]
    assert (file["passed"], file["failed"], file["skipped"]) == (1 + (not seconds), 2, 1)
    texts = {failure["test"].split("::")[1]: failure["text"] for failure in file["failures"]}
    assert "AssertionError: why" in texts["test_fails"][0]
    assert "left open" in " ".join(texts["test_ends_badly"])
    assert found["stopped"] == file["stopped"] == bool(seconds)
    assert len(found["failed"]) == 2 + len(others)
    assert found["summary"].startswith(f"{file['passed']} passed, {2 + len(others)} failed, 1 sk")
    for other in others:
        assert other["exit"] == 2
        assert "nothing_of_this_name" in " ".join(other["failures"][0]["text"])
        assert "error" in " ".join(other["output"])
        assert found["summary"].endswith(f"ended oddly: {torn}")


def test_tests_are_not_begun_without_time():
    found = suite.run(0.0)
    assert found["stopped"]
    assert [file["file"] for file in found["files"]] == list(suite.FILES)
    for file in suite.FILES:
        assert (ROOT / file).exists()


def test_the_command_of_the_tests(tmp_path, monkeypatch, capsys):
    calls = [{"rows": ["em-full"], "seconds": {}}, {"rows": ["em-tied"], "failed": "why"}]
    monkeypatch.setattr(once, "together", lambda *arguments, tiny: {"calls": calls})
    monkeypatch.setattr(suite, "run", lambda limit: {"summary": "2 passed", "failed": []})
    path = tmp_path / "tests.json"
    assert suite.main(["--json", str(path)]) == 1
    printed = capsys.readouterr().out
    for part in ("1 tiny calls as expected, 1 not", "em-tied: why", "2 passed"):
        assert part in printed
    assert json.loads(path.read_text()).keys() == {"tiny", "tests"}
    calls.pop()
    assert suite.main([]) == 0


def test_calls_of_rows_side_by_side(monkeypatch):
    def run(module, arguments, seconds):
        assert module == "benchmarks.gpu.once"
        assert 0 < seconds <= 60
        asked.append(arguments)
        return {"failed": "why"} if "em-tied" in arguments else {"seconds": {}}

    asked = []
    monkeypatch.setattr(once.fresh, "run", run)
    rows = [row for row in ROWS if row.name in ("score-full-f64", "em-full-f64", "em-tied")]
    found = once.together(rows, ("highest", "high"), 60.0, tiny=True, quick=False)
    wanted = [
        (["score-full-f64", "em-full-f64"], "highest"),
        (["em-tied"], "highest"),
        (["em-tied"], "high"),
    ]
    assert [(call["rows"], call["mode"]) for call in found["calls"]] == wanted
    assert sorted(asked) == sorted([mode, *names, "--tiny"] for names, mode in wanted)
    assert sum(call.get("failed") == "why" for call in found["calls"]) == 2
    late = once.together(rows, ("highest",), 0.0)
    assert {call["failed"] for call in late["calls"]} == {"the time was over"}


def test_a_call_of_rows_is_checked(monkeypatch, capsys):
    monkeypatch.setattr(FastGMM, "host_backend", "reference")
    rows = ["score-full-f64", "em-full-f64"]
    assert once.main(["highest", *rows, "--tiny", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["seconds"]) == list(found["errors"]) == rows
    assert max(found["errors"].values()) < 1e-9
    monkeypatch.setattr(FastGMM, "score", lambda self, x: x[:, 0])
    with pytest.raises(SystemExit, match="score-full-f64 differs from the float64 oracle"):
        once.main(["highest", *rows, "--tiny", "--device", "cpu"])


class _Faulty(PlainTorch):
    name = "faulty"
    modes = ("highest",)


def test_a_fault_ends_no_more_than_a_process(monkeypatch):
    lost = []

    def free(place):
        if lost:
            raise RuntimeError("an illegal memory access was encountered")

    def score(self, x):
        lost.append(True)
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(device, "free", free)
    monkeypatch.setattr(_Faulty, "score", score)
    row, closed = row_of("diag", "score"), []

    class Here(table.Table):
        def close(self):
            lost.clear()
            closed.append(True)

        def _ask(self, row, seconds, known):
            assert not lost
            return table.Bench.measure(bench, row, seconds, known)

    bench = table.Bench("cpu", 0.01)
    monkeypatch.setattr("benchmarks.adapters.ADAPTERS", (PlainTorch, _Faulty, TorchDistributions))
    found = Here("cpu", 0.01).row(row, 60.0)
    assert found["implementations"]["faulty"]["failed"].startswith("RuntimeError: an illegal")
    for name in ("plain PyTorch, highest", "torch.distributions"):
        assert "seconds" in found["implementations"][name]
    assert len(closed) == 1


@pytest.mark.parametrize("where", ["truth_of", "_workload"])
def test_a_row_that_cannot_be_measured_says_so(monkeypatch, where):
    def fails(*arguments):
        raise torch.OutOfMemoryError("tried to allocate too much\nand more")

    monkeypatch.setattr(f"benchmarks.measure.{where}", fails)
    found = table.Bench("cpu", 0.01).measure(row_of("full"), 10.0, {})
    assert found["failed"] == "out of memory: tried to allocate too much"
    assert "not measured: out of memory" in "\n".join(notes([found]))
    set_floors([found], {}, None)
    assert times([found])


def test_a_slow_peer_is_not_waited_for(monkeypatch):
    class Slow(PlainTorch):
        name = "slow"
        modes = ("highest",)

        def score(self, x):
            time.sleep(len(x) * 2e-4)
            return super().score(x)

    monkeypatch.setattr(guard, "harmless", lambda row, seconds: False)
    row = row_of("diag", "score", (20_000, 4, 4))
    found = measure(
        row, 0.01, adapters=(Slow, PlainTorch), device=torch.device("cpu"), seconds=20.0
    )["implementations"]
    assert "one call would need about" in found["slow"]["skipped"]
    assert "seconds" in found["plain PyTorch, highest"]
