"""The command line: ``fastgmm fit``, ``score``, ``predict``, ``info`` and ``demo``.

Results go to stdout, everything else to stderr; ``--json`` makes stdout one JSON object. The exit
code is 0 for success, 1 for an error in data, model or fit, 2 for wrong usage, 130 for an
interrupt. An error is one line on stderr.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastgmm
from fastgmm import results, sources, tables
from fastgmm.arrays import to_numpy
from fastgmm.checks import check_rows
from fastgmm.chunked import Tally, each_chunk
from fastgmm.cli_arguments import build_parser
from fastgmm.distributed import Sharded, shard
from fastgmm.errors import FastGMMError, InputError
from fastgmm.rows import open_to_score

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit code. Wrong usage and ``--help`` leave through SystemExit, as argparse does.
    """
    args = build_parser().parse_args(argv)
    try:
        with _one_line_warnings(args):
            COMMANDS[args.command](args)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:  # the reader of stdout has seen enough, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _complain(f"{where}{error.strerror or error}", 1)
    except MemoryError as error:
        return _complain(f"not enough memory: {error or 'an allocation failed'}", 1)
    except (FastGMMError, ValueError, ImportError) as error:
        return _complain(str(error) or type(error).__name__, 1)
    return 0


def _complain(message: str, code: int) -> int:
    print(f"fastgmm: error: {' '.join(message.split())}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _one_line_warnings(args: argparse.Namespace) -> Iterator[None]:
    """Show each distinct warning once, as one line on stderr, and keep it for the JSON."""
    args.warnings = []

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = " ".join(str(message).split())
        if text not in args.warnings:
            args.warnings.append(text)
            print(f"fastgmm: warning: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def _say(args: argparse.Namespace, line: str) -> None:
    if not args.quiet:
        print(line, file=sys.stderr, flush=True)


def _report(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    """Print the result: one JSON object, or two columns."""
    if args.json:
        print(
            json.dumps(
                {
                    **{name: _plain(value) for name, value in facts.items()},
                    "warnings": args.warnings,
                }
            )
        )
        return
    shown = {name: value for name, value in facts.items() if value is not None}
    width = max(map(len, shown))
    for name, value in shown.items():
        if isinstance(value, float):
            value = f"{value:.8g}"
        elif isinstance(value, list):
            value = " ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value)
        print(f"{name:<{width}}  {value}")


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN: give them as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _check_output(path: str | None, suffixes: Sequence[str]) -> None:
    """Complain about the output before hours of work, not after."""
    if path is None:
        return
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise InputError(f"{target}: expected the output to end in {' or '.join(suffixes)}")
    folder = target.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{target}: no such folder: {folder}")
    if target.is_dir():
        raise InputError(f"{target} is a folder; expected the name of a file")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{target}: the folder {folder} cannot be written to")


def _read(args: argparse.Namespace, columns: Sequence[str] | None) -> tables.Table:
    table = tables.read(args.data, columns=columns, key=args.key, dtype=args.dtype)
    N, D = table.values.shape
    _say(args, f"{args.data}: {N:,} rows, {D} features, {table.values.dtype}")
    return table


def _read_weights(args: argparse.Namespace) -> NDArray[Any] | None:
    path = getattr(args, "weights", None)
    return None if path is None else tables.read_vector(path)


def _in_chunks(args: argparse.Namespace, *, together: bool = False) -> bool:
    """Whether rows are read as they are needed, and not all at once before."""
    path = Path(args.data)
    asked = [f"--{n}" for n in ("columns", "key", "dtype") if getattr(args, n) is not None]
    whole = bool(asked) or path.suffix.lower() in (".csv", ".npz")
    if whole and (together or path.is_dir()):
        what = ", ".join(asked) or path.suffix
        raise InputError(f"{path}: {what} cannot be had of folders, or of a share of a file")
    return not whole and (together or path.is_dir() or args.batch_size is not None)


def _rows_to_fit(args: argparse.Namespace) -> tuple[Any, NDArray[Any] | None, tuple[int, ...]]:
    """What is fitted, the weights that it does not have itself, and its shape.

    Chunks of a file are read as they are needed if a size for them is given, the data is a folder,
    or torchrun has started several processes, of which each reads its share.
    """
    together, path = "TORCHELASTIC_RUN_ID" in os.environ, Path(args.data)
    if together and args.weights is not None:
        raise InputError("--weights: not with torchrun; use fastgmm.distributed.Sharded in Python")
    if not _in_chunks(args, together=together):
        table = _read(args, args.columns)
        weights = _read_weights(args)
        if table.names is None:
            return table.values, weights, table.values.shape
        source = sources.ArraySource(table.values, weights, args.batch_size)
        source.names = table.names
        return source, None, table.values.shape
    reader = sources.read_path(path)
    _say(args, f"{args.data}: {reader.n_rows:,} rows, read in chunks")
    shape = (reader.n_rows or 0,)
    if not together:
        return path, _read_weights(args), shape
    from torch import cuda
    from torch.distributed import destroy_process_group, init_process_group

    if args.device == "cuda" and cuda.device_count():
        # Or all processes of a machine would take its first GPU.
        cuda.set_device(int(os.environ["LOCAL_RANK"]) % cuda.device_count())
    init_process_group("gloo")
    # If its threads outlive the interpreter, that now and then ends by an abort.
    atexit.register(destroy_process_group)
    return shard(path), None, shape


def _fit(args: argparse.Namespace) -> None:
    _check_output(args.output, (".safetensors",))
    rows, weights, shape = _rows_to_fit(args)
    estimator = fastgmm.GaussianMixture(
        args.components,
        covariance_type=args.covariance,
        tol=args.tol,
        reg_covar=args.reg_covar,
        max_iter=args.max_iter,
        n_init=args.n_init,
        init_params=args.init,
        random_state=args.seed,
        empty=args.empty,
        device=args.device,
        batch_size=args.batch_size,
        verbose=0 if args.quiet else 1,
    )
    began = time.perf_counter()
    # verbose writes scikit-learn's lines to stdout, where only the result belongs; the bar is
    # on stderr.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        estimator.fit(rows, sample_weight=weights, checkpoint=args.checkpoint)
    seconds = time.perf_counter() - began
    if int(os.environ.get("RANK", "0")) > 0 and isinstance(rows, Sharded):
        return
    if args.output is not None:
        estimator.save(args.output)
    else:
        _say(args, "the model was not saved: give -o FILE to keep it")
    names = getattr(estimator, "feature_names_in_", None)
    _report(
        args,
        {
            "rows": shape[0],
            "features": int(estimator.n_features_in_),
            "components": args.components,
            "covariance": args.covariance,
            "lower_bound": float(estimator.lower_bound_),
            "converged": bool(estimator.converged_),
            "iterations": int(estimator.n_iter_),
            "seconds": seconds,
            "weights": np.asarray(estimator.weights_, dtype=float).tolist(),
            "feature_names": None if names is None else names.tolist(),
            "backend": str(estimator.backend_),
            "model": args.output,
        },
    )


def _open(args: argparse.Namespace) -> tuple[Any, Any]:
    """Load the model, and open the columns that it was fitted on."""
    estimator = fastgmm.load(args.model)
    # The names are matched here: the estimator gets plain arrays, and would warn about that.
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        del estimator.feature_names_in_
    if args.device is not None:
        estimator.set_params(device=args.device)
    if args.batch_size is not None:
        estimator.set_params(batch_size=args.batch_size)
    weights = _read_weights(args)
    if _in_chunks(args):
        reader = sources.read_path(args.data)
        if names is not None and reader.names is not None:
            reader = sources.read_parquet(args.data, columns=[str(name) for name in names])
        _say(args, f"{args.data}: {reader.n_rows:,} rows, read in chunks")
        return estimator, open_to_score(estimator, reader, weights)
    columns = args.columns
    if names is not None and columns is None and tables.has_names(args.data):
        columns = [str(name) for name in names]
    x = check_rows(estimator, _read(args, columns).values, reset=False)
    size = sources.batch_rows(estimator.batch_size, x.shape[1] * x.itemsize)
    return estimator, sources.ArraySource(x, weights, size)


def _score(args: argparse.Namespace) -> None:
    _check_output(args.output, results.WRITABLE)
    estimator, source = _open(args)
    tally = Tally()
    scores = tally.scores(estimator, source)
    if args.output is not None:
        results.write(args.output, scores, ["log_likelihood"])
    else:
        for _ in scores:
            pass
    mean, count = tally.mean, tally.count
    parameters = int(estimator.n_parameters())
    _report(
        args,
        {
            "rows": tally.n_rows,
            "log_likelihood": mean,
            "aic": 2 * parameters - 2 * mean * count,
            "bic": parameters * math.log(count) - 2 * mean * count,
            "parameters": parameters,
            "scores": args.output,
        },
    )


def _predict(args: argparse.Namespace) -> None:
    _check_output(args.output, results.WRITABLE)
    estimator, source = _open(args)
    K = len(estimator.weights_)
    counts = np.zeros(K, np.int64)

    def parts() -> Iterator[NDArray[Any]]:
        chunks = each_chunk(
            estimator,
            source,
            lambda b, p, x: b.responsibilities(p, x) if args.proba else b.predict(p, x),
        )
        for result, _ in chunks:
            part = to_numpy(result)
            labels = part.argmax(axis=1) if args.proba else part
            counts[:] += np.bincount(labels, minlength=K)
            yield part

    names = [f"component_{k}" for k in range(K)] if args.proba else ["label"]
    if args.output is not None:
        results.write(args.output, parts(), names)
    elif not args.json:
        results.write_csv(sys.stdout, parts(), names)
        return
    else:
        for _ in parts():
            pass
    _report(
        args,
        {"rows": int(counts.sum()), "counts": counts.tolist(), "output": args.output},
    )


def _info(args: argparse.Namespace) -> None:
    from fastgmm import environment

    facts = environment.describe()
    print(json.dumps(facts) if args.json else environment.as_text(facts))


def _demo(args: argparse.Namespace) -> None:
    from fastgmm import demo

    result = demo.run(
        args.output,
        k=args.components,
        iterations=args.iterations,
        step=args.step,
        compare=not args.no_sklearn,
        log=lambda line: _say(args, line),
    )
    if args.json:
        print(json.dumps(result.as_dict()))
        return
    print(demo.format_table(result.comparisons))
    print(f"picture: {result.output}")


COMMANDS = {"fit": _fit, "score": _score, "predict": _predict, "info": _info, "demo": _demo}

if __name__ == "__main__":
    sys.exit(main())
