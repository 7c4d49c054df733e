"""The backends that are compared, each with the arithmetic that it computes in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from .bounds import U64, product_unit, unit


@dataclass(frozen=True)
class Engine:
    """One backend.

    ``small`` engines get small cases, in a process of their own with ``environment``.
    """

    name: str
    device: str
    small: bool = False
    skip: bool = True
    environment: tuple[tuple[str, str], ...] = ()

    def unit(self, dtype: str, structure: str, precision: str) -> float:
        """Half a unit in the last place of what it computes with."""
        if self.device == "reference":
            return U64
        if self.device.startswith("cuda") and structure in ("full", "tied"):
            return product_unit(dtype, precision)
        return unit(dtype)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it the estimator runs on this backend."""
        if self.skip:
            yield
            return
        from fastgmm.backends.cpu import CPUBackend

        backend = CPUBackend(skip=False)
        # No argument of the estimator asks for it.
        with mock.patch("fastgmm.backends._cpu", return_value=backend):
            yield

    def here(self) -> bool:
        """Whether this process can run it."""
        if dict(self.environment).items() <= os.environ.items():
            return not self.device.startswith("cuda") or _cuda()
        return False


def _cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1"


ENGINES = (
    Engine("cpu", "cpu"),
    Engine("cpu, nothing skipped", "cpu", skip=False),
    Engine("reference", "reference"),
    Engine(
        "interpreter", "interpreter", small=True, environment=(("TRITON_INTERPRET", "1"),)
    ),
    Engine("cuda", "cuda"),
)  # fmt: skip


def by_name(name: str) -> Engine:
    """The engine with this name."""
    return next(engine for engine in ENGINES if engine.name == name)
