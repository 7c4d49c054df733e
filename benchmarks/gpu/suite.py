"""The tests that need a device: ``python -m benchmarks.gpu.suite --json FILE``.

First fastgmm's calls of every row at tiny size, each in a process of its own, against the float64
oracle; then the tests marked gpu, the kernels' own before others.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..clock import Clock
from ..console import say, write_json
from ..fresh import ROOT, environment
from ..provenance import cores
from .outcomes import VARIABLE

#: The most telling ones first. Each has processes of its own: after an illegal access to memory a
#: process can test nothing more.
FILES = (
    "tests/test_gpu_kernels.py",
    "tests/test_gpu_autograd.py",
    "tests/test_gpu_spherical.py",
    "tests/test_gpu_estimator.py",
    "tests/test_certified.py",
    "tests/test_contract.py",
    "tests/test_joined.py",
    "tests/faults",
)
#: files at a time, and the share of the time that one of them may take
_TOGETHER, _SHARE = 4, 0.8
#: seconds between asking for an end and making it
_PATIENCE = 10.0


def run(limit: float, files: Sequence[str] = FILES) -> dict[str, Any]:
    """Run the tests marked gpu for at most ``limit`` seconds; counts, and failures by file."""
    clock, begin = Clock(limit - _PATIENCE), time.monotonic()

    def one(file: str) -> dict[str, Any]:
        return _file(file, min(clock.left(), _SHARE * limit))

    with ThreadPoolExecutor(_TOGETHER) as threads:
        found = list(threads.map(one, files))
    failures = [failure for file in found for failure in file["failures"]]
    return {
        "summary": _summary(found, time.monotonic() - begin),
        "stopped": any(file["stopped"] for file in found),
        "failed": [f"FAILED {f['test']} - {' '.join(f['text'][:1])}" for f in failures][:50],
        "files": found,
        "seconds": time.monotonic() - begin,
    }


def _file(file: str, limit: float) -> dict[str, Any]:
    """What became of the tests of a file, or of a folder of them."""
    found: dict[str, Any] = {"file": file, "stopped": True, "exit": None, "seconds": 0.0}
    found |= {"passed": 0, "failed": 0, "skipped": 0, "failures": []}
    if limit <= 0:
        return found
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes, output = Path(folder, "outcomes"), Path(folder, "output")
        with output.open("w") as stream:
            process = subprocess.Popen(
                _command(file),
                cwd=ROOT,
                env=_environment(outcomes),
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            found["exit"] = _wait(process, limit)
        found["stopped"] = found["exit"] is None
        if found["exit"] not in (0, 1, 5):  # passed, failed, no tests
            found["output"] = output.read_text(errors="replace").splitlines()[-10:]
        lines = outcomes.read_text().splitlines() if outcomes.exists() else []
    # by test, for a test that passed may fail when it cleans up
    ended = {line["test"]: line for line in map(json.loads, lines)}
    found |= Counter(line["outcome"] for line in ended.values())
    found["failures"] = [
        {"test": line["test"], "text": line["text"]}
        for line in ended.values()
        if line["outcome"] == "failed"
    ]
    found["seconds"] = time.monotonic() - begin
    return found


def _command(file: str) -> list[str]:
    # Other versions of packages warn of other things, which here is no failure.
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--tb=short", "-W", "default",
               "-p", "no:cacheprovider", "-p", "benchmarks.gpu.outcomes", file]  # fmt: skip
    if find_spec("xdist") is not None:
        command += ["-n", str(max((cores() - 2) // _TOGETHER, 1)), "--dist", "worksteal"]
    return command


def _environment(outcomes: Path) -> dict[str, str]:
    found = environment(**{VARIABLE: str(outcomes)})
    found.pop("TRITON_INTERPRET", None)
    return found


def _wait(process: subprocess.Popen[Any], limit: float) -> int | None:
    """The exit status, or None where the process was stopped; its children end with it."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _summary(files: list[dict[str, Any]], seconds: float) -> str:
    counts = [f"{sum(f[kind] for f in files)} {kind}" for kind in ("passed", "failed", "skipped")]
    stopped = [file["file"] for file in files if file["stopped"]]
    ill = [file["file"] for file in files if file["exit"] not in (None, 0, 1, 5)]
    parts = [f"{', '.join(counts)} in {seconds:.0f} s"]
    parts += [f"stopped or not begun: {', '.join(stopped)}"] if stopped else []
    parts += [f"ended oddly: {', '.join(ill)}"] if ill else []
    return "; ".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Run, write the JSON file after each part; 0 where nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.suite", description=__doc__)
    parser.add_argument("--seconds", type=float, default=400.0, help="for all of it (400)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    options = parser.parse_args(arguments)
    from .once import together
    from .rows import ROWS

    clock = Clock(options.seconds)
    say("every row at tiny size")
    result: dict[str, Any] = {"tiny": together(ROWS, ("highest",), clock.left() / 4, tiny=True)}
    write_json(options.json, result)
    ill = [call for call in result["tiny"]["calls"] if "failed" in call]
    print(f"{len(result['tiny']['calls']) - len(ill)} tiny calls as expected, {len(ill)} not")
    for call in ill:
        print(f"  {', '.join(call['rows'])}: {call['failed']}")
    say("tests on the device")
    result["tests"] = run(clock.left())
    write_json(options.json, result)
    print("\n".join([result["tests"]["summary"], *result["tests"]["failed"]]))
    return 1 if ill or result["tests"]["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
