"""What ``benchmarks.large_data`` measures in processes of their own, as JSON."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
from typing import Any, ClassVar

import numpy as np

from .adapters import FastGMM
from .resident import release, status
from .timing import PerCall, PerIteration, Timing, interleave
from .workloads import Parameters, draw_start, draw_truth, make

REG_COVAR = 1e-6
#: rows that are fitted before anything is counted, so that code and threads exist
_WARM_ROWS = 100_000


class Peak:
    """The highest private memory of this process, looked at every few milliseconds.

    ``resident`` are the anonymous pages that are there, ``reserved`` all that could be written.
    Pages of mapped files are in neither: the system takes them back whenever it needs them.
    """

    def __init__(self, every: float = 0.02) -> None:
        self.resident = self.reserved = 0
        self._every, self._over = every, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while True:
            self.resident = max(self.resident, status("RssAnon"))
            self.reserved = max(self.reserved, status("VmData"))
            if self._over.wait(self._every):
                return

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def start_of(k: int, d: int) -> Parameters:
    """Start parameters near the mixture that ``workloads.make`` draws rows from."""
    rng = np.random.default_rng(0)
    means = draw_truth("full", k, d, "overlapping", rng)[1]
    return draw_start("full", means, rng)


def rows_of(file: str, how: str, parts: int) -> Any:
    """The first of so many parts of a file's rows: mapped, read in every pass, or in memory."""
    from fastgmm.sources import read_npy

    if how == "read":
        return read_npy(file, part=(0, parts))
    mapped = np.load(file, mmap_mode="r")
    rows = mapped[: len(mapped) // parts]
    return np.array(rows) if how == "memory" else rows


def file_pass(
    file: str, how: str, parts: int, k: int, limit: int | None, repeats: int
) -> dict[str, Any]:
    """Seconds of an EM iteration over rows of a file, and the memory that whole fits take.

    ``limit`` is set on all private memory of the process, touched or not (RLIMIT_DATA of Linux):
    to ask for more is an error, which ends the fit. That counts the stacks of Numba's threads, the
    compiled code and NumPy's buffers too, and no page of the file.
    """
    n_rows, d = np.load(file, mmap_mode="r").shape
    adapter = FastGMM(start_of(k, d), "float32", REG_COVAR)
    adapter.fit(rows_of(file, how, max(n_rows // _WARM_ROWS, 1)), 2)
    rows = rows_of(file, how, parts)
    release()
    before = status("RssAnon")
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with Peak() as peak:
        measured = PerIteration(lambda n: adapter.fit(rows, n), 1, 3)
        times = [measured() for _ in range(repeats)]
    return {
        "how": how,
        "rows": n_rows // parts,
        "bytes": n_rows // parts * d * 4,
        "seconds": Timing(times).summary(),
        "anonymous_before": before,
        "anonymous_peak": peak.resident,
        "reserved_peak": peak.reserved,
        "limit": limit,
    }


def batching(n: int, k: int, d: int, batch: int, overlap: str, budget: float) -> dict[str, Any]:
    """Seconds of an EM iteration over rows in memory, in one batch and in many."""
    workload = make("full", n, k, d, "float32", overlap)

    class Batches(FastGMM):
        settings: ClassVar = {"batch_size": batch}

    kinds = {"one batch": FastGMM, "batches": Batches}
    adapters = {name: kind(workload.start, "float32", REG_COVAR) for name, kind in kinds.items()}
    for adapter in adapters.values():
        adapter.fit(workload.x, 2)
    calls = {
        name: PerIteration(lambda i, a=adapter: a.fit(workload.x, i), 2, 12)  # type: ignore[misc]
        for name, adapter in adapters.items()
    }
    found = interleave(calls, budget, least=3)
    return {name: timing.summary() for name, timing in found.items()}


def shared(n: int, k: int, d: int, repeats: int) -> dict[str, Any]:
    """Seconds of an EM iteration over rows in memory that the processes of torchrun share.

    Outside torchrun the only process has them all. What goes over the wire is counted where the
    library hands it to torch.
    """
    together = "TORCHELASTIC_RUN_ID" in os.environ
    workload = make("full", n, k, d, "float32")
    adapter = FastGMM(workload.start, "float32", REG_COVAR)
    if not together:
        measured = PerIteration(lambda i: adapter.fit(workload.x, i), 2, 6)
        times = [measured() for _ in range(repeats)]
        return {"processes": 1, "seconds": Timing(times).summary()}
    import torch.distributed as dist

    from fastgmm.distributed import Sharded

    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    rows = np.array_split(workload.x, size)[rank]
    sent: list[int] = []
    reduce = dist.all_reduce

    def counted(tensor: Any, *args: Any, **options: Any) -> Any:
        sent.append(tensor.numel() * tensor.element_size())
        return reduce(tensor, *args, **options)

    dist.all_reduce = counted
    totals: dict[int, list[int]] = {}

    def fit(n_iter: int) -> None:
        sent.clear()
        adapter.fit(Sharded(rows), n_iter)
        totals[n_iter] = list(sent)

    measured = PerIteration(fit, 2, 6)
    times = [measured() for _ in range(repeats)]
    dist.destroy_process_group()
    if rank:
        sys.exit()
    # Messages of 8 bytes tell that no process has failed or stops; all else are statistics.
    flags, statistics = (
        (sum(b for b in totals[6] if want(b)) - sum(b for b in totals[2] if want(b))) / 4
        for want in (lambda b: b == 8, lambda b: b != 8)
    )
    return {
        "processes": size,
        "seconds": Timing(times).summary(),
        "statistics_bytes": statistics,
        "flag_bytes": flags,
        "expected_bytes": statistics_bytes(k, d),
    }


def statistics_bytes(k: int, d: int) -> int:
    """Bytes of the sufficient statistics of a full mixture: three totals and the moments."""
    return 8 * (3 + k * (1 + d + d * d))


def m_step(k: int, d: int) -> dict[str, Any]:
    """Seconds of an M-step per component."""
    from fastgmm import covariance, em
    from fastgmm.backends import choose
    from fastgmm.model import MixtureModel
    from fastgmm.sources import ArraySource

    workload = make("full", 20 * k, k, d, "float32")
    p, backend = workload.start, choose("cpu")[0]
    model = MixtureModel.from_covariances(p.weights, p.means, p.covariances, covariance.get("full"))
    statistics = em.e_step(ArraySource(workload.x), model, backend)
    seconds = PerCall(lambda: em.m_step(statistics, model, None, 1e-3), at_least=0.5)()
    return {"components": k, "seconds": seconds}


TASKS = {f.__name__: f for f in (file_pass, batching, shared, m_step)}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
