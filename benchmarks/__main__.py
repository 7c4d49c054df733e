"""fastgmm beside its peers: ``python -m benchmarks [SUITE]``, ``compare A.json B.json``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from . import compare
from .console import write_json
from .provenance import strays
from .suites import SUITES, Suite, run

_DEVICE = "gpu"


def main(arguments: list[str] | None = None) -> int:
    """Run a suite, write what was asked for, print the report; 0 also where targets are missed."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["compare"]:
        return compare.main(arguments[1:])
    if arguments[:1] == ["report"]:
        return _report(arguments[1:])
    options = _parser().parse_args(arguments)
    if stray := strays():
        print(f"{stray} is not of this checkout: install that by `pip install -e`")
        return 2
    options.suite = options.suite or options.named or "quick"
    if options.suite == _DEVICE:
        result = _on_device(options)
    else:
        suite = SUITES[options.suite]
        known = {row.name: row for row in suite.rows} | dict.fromkeys(suite.small)
        if unknown := sorted(set(options.rows or ()) - set(known)):
            print(f"no row is called {', '.join(unknown)}; rows: {', '.join(known)}")
            return 2
        # read before the first row is written, for both may be one file
        whole = json.loads(options.into.read_text()) if options.into else None
        merged = (lambda found: found) if whole is None else partial(_merged, whole)
        # the file is written after every row, so that a run that is stopped leaves what it has
        result = merged(
            run(
                options.suite,
                _chosen(suite, options),
                _Progress(),
                lambda found: write_json(options.json, merged(found)),
            )
        )
    if result is None:
        return 2
    _write(result, options)
    return 0


def _chosen(suite: Suite, options: argparse.Namespace) -> Suite:
    """The suite as the options want it."""
    if options.rows:
        suite = replace(
            suite,
            rows=tuple(row for row in suite.rows if row.name in options.rows),
            small=tuple(name for name in suite.small if name in options.rows),
            extras=(),
            sections=(),
        )
    return replace(suite, seconds=options.budget or suite.seconds)


def _merged(whole: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """A run with the rows of a later one in the place of its own.

    These say where they are from, and by how much fastgmm was faster before.
    """
    about = {key: later["provenance"][key] for key in ("date", "commit")}
    before = {
        row["name"]: {"ratios": {peer: entry["ratio"] for peer, entry in row["ratios"].items()}}
        for row in whole["rows"]
    }
    found = {
        row["name"]: {**row, "measured": {**about, **before.get(row["name"], {})}}
        for row in later["rows"]
    }
    not_run = [name for name in whole["not_run"] if name not in found]
    rows = [found.pop(row["name"], row) for row in whole["rows"]] + list(found.values())
    return {**whole, "not_run": not_run, "rows": rows}


def _on_device(options: argparse.Namespace) -> dict[str, Any] | None:
    """The GPU's own command, whose file is read back."""
    from .gpu.__main__ import main as on_device

    path = options.json or Path("benchmarks-gpu.json")
    arguments = ["--json", str(path)]
    if options.budget:
        arguments += ["--seconds", str(options.budget)]
    if options.rows:
        arguments += ["--rows", *options.rows]
    if on_device(arguments) != 0:
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _report(arguments: list[str]) -> int:
    """Write the report of a file that a run wrote earlier."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks report", description=_report.__doc__
    )
    parser.add_argument("result", type=Path)
    _outputs(parser)
    options = parser.parse_args(arguments)
    result = json.loads(options.result.read_text())
    result.setdefault("suite", options.result.stem)
    _write(result, options)
    return 0


def _write(result: dict[str, Any], options: argparse.Namespace) -> None:
    from . import page

    text = page.markdown(result)
    print(text)
    write_json(getattr(options, "json", None), result)
    for path, content in (
        (options.markdown, lambda: text),
        (options.html, lambda: _page(result)),
    ):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content())
            print(f"wrote {path}", file=sys.stderr)


def _page(result: dict[str, Any]) -> str:
    import matplotlib as mpl

    mpl.use("Agg")
    from . import page

    return page.page(result)


class _Progress:
    """Lines with the time since the start."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def __call__(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._begin), 60)
        print(f"{minutes:3d}:{seconds:02d}  {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    about = "\n".join(f"  {name:11s} {suite.about}" for name, suite in SUITES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"suites:\n{about}\n  {_DEVICE:11s} the rows of a GPU, with tests and ceilings",
        epilog="compare A.json B.json shows what got faster or slower;"
        " report A.json writes the report of an earlier run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*SUITES, _DEVICE]
    parser.add_argument("suite", nargs="?", choices=names)
    parser.add_argument("--suite", dest="named", choices=names, help="the same (quick)")
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="after which nothing new is started"
    )
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="these rows alone")
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help="put these rows into what an earlier run wrote"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="all that was measured")
    _outputs(parser)
    return parser


def _outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--html", type=Path, metavar="FILE", help="one page with figures")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the same without figures")


if __name__ == "__main__":
    sys.exit(main())
