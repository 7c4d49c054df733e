"""fastgmm's calls of rows, once, in processes of their own, which leave what they compile."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .. import fresh
from ..clock import Clock
from ..provenance import cores
from ..rows import Row
from .rows import MODES, ROWS, shrunk


def together(
    rows: Iterable[Row], modes: Iterable[str], seconds: float, **flags: bool
) -> dict[str, Any]:
    """Call rows in each precision, as many processes side by side as leave two cores.

    Triton compiles by the sizes of a problem, and keeps what it compiled for other processes: after
    this the same calls compile nothing. With the first of ``modes`` for all rows it begins.

    Parameters
    ----------
    rows : iterable of Row
    modes : iterable of str
    seconds : float
        After which all calls are stopped.
    **flags : bool
        Of the command of this module.
    """
    clock, begin = Clock(seconds), time.monotonic()
    processes = max(cores() - 2, 1)
    chosen = [f"--{name}" for name, value in flags.items() if value]

    def one(task: tuple[str, list[str]]) -> dict[str, Any]:
        mode, names = task
        call = {"rows": names, "mode": mode}
        if clock.left() <= 0:
            return {**call, "failed": "the time was over"}
        return call | fresh.run("benchmarks.gpu.once", [mode, *names, *chosen], clock.left())

    with ThreadPoolExecutor(processes) as threads:
        calls = list(threads.map(one, _tasks(list(rows), modes)))
    return {"seconds": time.monotonic() - begin, "processes": processes, "calls": calls}


def _tasks(rows: list[Row], modes: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Precisions, and the rows that have the same workload."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.structure, row.shape, row.precision, row.overlap), []).append(row)
    for mode in modes:
        for group in groups.values():
            if mode in MODES[group[0].precision]:
                yield mode, [row.name for row in group]


def main(arguments: list[str] | None = None) -> int:
    """Call fastgmm once for each row, and print seconds and errors as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.once", description=__doc__)
    parser.add_argument("mode", help="the argument ``precision``")
    parser.add_argument("rows", nargs="+")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="rows as --quick measures them")
    parser.add_argument("--tiny", action="store_true", help="a few rows, against the oracle")
    options = parser.parse_args(arguments)
    os.environ.setdefault("SCIPY_ARRAY_API", "1")
    import torch

    from ..small import quiet_convergence

    quiet_convergence()
    device = torch.device(options.device)
    by_name = {row.name: row for row in ROWS}
    found: dict[str, Any] = {"seconds": {}, "errors": {}}
    for name in options.rows:
        row = by_name[name]
        if options.quick or options.tiny:
            row = shrunk(row, tiny=options.tiny)
        _call(row, options.mode, device, found, check=options.tiny)
    print(json.dumps(found))
    return 0


def _call(row: Row, mode: str, device: Any, found: dict[str, Any], *, check: bool) -> None:
    from ..adapters import FastGMM
    from ..measure import truth_of
    from ..subject import SHORT, Subject, complaint, errors
    from .device import synchronise

    workload = row.workload(device)
    adapter = FastGMM(workload.start, row.precision, device=device, mode=mode)
    subject = Subject(adapter, row, workload.x, host=False)
    begin = time.perf_counter()
    result = subject.call(SHORT)
    synchronise(device)
    found["seconds"][row.name] = time.perf_counter() - begin
    if not check:
        return
    differences = errors(row, result, truth_of(row, workload, device))
    found["errors"][row.name] = next(iter(differences.values()))
    if wrong := complaint(row, found["errors"][row.name], mode):
        raise SystemExit(f"{row.name} {wrong}")


if __name__ == "__main__":
    sys.exit(main())
