"""The arguments of the command line; :mod:`fastgmm.cli` does what they ask for."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from fastgmm import __version__, covariance
from fastgmm.errors import InputError
from fastgmm.results import WRITABLE
from fastgmm.sources import batch_rows
from fastgmm.tables import READABLE

INITS = ("kmeans", "k-means++", "random", "random_from_data", "k-means||")
EXAMPLES = """examples:
  fastgmm fit pixels.npy -k 16 -o model.safetensors
  fastgmm fit folder/ -k 64 --batch-size 64MB --checkpoint fit.ck -o model.safetensors
  torchrun --nproc-per-node=4 -m fastgmm fit rows.npy -k 64 -o model.safetensors
  fastgmm fit trees.csv -k 4 --columns height,girth --covariance diag -o model.safetensors
  fastgmm score model.safetensors trees.csv --json
  fastgmm predict model.safetensors trees.csv -o labels.csv
  fastgmm predict model.safetensors folder/ --proba -o shares.parquet
  fastgmm info
  fastgmm demo
"""

__all__ = ["build_parser"]


class _Parser(argparse.ArgumentParser):
    """argparse, with errors of one line like all others."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fastgmm: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; the parsed arguments have the command's name in ``command``."""
    parser = _Parser(
        prog="fastgmm",
        description="Fit and score Gaussian mixture models.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastgmm {__version__}")
    parser.set_defaults(json=False, quiet=False)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    _add_fit(commands)
    _add_score(commands)
    _add_predict(commands)
    info = commands.add_parser("info", help="versions, processor, threads, GPU: for bug reports")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    _add_demo(commands)
    return parser


def _add_fit(commands: Any) -> None:
    parser = commands.add_parser(
        "fit", help="fit a mixture", description="Fit a Gaussian mixture by EM."
    )
    add = parser.add_argument
    _add_data(parser)
    add("-k", "--components", type=int, required=True, metavar="K", help="number of components")
    add("-o", "--output", metavar="MODEL", help="where to save the model (.safetensors)")
    _add_default(parser, "--covariance", "covariance structure", "full", choices=covariance.names())
    _add_default(parser, "--max-iter", "most EM iterations", 100, metavar="N")
    _add_default(parser, "--tol", "stop when the mean log-likelihood gains less", 1e-3)
    _add_default(parser, "--reg-covar", "added to the diagonal of the covariances", 1e-6)
    _add_default(parser, "--init", "how to start", "kmeans", choices=INITS)
    _add_default(parser, "--n-init", "starts, of which the best is kept", 1, metavar="N")
    add("--seed", type=int, help="makes the start repeatable")
    empty = ("keep", "reseed", "error")
    _add_default(parser, "--empty", "what to do with an empty component", "keep", choices=empty)
    _add_default(parser, "--device", "auto, cpu, reference or cuda", "auto")
    _add_batch_size(parser)
    add(
        "--checkpoint",
        metavar="FILE",
        help="write the state of the fit there, and go on from it when it is there",
    )
    _add_weights(parser)
    _add_common(parser)


def _add_score(commands: Any) -> None:
    parser = commands.add_parser(
        "score",
        help="score rows: mean log-likelihood, AIC, BIC",
        description="Print the mean log-likelihood of the rows, AIC and BIC. "
        "Columns that the model knows by name are found by name.",
    )
    _add_model(parser)
    _add_data(parser)
    _add_batch_size(parser)
    kinds = ", ".join(WRITABLE)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help=f"write the log-likelihood of every row ({kinds})"
    )
    _add_weights(parser)
    _add_common(parser)


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="give every row to a component",
        description="Give every row the label of its most probable component. "
        "Columns that the model knows by name are found by name.",
    )
    _add_model(parser)
    _add_data(parser)
    _add_batch_size(parser)
    kinds = ", ".join(WRITABLE)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"where to write the labels ({kinds}); without it they go to stdout as CSV",
    )
    parser.add_argument(
        "--proba", action="store_true", help="the probability of every component, not the label"
    )
    _add_common(parser)


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="segment a photograph, beside scikit-learn",
        description="Segment the photograph that ships with scikit-learn with both libraries, "
        "compare times and results, and draw a picture.",
    )
    parser.add_argument(
        "-o", "--output", default="demo.png", metavar="FILE", help="the picture (default: demo.png)"
    )
    _add_default(parser, "--components", "number of components", 12, short="-k", metavar="K")
    _add_default(parser, "--iterations", "EM iterations", 20, metavar="N")
    _add_default(parser, "--step", "take every N-th pixel each way", 1, metavar="N")
    parser.add_argument("--no-sklearn", action="store_true", help="leave scikit-learn out")
    _add_common(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model that fastgmm saved (.safetensors)")
    parser.add_argument(
        "--device", help="auto, cpu, reference or cuda (default: what the model was fitted with)"
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    kinds = ", ".join(READABLE)
    add("data", metavar="DATA", help=f"the rows: a file ({kinds}) or a folder of .parquet files")
    add(
        "--columns",
        type=_columns,
        metavar="A,B,...",
        help="the columns to use: names, or positions counted from 0",
    )
    add("--key", help="which array of a .npz file")
    add(
        "--dtype",
        choices=("float32", "float64"),
        help="compute in this precision (default: that of the data)",
    )


def _add_batch_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size",
        type=_batch_size,
        metavar="SIZE",
        help="read the rows in chunks of so many, or of a size such as 64MB (.npy, .parquet)",
    )


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", metavar="FILE", help="one sample weight per row (.npy, .npz, .csv, .parquet)"
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no progress (warnings and errors stay)"
    )


def _add_default(
    parser: argparse.ArgumentParser,
    name: str,
    about: str,
    default: float | str,
    *,
    short: str | None = None,
    **options: Any,
) -> None:
    """Add an option whose help says its default, and whose type is that of its default."""
    names = (name,) if short is None else (short, name)
    about = f"{about} (default: %(default)s)"
    parser.add_argument(*names, type=type(default), default=default, help=about, **options)


def _batch_size(text: str) -> int | str:
    try:
        batch_rows(text if not text.isdecimal() else int(text), 1)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if text.isdecimal() and int(text) == 0:
        raise argparse.ArgumentTypeError("expected at least one row")
    return int(text) if text.isdecimal() else text


def _columns(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(
            f"expected names or positions with commas between them, got {text!r}"
        )
    return names
