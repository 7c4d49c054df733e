"""fastgmm.nn.GMM: zuko's interface, its meaning, and none of its defects."""

from __future__ import annotations

import io
import itertools
import math
import tracemalloc

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.distributions as td  # noqa: E402

import torch_problems as problems  # noqa: E402
from fastgmm.distributions import GaussianMixture  # noqa: E402
from fastgmm.errors import InputError  # noqa: E402
from fastgmm.nn import GMM, MLP  # noqa: E402
from torch_problems import default_validation  # noqa: E402, F401

KINDS = list(itertools.product(("full", "diagonal", "spherical"), (False, True)))
STRATEGIES = ("random", "kmeans", "kmeans++")


def covariances_by_hand(module, parameters):
    """Covariances (K, D, D) as the docstring has them."""
    leading = 1 if module.tied else module.components
    if module.covariance_type == "full":
        log_diagonal, below = parameters
        triangles = torch.zeros(leading, module.features, module.features)
        for k in range(leading):
            place = 0
            for i in range(module.features):
                triangles[k, i, i] = log_diagonal[k, i].exp()
                for j in range(i):
                    triangles[k, i, j] = below[k, place]
                    place += 1
        matrices = triangles @ triangles.mT
    else:
        variances = (2 * parameters[0]).exp().expand(leading, module.features)
        matrices = torch.diag_embed(variances)
    matrices = matrices + module.epsilon * torch.eye(module.features)
    return matrices.expand(module.components, -1, -1)


@pytest.mark.parametrize(("kind", "tied"), KINDS)
def test_parameters_mean_what_they_say(kind, tied):
    torch.manual_seed(0)
    module = GMM(features=3, components=4, covariance_type=kind, tied=tied, epsilon=0.1)
    leading = 1 if tied else 4
    expected = [(4,), (4, 3)]
    expected += {"full": [(leading, 3), (leading, 3)], "diagonal": [(leading, 3)]}.get(
        kind, [(leading, 1)]
    )
    assert [tuple(s) for s in module.shapes] == expected
    assert [tuple(p.shape) for p in module.phi] == expected
    logits, means, *rest = module.phi
    mixture = module()
    assert isinstance(mixture, GaussianMixture)
    assert (mixture.batch_shape, mixture.event_shape) == ((), (3,))
    wanted = td.MixtureSameFamily(
        td.Categorical(logits=logits),
        td.MultivariateNormal(means, covariances_by_hand(module, rest)),
    )
    value = torch.randn(20, 3)
    problems.assert_near(mixture.log_prob(value), wanted.log_prob(value), 1e-5)
    problems.assert_near(mixture.covariances, wanted.component_distribution.covariance_matrix, 1e-5)


@pytest.mark.parametrize(("kind", "tied"), KINDS)
def test_context_gives_a_mixture_each(kind, tied):
    torch.manual_seed(0)
    module = GMM(2, 5, 3, kind, tied, hidden_features=(8,), activation=torch.nn.Tanh)
    context = torch.randn(4, 6, 5)
    mixture = module(context)
    assert mixture.batch_shape == (4, 6)
    value = torch.randn(4, 6, 2)
    got = mixture.log_prob(value)
    flat = module.hyper(context[1, 2])
    plain = GMM(2, 0, 3, kind, tied)
    parts = flat.split([math.prod(s) for s in module.shapes])
    for own, part, shape in zip(plain.phi, parts, module.shapes, strict=True):
        own.data = part.detach().reshape(shape)
    problems.assert_near(got[1, 2], plain().log_prob(value[1, 2]), 1e-5)
    (-got.mean()).backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())
    assert any((p.grad != 0).any() for p in module.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("kind", "tied"), KINDS)
def test_half_precision(kind, tied, dtype):
    torch.manual_seed(0)
    module = GMM(2, components=3, covariance_type=kind, tied=tied).to(dtype)
    torch.manual_seed(1)
    drawn = module().rsample((2000,))
    torch.manual_seed(1)
    assert drawn.dtype == dtype
    assert torch.equal(module().sample((2000,)), drawn)
    error = (drawn.double().mean(0) - module().mean.double()).abs()
    assert (error < 5 * (module().variance.double() / 2000).sqrt() + 0.02).all()
    drawn.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())
    estimator = module.to_estimator()
    assert estimator.means_.dtype == np.float32
    expected = module().log_prob(drawn).detach().numpy()
    np.testing.assert_allclose(
        estimator.score_samples(drawn.detach()), expected, rtol=1e-2, atol=1e-2
    )
    lower, upper = module().entropy_bounds()
    assert lower.dtype == torch.float32
    assert lower < upper


@pytest.mark.parametrize(("kind", "tied"), KINDS)
def test_autocast(kind, tied):
    torch.manual_seed(0)
    module, c = GMM(2, context=4, components=3, covariance_type=kind, tied=tied), torch.randn(7, 4)
    with torch.autocast("cpu", torch.bfloat16):
        mixture = module(c)
        drawn = mixture.rsample((5,))
        (mixture.log_prob(drawn).sum() + drawn.sum()).backward()
    assert mixture.log_prob(drawn).dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_the_network_takes_zukos_arguments():
    module = GMM(2, context=3, hidden_features=(7, 9), activation=torch.nn.ELU, normalize=True)
    widths = [layer.out_features for layer in module.hyper if isinstance(layer, torch.nn.Linear)]
    assert widths == [7, 9, module.total]
    assert sum(isinstance(layer, torch.nn.ELU) for layer in module.hyper) == 2
    assert sum(isinstance(layer, torch.nn.LayerNorm) for layer in module.hyper) == 2
    assert [type(layer).__name__ for layer in MLP(1, 2)] == ["Linear", "ReLU"] * 2 + ["Linear"]


def blobs(n=900, d=2, seed=0):
    """Three clusters with shares 1/2, 1/3, 1/6 and standard deviations 0.3, 0.5, 0.8."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=[1 / 2, 1 / 3, 1 / 6])
    centres = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 9.0]])[:, :d]
    x = centres[labels] + rng.standard_normal((n, d)) * np.array([0.3, 0.5, 0.8])[labels, None]
    return torch.from_numpy(x).float(), labels


@pytest.mark.parametrize(("kind", "tied"), KINDS)
@pytest.mark.parametrize("strategy", ["kmeans", "kmeans++"])
def test_initialize_describes_the_clusters(kind, tied, strategy):
    torch.manual_seed(0)
    x, labels = blobs()
    module = GMM(2, components=3, covariance_type=kind, tied=tied)
    module.initialize(x, strategy)
    mixture = module()
    order = [int((mixture.means - x[labels == k].mean(0)).norm(dim=1).argmin()) for k in range(3)]
    assert sorted(order) == [0, 1, 2]
    inside = [torch.cov(x[labels == k].T, correction=0) for k in range(3)]
    shares = torch.tensor([(labels == k).mean() for k in range(3)])
    within = sum(s * c for s, c in zip(shares, inside, strict=True))
    for k, place in enumerate(order):
        expected = within if tied else inside[k]
        if kind != "full":
            expected = torch.diag(expected.diagonal())
        if kind == "spherical":
            expected = expected.diagonal().mean() * torch.eye(2)
        problems.assert_near(mixture.covariances[place].float(), expected.float(), 1e-3)
        problems.assert_near(mixture.weights[place], shares[k].float(), 1e-4)
        problems.assert_near(mixture.means[place], x[labels == k].mean(0), 1e-4, floor=1.0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_initialize_of_a_conditional_mixture(strategy):
    torch.manual_seed(0)
    x, _ = blobs()
    module, plain = GMM(2, 4, 3), GMM(2, components=3)
    before = module.hyper[-1].weight.detach().clone()
    module.initialize(x, strategy, seed=1)
    plain.initialize(x, strategy, seed=1)
    problems.assert_near(module.hyper[-1].weight, before / 100, 1e-6)
    flat = torch.cat([p.flatten() for p in plain.phi])
    problems.assert_near(module.hyper[-1].bias, flat, 1e-6)
    mixture = module(torch.zeros(7, 4))
    assert mixture.log_prob(x[:, None]).mean() > plain().log_prob(x).mean() - 1


def test_initialize_has_torchs_seed():
    x, _ = blobs()
    module = GMM(2, components=3)
    means = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        module.initialize(x, "random")
        means.append(module.phi[1].detach().clone())
    assert torch.equal(means[0], means[1])
    assert not torch.equal(means[0], means[2])
    assert module.phi[1].requires_grad


def test_kmeans_has_seven_iterations_unless_told_otherwise():
    # Of rows without clusters, for which they change the centres to the end.
    x = torch.rand(3000, 2, generator=torch.Generator().manual_seed(0))
    found = []
    for given in ({}, {"iterations": 6}, {"iterations": 7}, {"iterations": 8}):
        module = GMM(2, components=9)
        module.initialize(x, "kmeans", seed=0, **given)
        found.append(module.phi[1].detach())
    assert [torch.equal(found[0], other) for other in found[1:]] == [False, True, False]


def test_initialize_needs_no_array_of_rows_times_components_times_features():
    x = torch.randn(20_000, 8)
    module = GMM(8, components=50, covariance_type="diagonal")
    module.initialize(x, "kmeans")
    tracemalloc.start()
    module.initialize(x, "kmeans")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000 * 50 * 4


@pytest.mark.parametrize(("kind", "tied"), KINDS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_initialize_survives_degenerate_rows(kind, tied, strategy):
    x = torch.zeros(9, 3)
    x[:4] = torch.tensor([1.0, 2.0, 0.0])
    module = GMM(3, components=5, covariance_type=kind, tied=tied)
    module.initialize(x, strategy)
    assert torch.isfinite(module().log_prob(x)).all()


def test_training_raises_the_likelihood():
    torch.manual_seed(0)
    x, _ = blobs()
    module = GMM(2, components=3)
    module.initialize(x, "random")
    optimiser = torch.optim.Adam(module.parameters(), 0.05)
    losses = []
    for _ in range(60):
        loss = -module().log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_base_of_a_flow():
    """An affine transform of the base is learnt together with it."""
    torch.manual_seed(0)
    x, _ = blobs()
    base = GMM(2, components=3)
    shift, log_scale = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    base.initialize(x / 10, "kmeans")

    def loss():
        transform = td.AffineTransform(shift, log_scale.exp(), event_dim=1)
        return -td.TransformedDistribution(base(), [transform]).log_prob(x).mean()

    optimiser = torch.optim.Adam([*base.parameters(), shift, log_scale], 0.05)
    first = loss().item()
    for _ in range(40):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert loss().item() < first - 1
    assert log_scale.grad.abs().sum() > 0


@pytest.mark.parametrize("context", [0, 3])
def test_state_dict(context):
    one, two = GMM(2, context, 4), GMM(2, context, 4)
    buffer = io.BytesIO()
    torch.save(one.state_dict(), buffer)
    buffer.seek(0)
    two.load_state_dict(torch.load(buffer, weights_only=True))
    c = torch.randn(5, context) if context else None
    value = torch.randn(5, 2)
    assert torch.equal(one(c).log_prob(value), two(c).log_prob(value))
    assert sorted(one.state_dict())[0].startswith("hyper" if context else "phi")


@pytest.mark.parametrize("context", [0, 3])
def test_device_and_dtype(context):
    module = GMM(2, context, hidden_features=(4,), device="meta", dtype=torch.float64)
    places = {(p.dtype, p.device.type) for p in module.parameters()}
    assert places == {(torch.float64, "meta")}


def test_repr():
    text = repr(GMM(2, components=3, covariance_type="diagonal", tied=True))
    assert text == (
        "GMM(features=2, context=0, components=3, covariance_type='diagonal', tied=True, "
        "epsilon=1e-06)"
    )
    assert "(hyper): MLP(" in repr(GMM(2, context=3))


@pytest.mark.parametrize("name", problems.STRUCTURES)
def test_names_of_the_estimator_will_do(name):
    x, _ = blobs()
    plain = GMM(
        2,
        components=3,
        covariance_type={"diag": "diagonal", "tied": "full"}.get(
            name.removeprefix("tied_"), name.removeprefix("tied_")
        ),
        tied=name.startswith("tied"),
    )
    module = GMM(2, components=3, covariance_type=name)
    assert repr(module) == repr(plain)
    assert module().covariance_type == name
    module.initialize(x, "k-means++", seed=1)
    plain.initialize(x, "kmeans++", seed=1)
    assert all(map(torch.equal, module.phi, plain.phi))


def test_epsilon_keeps_collapsed_components_apart_from_zero():
    module = GMM(2, components=2, covariance_type="spherical", epsilon=1e-4)
    with torch.no_grad():
        module.phi[2].fill_(-50.0)
    assert torch.allclose(module().covariances, 1e-4 * torch.eye(2))
    full = GMM(2, components=1, epsilon=0.0)
    assert torch.equal(full().scale.diagonal(dim1=-2, dim2=-1), full.phi[2].exp())


@pytest.mark.parametrize("structure", ["full", "tied"])
def test_from_a_distribution_of_nearly_singular_covariances(structure):
    scale = torch.tensor([[1.0, 0.0], [1.0, 1e-4]])
    given = {"scale_tril": scale if structure == "tied" else scale.expand(2, 2, 2)}
    mixture = GaussianMixture(torch.ones(2), torch.zeros(2, 2), **given, covariance_type=structure)
    module = GMM.from_distribution(mixture)
    torch.testing.assert_close(module().scale, mixture.scale, rtol=1e-3, atol=0)


@pytest.mark.usefixtures("default_validation")
def test_it_compiles():
    torch.manual_seed(0)
    for context in (0, 3):
        module = GMM(2, context, 3)
        c = torch.randn(5, 3) if context else None
        x = torch.randn(5, 2)

        def loss(x, c=c, module=module):
            return module(c).log_prob(x).mean()

        torch._dynamo.reset()
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        problems.assert_near(compiled(x), loss(x), 1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": 0}, "features must be an integer of at least 1"),
        ({"features": 2, "components": 2.5}, "components"),
        ({"features": 2, "context": -1}, "context"),
        ({"features": 2, "covariance_type": "tied_full"}, "'full', 'diagonal', 'spherical'"),
        ({"features": 2, "epsilon": -1.0}, "epsilon"),
        ({"features": 2, "hiden_features": (3,)}, "hiden_features"),
        ({"features": 2, "context": 3, "in_features": 3}, "in_features"),
        ({"features": 2, "kwargs": 3}, "kwargs"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        GMM(**arguments)


def test_bad_context():
    with pytest.raises(InputError, match=r"needs a context c of shape \(..., 3\)"):
        GMM(2, 3)()
    with pytest.raises(InputError, match="takes no context"):
        GMM(2)(torch.zeros(3))
    with pytest.raises(InputError, match=r"\(..., 3\); got \(5, 4\)"):
        GMM(2, 3)(torch.zeros(5, 4))


@pytest.mark.parametrize(
    ("x", "strategy", "message"),
    [
        (torch.zeros(5, 3), "kmeans", r"\(N, 2\); got \(5, 3\)"),
        (torch.zeros(2, 2), "kmeans", "2 rows and 2 components"),
        (torch.zeros(5, 2), "k-means", "'random', 'kmeans', 'kmeans\\+\\+'"),
        (torch.full((5, 2), math.nan), "kmeans", "NaN"),
    ],
)
def test_bad_rows(x, strategy, message):
    with pytest.raises(InputError, match=message):
        GMM(2).initialize(x, strategy)
