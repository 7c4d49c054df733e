"""What an EM iteration should take on many machines, from a measured pass and a stated network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .large_child import statistics_bytes
from .report import aligned, seconds

ROWS = (10**6, 10**8, 10**10, 10**12)
COMPONENTS = (64, 1_000, 10_000, 100_000)
WORKERS = (1, 10, 100, 1_000)
#: all-reduces of an iteration: the statistics, and two flags of 8 bytes by which processes learn
#: whether all go on
_REDUCTIONS = 3


@dataclass(frozen=True)
class Cost:
    """Costs of one worker and of the network between workers.

    Parameters
    ----------
    d : int
        Features; covariances are full, rows float32.
    pair : float
        Seconds per row and component of a pass.
    component : float
        Seconds per component of an M-step, which every worker takes.
    bandwidth : float
        Bytes per second that a worker sends, and receives at the same time.
    latency : float
        Seconds of one message.
    reading : float
        Bytes per second that a worker reads its rows with, while it computes.
    """

    d: int
    pair: float
    component: float
    bandwidth: float = 1.25e9
    latency: float = 50e-6
    reading: float = 1e9

    def all_reduce(self, k: int, workers: int) -> float:
        """Rings of 2 (p - 1) steps: one with a p-th part of the statistics each, and the flags."""
        size, steps = statistics_bytes(k, self.d), 2 * (workers - 1)
        return steps * (size / workers / self.bandwidth + _REDUCTIONS * self.latency)

    def passing(self, n: int, k: int, workers: int) -> float:
        """The pass over a worker's share of the rows: computing and reading overlap."""
        share = n / workers
        return max(share * k * self.pair, share * self.d * 4 / self.reading)

    def iteration(self, n: int, k: int, workers: int) -> float:
        """Seconds of one EM iteration."""
        return self.passing(n, k, workers) + k * self.component + self.all_reduce(k, workers)

    def turning_point(self, n: int, k: int) -> int:
        """The fewest workers with which the all-reduce takes longer than the pass."""
        low, high = 1, 2
        while self.all_reduce(k, high) <= self.passing(n, k, high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            slow = self.all_reduce(k, middle) > self.passing(n, k, middle)
            low, high = (low, middle) if slow else (middle, high)
        return high

    def rows_at_turning_point(self) -> float:
        """Rows per worker at which pass and all-reduce of many components take equally long."""
        per_component = statistics_bytes(1, self.d) - statistics_bytes(0, self.d)
        return 2 * per_component / self.bandwidth / self.pair


def table(cost: Cost) -> str:
    """Seconds of an iteration for each number of rows, components and workers."""
    plural = [f"{p:,} worker{'s' if p > 1 else ''}" for p in WORKERS]
    lines: list[tuple[str, ...]] = [("rows", "K", *plural, "all-reduce dominates from")]
    for n in ROWS:
        for k in COMPONENTS:
            if k > n / 100:
                continue
            times = [_entry(cost, n, k, p) for p in WORKERS]
            lines.append((f"{n:.0e}", f"{k:,}", *times, f"{cost.turning_point(n, k):,} workers"))
    return aligned(lines)


def _entry(cost: Cost, n: int, k: int, workers: int) -> str:
    text = duration(cost.iteration(n, k, workers))
    return f"{text} *" if cost.all_reduce(k, workers) > cost.passing(n, k, workers) else text


def duration(value: float) -> str:
    """Seconds as they are read: minutes, hours and days where there are many."""
    for unit, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if value >= 2 * unit:
            return f"{value / unit:.3g} {name}"
    return seconds(value)


def cost_of(result: dict[str, Any]) -> Cost:
    """The costs that a run of ``benchmarks.large_data`` has measured."""
    found = result["scaling"]
    return Cost(found["d"], found["pair_seconds"], found["component_seconds"])


DEVICES = """\
## Many devices in one process

The same addition of statistics joins the GPUs of one machine: `fastgmm.sources.Joined` makes one
source of rows in several places. Each part is computed where it lies, passes of a fit on several
GPUs run side by side, and only sums, K (1 + D + D^2) numbers per chunk, go to the device of the
first part. Not yet run on a GPU.

```python
import numpy as np
import torch
from fastgmm import GaussianMixture
from fastgmm.sources import Joined

X = np.random.default_rng(0).normal(size=(10_000, 8)).astype(np.float32)
devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
shares = np.array_split(X, len(devices))
parts = Joined([torch.tensor(x, device=where) for x, where in zip(shares, devices)])
mixture = GaussianMixture(4, random_state=0).fit(parts)
labels = mixture.predict(parts)  # on the first device, in the order of the rows
```

Weights go with their part, as a tuple `(rows, weights)`. Parts may be NumPy arrays and files too,
which the CPU computes meanwhile: name them last. One chunk per part is best: devices that are not
equally fast wait for each other after every chunk. Results per row (`score`, `predict`) are
computed one part after the other.
"""


def page(result: dict[str, Any]) -> str:
    """docs/scaling.md, from the JSON of a run."""
    cost, about, found = cost_of(result), result["provenance"], result["scaling"]
    size = statistics_bytes(1_000, cost.d)
    return f"""# Scaling

How long an EM iteration takes with more rows, components and machines: arithmetic from one measured
pass, not a measurement of many machines. Written by `python -m benchmarks.large_data --page`.

Measured on {about["cpu"]}, {found["threads"]} threads, {about["date"][:10]}, commit
{about["commit"]}: full covariances, float32, D={cost.d}, overlapping components, of which hardly
any work can be left out.

- A pass takes {cost.pair * 1e9:.3g} ns per row and component (N={found["rows"]:,},
  K={found["components"]}); work is linear in both, and less where components are far apart.
- An M-step takes {cost.component * 1e6:.3g} us per component (K={found["m_step_components"]:,}).
  Every worker takes all of it.

Assumed: workers like that machine; between them {cost.bandwidth * 8 / 1e9:g} Gbit/s each way and
{cost.latency * 1e6:g} us per message; rows read at {cost.reading / 1e9:g} GB/s while the chunk
before is computed.

    iteration  = max(N K pair, 4 N D / reading) / p + K component + all-reduce
    all-reduce = 2 (p - 1) (S / p / bandwidth + {_REDUCTIONS} latency)    a ring; two more of flags
    S          = 8 (3 + K (1 + D + D^2)) bytes                the statistics

What goes over the wire does not depend on the rows: {size / 1e6:.3g} MB per iteration for
K=1,000. Both the pass and the all-reduce grow with K, so that for many components their ratio is a
number of rows: below about {cost.rows_at_turning_point():,.0f} rows per worker the all-reduce takes
longer than the pass. For few components it is the latency of {2 * _REDUCTIONS} (p - 1) messages
that ends the gain.

Seconds of one iteration; with * the all-reduce takes longer than the pass.

{table(cost)}

{DEVICES}"""
