"""Differentiable mixtures on the kernels of GPUs: on the device, else in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import math
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

import oracle  # noqa: E402
import torch_problems as problems  # noqa: E402
from fastgmm import functional  # noqa: E402
from fastgmm.autograd import (  # noqa: E402
    component_log_prob,
    engines,
    mixture_log_prob,
    ops,
    responsibilities,
)
from fastgmm.backends import batched_gpu, launch, passes  # noqa: E402
from fastgmm.distributions import GaussianMixture  # noqa: E402
from fastgmm.errors import BackendUnavailableError, InputError  # noqa: E402
from fastgmm.nn import GMM  # noqa: E402
from helpers import assert_close, tolerance  # noqa: E402
from torch_problems import default_validation  # noqa: E402, F401

pytestmark = pytest.mark.usefixtures("_unwritten_memory_is_nan", "_interpret")
# batch, N, K, D: few rows and tiles, every padding of features, components that fill no group.
SIZES = {
    "one row": ((5,), 1, 3, 3),
    "few rows": ((2,), 5, 6, 9),
    "one feature": ((3,), 65, 2, 1),
    "lanes": ((2,), 130, 5, 5),
    "matrix unit": ((), 40, 3, 17),
    "blocks": ((), 33, 2, 65),
}
CASES = [
    *(("full", torch.float64, size) for size in SIZES),
    *(("full", torch.float32, size) for size in ("few rows", "matrix unit")),
    *(("tied", torch.float64, size) for size in ("few rows", "matrix unit")),
    *(("diag", torch.float64, size) for size in ("few rows", "lanes")),
    *((structure, torch.float32, "matrix unit") for structure in ("tied", "diag", "spherical")),
    ("tied_diag", torch.float64, "lanes"),
    ("spherical", torch.float64, "lanes"),
]
IDS = [f"{structure}-{str(dtype)[6:]}-{size}" for structure, dtype, size in CASES]
NAMES = ("x", "log_weights", "means", "scale")


@pytest.fixture
def _interpret(where, monkeypatch):
    monkeypatch.setattr(engines, "INTERPRET", where.type == "cpu")


def _parameters(structure, where, **sizes):
    inputs = problems.parameters(structure, **sizes)
    return [t.detach().to(where).requires_grad_() for t in inputs]


@pytest.mark.parametrize(("structure", "dtype", "size"), CASES, ids=IDS)
def test_values_and_gradients(where, structure, dtype, size):
    batch, n, k, d = SIZES[size]
    sizes = {"batch": batch, "n": n, "k": k, "d": d, "dtype": dtype, "spread": 2.0}
    inputs = _parameters(structure, where, **sizes)
    exact = [t.detach().cpu().double().requires_grad_() for t in inputs]
    joint = problems.truth(structure, *exact)
    generator = torch.Generator().manual_seed(1)
    rtol = 1e-11 if dtype == torch.float64 else 5e-5
    functions = [(mixture_log_prob, joint.logsumexp(-1))]
    if size == "lanes":
        # The same kernels, with weights given.
        functions.append((component_log_prob, joint))
    for function, expected in functions:
        got = function(*inputs, structure)
        assert got.dtype == dtype
        assert got.device == inputs[0].device
        problems.assert_near(got.cpu(), expected, rtol, function.__name__)
        upstream = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
        found = problems.gradients(got, upstream.to(inputs[0]), inputs)
        wanted = problems.gradients(expected, upstream, exact)
        for name, a, b in zip(NAMES, found, wanted, strict=True):
            problems.assert_near(a.cpu(), b, 20 * rtol, f"{function.__name__} by {name}")


@pytest.mark.parametrize("size", [(130, 7, 3), (20, 2, 17)], ids=str)
def test_rows_against_the_oracle(where, structure, dtype, size):
    n, k, d = size
    rng = np.random.default_rng([oracle.STRUCTURES.index(structure), *size])
    mixture = oracle.random_mixture(rng, structure, k, d, separation=2.0)
    x = mixture.sample(rng, n)[0].astype(dtype)
    arrays = (mixture.weights, mixture.means, mixture.precisions_cholesky())
    given = [torch.tensor(np.asarray(a, dtype), device=where, requires_grad=True) for a in arrays]
    rows = torch.tensor(x, device=where)
    rtol = tolerance(dtype, 1e-12, 1e-5)
    scores = functional.score_samples(rows, *given, structure)
    assert scores.requires_grad
    assert_close(scores.detach().cpu(), mixture.score_samples(x), rtol)
    resp = functional.responsibilities(rows, *given, structure).detach().cpu()
    np.testing.assert_allclose(resp, mixture.responsibilities(x), rtol=0, atol=5 * rtol)


@pytest.mark.parametrize(
    ("structure", "parameterisation"),
    [
        *((structure, "scale") for structure in ("full", "tied", "diag")),
        *((structure, "precisions_cholesky") for structure in ("full", "tied", "spherical")),
    ],
)
def test_gradcheck(where, structure, parameterisation):
    inputs = _parameters(structure, where, n=2, k=2)
    if parameterisation != "scale" and structure in ("full", "tied"):
        inputs[3] = inputs[3].detach().mT.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *a: mixture_log_prob(*a, structure, parameterisation=parameterisation),
        inputs,
        fast_mode=True,
    )


@pytest.mark.parametrize("structure", ["full", "tied"])
def test_parts_change_nothing_but_rounding(where, structure, monkeypatch):
    inputs = _parameters(structure, where, batch=(2,), n=150, k=3, d=3)
    upstream = torch.linspace(-1, 1, 300, dtype=torch.float64, device=where).reshape(2, 150)

    def run():
        out = mixture_log_prob(*inputs, structure)
        return [out, *torch.autograd.grad(out, inputs, upstream)]

    whole = run()
    small = {**launch.device_sizes(), "chunk_bytes": 0, "least_rows": 128}
    for module in (passes, batched_gpu):
        monkeypatch.setattr(module, "device_sizes", lambda: small)
    mixtures, chunks = batched_gpu._parts(*inputs[0:3:2], inputs[3])
    assert (len(mixtures), len(chunks)) == (2, 2)
    for name, a, b in zip(("value", *NAMES), run(), whole, strict=True):
        problems.assert_near(a, b, 1e-12, name)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2, 3)], ids=["x", "weights", "moments"])
@pytest.mark.parametrize("structure", ["full", "tied"])
def test_some_gradients_alone(where, structure, wanted):
    inputs = _parameters(structure, where, batch=(2,), n=20, d=3)
    everything = torch.autograd.grad(mixture_log_prob(*inputs, structure).sum(), inputs)
    plain = [t if i in wanted else t.detach() for i, t in enumerate(inputs)]
    out = mixture_log_prob(*plain, structure)
    found = torch.autograd.grad(out.sum(), [inputs[i] for i in wanted])
    for i, gradient in zip(wanted, found, strict=True):
        problems.assert_near(gradient, everything[i], 1e-13, NAMES[i])


@pytest.mark.parametrize("n", [7, 70], ids=["few rows", "tiles"])
@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
def test_layouts(where, layout, n):
    x, *parameters = (t.detach() for t in _parameters("full", where, n=n, d=3))
    if layout == "transposed":
        view = x.t().contiguous().t()
    elif layout == "strided":
        wide = torch.full((2 * n, 9), math.nan, dtype=x.dtype, device=where)
        wide[::2, ::3] = x
        view = wide[::2, ::3]
    else:
        x = x[:1].expand(n, 3).clone()
        view = x[:1].expand(n, 3)
    parameters[2] = parameters[2].mT.contiguous().mT
    got, expected = (mixture_log_prob(v, *parameters) for v in (view, x))
    # Strides are compiled into kernels, which then may add in another order.
    problems.assert_near(got, expected, 1e-13)


@pytest.mark.parametrize("n", [9, 40], ids=["few rows", "tiles"])
@pytest.mark.parametrize("structure", ["full", "diag"])
def test_a_responsibility_that_underflows_gives_zero_gradients(where, structure, n):
    x, log_weights, means, scale = _parameters(structure, where, n=n, dtype=torch.float32)
    means.data[-1] += 1e4
    log_weights.data[0] = -math.inf
    out = mixture_log_prob(x, log_weights, means, scale, structure)
    assert torch.isfinite(out).all()
    for gradient in torch.autograd.grad(out.sum(), (log_weights, means)):
        assert (gradient[[0, -1]] == 0).all()
        assert (gradient[1] != 0).all()


@pytest.mark.parametrize("rows", [2, 40], ids=["few rows", "tiles"])
@pytest.mark.parametrize("structure", ["full", "tied"])
def test_a_row_out_of_reach_is_minus_infinity_without_gradients(where, structure, rows):
    inputs = [t.detach() for t in _parameters(structure, where, n=rows, dtype=torch.float32)]
    inputs[0][0, 0] = 1e30
    inputs = [t.requires_grad_() for t in inputs]
    out = mixture_log_prob(*inputs, structure)
    assert torch.isneginf(out[0])
    assert torch.isfinite(out[1:]).all()
    for gradient in torch.autograd.grad(out.nan_to_num().sum(), inputs):
        assert torch.isfinite(gradient).all()
    resp = responsibilities(*inputs, structure)
    assert resp[0].max() == 1
    for gradient in torch.autograd.grad(resp.square().sum(), inputs):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("n", [5, 40], ids=["few rows", "tiles"])
def test_nan_stays_where_it_is(where, n):
    problems.nan_stays_where_it_is(_parameters("full", where, batch=(3,), n=n))


@pytest.mark.parametrize("n", [5, 40], ids=["few rows", "tiles"])
@pytest.mark.parametrize("structure", ["full", "tied_diag"])
def test_a_scale_that_is_not_positive_gives_nan(where, structure, n):
    inputs = _parameters(structure, where, batch=(2,), n=n)
    inputs[3].data[0].view(-1)[0] = -1
    out = mixture_log_prob(*inputs, structure, validate=False)
    for array in (out, *torch.autograd.grad(out.sum(), inputs[:3])):
        assert torch.isnan(array[0]).all()
        assert torch.isfinite(array[1]).all()


@pytest.mark.parametrize("shape", [(0, 4), (0, 40), (3, 0)], ids=str)
def test_empty_batches(where, shape):
    inputs = _parameters("full", where, batch=shape[:1], n=shape[1])
    out = mixture_log_prob(*inputs)
    assert out.shape == shape
    for gradient, given in zip(torch.autograd.grad(out.sum(), inputs), inputs, strict=True):
        assert gradient.shape == given.shape
        assert (gradient == 0).all()


@pytest.mark.parametrize("n", [3, 150], ids=["few rows", "tiles"])
@pytest.mark.parametrize("structure", ["full", "tied"])
def test_the_same_input_gives_the_same_bits(where, structure, n):
    inputs = _parameters(structure, where, batch=(2,), n=n, k=5, d=3, dtype=torch.float32)
    results = []
    for _ in range(2):
        out = mixture_log_prob(*inputs, structure)
        results.append([out, *torch.autograd.grad(out.sum(), inputs)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.usefixtures("default_validation")
def test_compiles_without_a_graph_break(where):
    inputs = _parameters("full", where, n=40, d=3)

    def loss(x, logits, means, scale):
        log_weights = logits.log_softmax(-1)
        few, tiles = (mixture_log_prob(part, log_weights, means, scale) for part in (x[:9], x))
        return few.mean() + tiles.mean()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    got, expected = compiled(*inputs), loss(*inputs)
    problems.assert_near(got, expected, 1e-13)
    found, wanted = (torch.autograd.grad(value, inputs) for value in (got, expected))
    for a, b in zip(found, wanted, strict=True):
        problems.assert_near(a, b, 1e-12)


def test_operators_keep_their_promises(where):
    x, c, m, f = _parameters("full", where, batch=(2,))
    ones = torch.ones(2, 4, dtype=x.dtype, device=where, requires_grad=True)
    labels = torch.zeros(2, 4, dtype=torch.int64, device=where)
    for operator, arguments in (
        (ops.mixture_log_prob, (x, c, m, f, True)),
        (ops.component_log_prob, (x, c, m, f, True)),
        (ops.log_prob_backward, (ones, x, c, m, f, True, True)),
        (ops.few_log_prob, (x, c, m, f, True)),
        (ops.few_backward, (ones, x, c, m, f)),
        (ops.colour, (labels, x.detach(), m.detach(), f.detach())),
    ):
        found = torch.library.opcheck(
            operator, arguments, test_utils=("test_schema", "test_faketensor")
        )
        assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("n", [3, 40], ids=["few rows", "tiles"])
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, math.nan, r"x of shape .* 1 of \d+ rows, first in row 1"),
        (1, math.nan, "log-weights .* component 1"),
        (2, math.inf, "means of shape"),
        (3, -1.0, "diagonals of factors be positive"),
    ],
    ids=NAMES,
)
def test_bad_values_are_refused(where, n, place, value, message):
    inputs = [t.detach() for t in _parameters("full", where, n=n)]
    inputs[place][(1,) * inputs[place].ndim] = value
    with pytest.raises(InputError, match=message):
        mixture_log_prob(*inputs)


def test_a_cuda_graph_looks_at_no_values(monkeypatch):
    from fastgmm.autograd import gpu

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    # Nothing can be read of what has no more than a device.
    gpu._check(None, None, SimpleNamespace(is_cuda=True), None, None, None)


@pytest.mark.parametrize("structure", ["full", "tied", "spherical"])
def test_samples_are_those_of_the_formula(where, structure):
    _, logits, means, scale = (t.detach() for t in _parameters(structure, where, batch=(2,), d=5))
    k, d = means.shape[-2:]
    labels = torch.randint(k, (2, 70), device=where)
    noise = torch.randn(2, 70, d, dtype=means.dtype, device=where)
    dense = problems.dense_scale(structure, scale, k, d)
    rows = torch.arange(2, device=where)[:, None]
    expected = means[rows, labels] + (dense[rows, labels] @ noise[..., None])[..., 0]
    own = {"scale_tril": scale} if structure in ("full", "tied") else {"variances": scale**2}
    mixture = GaussianMixture(logits=logits, means=means, covariance_type=structure, **own)
    got = ops.colour(labels, noise, means, mixture._gaussians.scales())
    problems.assert_near(got, expected, 1e-13)
    assert mixture.sample((4,)).device.type == where.type


@pytest.mark.parametrize("structure", ["full", "tied_diag"])
def test_distributions(where, structure):
    x, logits, means, scale = _parameters(structure, where, batch=(2,), n=30, d=3)
    own = {"scale_tril": scale} if structure == "full" else {"variances": scale**2}
    mixture = GaussianMixture(logits=logits, means=means, covariance_type=structure, **own)
    joint = problems.truth(structure, x, logits.log_softmax(-1), means, scale)
    value = x.movedim(1, 0)
    problems.assert_near(mixture.log_prob(value), joint.logsumexp(-1).movedim(1, 0), 1e-11)
    problems.assert_near(mixture.posterior(value).probs, joint.softmax(-1).movedim(1, 0), 1e-11)
    drawn = mixture.rsample((50,))
    assert drawn.shape == (50, 2, 3)
    assert drawn.device == value.device
    for gradient in torch.autograd.grad(mixture.log_prob(drawn).mean(), (logits, means, scale)):
        assert torch.isfinite(gradient).all()
    with torch.no_grad():
        estimator = GaussianMixture(
            logits=logits[0], means=means[0], covariance_type=structure,
            **{name: value[0] for name, value in own.items()},
        ).to_estimator()  # fmt: skip
    score = estimator.score_samples(x[0].detach().cpu().numpy())
    assert_close(score, joint[0].logsumexp(-1).detach().cpu(), 1e-11)


@pytest.mark.parametrize(("kind", "tied"), [("full", False), ("diagonal", True)])
def test_a_network_learns(where, kind, tied):
    generator = torch.Generator().manual_seed(0)
    context, y = (torch.randn(8, size, generator=generator).to(where) for size in (2, 3))
    torch.manual_seed(0)
    module = GMM(3, context=2, components=4, covariance_type=kind, tied=tied).to(where)
    module.initialize(y, "random", seed=0)
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    losses = []
    for _ in range(3):
        loss = -module(context).log_prob(y).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_device_without_kernels_is_refused():
    with pytest.raises(BackendUnavailableError, match="for the CPU and for CUDA"):
        engines.engine_for(torch.empty(0, device="meta"))
