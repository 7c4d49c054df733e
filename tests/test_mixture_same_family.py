"""fastgmm.distributions.MixtureSameFamily against torch's, over families and shapes."""

from __future__ import annotations

import copy
import math
import pickle

import pytest

torch = pytest.importorskip("torch")

import torch.distributions as td  # noqa: E402

import torch_problems as problems  # noqa: E402
from fastgmm.distributions import MixtureSameFamily  # noqa: E402
from fastgmm.distributions.families import gaussian_parameters, select  # noqa: E402
from fastgmm.errors import InputError  # noqa: E402

K = 3
DOUBLE = torch.float64


def _positive(*shape):
    return torch.rand(shape, dtype=DOUBLE) + 0.5


def _real(*shape):
    return torch.randn(shape, dtype=DOUBLE)


def _triangles(*shape):
    return torch.diag_embed(_positive(*shape, 2)) + 0.3 * _real(*shape, 2, 2).tril(-1)


# Components with the batch shape (*lead, K), and the rows of torch that their events have.
FAMILIES = {
    "Normal": lambda *b: td.Normal(_real(*b), _positive(*b)),
    "Independent Normal": lambda *b: td.Independent(td.Normal(_real(*b, 4), _positive(*b, 4)), 1),
    "Normal matrices": lambda *b: td.Independent(
        td.Normal(_real(*b, 2, 3), _positive(*b, 2, 3)), 2
    ),
    "MultivariateNormal": lambda *b: td.MultivariateNormal(_real(*b, 2), scale_tril=_triangles(*b)),
    "LowRank": lambda *b: td.LowRankMultivariateNormal(
        _real(*b, 3), _real(*b, 3, 1), _positive(*b, 3)
    ),
    "StudentT": lambda *b: td.StudentT(_positive(*b) + 4, _real(*b), _positive(*b)),
    "Laplace": lambda *b: td.Laplace(_real(*b), _positive(*b)),
    "Gamma": lambda *b: td.Gamma(_positive(*b), _positive(*b)),
    "Beta": lambda *b: td.Beta(_positive(*b), _positive(*b)),
    "Dirichlet": lambda *b: td.Dirichlet(_positive(*b, 3)),
    "LogNormal": lambda *b: td.LogNormal(_real(*b), 0.3 * _positive(*b)),
    "Poisson": lambda *b: td.Poisson(3 * _positive(*b)),
    "Bernoulli": lambda *b: td.Bernoulli(logits=_real(*b)),
    "Independent Bernoulli": lambda *b: td.Independent(td.Bernoulli(_positive(*b, 4) / 2), 1),
    "Binomial": lambda *b: td.Binomial(total_count=10, probs=_positive(*b) / 2),
    "Multinomial": lambda *b: td.Multinomial(10, _positive(*b, 3)),
    # Bounds of their own would leave torch with no value that all components accept.
    "Uniform": lambda *b: td.Uniform(_real(*b) * 0, torch.full(b, 2.0, dtype=DOUBLE)),
}
GAUSSIAN = {"Normal", "Independent Normal", "Normal matrices", "MultivariateNormal"}
BATCHES = [(), (4,), (2, 3)]


def build(family, batch=(), seed=0):
    torch.manual_seed(seed)
    weights = td.Categorical(logits=_real(*batch, K))
    components = FAMILIES[family](*batch, K)
    return MixtureSameFamily(weights, components), td.MixtureSameFamily(weights, components)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_against_torch(family, batch):
    ours, theirs = build(family, batch)
    assert (ours.batch_shape, ours.event_shape) == (theirs.batch_shape, theirs.event_shape)
    assert isinstance(ours, td.MixtureSameFamily)
    assert ours.has_rsample == (family in GAUSSIAN)
    for name in ("mean", "variance", "stddev"):
        problems.assert_near(getattr(ours, name), getattr(theirs, name), 1e-12, name)
    for sample_shape in ((), (6,), (2, 3)):
        value = theirs.sample(sample_shape)
        problems.assert_near(ours.log_prob(value), theirs.log_prob(value), 1e-12)
        drawn = ours.sample(sample_shape)
        assert theirs.support.check(drawn).all()
        assert drawn.shape == value.shape
        assert drawn.dtype == value.dtype
        assert not drawn.requires_grad
        joint = ours.component_distribution.log_prob(theirs._pad(value))
        expected = (joint + ours.mixture_distribution.logits).softmax(-1)
        problems.assert_near(ours.responsibilities(value), expected, 1e-11)
        problems.assert_near(ours.posterior(value).probs, expected, 1e-11)
    assert ours.sample((0,)).shape == (0, *batch, *ours.event_shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_moments_of_samples(family):
    ours, _ = build(family, (2,), seed=1)
    drawn = ours.sample((20_000,)).double()
    error = (drawn.mean(0) - ours.mean).abs() / (ours.variance / 20_000).sqrt()
    assert error.max() < 4.5
    assert ((drawn.var(0) / ours.variance).log().abs() < 0.25).all()


@pytest.mark.parametrize("family", ["Normal", "Laplace", "StudentT"])
def test_cdf_where_torch_has_one(family):
    ours, theirs = build(family, (4,))
    value = theirs.sample((5,))
    if family == "StudentT":
        with pytest.raises(NotImplementedError):
            ours.cdf(value)
        return
    problems.assert_near(ours.cdf(value), theirs.cdf(value), 1e-12)


@pytest.mark.parametrize("family", sorted(GAUSSIAN))
def test_gradients_of_gaussian_families(family):
    torch.manual_seed(0)
    logits = _real(2, K).requires_grad_()
    plain = FAMILIES[family](2, K)
    base = plain.base_dist if isinstance(plain, td.Independent) else plain
    loc = base.loc.clone().requires_grad_()
    name = "scale_tril" if family == "MultivariateNormal" else "scale"
    scale = getattr(base, name).clone().requires_grad_()
    components = type(base)(loc, **{name: scale})
    if isinstance(plain, td.Independent):
        components = td.Independent(components, plain.reinterpreted_batch_ndims)
    given = td.Categorical(logits=logits), components
    value = plain.sample((5,))[:, :, 0].requires_grad_()
    inputs = (value, logits, loc, scale)
    results = [
        torch.autograd.grad(cls(*given).log_prob(value).square().sum(), inputs, retain_graph=True)
        for cls in (MixtureSameFamily, td.MixtureSameFamily)
    ]
    for a, b in zip(*results, strict=True):
        problems.assert_near(a, b, 1e-9)


def test_gaussian_families_take_the_kernels(monkeypatch):
    from fastgmm.distributions import gaussians

    calls = []
    original = gaussians.autograd.mixture_log_prob
    monkeypatch.setattr(
        gaussians.autograd, "mixture_log_prob", lambda *a, **k: calls.append(1) or original(*a, **k)
    )
    for family in FAMILIES:
        ours, theirs = build(family)
        ours.log_prob(theirs.sample((2,)))
        assert bool(calls) == (family in GAUSSIAN), family
        calls.clear()


def test_only_what_is_needed_is_drawn():
    drawn = []

    class Counting(td.Laplace):
        def rsample(self, sample_shape=()):
            value = super().rsample(sample_shape)
            drawn.append(value.numel())
            return value

    mixture = MixtureSameFamily(
        td.Categorical(torch.ones(K)), Counting(torch.zeros(K), torch.ones(K))
    )
    assert mixture.sample((1000,)).shape == (1000,)
    assert drawn == [1000]


def test_families_that_cannot_be_built_again_draw_all():
    torch.manual_seed(0)
    limited = td.ContinuousBernoulli(torch.full((K,), 0.5), lims=(0.4, 0.6))
    assert select(limited, torch.zeros(4, dtype=torch.int64)) is None
    base = td.Normal(torch.zeros(K), torch.ones(K))
    moved = td.TransformedDistribution(base, [td.AffineTransform(torch.tensor([0.0, 5, 9]), 1.0)])
    assert select(moved, torch.zeros(4, dtype=torch.int64)) is None
    mixture = MixtureSameFamily(td.Categorical(torch.tensor([0.0, 0.0, 1.0])), moved)
    assert mixture.sample((500,)).mean() == pytest.approx(9, abs=0.2)
    with pytest.raises(NotImplementedError, match="TransformedDistribution"):
        mixture.rsample()


class Plain(td.Laplace):
    def __init__(self, loc, scale):
        super().__init__(loc, scale)


class Variadic(td.Laplace):
    def __init__(self, *parameters):
        super().__init__(*parameters)


class Keywords(td.Laplace):
    def __init__(self, loc, **others):
        super().__init__(loc, **others)


class Positional(td.Laplace):
    def __init__(self, loc, scale, /):
        super().__init__(loc, scale)


@pytest.mark.parametrize("family", [Plain, Variadic, Keywords, Positional, "mixture"])
def test_families_with_other_constructors(family):
    loc, scale = 10 * torch.arange(3.0), torch.full((3,), 0.1)
    if family == "mixture":
        pairs = td.Normal(loc[:, None].expand(3, 2), 0.1)
        components = td.MixtureSameFamily(td.Categorical(torch.ones(3, 2)), pairs)
    else:
        components = family(loc, scale=scale) if family is Keywords else family(loc, scale)
    chosen = select(components, torch.tensor([2, 0, 2]))
    assert (chosen is not None) == (family is Plain)
    mixture = MixtureSameFamily(td.Categorical(torch.tensor([0.0, 0.0, 1.0])), components)
    drawn = mixture.sample((5,))
    assert drawn.shape == (5,)
    assert (drawn - 20).abs().max() < 4


def test_probabilities_stay_as_they_were_given():
    labels, sure, far = torch.arange(2), torch.tensor([0.0, 1.0]), torch.tensor([-200.0, 200.0])
    given, other = td.Bernoulli(sure), td.Bernoulli(logits=far)
    # What is derived is kept beside it, and clamped.
    assert given.logits.isfinite().all()
    assert torch.equal(other.probs, sure)
    assert torch.equal(select(given, labels).probs, sure)
    assert torch.equal(select(other, labels).logits, far)
    sides = td.OneHotCategorical(torch.eye(2))
    assert torch.equal(select(sides, labels).probs, torch.eye(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_gaussians_of_probability_zero_are_never_drawn(dtype):
    shares = torch.tensor([0.0, 1.0], dtype=dtype, requires_grad=True)
    parts = td.Normal(torch.tensor([0.0, 9.0], dtype=dtype), torch.ones(2, dtype=dtype))
    classes = MixtureSameFamily, td.MixtureSameFamily
    ours, theirs = (cls(td.Categorical(shares), parts) for cls in classes)
    # Half precision has no probability between 0 and a thousandth.
    assert ours.sample((20_000,)).min() > 3
    drawn = ours.rsample((20_000,))
    assert drawn.min() > 3
    (gradient,) = torch.autograd.grad(drawn.sum(), shares)
    assert gradient.isfinite().all()
    value = torch.tensor([0.0, 9.0], dtype=dtype)
    if dtype == torch.float64:
        problems.assert_near(ours.log_prob(value), theirs.log_prob(value), 1e-12)


def test_constraints_that_depend_on_other_parameters():
    labels = torch.tensor([2, 0, 2])
    low = torch.arange(3.0)
    assert torch.equal(select(td.Uniform(low, low + 1), labels).low, low[labels])
    wishart = td.Wishart(low + 5, scale_tril=(low + 1)[:, None, None] * torch.eye(2))
    chosen = select(wishart, labels)
    assert torch.equal(chosen.df, wishart.df[labels])
    assert torch.equal(chosen.scale_tril, wishart.scale_tril[labels])

    class Unnamed(td.Laplace):
        @property
        def arg_constraints(self):
            raise NotImplementedError

    assert select(Unnamed(low, low + 1, validate_args=False), labels) is None


def test_shared_weights_and_batched_components():
    components = td.Normal(_real(4, K), _positive(4, K))
    weights = _positive(K)
    ours = MixtureSameFamily(td.Categorical(weights), components)
    theirs = td.MixtureSameFamily(td.Categorical(weights.expand(4, K)), components)
    assert ours.batch_shape == (4,)
    value = theirs.sample((7,))
    problems.assert_near(ours.log_prob(value), theirs.log_prob(value), 1e-12)
    problems.assert_near(ours.mean, theirs.mean, 1e-12)
    assert ours.sample((7,)).shape == (7, 4)
    other = MixtureSameFamily(
        td.Categorical(weights.expand(4, K)), td.Normal(_real(K), _positive(K))
    )
    assert other.batch_shape == (4,)
    assert other.sample((7,)).shape == other.log_prob(value).shape == (7, 4)


@pytest.mark.parametrize("family", ["Normal", "MultivariateNormal", "Gamma"])
def test_batches_of_one_broadcast(family):
    ours, theirs = build(family, (1,))
    value = theirs.sample((7,))[:, 0]
    problems.assert_near(ours.log_prob(value), theirs.log_prob(value), 1e-12)
    assert ours.posterior(value).probs.shape == ours.responsibilities(value).shape == (7, K)


@pytest.mark.parametrize("family", ["MultivariateNormal", "Gamma", "Normal matrices"])
def test_expand_pickle_and_wrap(family):
    ours, theirs = build(family, (3,))
    value = theirs.sample((4,))
    expected = theirs.log_prob(value)
    wide = ours.expand((4, 3))
    assert isinstance(wide, MixtureSameFamily)
    problems.assert_near(wide.log_prob(value), expected, 1e-12)
    for other in (pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
        problems.assert_near(other.log_prob(value), expected, 1e-12)
    problems.assert_near(td.Independent(ours, 1).log_prob(value), expected.sum(-1), 1e-12)


def test_gaussian_parameters_of_odd_wrappers():
    normal = td.Normal(torch.zeros(2, K), torch.ones(2, K))
    assert gaussian_parameters(td.Independent(normal, 0)) is None
    assert gaussian_parameters(td.Gamma(torch.ones(K), torch.ones(K))) is None


def test_validation():
    ours = MixtureSameFamily(
        td.Categorical(torch.ones(2)), td.Normal(torch.zeros(2), torch.ones(2)), validate_args=True
    )
    with pytest.raises(ValueError, match="support"):
        ours.log_prob(torch.tensor(math.nan))
    loose = MixtureSameFamily(
        td.Categorical(torch.ones(2)), td.Normal(torch.zeros(2), torch.ones(2)), validate_args=False
    )
    assert torch.isnan(loose.log_prob(torch.tensor(math.nan)))
    gamma, _ = build("Gamma")
    with pytest.raises(ValueError, match="support"):
        gamma.log_prob(torch.tensor(-1.0, dtype=DOUBLE))


@pytest.mark.parametrize(
    ("weights", "components", "message"),
    [
        (td.Normal(0.0, 1.0), td.Normal(torch.zeros(2), 1.0), "must be a Categorical"),
        (td.Categorical(torch.ones(2)), torch.zeros(2), "must be a Distribution"),
        (td.Categorical(torch.ones(2)), td.Normal(torch.zeros(3), 1.0), r"\(..., 2\)"),
        (td.Categorical(torch.ones(2)), td.Normal(0.0, 1.0), r"\(..., 2\)"),
        (
            td.Categorical(torch.ones(5, 2)),
            td.Normal(torch.zeros(4, 2), 1.0),
            r"\(5,\) .* \(4,\)",
        ),
    ],
    ids=["no Categorical", "no Distribution", "wrong K", "no K", "no broadcast"],
)
def test_bad_arguments(weights, components, message):
    with pytest.raises(InputError, match=message):
        MixtureSameFamily(weights, components)


def test_bad_value():
    ours, _ = build("MultivariateNormal")
    with pytest.raises(InputError, match=r"\(..., 2\); got \(3,\)"):
        ours.log_prob(torch.zeros(3))
