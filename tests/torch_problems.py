"""Mixtures as tensors, and the truth about them by torch's own distributions in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributions as td

from fastgmm.autograd import mixture_log_prob

STRUCTURES = ("full", "tied", "diag", "tied_diag", "spherical", "tied_spherical")


def factor_shape(structure, k, d):
    return {
        "full": (k, d, d),
        "tied": (d, d),
        "diag": (k, d),
        "tied_diag": (d,),
        "spherical": (k,),
        "tied_spherical": (),
    }[structure]


def parameters(structure, *, batch=(), n=4, k=3, d=2, dtype=torch.float64, seed=0, spread=1.0):
    """x, log-weights (not normalised), means and scale, all with gradients."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn((*batch, *shape), dtype=torch.float64, generator=generator)

    x, log_weights, means = normal(n, d), normal(k), spread * normal(k, d)
    noise = normal(*factor_shape(structure, k, d))
    if structure in ("full", "tied"):
        scale = (noise / d**0.5).tril(-1) + torch.diag_embed(
            (0.3 * noise.diagonal(dim1=-2, dim2=-1)).exp()
        )
    else:
        scale = (0.3 * noise).exp()
    return [t.to(dtype).requires_grad_() for t in (x, log_weights, means, scale)]


def dense_scale(structure, scale, k, d):
    """The scale of any structure as triangles (..., K, D, D)."""
    if structure in ("full", "tied"):
        triangle = scale.tril()
        return (
            triangle
            if structure == "full"
            else triangle.unsqueeze(-3).expand(*triangle.shape[:-2], k, d, d)
        )
    if structure == "tied_spherical":
        scale = scale[..., None]
    if structure.endswith("spherical"):
        scale = scale[..., None].expand(*scale.shape, d)
    if structure.startswith("tied"):
        scale = scale.expand(*scale.shape[:-1], d)
        scale = scale.unsqueeze(-2) if structure == "tied_diag" else scale
    return torch.diag_embed(scale.expand(*scale.shape[:-2], k, d))


def truth(structure, x, log_weights, means, scale):
    """Weighted log-densities of components, (..., N, K), by torch.distributions."""
    k, d = means.shape[-2:]
    components = td.MultivariateNormal(means, scale_tril=dense_scale(structure, scale, k, d))
    value = x.movedim(-2, 0)[..., None, :]
    return (components.log_prob(value) + log_weights).movedim(0, -2)


@pytest.fixture
def default_validation(monkeypatch):
    """torch.compile turns the validation of all distributions off, for good; this puts it back."""
    monkeypatch.setattr(td.Distribution, "_validate_args", td.Distribution._validate_args)


def gradients(output, upstream, inputs):
    return torch.autograd.grad(output, inputs, upstream, allow_unused=True, retain_graph=True)


def assert_near(got, expected, rtol, what="", floor=0.0):
    """Relative to the largest entry, or to ``floor``."""
    assert got.shape == expected.shape, (what, got.shape, expected.shape)
    if expected.numel() == 0:
        return
    error = (got.detach().double() - expected.detach().double()).abs().max()
    size = max(float(expected.detach().double().abs().max()), floor, 1e-300)
    assert error <= rtol * size, (what, float(error), size)


def nan_stays_where_it_is(inputs):
    """NaN in a row spoils that row, in a mean its mixture, and nothing else; three mixtures."""
    inputs = [t.detach() for t in inputs]
    inputs[0][0, 2, 0] = math.nan
    inputs[2][1, 0, 0] = math.nan
    for t in inputs:
        t.requires_grad_()
    out = mixture_log_prob(*inputs, validate=False)
    bad = torch.isnan(out)
    assert bad[0].nonzero().tolist() == [[2]]
    assert bad[1].all()
    assert not bad[2].any()
    used = torch.where(bad, 0.0, out).sum()
    for gradient in torch.autograd.grad(used, inputs):
        assert torch.isfinite(gradient[[0, 2]]).all()
    (by_weights,) = torch.autograd.grad(mixture_log_prob(*inputs, validate=False).sum(), inputs[1])
    assert torch.isnan(by_weights[0]).all()
    assert torch.isfinite(by_weights[2]).all()
