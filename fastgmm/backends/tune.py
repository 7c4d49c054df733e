"""Measures the launch table on the device that is there: ``python -m fastgmm.backends.tune``.

Each kernel is launched with the arguments that a pass gives it, over a small grid of sizes; the
fastest by the median of its times is written back, with the device, the versions and the date, and
so is what was found so far after each kernel. Most of the time is that of the compiler: all cases
take more than an hour, those that matter most come first.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

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
Timer = Callable[[Callable[[], Any]], float]

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
# (structure, K, D, dtype): a pass of each launches the kernels to be measured.
CASES = [
    (structure, k, d, dtype)
    for dtype in ("float32", "float64")
    for structure, k, d in (
        ("full", 64, 64),
        ("spherical", 256, 128),
        ("diag", 256, 16),
        # For loading rows alone, which takes most where it whitens them.
        *(("tied", 64, d) for d in (64, 128, 16, 4)),
        *(("full", 64, d) for d in (32, 16, 128, 4)),
        *(("diag", 256, d) for d in (64, 4, 128)),
        *(("spherical", 256, d) for d in (64, 16, 4)),
        # Too few components for products.
        ("spherical", 8, 64),
    )
]


def _capture(backend: GPUBackend, model: MixtureModel, x: torch.Tensor) -> dict[str, Any]:
    """The first call of every launch function in a pass of statistics."""
    calls: dict[str, Any] = {}
    names = (
        "load_rows", "expect_full", "expect_diag", "expect_spherical", "expect_product", "respond",
        "moments", "moments_product",
    )  # fmt: skip
    plain = {name: getattr(kernels, name) for name in names}

    def recorder(name: str) -> Callable[..., None]:
        def record(*args: Any, **options: Any) -> None:
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


def _launches(kernel: str, base: Launch) -> Iterator[Launch]:
    grid = GRIDS[kernel]
    for values in itertools.product(*grid.values()):
        yield dataclasses.replace(base, **dict(zip(grid, values, strict=True)))


def _fastest(kernel: str, call: Any, timer: Timer) -> tuple[Launch, float]:
    """The best sizes of a kernel, and its median time in milliseconds."""
    function, args, options = call
    place = {"moments_full": 0, "moments_diag": 1}.get(kernel)
    base = options["launch"] if place is None else options["launches"][place]
    best = base, float("inf")
    for launch in _launches(kernel, base):
        if place is None:
            changed = {**options, "launch": launch}
        else:
            pair = list(options["launches"])
            pair[place] = launch
            changed = {**options, "launches": tuple(pair)}
        try:
            median = timer(partial(function, *args, **changed))
        except Exception as error:  # noqa: BLE001
            # Too much shared memory, too many registers, or more than a compiler can take.
            _log.info("%s %s: %s", kernel, launch, str(error).partition("\n")[0])
            continue
        if median < best[1]:
            best = launch, median
    return best


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
    n_rows: int = 1 << 17,
    cases: Sequence[tuple[str, int, int, str]] = CASES,
    seconds: float = float("inf"),
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
        After which no other kernel is begun.
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
    for structure, k, d, name in cases:
        dtype = getattr(torch, name)
        x = torch.randn((n_rows, d), dtype=dtype, device=backend.device)
        model = _model(structure, k, d)
        calls, prepared = _capture(backend, model, x), backend.prepare(model, dtype)
        width, small = prepared.width, structure == "full" and not prepared.row_major
        measured = {"respond": "respond"}
        if structure == "tied":
            measured = {"load_rows": "load_rows"}
        elif "expect_product" in calls:
            measured |= {name: name for name in ("expect_product", "moments_product")}
        else:
            measured["expect_small" if small else f"expect_{structure}"] = f"expect_{structure}"
            measured["moments_diag"] = "moments"
        if structure == "full":
            measured["moments_full"] = "moments"
        for kernel, function in measured.items():
            if time.monotonic() > end:
                _log.info("the time is over before %s K=%d D=%d %s", structure, k, d, name)
                return table
            with backend.guard():
                launch, median = _fastest(kernel, calls[function], timer)
            if median == float("inf"):
                continue
            _log.info("%s %s D'=%d: %s, %.4f ms", kernel, name, width, launch, median)
            key = {"dtype": name, "capability": capability, "features": width}
            rows = [row for row in found[kernel] if any(row[n] != v for n, v in key.items())]
            found[kernel] = [*rows, {**key, "launch": dataclasses.asdict(launch)}]
            keep(table)
    return table


def _median(call: Callable[[], Any]) -> float:
    return float(triton.testing.do_bench(call, quantiles=[0.5]))


def main() -> None:
    """Tune on the CUDA device that is there and write the table back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path, default=table_path())
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing after")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="leave out N cases")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    backend = choose(arguments.device)[0]
    if not isinstance(backend, GPUBackend):
        parser.error("--device must be cuda, or cuda with a number")
    tune(
        backend,
        _median,
        cases=CASES[arguments.first :],
        seconds=arguments.seconds,
        keep=partial(write_table, path=arguments.output),
    )


if __name__ == "__main__":
    main()
