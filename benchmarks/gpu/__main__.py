"""fastgmm beside its peers on one device, in a few minutes: ``python -m benchmarks.gpu``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ..clock import Clock
from ..console import say, write_json
from .rows import ROWS, shrunk

DEVICES = ("cuda", "interpreter", "cpu")


def main(arguments: list[str] | None = None) -> int:
    """Run, print the tables, write the JSON file; 0 also when a target is missed."""
    options = _parser().parse_args(arguments)
    known = {row.name: row for row in ROWS}
    if unknown := sorted(set(options.rows or ()) - set(known)):
        print(f"no row is called {', '.join(unknown)}; rows: {', '.join(known)}")
        return 2
    # scipy and triton read these when they are first imported.
    os.environ.setdefault("SCIPY_ARRAY_API", "1")
    if options.device == "interpreter":
        os.environ["TRITON_INTERPRET"] = "1"
    import torch

    from ..adapters import FastGMM
    from ..measure import measure
    from ..small import quiet_convergence
    from . import suite
    from .ceilings import measure as measure_ceilings
    from .ceilings import published
    from .floors import set_floors
    from .report import text

    cuda = options.device == "cuda"
    if cuda and not torch.cuda.is_available():
        print("torch finds no CUDA device; --device cpu or interpreter runs without one")
        return 2
    quiet_convergence()
    FastGMM.host_backend = "cpu" if cuda else options.device
    clock = Clock(options.seconds)
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    tests: dict[str, Any] = {"summary": "not run"}
    if cuda and options.tests > 0:
        say("tests on the device")
        tests = suite.run(options.tests)
        say(tests["summary"])
    say("ceilings")
    rates = measure_ceilings(device, quick=options.quick)
    result: dict[str, Any] = {
        "suite": "gpu",
        "provenance": _provenance(device, options.commit),
        "settings": {
            key: getattr(options, key) for key in ("device", "quick", "seconds", "tests", "budget")
        },
        "tests": tests,
        "rates": rates,
        "published_rates": published(torch.cuda.get_device_name(device)) if cuda else None,
        "rows": [],
    }
    chosen = [row for row in ROWS if not options.rows or row.name in options.rows]
    budget = options.budget or (0.2 if options.quick else 1.0)
    for i, row in enumerate(chosen):
        if clock.left() <= 0:
            say(f"{row.title}: the time of the run was over")
            result.setdefault("not_run", []).append(row.name)
            continue
        if options.quick:
            row = shrunk(row, tiny=not cuda)
        # a row may take twice its share of what is left; those before it were more important
        limit = clock.share(len(chosen) - i, least=10.0).left()
        found = measure(row, budget, say, _on_devices(), device=device, seconds=limit)
        result["rows"].append(found)
        # rates are published for, and floors stated at, the full shapes
        set_floors(result["rows"], rates, None if options.quick else result["published_rates"])
        # after every row, so that a run that is stopped leaves what it has
        write_json(options.json, result)
    print("\n" + text(result))
    if "not_run" in result:
        print(f"not run, the time was over: {', '.join(result['not_run'])}")
    if options.json is not None:
        say(f"wrote {options.json}")
    return 0


def _on_devices() -> tuple[Any, ...]:
    from ..adapters import ADAPTERS

    return tuple(kind for kind in ADAPTERS if kind.on_devices)


def _provenance(device: Any, commit: str | None) -> dict[str, Any]:
    from .. import provenance
    from .device import facts

    found = provenance.provenance()
    device_facts = facts(device)
    found["versions"] = {**found["versions"], **device_facts.pop("versions")}
    found["device"] = device_facts
    if commit is not None:
        found["commit"] = commit
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rows and repeats")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="these rows alone")
    parser.add_argument(
        "--device", choices=DEVICES, default="cuda", help="the last two are to try it without a GPU"
    )
    parser.add_argument(
        "--seconds", type=float, default=420.0, help="after which nothing new is started (420)"
    )
    parser.add_argument(
        "--tests", type=float, default=120.0, metavar="SECONDS", help="at most, for the tests (120)"
    )
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="of each implementation in each row"
    )
    parser.add_argument(
        "--commit", metavar="NAME", help="of the code, where the checkout cannot tell"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
