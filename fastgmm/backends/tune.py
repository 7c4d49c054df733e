"""Measures the launch table on the device that is there: ``python -m fastgmm.backends.tune``.

Each kernel is launched with the arguments that a pass gives it, over a small grid of sizes; the
fastest by the median of its times is written back, with the device, the versions and the date, and
so is what was found so far after each kernel. Most of the time is that of the compiler, which runs
in processes side by side; the cases that matter most come first.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache, partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import triton

from fastgmm import covariance
from fastgmm.backends import choose
from fastgmm.backends.gpu import GPUBackend
from fastgmm.backends.launch import Launch, read_table, table_path, write_table
from fastgmm.model import MixtureModel
from fastgmm_kernels import gpu as kernels

_log = logging.getLogger(__name__)
Timer: TypeAlias = Callable[[Callable[[], Any]], float]
# Structure, K, D and dtype: a pass of it launches the kernels to be measured.
Case: TypeAlias = tuple[str, int, int, str]

# What is tried, by kernel.
GRIDS: dict[str, dict[str, tuple[int, ...]]] = {
    "load_rows": {"rows": (32, 64, 128), "features": (32, 64), "warps": (4, 8)},
    "expect_small": {"rows": (256, 512, 1024), "warps": (4, 8)},
    "expect_full": {
        "rows": (64, 128, 256), "features": (32, 64), "warps": (4, 8), "stages": (1, 2, 3),
    },
    "expect_diag": {"rows": (128, 256, 512, 1024), "warps": (2, 4, 8)},
    "expect_spherical": {"rows": (128, 256, 512, 1024), "warps": (2, 4, 8)},
    "expect_product": {
        "rows": (64, 128), "features": (32, 64), "components": (32, 64, 128), "warps": (4, 8),
        "stages": (1, 2, 3),
    },
    "respond": {"components": (4, 8, 16, 32), "warps": (4, 8)},
    "moments_full": {
        "rows": (32, 64, 128), "features": (32, 64), "warps": (4, 8), "stages": (1, 2, 3),
    },
    "moments_product": {
        "rows": (16, 32, 64), "features": (32, 64), "components": (32, 64, 128), "warps": (4, 8),
        "stages": (1, 2, 3),
    },
    "moments_diag": {"features": (4, 8, 16), "warps": (4, 8), "stages": (1, 2)},
}  # fmt: skip
# Those that targets speak of come first.
CASES: list[Case] = [
    ("full", 64, 64, "float32"),
    ("spherical", 1024, 128, "float32"),
    ("full", 64, 64, "float64"),
    *(
        (structure, k, d, dtype)
        for dtype in ("float32", "float64")
        for structure, k, d in (
            ("diag", 256, 16),
            # For loading rows alone, which takes most where it whitens them.
            *(("tied", 64, d) for d in (64, 128, 16, 4)),
            *(("full", 64, d) for d in (32, 16, 128, 4)),
            *(("diag", 256, d) for d in (64, 4, 128)),
            *(("spherical", 256, d) for d in (64, 16, 4)),
            # Too few components for products.
            ("spherical", 8, 64),
        )
    ),
    ("spherical", 256, 128, "float64"),
]
# Rows of a case.
_ROWS = 1 << 17


def _capture(backend: GPUBackend, model: MixtureModel, x: torch.Tensor) -> dict[str, Any]:
    """The first call of every launch function in a pass of statistics; of `respond` the last.

    That one works in place: it gets anew what it had, as it is when all calls are over.
    """
    calls: dict[str, Any] = {}
    names = (
        "load_rows", "expect_full", "expect_diag", "expect_spherical", "expect_product", "respond",
        "moments", "moments_product",
    )  # fmt: skip
    plain = {name: getattr(kernels, name) for name in names}

    def recorder(name: str) -> Callable[..., None]:
        def record(*args: Any, **options: Any) -> None:
            if name == "respond":
                calls[name] = (_restoring(plain[name], args[0]), args, options)
            calls.setdefault(name, (plain[name], args, options))
            plain[name](*args, **options)

        return record

    try:
        for name in names:
            setattr(kernels, name, recorder(name))
        backend.accumulate(backend.prepare(model, x.dtype), x, None)
    finally:
        for name in names:
            setattr(kernels, name, plain[name])
    return calls


def _restoring(function: Callable[..., None], array: torch.Tensor) -> Callable[..., None]:
    """The function after what the array holds now was put back; this takes equally long always."""
    before = array.clone()

    def run(*args: Any, **options: Any) -> None:
        array.copy_(before)
        function(*args, **options)

    return run


def _kernels(backend: GPUBackend, case: Case, n_rows: int) -> tuple[dict[str, Any], int]:
    """The calls to be measured by kernel, each before those that write what it reads; and D'."""
    structure, k, d, name = case
    dtype = getattr(torch, name)
    x = torch.randn((n_rows, d), dtype=dtype, device=backend.device)
    model = _model(structure, k, d)
    with backend.guard():
        calls, prepared = _capture(backend, model, x), backend.prepare(model, dtype)
    small = structure == "full" and not prepared.row_major
    chosen = {"respond": "respond"}
    if structure == "tied":
        chosen = {"load_rows": "load_rows"}
    elif "expect_product" in calls:
        names = ("moments_product", "respond", "expect_product")
        chosen = dict(zip(names, names, strict=True))
    else:
        # Those of full covariances bring counts and first moments with them.
        moments = "moments_full" if structure == "full" else "moments_diag"
        expect = "expect_small" if small else f"expect_{structure}"
        chosen = {moments: "moments", **chosen, expect: f"expect_{structure}"}
    return {kernel: calls[function] for kernel, function in chosen.items()}, prepared.width


def _launches(kernel: str, call: Any) -> Iterator[tuple[Launch, Callable[[], Any]]]:
    """Sizes and the call with them, those of the table first."""
    function, args, options = call
    place = {"moments_full": 0, "moments_diag": 1}.get(kernel)
    base = options["launch"] if place is None else options["launches"][place]
    grid = GRIDS[kernel]
    tried = (
        dataclasses.replace(base, **dict(zip(grid, values, strict=True)))
        for values in itertools.product(*grid.values())
    )
    for launch in dict.fromkeys([base, *tried]):
        if place is None:
            changed = {**options, "launch": launch}
        else:
            pair = list(options["launches"])
            pair[place] = launch
            changed = {**options, "launches": tuple(pair)}
        yield launch, partial(function, *args, **changed)


def _fastest(kernel: str, call: Any, timer: Timer, end: float) -> tuple[Launch | None, float]:
    """The best sizes of a kernel, of those that there was time for; the median in milliseconds."""
    best: tuple[Launch | None, float] = None, float("inf")
    for launch, run in _launches(kernel, call):
        if time.monotonic() > end:
            break
        try:
            median = timer(run)
        except Exception as error:  # noqa: BLE001
            # Too much shared memory, too many registers, or more than a compiler can take.
            _log.info("%s %s: %s", kernel, launch, str(error).partition("\n")[0])
            continue
        if median < best[1]:
            best = launch, median
    return best


def _compile(pool: Pool, device: str, case: Case, sizes: dict[str, int], seconds: float) -> None:
    """Launch all sizes once in other processes: Triton keeps what it compiles for all of them."""
    tasks = [(device, case, kernel, i) for kernel, count in sizes.items() for i in range(count)]
    pool.starmap_async(_launch, tasks, chunksize=1).wait(seconds)


def _launch(device: str, case: Case, kernel: str, i: int) -> None:
    """In another process: launch the sizes with this number."""
    # What fails here fails again where it is told.
    with suppress(Exception), _backend(device).guard():
        call = _captured(device, case)[kernel]
        next(itertools.islice(_launches(kernel, call), i, None))[1]()


@lru_cache(maxsize=1)
def _captured(device: str, case: Case) -> dict[str, Any]:
    return _kernels(_backend(device), case, _ROWS)[0]


def _model(structure: str, n_components: int, n_features: int) -> MixtureModel:
    shape = covariance.get(structure).shape(n_components, n_features)
    one = np.eye(n_features) if structure in ("full", "tied") else np.float64(1)
    unit = np.broadcast_to(one, shape)
    means = np.random.default_rng(0).standard_normal((n_components, n_features))
    weights = np.full(n_components, 1 / n_components)
    return MixtureModel(weights, means, unit, unit, covariance.get(structure))


def tune(
    backend: GPUBackend,
    timer: Timer,
    *,
    n_rows: int = _ROWS,
    cases: Sequence[Case] = CASES,
    seconds: float = float("inf"),
    compiled: Callable[[Case, dict[str, int], float], None] = lambda case, sizes, seconds: None,
    keep: Callable[[dict[str, Any]], None] = lambda table: None,
) -> dict[str, Any]:
    """Measure the kernels of the cases, and return the table with what was found.

    Parameters
    ----------
    backend : GPUBackend
    timer : callable
        Gives the median time of a call in milliseconds.
    n_rows : int
    cases : sequence of (structure, K, D, dtype)
    seconds : float
        After which nothing is measured.
    compiled : callable
        Called before each case with it, how many sizes are tried of which kernel, and the seconds
        that compiling may take.
    keep : callable
        Called with the table after each kernel.

    Returns
    -------
    table : dict
        Rows of other devices stay as they are.
    """
    table, end = read_table(), time.monotonic() + seconds
    found, capability = table["kernels"], backend.target.capability
    table["origin"] = "measured on the device below; rows of other capabilities are reasoned"
    where = "interpreter"
    if backend.device.type == "cuda":
        where = torch.cuda.get_device_name(backend.device)
    table["device"], table["date"] = where, datetime.now(UTC).date().isoformat()
    table["versions"] = {"torch": torch.__version__, "triton": triton.__version__}
    for case in cases:
        if time.monotonic() > end:
            _log.info("the time is over before %s", case)
            break
        calls, width = _kernels(backend, case, n_rows)
        sizes = {kernel: len(list(_launches(kernel, call))) for kernel, call in calls.items()}
        compiled(case, sizes, (end - time.monotonic()) / 2)
        for kernel, call in calls.items():
            with backend.guard():
                launch, median = _fastest(kernel, call, timer, end)
            if launch is None:
                continue
            _log.info("%s %s D'=%d: %s, %.4f ms", kernel, case[3], width, launch, median)
            key = {"dtype": case[3], "capability": capability, "features": width}
            rows = [row for row in found[kernel] if any(row[n] != v for n, v in key.items())]
            found[kernel] = [*rows, {**key, "launch": dataclasses.asdict(launch)}]
            keep(table)
    return table


def _median(call: Callable[[], Any]) -> float:
    return float(triton.testing.do_bench(call, quantiles=[0.5]))


def _backend(device: str) -> GPUBackend:
    backend = choose(device)[0]
    if not isinstance(backend, GPUBackend):
        raise SystemExit("--device must be cuda, or cuda with a number")
    return backend


def main() -> None:
    """Tune on the CUDA device that is there and write the table back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--output",
        type=Path,
        default=table_path(),
        help="the table that fastgmm reads, which is replaced; or any other file",
    )
    parser.add_argument(
        "--seconds", type=float, default=480.0, help="after which nothing is measured (480)"
    )
    parser.add_argument("--first", type=int, default=0, metavar="N", help="leave out N cases")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument(
        "--processes",
        type=int,
        default=max((cores or 1) - 2, 1),
        help="that compile side by side (%(default)s)",
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    backend = _backend(arguments.device)
    # A fresh interpreter each: a fork would inherit the state of the device.
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        tune(
            backend,
            _median,
            cases=CASES[arguments.first :],
            seconds=arguments.seconds,
            compiled=partial(_compile, pool, arguments.device),
            keep=partial(write_table, path=arguments.output),
        )


if __name__ == "__main__":
    main()
