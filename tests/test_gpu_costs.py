"""The counted work of the GPU kernels is what the interpreter sees them do."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import oracle
from conftest import CUDA
from fastgmm import covariance
from fastgmm.model import MixtureModel

torch = pytest.importorskip("torch")
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
pytestmark = pytest.mark.skipif(CUDA, reason="a device is there: no interpreter")

import torch_problems as problems  # noqa: E402
from fastgmm.backends import batched_gpu, costs, few_gpu  # noqa: E402
from fastgmm.backends.gpu import GPUBackend  # noqa: E402
from fastgmm.backends.packing import width_of  # noqa: E402
from fastgmm.backends.passes import up  # noqa: E402

N = 200


class Meter:
    """Counts what the interpreter does between launches of one kernel."""

    def __init__(self, monkeypatch):
        from triton.runtime import interpreter

        self.seen = {}
        self._name = None
        builder = interpreter.InterpreterBuilder
        run = interpreter.GridExecutor.__call__

        def launch(executor, *args, **kwargs):
            self._name = executor.fn.__name__.removeprefix("_")
            self.seen.setdefault(self._name, {"products": 0, "operations": 0, "bytes": 0})
            return run(executor, *args, **kwargs)

        monkeypatch.setattr(interpreter.GridExecutor, "__call__", launch)
        self._wrap(monkeypatch, builder, "create_dot", self._dot)
        for name in ("create_fadd", "create_fsub", "create_fmul"):
            self._wrap(monkeypatch, builder, name, self._operation)
        # Loads without a mask end there too.
        self._wrap(monkeypatch, builder, "create_masked_load", self._load)

    def _wrap(self, monkeypatch, builder, name, count):
        plain = getattr(builder, name)

        def counted(this, *args):
            result = plain(this, *args)
            count(result, *args)
            return result

        monkeypatch.setattr(builder, name, counted)

    def _dot(self, result, a, b, *rest):
        m, k = a.data.shape
        self.seen[self._name]["products"] += 2 * m * k * b.data.shape[1]

    def _operation(self, result, a, b):
        # Numbers of a program are not counted, only vectors and blocks.
        if result.data.size > 1:
            self.seen[self._name]["operations"] += result.data.size

    def _load(self, result, *args):
        if result.data.size > 1:
            self.seen[self._name]["bytes"] += result.data.nbytes


def _run(monkeypatch, structure, dtype, k, d, separation=3.0):
    rng = np.random.default_rng(0)
    mixture = oracle.random_mixture(rng, structure, k, d, separation=separation)
    model = MixtureModel.from_covariances(
        mixture.weights, mixture.means, mixture.covariances, covariance.get(structure)
    )
    backend = GPUBackend(torch.device("cpu"), skip=False)
    prepared = backend.prepare(model, dtype)
    x = mixture.sample(rng, N)[0].astype(dtype)
    meter = Meter(monkeypatch)
    backend.accumulate(prepared, x, None)
    return meter.seen, backend.target, prepared


def _close(seen, cost, *, beside):
    """Counted work, within what each (row, component) pair costs beside it."""
    assert seen["products"] == cost.products
    assert cost.operations <= seen["operations"] <= cost.operations + beside


@pytest.mark.parametrize("d", [17, 65])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_full(monkeypatch, d, dtype):
    k, itemsize = 3, np.dtype(dtype).itemsize
    seen, target, p = _run(monkeypatch, "full", dtype, k, d)
    launch = target.launch("expect_full", p.width, p.dtype)
    n = up(N, max(128, launch.rows))
    cost = costs.expect_full(n, k, p.width, itemsize, launch)
    # Sums over lanes, the log-sum-exp, sums of blocks.
    _close(seen["expect_full"], cost, beside=n * k * (p.width // 16 + 12))
    assert seen["expect_full"]["bytes"] == cost.bytes
    launch = target.launch("moments_full", p.width, p.dtype)
    cost = costs.moments_full(N, k, p.width, itemsize, launch)
    whole = 2 * p.width**2 * k * target.programs
    _close(seen["moments_full"], cost, beside=whole)
    assert cost.bytes <= seen["moments_full"]["bytes"] <= cost.bytes + 8 * whole


@pytest.mark.parametrize("structure", ["diag", "spherical"])
def test_rows_in_lanes(monkeypatch, structure):
    k, d = 5, 6
    seen, target, p = _run(monkeypatch, structure, np.float32, k, d)
    name = f"expect_{structure}"
    n = up(N, target.launch(name, p.width, p.dtype).rows)
    cost = getattr(costs, name)(n, k, d, 4)
    _close(seen[name], cost, beside=n * 8 * 8)
    assert seen[name]["bytes"] == cost.bytes
    launch = target.launch("moments_diag", p.width, p.dtype)
    cost = costs.moments_diag(N, k, p.width, 4, launch, second=True)
    sums = target.programs * 8 * 3 * p.width
    _close(seen["moments_diag"], cost, beside=sums)
    assert cost.bytes <= seen["moments_diag"]["bytes"] <= cost.bytes + 16 * sums


@pytest.mark.parametrize("d", [17, 65])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_spherical_products(monkeypatch, d, dtype):
    """Of components that overlap: none is evaluated again by differences."""
    k, itemsize = 20, np.dtype(dtype).itemsize
    seen, target, p = _run(monkeypatch, "spherical", dtype, k, d, separation=0.5)
    launch = target.launch("expect_product", p.width, p.dtype)
    n = up(N, max(128, launch.rows))
    cost = costs.expect_product(n, k, p.width, itemsize, launch)
    pairs = cost.products // (2 * p.width)
    # |z|^2, the log-sum-exp and its sum over lanes.
    _close(seen["expect_product"], cost, beside=n * 3 * p.width + 10 * pairs)
    assert cost.bytes <= seen["expect_product"]["bytes"] <= cost.bytes + itemsize * pairs
    launch = target.launch("moments_product", p.width, p.dtype)
    cost = costs.moments_product(N, k, p.width, itemsize, launch)
    whole = 32 * p.width * target.programs
    _close(seen["moments_product"], cost, beside=4 * whole)
    assert cost.bytes <= seen["moments_product"]["bytes"] <= cost.bytes + 32 * whole


def test_small(monkeypatch):
    k, d = 3, 5
    seen, target, p = _run(monkeypatch, "full", np.float32, k, d)
    n = up(N, target.launch("expect_small", p.width, p.dtype).rows)
    cost = costs.expect_small(n, k, d, 4)
    _close(seen["expect_small"], cost, beside=n * k * 8)
    assert seen["expect_small"]["bytes"] == cost.bytes


def _run_mixtures(monkeypatch, name, structure, dtype, *, n, k, d):
    """Launches of a backward pass over two mixtures, tiles or few rows."""
    module = batched_gpu if name == "batched" else few_gpu
    x, log_weights, means, scale = (
        t.detach() for t in problems.parameters(structure, batch=(2,), n=n, k=k, d=d, dtype=dtype)
    )
    upstream = torch.ones(2, n, dtype=dtype)
    target = GPUBackend(torch.device("cpu")).target
    meter = Meter(monkeypatch)
    with np.errstate(all="ignore"):
        module.backward(target, upstream, x, log_weights, means, scale)
    return meter.seen, target


@pytest.mark.parametrize(("structure", "d"), [("full", 5), ("full", 65), ("diag", 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_pull(monkeypatch, structure, dtype, d):
    n, k = 150, 3
    seen, target = _run_mixtures(monkeypatch, "batched", structure, dtype, n=n, k=k, d=d)
    width = width_of(d, structure)
    name = f"pull_{structure}"
    extra = {} if structure == "full" else {"precisions": True}
    launch = target.launch(name, width, dtype)
    cost = getattr(costs, name)(n, k, width, dtype.itemsize, launch, **extra)
    whole = costs.Cost(2 * cost.products, 2 * cost.operations, 2 * cost.bytes)
    # Each result is negated once.
    _close(seen[name], whole, beside=2 * up(n, launch.rows) * width)
    assert seen[name]["bytes"] == whole.bytes


@pytest.mark.parametrize("structure", ["full", "diag"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_few(monkeypatch, structure, dtype):
    n, k, d = 4, 4, 5
    seen, _ = _run_mixtures(monkeypatch, "few", structure, dtype, n=n, k=k, d=d)
    pairs = 2 * n * k
    for name in ("few_score", "few_backward"):
        cost = getattr(costs, name)(pairs, d, dtype.itemsize, full=structure == "full")
        _close(seen[name], cost, beside=pairs * (2 * d + 16))
        assert cost.bytes <= seen[name]["bytes"] <= cost.bytes + 3 * pairs * dtype.itemsize


@pytest.mark.parametrize("d", [5, 40])
def test_colour(monkeypatch, d):
    _, _, means, scale = (t.detach() for t in problems.parameters("full", batch=(2,), d=d))
    target = GPUBackend(torch.device("cpu")).target
    meter = Meter(monkeypatch)
    labels = torch.zeros(2, 70, dtype=torch.int64)
    few_gpu.colour(target, labels, torch.zeros(2, 70, d, dtype=means.dtype), means, scale)
    cost = costs.colour_rows(140, d, 8, target.launch("colour", d, means.dtype))
    _close(meter.seen["colour_rows"], cost, beside=0)
    assert meter.seen["colour_rows"]["bytes"] == cost.bytes
