"""Gradients of samples: implicit reparameterisation against inverted distribution functions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

torch = pytest.importorskip("torch")

import torch_problems as problems  # noqa: E402
from fastgmm.distributions import GaussianMixture, MixtureSameFamily, implicit  # noqa: E402


def transform(x, weights, means, triangles):
    """Conditional distribution functions of each feature, by conditional normals in NumPy."""
    out = np.empty(len(x))
    shares = np.log(weights)
    for d in range(len(x)):
        below, density = np.empty(len(weights)), np.empty(len(weights))
        for k, triangle in enumerate(triangles):
            covariance = triangle @ triangle.T
            inner = np.linalg.solve(covariance[:d, :d], covariance[:d, d]) if d else np.zeros(0)
            mean = means[k, d] + inner @ (x[:d] - means[k, :d])
            deviation = np.sqrt(covariance[d, d] - inner @ covariance[:d, d])
            below[k] = stats.norm.cdf(x[d], mean, deviation)
            density[k] = stats.norm.logpdf(x[d], mean, deviation)
        mass = np.exp(shares - shares.max())
        out[d] = (mass * below).sum() / mass.sum()
        shares = shares + density
    return out


def invert(uniform, start, *parameters):
    """The value whose transform is ``uniform``: feature by feature."""
    x = start.copy()
    for d in range(len(x)):

        def miss(value, d=d):
            trial = x.copy()
            trial[d] = value
            return (
                transform(trial[: d + 1], *(_first(p, d + 1) for p in parameters))[d] - uniform[d]
            )

        x[d] = optimize.brentq(miss, x[d] - 0.5, x[d] + 0.5, xtol=1e-14)
    return x


def _first(array, d):
    return array if array.ndim == 1 else array[(slice(None), *(slice(d),) * (array.ndim - 1))]


@pytest.mark.parametrize("structure", ["full", "diag"])
def test_gradients_keep_the_distribution_functions(structure):
    torch.manual_seed(0)
    _, logits, means, scale = problems.parameters(structure, k=3, d=2, seed=3)
    given = {"scale_tril": scale} if structure == "full" else {"variances": scale**2}
    mixture = GaussianMixture(logits=logits, means=means, **given)
    x = mixture.rsample((3,))
    upstream = torch.randn(3, 2, dtype=torch.float64)
    found = torch.autograd.grad((x * upstream).sum(), (logits, means, scale))

    def moved(index, step):
        values = [t.detach().clone() for t in (logits, means, scale)]
        values[index[0]].view(-1)[index[1]] += step
        triangles = values[2].tril() if structure == "full" else torch.diag_embed(values[2])
        parameters = [t.numpy() for t in (values[0].softmax(-1), values[1], triangles)]
        return [
            invert(u, row, *parameters) for u, row in zip(uniform, x.detach().numpy(), strict=True)
        ]

    triangles = scale.tril() if structure == "full" else torch.diag_embed(scale)
    now = [t.detach().numpy() for t in (logits.softmax(-1), means, triangles)]
    uniform = [transform(row, *now) for row in x.detach().numpy()]
    step = 1e-5
    for which, gradient in enumerate(found):
        for place in range(gradient.numel()):
            if which == 2 and structure == "full" and place % 4 == 1:
                continue  # above the diagonal
            ahead, behind = moved((which, place), step), moved((which, place), -step)
            slope = (np.array(ahead) - np.array(behind)) / (2 * step)
            expected = (slope * upstream.numpy()).sum()
            assert gradient.reshape(-1)[place].item() == pytest.approx(expected, abs=2e-5)


def test_one_component_is_the_usual_reparameterisation():
    _, logits, means, scale = problems.parameters("full", k=1, d=4, batch=(3,))
    x = GaussianMixture(logits=logits, means=means, scale_tril=scale).rsample((5,))
    noise = torch.linalg.solve_triangular(
        scale[:, 0].tril(), (x - means[:, 0])[..., None], upper=False
    ).detach()
    plain = means[:, 0] + (scale[:, 0].tril() @ noise)[..., 0]
    upstream = torch.randn(x.shape, dtype=x.dtype)
    found = torch.autograd.grad(x, (means, scale), upstream)
    for a, b in zip(found, torch.autograd.grad(plain, (means, scale), upstream), strict=True):
        problems.assert_near(a, b, 1e-10)


@pytest.mark.parametrize("structure", problems.STRUCTURES)
def test_expectations_have_the_right_gradients(structure):
    """d E[f(x)] for f = x and f = x_0 x_1, which the moments give in closed form."""
    torch.manual_seed(0)
    _, logits, means, scale = problems.parameters(structure, k=3, d=2)
    given = {"scale_tril": scale} if structure in ("full", "tied") else {"variances": scale**2}
    mixture = GaussianMixture(logits=logits, means=means, covariance_type=structure, **given)
    parameters = (logits, means, scale)
    x = mixture.rsample((60_000,))
    second = mixture.covariance[0, 1] + mixture.mean[0] * mixture.mean[1]
    for estimate, exact in (
        (x.mean(0).sum(), mixture.mean.sum()),
        ((x[:, 0] * x[:, 1]).mean(), second),
    ):
        found = problems.gradients(estimate, None, parameters)
        wanted = problems.gradients(exact, None, parameters)
        for a, b in zip(found, wanted, strict=True):
            b = torch.zeros_like(a) if b is None else b
            b = b.tril() if structure in ("full", "tied") and a is found[2] else b
            assert (a - b).abs().max() < 0.06 * max(1.0, float(b.abs().max()))


def test_chunks_add_up(monkeypatch):
    torch.manual_seed(0)
    _, logits, means, scale = problems.parameters("full", k=3, d=2, batch=(2,))
    results = []
    for size in (1 << 22, 64):
        monkeypatch.setattr(implicit, "_CHUNK", size)
        torch.manual_seed(1)
        x = GaussianMixture(logits=logits, means=means, scale_tril=scale).rsample((11,))
        results.append(torch.autograd.grad(x.square().sum(), (logits, means, scale)))
    for a, b in zip(*results, strict=True):
        problems.assert_near(a, b, 1e-12)


def test_normal_components_in_one_dimension():
    """dx / dparameter = -dF / dparameter / p(x)."""
    torch.manual_seed(0)
    logits = torch.randn(3, dtype=torch.float64, requires_grad=True)
    loc = torch.randn(3, dtype=torch.float64, requires_grad=True)
    scale = (torch.rand(3, dtype=torch.float64) + 0.5).requires_grad_()
    mixture = MixtureSameFamily(
        torch.distributions.Categorical(logits=logits), torch.distributions.Normal(loc, scale)
    )
    assert mixture.has_rsample
    x = mixture.rsample((4,))
    assert x.shape == (4,)
    parameters = (logits, loc, scale)
    found = torch.autograd.grad(x[2], parameters, retain_graph=True)
    value = x[2].detach()
    wanted = torch.autograd.grad(mixture.cdf(value), parameters, retain_graph=True)
    density = mixture.log_prob(value).exp()
    for a, b in zip(found, wanted, strict=True):
        problems.assert_near(a, -b / density, 1e-9)


def test_without_gradients_it_is_sample():
    _, logits, means, scale = problems.parameters("full")
    mixture = GaussianMixture(logits=logits, means=means, scale_tril=scale)
    with torch.no_grad():
        torch.manual_seed(0)
        drawn = mixture.rsample((4,))
    torch.manual_seed(0)
    assert torch.equal(drawn, mixture.sample((4,)))
    assert not drawn.requires_grad


def test_second_derivatives_see_that_the_sample_moves():
    _, logits, means, scale = (t.detach() for t in problems.parameters("full", k=3, d=2, seed=3))
    start = GaussianMixture(logits=logits, means=means, scale_tril=scale).sample().numpy()
    upstream, direction = (
        torch.randn(2, dtype=torch.float64),
        torch.randn(3, 2, dtype=torch.float64),
    )
    precise = torch.linalg.inv(scale.tril())

    def parameters(step):
        moved = means + step * direction
        return [t.numpy() for t in (logits.softmax(-1), moved, scale.tril())]

    def slope(step):
        x = invert(transform(start, *parameters(0.0)), start, *parameters(step))
        moved = (means + step * direction).requires_grad_()
        given = torch.from_numpy(x)[None, None], logits.log_softmax(-1)[None], moved[None]
        value = (implicit.attach(*given, precise[None]) * upstream).sum()
        (gradient,) = torch.autograd.grad(value, moved, create_graph=True)
        return gradient, moved

    gradient, moved = slope(0.0)
    (found,) = torch.autograd.grad((gradient * direction).sum(), moved)
    ahead, behind = (slope(step)[0].detach() for step in (1e-4, -1e-4))
    expected = ((ahead - behind) / 2e-4 * direction).sum()
    assert (found * direction).sum().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("structure", ["full", "diag"])
def test_under_the_transforms_of_functions(structure):
    _, *parameters = (t.detach() for t in problems.parameters(structure, batch=(4,), k=3, d=2))
    name = "scale_tril" if structure == "full" else "variances"

    def draw(logits, means, scale):
        mixture = GaussianMixture(logits=logits, means=means, **{name: scale}, validate_args=False)
        return mixture.rsample((5,)).square().sum()

    torch.manual_seed(0)
    found = torch.func.grad(draw, argnums=(0, 1, 2))(*parameters)
    torch.manual_seed(0)
    inputs = [p.clone().requires_grad_() for p in parameters]
    expected = torch.autograd.grad(draw(*inputs), inputs)
    for a, b in zip(found, expected, strict=True):
        problems.assert_near(a, b, 1e-12)
    mapped = torch.vmap(torch.func.grad(draw, argnums=(0, 1, 2)), randomness="different")
    for gradient, parameter in zip(mapped(*parameters), parameters, strict=True):
        assert gradient.shape == parameter.shape
        assert gradient.isfinite().all()
