"""fastgmm.distributions.GaussianMixture against torch's distributions."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest

torch = pytest.importorskip("torch")

import torch.distributions as td  # noqa: E402

import torch_problems as problems  # noqa: E402
from fastgmm.distributions import GaussianMixture, kl_monte_carlo  # noqa: E402
from fastgmm.errors import InputError, SingularCovarianceError  # noqa: E402

BATCHES = [(), (4,), (2, 3)]


def build(structure, batch=(), k=3, d=2, dtype=torch.float64):
    """The mixture, torch's with the same parameters, and the parameters."""
    _, logits, means, scale = problems.parameters(structure, batch=batch, k=k, d=d, dtype=dtype)
    given = {"scale_tril": scale} if structure in ("full", "tied") else {"variances": scale**2}
    ours = GaussianMixture(logits=logits, means=means, covariance_type=structure, **given)
    triangles = problems.dense_scale(structure, scale, k, d)
    components = td.MultivariateNormal(means, scale_tril=triangles)
    theirs = td.MixtureSameFamily(td.Categorical(logits=logits), components)
    return ours, theirs, (logits, means, scale)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("structure", problems.STRUCTURES)
def test_against_torch(structure, batch):
    ours, theirs, parameters = build(structure, batch)
    assert (ours.batch_shape, ours.event_shape) == (theirs.batch_shape, theirs.event_shape)
    problems.assert_near(ours.mean, theirs.mean, 1e-12)
    problems.assert_near(ours.variance, theirs.variance, 1e-12)
    problems.assert_near(ours.stddev, theirs.stddev, 1e-12)
    for sample_shape in ((), (5,), (2, 5)):
        value = theirs.sample(sample_shape).requires_grad_()
        got, expected = ours.log_prob(value), theirs.log_prob(value)
        problems.assert_near(got, expected, 1e-12)
        upstream = torch.linspace(-1, 2, expected.numel(), dtype=expected.dtype)
        upstream = upstream.reshape(expected.shape)
        inputs = (value, *parameters)
        found = problems.gradients(got, upstream, inputs)
        for a, b in zip(found, problems.gradients(expected, upstream, inputs), strict=True):
            problems.assert_near(a, b, 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dtypes(dtype):
    ours, theirs, _ = build("full", dtype=dtype)
    value = theirs.sample((7,))
    assert ours.log_prob(value).dtype == dtype
    assert ours.sample().dtype == dtype
    problems.assert_near(ours.log_prob(value), theirs.log_prob(value), 1e-5)


@pytest.mark.parametrize("structure", ["full", "tied", "diag", "spherical", "tied_diag"])
def test_every_way_to_give_the_covariances(structure):
    ours, _, (logits, means, scale) = build(structure)
    kind = {"covariance_type": structure}
    if structure in ("full", "tied"):
        covariances = scale @ scale.mT
        precisions = torch.linalg.inv(covariances)
        precisions = (precisions + precisions.mT) / 2
    else:
        covariances, precisions = scale**2, scale**-2
    value = torch.randn(20, 2, dtype=torch.float64)
    for given in ({"covariances": covariances}, {"precisions": precisions}):
        other = GaussianMixture(logits.exp(), means, **given, **kind)
        problems.assert_near(other.scale, ours.scale, 1e-12)
        problems.assert_near(other.log_prob(value), ours.log_prob(value), 1e-11)
        (gradient,) = torch.autograd.grad(other.log_prob(value).sum(), scale, retain_graph=True)
        (expected,) = torch.autograd.grad(ours.log_prob(value).sum(), scale, retain_graph=True)
        if structure in ("full", "tied"):
            gradient = gradient.tril()
        problems.assert_near(gradient, expected, 1e-9)


def test_moments_of_samples():
    torch.manual_seed(0)
    for structure in problems.STRUCTURES:
        ours, _, _ = build(structure, (2,))
        drawn = ours.sample((40_000,))
        assert drawn.shape == (40_000, 2, 2)
        assert not drawn.requires_grad
        error = (drawn.mean(0) - ours.mean).abs() / (ours.variance / 40_000).sqrt()
        assert error.max() < 4.5
        covariance = torch.stack([torch.cov(drawn[:, b].T) for b in range(2)])
        problems.assert_near(covariance, ours.covariance, 0.05)
    shares = ours.responsibilities(drawn).mean(0)
    assert (shares - ours.weights).abs().max() < 0.01


def test_samples_follow_the_distribution_function():
    torch.manual_seed(1)
    mixture = GaussianMixture(
        torch.tensor([0.2, 0.5, 0.3]),
        torch.tensor([[-4.0], [0.0], [1.0]]),
        variances=torch.tensor([[0.25], [1.0], [4.0]]),
    )
    uniform = mixture.cdf(mixture.sample((20_000,))).sort().values
    steps = torch.linspace(0, 1, 20_000)
    assert (uniform - steps).abs().max() < 1.63 / math.sqrt(20_000)  # Kolmogorov, 1 %
    assert torch.allclose(mixture.cdf(torch.tensor([[-1e9], [1e9]])), torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("structure", ["diag", "spherical", "tied_diag"])
def test_cdf_is_the_integral_of_the_density(structure):
    ours, _, _ = build(structure)
    ours = GaussianMixture(
        logits=ours.logits.detach(),
        means=ours.means.detach(),
        variances=ours.scale.detach() ** 2,
        covariance_type=structure,
    )
    top = torch.tensor([0.3, -0.2], dtype=torch.float64)
    grid = torch.linspace(-9, 0, 301, dtype=torch.float64)
    mesh = torch.stack(torch.meshgrid(grid + top[0], grid + top[1], indexing="ij"), -1)
    inner = torch.trapezoid(ours.log_prob(mesh).exp(), dx=float(grid[1] - grid[0]))
    assert torch.trapezoid(inner, dx=float(grid[1] - grid[0])) == pytest.approx(
        float(ours.cdf(top)), rel=1e-3
    )


def test_cdf_that_does_not_exist():
    ours, _, _ = build("full")
    with pytest.raises(NotImplementedError, match="no closed form in more than one dimension"):
        ours.cdf(torch.zeros(2, dtype=torch.float64))


def test_posterior_is_bayes_rule():
    ours, theirs, (logits, _, _) = build("full", (3,))
    value = theirs.sample((6,))
    joint = theirs.component_distribution.log_prob(value[..., None, :]) + logits.log_softmax(-1)
    posterior = ours.posterior(value)
    assert posterior.batch_shape == (6, 3)
    problems.assert_near(posterior.probs, joint.softmax(-1), 1e-12)
    problems.assert_near(ours.responsibilities(value), joint.softmax(-1), 1e-12)


@pytest.mark.parametrize(
    ("batch", "shape"), [((1,), (7,)), ((1,), (6, 4)), ((1, 3), (2, 3)), ((2, 1), (4, 2, 5))]
)
def test_batches_of_one_broadcast(batch, shape):
    ours, theirs, parameters = build("full", batch)
    value = torch.randn(*shape, 2, dtype=torch.float64)
    got, expected = ours.log_prob(value), theirs.log_prob(value)
    problems.assert_near(got, expected, 1e-12)
    found, wanted = (
        problems.gradients(f.square().sum(), None, parameters) for f in (got, expected)
    )
    for a, b in zip(found, wanted, strict=True):
        problems.assert_near(a, b, 1e-9)
    joint = theirs.component_distribution.log_prob(value[..., None, :]) + ours.logits
    problems.assert_near(ours.responsibilities(value), joint.softmax(-1), 1e-11)
    problems.assert_near(ours.posterior(value).probs, joint.softmax(-1), 1e-11)


def test_it_is_a_distribution_like_others():
    ours, theirs, _ = build("full", (3,))
    value = theirs.sample((5,))
    assert isinstance(ours, td.Distribution)
    assert ours.has_rsample
    wide = ours.expand((4, 3))
    assert wide.batch_shape == (4, 3)
    problems.assert_near(wide.log_prob(value[:4]), theirs.log_prob(value[:4]), 1e-12)
    joint = td.Independent(ours, 1)
    problems.assert_near(joint.log_prob(value), theirs.log_prob(value).sum(-1), 1e-12)
    moved = [td.AffineTransform(1.0, 2.0, event_dim=1)]
    problems.assert_near(
        td.TransformedDistribution(ours, moved).log_prob(value),
        td.TransformedDistribution(theirs, moved).log_prob(value),
        1e-12,
    )
    single = ours.to(torch.float32)
    assert single.sample().dtype == torch.float32
    assert "n_components=3" in repr(ours)
    problems.assert_near(ours.component_distribution.mean, ours.means, 0)
    assert ours.mixture_distribution.param_shape == (3, 3)


def test_pickle_copy_and_save():
    ours = GaussianMixture(torch.ones(2), torch.zeros(2, 1), variances=torch.ones(2, 1))
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    value = torch.tensor([[0.5]])
    for other in (
        pickle.loads(pickle.dumps(ours)),
        copy.deepcopy(ours),
        torch.load(buffer, weights_only=False),
    ):
        assert torch.equal(other.log_prob(value), ours.log_prob(value))


def test_entropy_is_named_for_what_it_is():
    torch.manual_seed(0)
    ours, _, parameters = build("full", (2,))
    lower, upper = ours.entropy_bounds()
    estimate = ours.entropy_monte_carlo(20_000)
    assert (lower < estimate).all()
    assert (estimate < upper).all()
    assert torch.isfinite(torch.autograd.grad(estimate.sum(), parameters[2])[0]).all()
    alone = GaussianMixture(torch.ones(1), torch.zeros(1, 2), scale_tril=2 * torch.eye(2)[None])
    exact = td.MultivariateNormal(torch.zeros(2), scale_tril=2 * torch.eye(2)).entropy()
    assert alone.entropy_bounds()[1] == pytest.approx(float(exact))
    with pytest.raises(NotImplementedError, match="entropy_monte_carlo"):
        ours.entropy()
    with pytest.raises(InputError, match="n_samples"):
        ours.entropy_monte_carlo(0)


@pytest.mark.parametrize("low", [-200.0, -math.inf], ids=["underflow", "no weight"])
def test_entropy_bounds_without_a_component(low):
    logits = torch.tensor([0.0, low], requires_grad=True)
    means = torch.tensor([[0.0], [9.0]])
    lower, upper = GaussianMixture(
        logits=logits, means=means, variances=torch.ones(2, 1)
    ).entropy_bounds()
    assert upper.item() == pytest.approx(0.5 * math.log(2 * math.pi * math.e))
    assert lower.item() == pytest.approx(0.5 * math.log(4 * math.pi))
    assert torch.isfinite(torch.autograd.grad(upper + lower, logits)[0]).all()


def test_divergences():
    torch.manual_seed(0)
    ours, _, _ = build("full")
    other, _, _ = build("diag")
    with pytest.raises(NotImplementedError, match="kl_monte_carlo"):
        td.kl_divergence(ours, other)
    one, two = (
        GaussianMixture(torch.ones(1), mean[None], scale_tril=(s * torch.eye(2))[None])
        for mean, s in ((torch.zeros(2), 1.0), (torch.ones(2), 2.0))
    )
    exact = td.kl_divergence(one, two)
    assert exact == pytest.approx(0.5 * (2 / 4 + 2 / 4 - 2 + 2 * math.log(4)))
    assert kl_monte_carlo(one, two, 50_000) == pytest.approx(float(exact), rel=0.05)
    assert kl_monte_carlo(ours, other, 20_000) > 0
    means, covariances = (
        torch.stack([getattr(m, name) for m in (one, two)]) for name in ("means", "covariances")
    )
    found = kl_monte_carlo(one, GaussianMixture(torch.ones(1), means, covariances), 50_000)
    assert found.tolist() == pytest.approx([0, float(exact)], rel=0.05, abs=1e-6)
    with pytest.raises(InputError, match=r"batch shapes of p \(2,\) and q \(3,\)"):
        kl_monte_carlo(build("full", (2,))[0], build("full", (3,))[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("given", ["covariances", "precisions"])
def test_half_precision_is_computed_in_single(given, dtype):
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    parameters = torch.ones(2), torch.eye(2)
    mixture = GaussianMixture(
        *(p.to(dtype) for p in parameters), **{given: matrix.expand(2, 2, 2).to(dtype)}
    )
    assert mixture.scale.dtype == dtype
    expected = GaussianMixture(*parameters, **{given: matrix.expand(2, 2, 2)})
    problems.assert_near(mixture.scale, expected.scale, 1e-2)
    wide = mixture.to(torch.float32)
    for got, bound in zip(mixture.entropy_bounds(), wide.entropy_bounds(), strict=True):
        assert torch.equal(got, bound)
    estimator = mixture.to_estimator()
    problems.assert_near(torch.tensor(estimator.covariances_), wide.covariances, 1e-6)
    alone = GaussianMixture(mixture.weights[:1], mixture.means[:1], mixture.covariances[:1])
    assert abs(td.kl_divergence(alone, alone)) < 1e-6


def test_zero_weights_are_no_obstacle():
    logits = torch.tensor([0.0, -math.inf], requires_grad=True)
    mixture = GaussianMixture(
        logits=logits, means=torch.tensor([[0.0], [9.0]]), variances=torch.ones(2, 1)
    )
    value = torch.linspace(-2, 11, 7)[:, None]
    normal = td.Normal(0.0, 1.0)
    problems.assert_near(mixture.log_prob(value), normal.log_prob(value[:, 0]), 1e-6)
    (gradient,) = torch.autograd.grad(mixture.log_prob(value).sum(), logits)
    assert torch.isfinite(gradient).all()
    assert mixture.sample((1000,)).max() < 8
    weights = GaussianMixture(torch.tensor([3.0, 0.0]), mixture.means, variances=torch.ones(2, 1))
    assert torch.equal(weights.weights, torch.tensor([1.0, 0.0]))


def test_empty_samples_and_batches():
    ours, _, _ = build("full")
    assert ours.sample((0,)).shape == (0, 2)
    assert ours.log_prob(torch.zeros(0, 2, dtype=torch.float64)).shape == (0,)
    _, logits, means, scale = problems.parameters("diag", batch=(0,))
    none = GaussianMixture(logits=logits, means=means, variances=scale**2)
    assert none.sample((3,)).shape == (3, 0, 2)
    assert none.log_prob(torch.zeros(3, 0, 2, dtype=torch.float64)).shape == (3, 0)


def test_validate_args_is_honoured():
    # torch.compile switches it off for the whole process.
    before = td.Distribution._validate_args
    nan = torch.tensor([[math.nan, 0.0]])
    given = {"scale_tril": torch.eye(2).expand(2, 2, 2)}
    strict = GaussianMixture(torch.ones(2), torch.zeros(2, 2), **given, validate_args=True)
    with pytest.raises(ValueError, match="support"):
        strict.log_prob(nan)
    loose = GaussianMixture(torch.ones(2), torch.zeros(2, 2), **given, validate_args=False)
    assert torch.isnan(loose.log_prob(nan)).all()
    assert torch.isneginf(strict.log_prob(torch.tensor([[math.inf, 0.0]])))
    broken = GaussianMixture(
        torch.ones(2), torch.zeros(2, 2), -torch.eye(2).expand(2, 2, 2), validate_args=False
    )
    assert torch.isnan(broken.log_prob(torch.zeros(2)))
    assert strict.expand((3,))._validate_args
    assert not loose.expand((3,))._validate_args
    assert td.Distribution._validate_args is before


def _mixture(**changes):
    given = {
        "weights": torch.ones(3),
        "means": torch.zeros(3, 2),
        "covariances": torch.eye(2).expand(3, 2, 2).clone(),
    }
    return GaussianMixture(**(given | changes))


def _indefinite():
    covariances = torch.eye(2).repeat(3, 1, 1)
    covariances[1, 0, 0] = -1
    return covariances


BAD = {
    "no means": ({"means": None}, "means must be given"),
    "weights and logits": ({"logits": torch.ones(3)}, "exactly one of weights and logits"),
    "no covariances": ({"covariances": None}, "exactly one of covariances"),
    "two covariances": ({"variances": torch.ones(3, 2)}, "exactly one of covariances"),
    "wrong K": ({"weights": torch.ones(4)}, r"weights must have shape \(..., 3\).*got \(4,\)"),
    "wrong D": ({"covariances": torch.eye(3).expand(3, 3, 3)}, r"\(..., 3, 2, 2\)"),
    "not square": ({"covariances": torch.ones(3, 2, 3)}, "square"),
    "negative weights": ({"weights": torch.tensor([1.0, -1, 1])}, "weights .* not negative"),
    "no weight": ({"weights": torch.zeros(3)}, "all zero"),
    "weights NaN": ({"weights": torch.tensor([1.0, math.nan, 1])}, "weights .* finite"),
    "logits NaN": ({"weights": None, "logits": torch.full((3,), math.nan)}, "logits .* NaN"),
    "means NaN": ({"means": torch.full((3, 2), math.nan)}, "means"),
    "covariances NaN": ({"covariances": torch.full((3, 2, 2), math.nan)}, "covariances .* NaN"),
    "not symmetric": ({"covariances": torch.eye(2).repeat(3, 1, 1) + torch.ones(2, 2).triu(1)},
                      "symmetric"),
    "not definite": ({"covariances": _indefinite()}, r"component 1 .*positive definite"),
    "upper factor": ({"covariances": None, "scale_tril": torch.eye(2).repeat(3, 1, 1)
                      + torch.ones(2, 2).triu(1)}, "lower triangular"),
    "factor not positive": ({"covariances": None, "scale_tril": _indefinite()}, "component 1"),
    "variance not positive": ({"covariances": None, "variances": torch.zeros(3, 2)},
                              "component 0"),
    "variances of full": ({"covariances": None, "variances": torch.ones(3, 2),
                           "covariance_type": "full"}, "no variances"),
    "integers": ({"means": torch.zeros(3, 2, dtype=torch.int64)}, "means must have a floating"),
    "structure": ({"covariance_type": "fancy"}, "covariance_type must be one of"),
    "no broadcast": ({"weights": torch.ones(5, 3), "means": torch.zeros(4, 3, 2)}, "broadcast"),
    "half precision of nothing": ({"means": [[0.0, 0.0]] * 3}, "means must be a torch.Tensor"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_parameters(case):
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        _mixture(**changes)


def test_singular_is_its_own_error():
    with pytest.raises(SingularCovarianceError, match="component 1"):
        _mixture(covariances=_indefinite())


def test_bad_value():
    with pytest.raises(InputError, match=r"value must have shape \(..., 2\); got \(5, 3\)"):
        _mixture().log_prob(torch.zeros(5, 3))
