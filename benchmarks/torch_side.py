"""The torch side beside torch.distributions and zuko: ``python -m benchmarks.torch_side``.

Time and peak memory of log-probabilities, with and without gradients, and of sampling. Each
distribution is built inside the timed call, as a training step does. Peak memory is that of a fresh
process per case, beyond what was resident before the call.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import fresh
from .console import say, write_json
from .provenance import provenance
from .report import aligned, seconds
from .resident import peak, release, reset_peak, resident
from .timing import interleave, once

_SHAPE = (20_000, 64, 16)
_SAMPLES = 1_000_000
#: rows per call of the peers, which draw all K components: a million at once would be 4 GB
_CHUNK = 50_000
_TASKS = ("forward", "forward + backward", "forward + backward with x", "sample")
_NAMES = ("fastgmm", "torch", "zuko")
#: how many times faster than each peer, and the share of its peak memory
_FASTER = {"forward": 5.0, "forward + backward": 5.0, "sample": 10.0}
_MEMORY = 0.1
#: largest difference of log-probabilities, in nats, and of gradients, relative to the largest
_TOLERANCE = 2e-3
#: rows that are drawn to compare moments, and standard errors by which these may be off
_MOMENTS, _ERRORS = 20_000, 6.0
_MB = 1e6


def main(arguments: list[str] | None = None) -> int:
    """Check, measure, print the table, write the JSON file; 0 also when a target is missed."""
    options = _parser().parse_args(arguments)
    shape = (options.rows, *_SHAPE[1:])
    if options.case:
        print(json.dumps(_memory_case(*options.case, shape, options.samples)))
        return 0
    absent = {name: reason for name in _NAMES if (reason := _missing(name))}
    if "fastgmm" in absent or "torch" in absent:
        print(absent)
        return 2
    names = [name for name in _NAMES if name not in absent]
    rows = [_row(task, names, shape, options) for task in _TASKS]
    print(f"\nfull covariance, float32, N={shape[0]:,} K={shape[1]} D={shape[2]}; ", end="")
    print(f"sample: {options.samples:,} rows\n")
    print(_table(rows))
    for name, reason in absent.items():
        print(f"absent: {name}: {reason}")
    result = {
        "provenance": {**provenance(), "versions_of_peers": _versions(names)},
        "workload": f"full, float32, N={shape[0]:,} K={shape[1]} D={shape[2]}",
        "samples": options.samples,
        "rows_per_call_of_peers_when_sampling": _CHUNK,
        "absent": absent,
        "rows": rows,
    }
    write_json(options.json, result)
    return 0


def _missing(name: str) -> str | None:
    found = importlib.util.find_spec("torch" if name == "fastgmm" else name)
    return None if found else f"{name} is not installed (pip install {name})"


def _versions(names: list[str]) -> dict[str, str]:
    return {n: str(importlib.import_module(n).__version__) for n in names if n != "fastgmm"}


def _problem(shape: tuple[int, int, int]) -> tuple[Any, ...]:
    """Rows of a mixture with some overlap, and its logits, means and Cholesky factors."""
    import torch

    n, k, d = shape
    torch.manual_seed(0)
    logits, means = 0.3 * torch.randn(k), 2 * torch.randn(k, d)
    factors = 0.3 * torch.randn(k, d, d).tril(-1) + torch.diag_embed(torch.rand(k, d) + 0.5)
    labels = torch.randint(k, (n,))
    noise = torch.randn(n, d, 1)
    return means[labels] + (factors[labels] @ noise)[..., 0], logits, means, factors


def _mixture(name: str, logits: Any, means: Any, factors: Any) -> Any:
    import torch.distributions as td

    if name == "fastgmm":
        from fastgmm.distributions import GaussianMixture

        return GaussianMixture(logits=logits, means=means, scale_tril=factors, validate_args=False)
    components = td.MultivariateNormal(means, scale_tril=factors, validate_args=False)
    if name == "zuko":
        return importlib.import_module("zuko.distributions").Mixture(components, logits)
    weights = td.Categorical(logits=logits, validate_args=False)
    return td.MixtureSameFamily(weights, components, validate_args=False)


def _call(name: str, task: str, shape: tuple[int, int, int], samples: int) -> Callable[[], Any]:
    import torch

    x, *parameters = _problem(shape)
    if task == "sample":
        step = samples if name == "fastgmm" else min(_CHUNK, samples)

        def draw() -> Any:
            mixture = _mixture(name, *parameters)
            for _ in range(0, samples, step):
                drawn = mixture.sample((step,))
            return drawn

        return draw
    if task == "forward":

        def forward() -> Any:
            with torch.no_grad():
                return _mixture(name, *parameters).log_prob(x)

        return forward
    inputs = [p.requires_grad_() for p in parameters]
    if task.endswith("with x"):
        inputs = [*inputs, x.requires_grad_()]

    def both() -> Any:
        value = _mixture(name, *parameters).log_prob(x).mean()
        return torch.autograd.grad(value, inputs)

    return both


def _difference(name: str, task: str, shape: tuple[int, int, int]) -> float:
    """Largest difference from torch in float64, over the first rows; of a sample see below."""
    import torch

    x, *parameters = _problem(shape)
    if task == "sample":
        return _sampled(name, *parameters)
    x = x[:2000].double().requires_grad_()
    exact = [p.double().requires_grad_() for p in parameters]
    truth = _mixture("torch", *exact).log_prob(x)
    single = [p.detach().float().requires_grad_() for p in exact]
    rows = x.detach().float().requires_grad_()
    got = _mixture(name, *single).log_prob(rows)
    if task == "forward":
        return float((got - truth).detach().abs().max())
    wanted = torch.autograd.grad(truth.mean(), [*exact, x])
    found = torch.autograd.grad(got.mean(), [*single, rows])
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        if b.ndim == 3:
            a, b = a.tril(), b.tril()
        worst = max(worst, float((a - b).abs().max() / b.abs().max()))
    return worst


def _sampled(name: str, logits: Any, means: Any, factors: Any) -> float:
    """By how many standard errors moments of a sample are off, the worst of them."""
    import torch

    drawn = _mixture(name, logits, means, factors).sample((_MOMENTS,)).double()
    weights, means, factors = logits.double().softmax(0), means.double(), factors.double()
    second = factors @ factors.mT + means[:, :, None] * means[:, None, :]
    worst = 0.0
    for found, exact in (
        (drawn, weights @ means),
        (drawn[:, :, None] * drawn[:, None, :], torch.tensordot(weights, second, 1)),
    ):
        error = found.std(dim=0) / _MOMENTS**0.5
        worst = max(worst, float(((found.mean(dim=0) - exact).abs() / error).max()))
    return worst


def _row(
    task: str, names: list[str], shape: tuple[int, int, int], options: argparse.Namespace
) -> dict[str, Any]:
    entries: dict[str, dict[str, Any]] = {}
    calls: dict[str, Callable[[], float]] = {}
    for name in names:
        say(f"{task}: checking {name}")
        difference = _difference(name, task, shape)
        key, most = "max_difference", _TOLERANCE
        if task == "sample":
            key, most = "standard_errors", _ERRORS
        entries[name] = {key: difference}
        if not difference <= most:
            entries[name]["disagrees"] = f"{key.replace('_', ' ')}: {difference:.1e}"
            continue
        call = _call(name, task, shape, options.samples)
        call()
        calls[name] = lambda call=call: once(call)
    say(f"{task}: timing {', '.join(calls)}")
    for name, timing in interleave(calls, options.budget).items():
        entries[name]["seconds"] = timing.summary()
        entries[name]["peak"] = _fresh(name, task, options)
    ours = entries["fastgmm"]
    for name, entry in entries.items():
        if name == "fastgmm" or "seconds" not in entry or "seconds" not in ours:
            continue
        entry["times_faster"] = entry["seconds"]["median"] / ours["seconds"]["median"]
        entry["memory_share"] = ours["peak"]["peak_mb"] / max(entry["peak"]["peak_mb"], 1e-9)
    return {"task": task, "target": _FASTER.get(task), "implementations": entries}


def _memory_case(name: str, task: str, shape: tuple[int, int, int], samples: int) -> dict[str, Any]:
    """Megabytes of one call, measured in this process; call it once per process."""
    # A smaller call first, so that compiled code and thread stacks exist; as many rows as take
    # the same path on the same number of threads.
    _call(name, task, (2000, *shape[1:]), 2000)()
    call = _call(name, task, shape, samples)
    release()
    before = resident()
    exact = reset_peak()
    result = call()
    del result
    return {"peak_mb": (peak() - before) / _MB, "peak_was_reset": exact}


def _fresh(name: str, task: str, options: argparse.Namespace) -> dict[str, Any]:
    sizes = ["--rows", str(options.rows), "--samples", str(options.samples)]
    found = fresh.run("benchmarks.torch_side", ["--case", name, task, *sizes])
    if "failed" in found:
        raise RuntimeError(f"{name}, {task}: {found['failed']}")
    return found


def _table(rows: list[dict[str, Any]]) -> str:
    head = ["task"]
    for name in _NAMES:
        head += [name, "memory"] + ([] if name == "fastgmm" else ["faster", "share"])
    lines: list[tuple[str, ...]] = [tuple(head)]
    for row in rows:
        cells = [row["task"]]
        for name in _NAMES:
            entry = row["implementations"].get(name, {})
            if "seconds" not in entry:
                cells += ["wrong" if "disagrees" in entry else "-"] * (
                    2 if name == "fastgmm" else 4
                )
                continue
            cells += [seconds(entry["seconds"]["median"]), f"{entry['peak']['peak_mb']:.0f} MB"]
            if name != "fastgmm":
                cells.append(_verdict(entry["times_faster"], row["target"], "x", ">="))
                target = _MEMORY if row["target"] and row["task"] != "sample" else None
                cells.append(_verdict(entry["memory_share"], target, "", "<="))
        lines.append(tuple(cells))
    return aligned(lines)


def _verdict(value: float, target: float | None, unit: str, sign: str) -> str:
    text = f"{value:.3g}{unit}"
    if target is None:
        return text
    reached = value >= target if sign == ">=" else value <= target
    return f"{text} ({sign} {target:g}) {'yes' if reached else 'NO'}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_side", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--rows", type=int, default=_SHAPE[0], metavar="N")
    parser.add_argument("--samples", type=int, default=_SAMPLES, metavar="N")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds per implementation")
    parser.add_argument("--case", nargs=2, metavar=("NAME", "TASK"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
