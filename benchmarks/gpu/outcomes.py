"""A plugin of pytest: a line of JSON for each test as it ends, so that a run may be stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

#: variable of the environment that names the file
VARIABLE = "FASTGMM_OUTCOMES"
#: lines of a failure that are kept
_LINES = 8


def pytest_configure(config: Any) -> None:
    """Write where a file is named; of xdist's processes only the one that hears of all tests."""
    path = os.environ.get(VARIABLE)
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Writer(Path(path)))


class _Writer:
    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test counts when it was called, or where that was not come to or not all."""
        if report.when == "call" or report.outcome != "passed":
            self._write(report)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._write(report)

    def _write(self, report: Any) -> None:
        line = {"test": report.nodeid, "outcome": report.outcome}
        if report.failed:
            text = report.longreprtext.splitlines()
            told = [each for each in text if each.startswith("E ")] or text[-_LINES:]
            line["text"] = [each[:300] for each in told[:_LINES]]
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
