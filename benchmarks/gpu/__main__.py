"""fastgmm beside its peers on one device, in a few minutes: ``python -m benchmarks.gpu``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..clock import Clock, describe, failures
from ..console import say, write_json
from ..fresh import ROOT
from ..rows import Row
from .once import together
from .rows import MODES, ROWS, shrunk
from .table import Table

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

    from . import suite
    from .ceilings import published
    from .report import text

    cuda = options.device == "cuda"
    if cuda and not torch.cuda.is_available():
        print("torch finds no CUDA device; --device cpu or interpreter runs without one")
        return 2
    clock = Clock(options.seconds)
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    path = options.json or (_dated() if cuda else None)
    settings = ("device", "quick", "seconds", "tests", "warm_up", "budget")
    result: dict[str, Any] = {
        "suite": "gpu",
        "provenance": _provenance(device, options.commit),
        "settings": {key: getattr(options, key) for key in settings},
        "tests": {"summary": "not run"},
        "rates": {},
        "published_rates": published(torch.cuda.get_device_name(device)) if cuda else None,
        "rows": [],
    }

    def save() -> None:
        # after every part, so that a run that is stopped leaves what it has
        write_json(path, result)

    save()
    chosen = [row for row in ROWS if not options.rows or row.name in options.rows]
    if cuda and options.tests > 0:
        say("tests on the device")
        result["tests"] = suite.run(options.tests)
        say(result["tests"]["summary"])
        save()
    if cuda and options.warm_up > 0:
        say("compiling what the rows need")
        limit = min(options.warm_up, clock.left())
        result["warm_up"] = together(chosen, MODES["float32"], limit, quick=options.quick)
        save()
    say("ceilings")
    _ceilings(result, device, quick=options.quick)
    save()
    _rows(result, chosen, options, clock, save)
    print("\n" + text(result))
    if "not_run" in result:
        print(f"not run, the time was over: {', '.join(result['not_run'])}")
    if path is not None:
        say(f"wrote {path}")
    return 0


def _rows(
    result: dict[str, Any],
    chosen: list[Row],
    options: argparse.Namespace,
    clock: Clock,
    save: Callable[[], None],
) -> None:
    from .floors import set_floors

    with closing(Table(options.device, options.budget or (0.2 if options.quick else 1.0))) as table:
        for i, row in enumerate(chosen):
            if clock.left() <= 0:
                say(f"{row.title}: the time of the run was over")
                result.setdefault("not_run", []).append(row.name)
                continue
            if options.quick:
                row = shrunk(row, tiny=options.device != "cuda")
            # a row may take twice its share of what is left; those before it were more important
            limit = clock.share(len(chosen) - i, least=10.0).left()
            result["rows"].append(table.row(row, limit))
            # rates are published for, and floors stated at, the full shapes
            stated = None if options.quick else result["published_rates"]
            set_floors(result["rows"], result["rates"], stated)
            save()


def _ceilings(result: dict[str, Any], device: Any, *, quick: bool) -> None:
    from .ceilings import measure
    from .device import free

    try:
        result["rates"] = measure(device, quick=quick)
        free(device)
    except failures() as error:
        result["no_rates"] = describe(error)


def _dated() -> Path:
    """A file of this minute beside the results that are kept."""
    return ROOT / "benchmarks" / "results" / f"gpu-{datetime.now(UTC):%Y-%m-%d-%H%M}.json"


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
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="all that was measured (on a device a dated file in benchmarks/results)",
    )
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
        "--warm-up",
        type=float,
        default=75.0,
        metavar="SECONDS",
        help="at most, for compiling in parallel what the rows need (75)",
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
