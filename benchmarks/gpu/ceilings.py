"""What the device can do at most: rates of products and of copies, measured in the same run."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..adapters.plain import float32_products
from ..timing import once
from .device import synchronise

#: FLOP/s and bytes/s of an H200 as FlashLib publishes them, by kind of product.
PUBLISHED = {
    "H200": {
        "bf16": 816e12,
        "tf32": 386e12,
        "bf16x3": 228e12,
        "3xtf32": 120e12,
        "float32": 50e12,
        "float64": 54e12,
        "copy": 4.3e12,
    }
}
_DTYPES = {
    "bf16": torch.bfloat16,
    "tf32": torch.float32,
    "float32": torch.float32,
    "float64": torch.float64,
}


def measure(device: torch.device, *, quick: bool = False) -> dict[str, float]:
    """Best rate of each kind of product and of a copy; split products are a third of theirs."""
    cuda = device.type == "cuda"
    size = 8192 if cuda else 256
    rates = {}
    for name, dtype in _DTYPES.items():
        if not cuda and name in ("bf16", "tf32"):
            continue  # the units of a GPU
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        with float32_products("medium" if name == "tf32" else "highest"):
            call = _repeated(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, quick)
            rates[name] = 2.0 * size**3 / call
    if cuda:
        rates["3xtf32"], rates["bf16x3"] = rates["tf32"] / 3, rates["bf16"] / 3
    source = torch.zeros(2**30 if cuda else 2**22, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rates["copy"] = 2.0 * len(source) / _repeated(lambda: target.copy_(source), device, quick)
    return rates


def published(name: str) -> dict[str, float] | None:
    """Published rates of the device with this name, if there are any."""
    return next((rates for model, rates in PUBLISHED.items() if model in name), None)


def rate(rates: dict[str, float], structure: str, precision: str, mode: str) -> float:
    """FLOP/s of the fastest unit that gives a precision.

    Diagonal covariances are no matrix product without squares of the rows, which cancel: their
    rate is that of the plain units.
    """
    if precision == "float64":
        return rates["float64"]
    grades = ["float32"]
    if structure != "diag":
        grades += {"highest": ["3xtf32"], "high": ["bf16x3"], "medium": ["tf32"]}[mode]
    return max(rates.get(grade, 0.0) for grade in grades)


def _repeated(call: Callable[[], object], device: torch.device, quick: bool) -> float:
    """Least seconds of one call among several turns of a few calls in a row."""
    calls = 2 if quick else 8

    def turn() -> None:
        for _ in range(calls):
            call()
        synchronise(device)

    turn()
    return min(once(turn) for _ in range(2 if quick else 5)) / calls
