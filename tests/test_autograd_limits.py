"""Differentiable log-probabilities at the ends of the numbers: far rows, NaN, broken scales."""

from __future__ import annotations

import math
from functools import partial

import pytest

torch = pytest.importorskip("torch")

import fastgmm  # noqa: E402
import torch_problems as problems  # noqa: E402
from fastgmm.autograd import (  # noqa: E402
    log_responsibilities,
    mixture_log_prob,
    responsibilities,
)
from fastgmm.distributions import GaussianMixture  # noqa: E402


@pytest.fixture(params=problems.STRUCTURES)
def structure(request):
    return request.param


@pytest.mark.parametrize("n", [9, 40], ids=["few rows", "tiles"])
def test_a_responsibility_that_underflows_gives_zero_gradients(structure, n):
    x, log_weights, means, scale = problems.parameters(structure, n=n)
    far = torch.zeros_like(means)
    far[-1] = 1e4
    x32, means32 = x.detach().float(), (means.detach() + far).float().requires_grad_()
    log_weights32 = log_weights.detach().float().requires_grad_()
    log_weights32.data[0] = -math.inf
    out = mixture_log_prob(x32, log_weights32, means32, scale.detach().float(), structure)
    by_weights, by_means = torch.autograd.grad(out.sum(), (log_weights32, means32))
    assert torch.isfinite(out).all()
    for gradient in (by_weights, by_means):
        assert (gradient[[0, -1]] == 0).all()
        assert (gradient[1] != 0).all()


@pytest.mark.parametrize("rows", [2, 40], ids=["few rows", "tiles"])
def test_a_row_out_of_reach_is_minus_infinity_without_gradients(rows):
    _, log_weights, means, scale = (t.detach() for t in problems.parameters("diag"))
    x = torch.zeros(rows, 2)
    x[0, 0] = 1e30
    x.requires_grad_()
    inputs = [x, *(t.float().requires_grad_() for t in (log_weights, means, scale))]
    out = mixture_log_prob(*inputs, "diag")
    assert torch.isneginf(out[0])
    for gradient in torch.autograd.grad(out.nan_to_num().sum(), inputs):
        assert torch.isfinite(gradient).all()
    resp = responsibilities(*inputs, "diag")
    assert torch.allclose(resp.sum(-1), torch.ones(rows))
    for gradient in torch.autograd.grad(resp.square().sum(), inputs):
        assert torch.isfinite(gradient).all()
    (gradient,) = torch.autograd.grad(responsibilities(*inputs, "diag")[0, 0], inputs[0])
    assert (gradient[0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_out_of_reach_belong_to_whom_the_estimator_gives_them(structure, dtype):
    log_weights, means, scale = (
        t.detach() for t in problems.parameters(structure, batch=(2,), k=4, spread=3)[1:]
    )
    log_weights[:, 0] = -math.inf
    log_weights -= log_weights.logsumexp(-1, keepdim=True)
    x = torch.zeros(2, 9, 2, dtype=dtype)
    x[0, 0], x[0, 1], x[1, 2] = 1e30, torch.tensor([-3e19, 1e20]), torch.tensor([2e38, -3e38])
    if dtype == torch.float64:
        x *= 1e260
    given = (log_weights, means, scale)
    resp = responsibilities(x, *(t.to(dtype) for t in given), structure)
    log_resp = torch.func.vmap(partial(log_responsibilities, covariance_type=structure))
    mapped = log_resp(x, *(t.to(dtype) for t in given))
    torch.testing.assert_close(mapped.exp(), resp)
    for b in range(2):
        spread = scale[b] @ scale[b].mT if structure in ("full", "tied") else scale[b] ** 2
        model = fastgmm.GaussianMixture.from_parameters(
            log_weights[b].exp(), means[b], spread, covariance_type=structure
        )
        torch.testing.assert_close(resp[b], model.predict_proba(x[b]), rtol=1e-4, atol=1e-5)


def test_a_component_without_weight_gets_no_row_however_far():
    mixture = GaussianMixture(
        torch.tensor([0.0, 1.0]), torch.tensor([[0.0], [4.0]]), variances=torch.ones(2, 1)
    )
    far = torch.tensor([[1e20], [-1e20]])
    assert mixture.posterior(far).probs.tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("n", [5, 40], ids=["few rows", "tiles"])
def test_nan_stays_where_it_is(n):
    problems.nan_stays_where_it_is(problems.parameters("full", batch=(3,), n=n))


@pytest.mark.parametrize("n", [9, 64], ids=["few rows", "tiles"])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("structure", ["full", "diag"])
def test_gradients_where_a_rounding_is_many_nats(structure, k, n):
    x = torch.linspace(64800, 65500, n)[:, None].requires_grad_()
    scale = torch.ones((k, 1, 1) if structure == "full" else (k, 1))
    means = -torch.arange(float(k))[:, None]
    out = mixture_log_prob(x, torch.zeros(k), means, scale, structure)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    problems.assert_near(gradient, -x, 1e-5)


def test_a_component_whose_squares_overflow_is_out_of_reach():
    x = torch.tensor([[1e30, 0.0], [0.0, 0.0]], requires_grad=True)
    scale = torch.tensor([1e-10, 1e30])[:, None, None] * torch.eye(2)
    out = mixture_log_prob(x, torch.zeros(2), torch.zeros(2, 2), scale)
    expected = -math.log(2 * math.pi) - 2 * math.log(1e30) - 0.5
    assert out[0].item() == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(torch.autograd.grad(out.sum(), x)[0]).all()


@pytest.mark.parametrize("n", [5, 40], ids=["few rows", "tiles"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_scale_that_is_not_positive_gives_nan(structure, value, n):
    x, log_weights, means, scale = problems.parameters(structure, batch=(2,), n=n)
    scale.data[0] *= value
    out = mixture_log_prob(x, log_weights, means, scale, structure, validate=False)
    found = torch.autograd.grad(out.sum(), (x, log_weights, means))
    for array in (out, *found):
        assert torch.isnan(array[0]).all()
        assert torch.isfinite(array[1]).all()


@pytest.mark.parametrize("n", [5, 40], ids=["few rows", "tiles"])
def test_second_derivatives_without_a_row_of_nan(n):
    inputs = problems.parameters("full", n=n)
    inputs[0].data[1, 0] = math.nan
    keep = torch.arange(n) != 1

    def second(values):
        first = torch.autograd.grad(values.square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), inputs)

    found = second(torch.where(keep, mixture_log_prob(*inputs, validate=False), 0.0))
    wanted = second(mixture_log_prob(inputs[0][keep], *inputs[1:]))
    for a, b in zip(found, wanted, strict=True):
        problems.assert_near(a, b, 1e-11)
