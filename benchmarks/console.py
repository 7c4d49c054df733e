"""What the commands of the benchmarks share: lines about progress, files of results, options."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def say(text: str) -> None:
    """What is being done, where it does not mix with the tables."""
    print(f"  {text}", file=sys.stderr, flush=True)


def write_json(path: Path | None, result: Any) -> None:
    """All that was measured; nothing where no file was asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


def study_parser(name: str, about: str | None, budget: float) -> argparse.ArgumentParser:
    """The options of a study that has one figure."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("--budget", type=float, default=budget, metavar="SECONDS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="write the figure")
    return parser


def write_study(
    options: argparse.Namespace,
    result: dict[str, Any],
    text: str,
    figures: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Print the tables of a study, write its JSON file and its figure."""
    print(text)
    write_json(options.json, result)
    if options.figure is not None:
        (figure,) = figures(result).values()
        figure.savefig(options.figure, bbox_inches="tight")
