"""When a pass runs on threads."""

from __future__ import annotations

import os

# Below this many floating-point operations the start of the threads costs more than they gain.
PARALLEL_FLOPS = 4_000_000


class _Process:
    """Whether this process may start Numba's threads.

    A child forked after its parent has used them must not: the OpenMP layer would end it.
    """

    def __init__(self) -> None:
        self.used = False
        self.forked = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self.forked = self.forked or self.used


_process = _Process()


def parallel(flops: float) -> bool:
    """Whether a pass of so many operations runs on threads."""
    if flops < PARALLEL_FLOPS or _process.forked:
        return False
    _process.used = True
    return True
