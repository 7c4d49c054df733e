"""Differentiable log-probabilities: values and gradients against torch.distributions."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext

import numba
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import oracle  # noqa: E402
import torch_problems as problems  # noqa: E402
from fastgmm import functional  # noqa: E402
from fastgmm.autograd import (  # noqa: E402
    component_log_prob,
    log_responsibilities,
    mixture_log_prob,
    ops,
    responsibilities,
)
from fastgmm.backends import batched, few, sizes  # noqa: E402
from fastgmm.errors import InputError  # noqa: E402
from torch_problems import default_validation  # noqa: E402, F401

SIZES = [
    # batch, N, K, D
    ((), 130, 7, 5),
    ((3,), 65, 2, 1),
    ((2, 2), 1, 3, 2),
    ((5,), 3, 1, 3),
    ((), 40, 130, 17),
    ((), 33, 2, 65),
]
IDS = ["x".join(map(str, [*batch, n, k, d])) for batch, n, k, d in SIZES]


@pytest.fixture(params=problems.STRUCTURES)
def structure(request):
    return request.param


@pytest.mark.parametrize(("batch", "n", "k", "d"), SIZES, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_values_and_gradients(structure, dtype, batch, n, k, d):
    if dtype == torch.float32 and structure in ("tied_diag", "tied_spherical") and d > 5:
        pytest.skip("the same kernels as for spherical")
    inputs = problems.parameters(structure, batch=batch, n=n, k=k, d=d, dtype=dtype, spread=2.0)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    joint = problems.truth(structure, *exact)
    generator = torch.Generator().manual_seed(1)
    tolerance = 1e-11 if dtype == torch.float64 else 5e-5
    for function, expected in (
        (mixture_log_prob, joint.logsumexp(-1)),
        (component_log_prob, joint),
        (responsibilities, joint.softmax(-1)),
    ):
        got = function(*inputs, structure)
        assert got.dtype == dtype
        problems.assert_near(got, expected, tolerance, function.__name__)
        upstream = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
        found = problems.gradients(got, upstream.to(dtype), inputs)
        wanted = problems.gradients(expected, upstream, exact)
        for name, a, b in zip(("x", "log_weights", "means", "scale"), found, wanted, strict=True):
            # Responsibilities near 0 and 1 have gradients that are differences of nearly equals.
            floor = 1.0 if function is responsibilities else 0.0
            problems.assert_near(a, b, 20 * tolerance, f"{function.__name__} by {name}", floor)


@pytest.mark.parametrize("batch", [(), (2,)], ids=["single", "batch"])
@pytest.mark.parametrize("parameterisation", ["scale", "precisions_cholesky"])
def test_gradcheck(structure, batch, parameterisation):
    inputs = problems.parameters(structure, batch=batch)
    if parameterisation != "scale" and structure in ("full", "tied"):
        inputs[3] = inputs[3].detach().mT.clone().requires_grad_()

    def run(function):
        return lambda *args: function(*args, structure, parameterisation=parameterisation)

    assert torch.autograd.gradcheck(run(mixture_log_prob), inputs)
    assert torch.autograd.gradcheck(run(responsibilities), inputs)


@pytest.mark.parametrize("structure", ["full", "tied", "diag", "spherical"])
def test_second_derivatives(structure):
    inputs = problems.parameters(structure, n=3)
    for function in (mixture_log_prob, component_log_prob):
        assert torch.autograd.gradgradcheck(lambda *a, f=function: f(*a, structure), inputs)
    if structure in ("diag", "spherical"):
        assert torch.autograd.gradgradcheck(
            lambda *a: mixture_log_prob(*a, structure, parameterisation="precisions_cholesky"),
            inputs,
        )


@pytest.mark.parametrize("n", [4, 40], ids=["few rows", "tiles"])
@pytest.mark.parametrize("structure", ["full", "diag"])
def test_third_derivatives(structure, n):
    """The gradients of score matching: of the score and its slope."""
    inputs = problems.parameters(structure, n=n, d=1)

    def gradients(log_prob):
        (score,) = torch.autograd.grad(log_prob.sum(), inputs[0], create_graph=True)
        (slope,) = torch.autograd.grad(score.sum(), inputs[0], create_graph=True)
        return torch.autograd.grad((score**2 / 2 + slope).sum(), inputs)

    found = gradients(mixture_log_prob(*inputs, structure))
    wanted = gradients(problems.truth(structure, *inputs).logsumexp(-1))
    for a, b in zip(found, wanted, strict=True):
        problems.assert_near(a, b, 1e-9)


@pytest.mark.parametrize("structure", oracle.STRUCTURES)
def test_functional_takes_tensors_with_gradients(structure, rng):
    mixture = oracle.random_mixture(rng, structure, 4, 3)
    x = rng.standard_normal((50, 3)) * 2
    factors = torch.tensor(mixture.precisions_cholesky(), requires_grad=True)
    weights = torch.tensor(mixture.weights, requires_grad=True)
    means, rows = torch.tensor(mixture.means, requires_grad=True), torch.tensor(x)
    given = (rows, weights, means, factors, structure)
    expected = mixture.weighted_log_prob(x)
    for got, truth in (
        (functional.score_samples(*given), mixture.score_samples(x)),
        (functional.responsibilities(*given), mixture.responsibilities(x)),
        (
            functional.log_prob(rows, means, factors, structure),
            mixture.component_log_prob(x),
        ),
    ):
        assert got.requires_grad
        np.testing.assert_allclose(got.detach().numpy(), truth, rtol=1e-11, atol=1e-11)
    (gradient,) = torch.autograd.grad(functional.score_samples(*given).sum(), weights)
    share = np.exp(expected - mixture.score_samples(x)[:, None]).sum(axis=0)
    np.testing.assert_allclose(gradient.numpy(), share / mixture.weights, rtol=1e-10)


def test_functional_refuses_another_device():
    x, log_weights, means, scale = problems.parameters("diag")
    with pytest.raises(InputError, match="device must be 'auto'"):
        functional.score_samples(x, log_weights.exp(), means, 1 / scale, "diag", device="cpu")


def test_leading_dimensions_broadcast():
    x, log_weights, means, scale = problems.parameters("full", batch=(4,), n=6)
    got = mixture_log_prob(x[0], log_weights, means[0], scale)
    expected = torch.stack(
        [mixture_log_prob(x[0], log_weights[b], means[0], scale[b]) for b in range(4)]
    )
    problems.assert_near(got, expected, 1e-13)
    found = problems.gradients(got.sum(), None, (x, log_weights, means, scale))
    wanted = problems.gradients(expected.sum(), None, (x, log_weights, means, scale))
    for a, b in zip(found, wanted, strict=True):
        problems.assert_near(a, b, 1e-12)


@pytest.mark.parametrize("n", [7, 70], ids=["few rows", "tiles"])
@pytest.mark.parametrize("layout", ["transposed", "strided", "shared"])
def test_layouts(layout, n):
    x, log_weights, means, scale = (t.detach() for t in problems.parameters("full", n=n, d=3))
    if layout == "transposed":
        view = x.t().contiguous().t()
    elif layout == "strided":
        wide = torch.full((2 * n, 9), math.nan, dtype=x.dtype)
        wide[::2, ::3] = x
        view = wide[::2, ::3]
    else:
        x = x[:1].expand(n, 3).clone()
        view = x[:1].expand(n, 3)
    scale = scale.mT.contiguous().mT
    before = view.clone()
    got, expected = (
        mixture_log_prob(v, log_weights, means.t().contiguous().t(), scale) for v in (view, x)
    )
    assert torch.equal(got, expected)
    assert torch.equal(view, before)


@pytest.mark.parametrize("shape", [(0, 4), (0, 40), (3, 0)], ids=str)
def test_empty_batches(shape):
    batch, n = shape
    inputs = problems.parameters("full", batch=(batch,), n=n)
    out = mixture_log_prob(*inputs)
    assert out.shape == (batch, n)
    for gradient, given in zip(torch.autograd.grad(out.sum(), inputs), inputs, strict=True):
        assert gradient.shape == given.shape
        assert (gradient == 0).all()


def test_half_precision_is_computed_in_single():
    inputs = [t.detach() for t in problems.parameters("diag", dtype=torch.float32)]
    half = [t.bfloat16().requires_grad_() for t in inputs]
    out = mixture_log_prob(*half, "diag")
    assert out.dtype == torch.float32
    problems.assert_near(out, mixture_log_prob(*(t.float() for t in half), "diag"), 1e-6)
    assert torch.autograd.grad(out.sum(), half)[2].dtype == torch.bfloat16


@pytest.mark.parametrize("n", [4, 40], ids=["few rows", "tiles"])
@pytest.mark.parametrize("structure", ["full", "diag"])
def test_autocast_changes_nothing(structure, n):
    inputs = problems.parameters(structure, n=n, dtype=torch.float32)

    def both(within):
        # torch wants backward passes outside.
        with within:
            value = mixture_log_prob(*inputs, structure)
        return value, *torch.autograd.grad(value.sum(), inputs)

    expected = both(nullcontext())
    for a, b in zip(both(torch.autocast("cpu", torch.bfloat16)), expected, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


def test_few_rows_and_tiles_agree(structure):
    """Up to some rows factors are solved with, above they are inverted once."""
    inputs = problems.parameters(structure, n=few.FEW + 1, k=5, d=7)
    tiles, parts = (
        mixture_log_prob(inputs[0], *inputs[1:], structure),
        torch.cat([mixture_log_prob(x, *inputs[1:], structure) for x in inputs[0].split(4)]),
    )
    problems.assert_near(parts, tiles, 1e-13)
    upstream = torch.linspace(-1, 1, len(tiles), dtype=tiles.dtype)
    found = problems.gradients(parts, upstream, inputs)
    for a, b in zip(found, problems.gradients(tiles, upstream, inputs), strict=True):
        problems.assert_near(a, b, 1e-11)


@pytest.mark.parametrize(("batch", "n"), [((), 9000), ((300,), 3)], ids=["tiles", "few rows"])
def test_the_number_of_threads_changes_no_bit(structure, batch, n, monkeypatch):
    inputs = problems.parameters(structure, batch=batch, n=n, k=5, d=3, dtype=torch.float32)
    results = []
    for count in sorted({0, 1, numba.get_num_threads()}):
        for module in (batched, few):
            monkeypatch.setattr(module, "threads", lambda flops, count=count: count)
        out = mixture_log_prob(*inputs, structure)
        results.append([out, *torch.autograd.grad(out.sum(), inputs)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_mixtures_are_handled_in_parts_where_sums_are_large(monkeypatch):
    inputs = [t.detach().numpy() for t in problems.parameters("full", batch=(7,), n=5)]
    arguments = (inputs[0], inputs[1], inputs[2], np.linalg.inv(inputs[3]))
    upstream = np.ones((7, 5))
    whole = batched.backward(upstream, *arguments)
    monkeypatch.setattr(sizes, "TOTAL_BYTES", 3000)
    parts = batched.backward(upstream, *arguments)
    for name in ("x", "constants", "means", "factors"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_backward_keeps_nothing_but_its_arguments():
    x, log_weights, means, scale = problems.parameters("diag", n=1000, k=20)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        mixture_log_prob(x, log_weights, means, scale, "diag")
    assert kept
    assert max(t.numel() for t in kept) == x.numel()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.usefixtures("default_validation")
def test_compiles_without_a_graph_break(backend):
    if backend == "inductor":
        compiler = pytest.importorskip("torch._inductor.cpp_builder")
        try:
            compiler.get_cpp_compiler()
        except Exception as error:  # noqa: BLE001 - the inductor has several errors of its own
            pytest.skip(f"no C++ compiler for the inductor: {error}")
    inputs = problems.parameters("full", n=40, d=3, dtype=torch.float32)

    def loss(x, logits, means, scale):
        resp = log_responsibilities(x, logits, means, scale)[:, 0]
        log_weights = logits.log_softmax(-1)
        few, tiles = (mixture_log_prob(part, log_weights, means, scale) for part in (x[:9], x))
        return few.mean() + tiles.mean() + resp.mean()

    torch._dynamo.reset()
    # The inductor warns of its own code.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(loss, fullgraph=True, backend=backend)
        got = compiled(*inputs)
        found = torch.autograd.grad(got, inputs)
    problems.assert_near(got, loss(*inputs), 1e-5)
    for a, b in zip(found, torch.autograd.grad(loss(*inputs), inputs), strict=True):
        problems.assert_near(a, b, 1e-4)


def test_operators_keep_their_promises():
    x, c, m, f = problems.parameters("full", batch=(2,))
    ones = torch.ones(2, 4, dtype=x.dtype, requires_grad=True)
    labels = torch.zeros(2, 4, dtype=torch.int64)
    for operator, arguments in (
        (ops.mixture_log_prob, (x, c, m, f, True)),
        (ops.component_log_prob, (x, c, m, f, True)),
        (ops.log_prob_backward, (ones, x, c, m, f, True, True)),
        (ops.few_log_prob, (x, c, m, f, True)),
        (ops.few_backward, (ones, x, c, m, f)),
        (ops.colour, (labels, x.detach(), m.detach(), f.detach())),
        (ops.nearest, (labels == 0, *(t.detach() for t in (x, c, m, f)))),
    ):
        found = torch.library.opcheck(
            operator,
            arguments,
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
        )
        assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("n", [6, 40], ids=["few rows", "tiles"])
def test_vmap_is_one_call_for_all(n):
    inputs = [t.detach() for t in problems.parameters("full", batch=(4,), n=n)]
    mapped = torch.vmap(mixture_log_prob)(*inputs)
    assert torch.equal(mapped, mixture_log_prob(*inputs))
    shared = torch.vmap(component_log_prob, in_dims=(None, 0, None, 0))(
        inputs[0][0], inputs[1], inputs[2][0], inputs[3]
    )
    expected = component_log_prob(inputs[0][0], inputs[1], inputs[2][0], inputs[3])
    assert torch.equal(shared, expected)


def _nan(tensor):
    return torch.full_like(tensor, math.nan)


BAD = {
    "x of another width": (lambda x, w, m, s: (x[:, :1], w, m, s), r"x must have shape .*2\)"),
    "x 1-D": (lambda x, w, m, s: (x[0], w, m, s), "x must have shape"),
    "wrong K of weights": (lambda x, w, m, s: (x, w[:2], m, s), r"weights .*\(2,\)"),
    "wrong K of factors": (lambda x, w, m, s: (x, w, m, s[:2]), r"factors .*\(2, 2, 2\)"),
    "means 1-D": (lambda x, w, m, s: (x, w, m[0], s), "means must have shape"),
    "no broadcast": (
        lambda x, w, m, s: (x.expand(4, 4, 2), w.expand(5, 3), m, s),
        "must broadcast",
    ),
    "array": (lambda x, w, m, s: (x, w, m.detach().numpy(), s), "means must be a torch.Tensor"),
    "integers": (lambda x, w, m, s: (x.detach().long(), w, m, s), "x must have a floating-point"),
    "x NaN": (lambda x, w, m, s: (_nan(x), w, m, s), "x of shape .* 4 of 4 rows"),
    "weights NaN": (lambda x, w, m, s: (x, _nan(w), m, s), "log-weights .* component 0"),
    "no weight": (lambda x, w, m, s: (x, w - math.inf, m, s), "all -inf"),
    "means infinite": (lambda x, w, m, s: (x, w, m + math.inf, s), "means of shape"),
    "not positive": (lambda x, w, m, s: (x, w, m, -s), "diagonals of factors be positive"),
    "singular": (lambda x, w, m, s: (x, w, m, 0 * s), "diagonals of factors be positive"),
    "other device": (lambda x, w, m, s: (x, w.to("meta"), m, s), "on meta and x on cpu"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    change, message = BAD[case]
    with pytest.raises(InputError, match=message):
        mixture_log_prob(*change(*problems.parameters("full")))


def test_unknown_names():
    with pytest.raises(InputError, match="covariance_type must be one of 'full'"):
        mixture_log_prob(*problems.parameters("full"), "fancy")
    for n in (4, 40):
        with pytest.raises(InputError, match="'scale' or 'precisions_cholesky'; got 'tril'"):
            mixture_log_prob(*problems.parameters("full", n=n), parameterisation="tril")
