"""On how many threads a pass runs."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any

import joblib
from threadpoolctl import ThreadpoolController

# Below this many floating-point operations the start of the threads costs more than they gain.
PARALLEL_FLOPS = 4_000_000


class _Process:
    """Whether this process may start Numba's threads.

    A child forked after its parent has started them, for whatever library, must not: the OpenMP
    layer would end it.
    """

    def __init__(self) -> None:
        self.forked = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        layer = sys.modules.get("numba.np.ufunc.parallel")
        # Numba does not say so in public. Without the flag nothing is run in threads.
        self.forked = self.forked or getattr(layer, "_is_initialized", layer is not None)


_process = _Process()


@cache
def _available() -> int:
    """CPUs that this process may use, by affinity and by its control group."""
    return int(joblib.cpu_count())


@cache
def _openmp() -> list[Any]:
    """The OpenMP libraries in this process, whose limits threadpoolctl sets."""
    return list(ThreadpoolController().select(user_api="openmp").lib_controllers)


def threads(flops: float) -> int:
    """Number of threads for a pass of so many operations; 0 keeps it on the calling thread.

    Numba's own limits (``NUMBA_NUM_THREADS``, ``numba.set_num_threads``) hold besides.
    """
    if flops < PARALLEL_FLOPS or _process.forked:
        return 0
    return max(min([_available(), *(library.num_threads for library in _openmp())]), 1)
