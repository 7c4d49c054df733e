"""``python -m benchmarks.fuzz [--seconds S] [--case SEED] [--json FILE]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..console import say, write_json
from . import markdown, run
from .campaign import Tally, run_case
from .cases import draw
from .engines import ENGINES, by_name


def main(arguments: list[str] | None = None) -> int:
    """Fuzz, or run one case again; 1 where anything failed."""
    options = _parser().parse_args(arguments)
    names = None if options.engines is None else tuple(options.engines)
    if options.case is not None:
        return _again(options.case, names)
    result = run(options.seconds, say, seed=options.seed, engines=names)
    print(markdown(result))
    write_json(options.json, result)
    return 1 if result["n_failures"] else 0


def _again(seed: int, names: tuple[str, ...] | None) -> int:
    chosen = ENGINES if names is None else tuple(map(by_name, names))
    engines = tuple(engine for engine in chosen if engine.here())
    for small in sorted({engine.small for engine in engines}):
        print(draw(seed, small=small).describe())
    tally = Tally()
    failures = run_case(seed, engines, tally)
    for failure in failures:
        print(f"{failure['engine']}: {failure['check']}: {failure['message']}")
    count = sum(map(len, tally.ratios.values()))
    print(f"{count} comparisons on {', '.join(tally.cases)}; {len(failures)} failures")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default 600)")
    parser.add_argument("--seed", type=int, help="of the first case; by default from the clock")
    parser.add_argument("--case", type=int, metavar="SEED", help="this case alone")
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=[engine.name for engine in ENGINES],
        help="these backends alone; interpreter needs TRITON_INTERPRET=1 with --case",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary")
    return parser


if __name__ == "__main__":
    sys.exit(main())
