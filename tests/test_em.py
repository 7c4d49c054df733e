"""The EM loop without the estimator: ``fastgmm.em.fit`` on any source of chunks."""

from __future__ import annotations

import numpy as np
import pytest

import helpers
import oracle
from fastgmm import GaussianMixture, covariance, em
from fastgmm.backends import choose
from fastgmm.errors import InputError, NotFiniteError
from fastgmm.model import MixtureModel
from fastgmm.sources import Chunk, Source
from fastgmm.sources.arrays import ArraySource


def model_of(mixture):
    return MixtureModel.from_covariances(
        mixture.weights, mixture.means, mixture.covariances, covariance.get(mixture.structure)
    )


class Ragged(Source):
    """Chunks of unequal length, one of them empty of weight."""

    def __init__(self, x, weight=None, edges=(0, 1, 8, 100)):
        self.x, self.weight = x, weight
        self.edges = [*edges, len(x)]
        self.n_rows, self.n_features = x.shape
        self.dtype = x.dtype

    def __iter__(self):
        for a, b in zip(self.edges[:-1], self.edges[1:], strict=True):
            yield Chunk(self.x[a:b], None if self.weight is None else self.weight[a:b], a)

    def take(self, rows):
        return self.x[rows].astype(np.float64)


def test_fit_is_the_oracles(structure, dtype):
    x, start, _ = helpers.problem(structure, dtype)
    result = em.fit(ArraySource(x), model_of(start), tol=0.0, max_iter=4, reg_covar=1e-3)
    expected = oracle.em(x, start, max_iter=4, reg_covar=1e-3)
    rtol = helpers.tolerance(dtype, 1e-10, 2e-5)
    helpers.assert_close(result.model.means, expected.mixture.means, rtol)
    helpers.assert_close(result.model.covariances, expected.mixture.covariances, rtol)
    helpers.assert_close(result.lower_bounds, expected.lower_bounds, rtol)
    assert result.n_iter == 4
    assert not result.converged
    assert result.lower_bound == result.lower_bounds[-1]
    resp = helpers.learnt_responsibilities(start, x, 3, 1e-3)
    helpers.assert_close(result.counts, resp.sum(axis=0), rtol)


def test_any_source_of_chunks_gives_the_same(structure, device):
    x, start, rng = helpers.problem(structure, np.float64)
    weight = rng.uniform(size=len(x))
    weight /= weight.mean()
    backend, _ = choose(device)
    settings = {"tol": 0.0, "max_iter": 3, "reg_covar": 0.0, "backend": backend}
    whole = em.fit(ArraySource(x, weight), model_of(start), **settings)
    ragged = em.fit(Ragged(x, weight), model_of(start), **settings)
    helpers.assert_close(ragged.model.means, whole.model.means, 1e-11)
    helpers.assert_close(ragged.model.covariances, whole.model.covariances, 1e-11)
    helpers.assert_close(ragged.lower_bounds, whole.lower_bounds, 1e-12)


def test_results_cannot_be_changed_by_hand():
    x, start, _ = helpers.problem("full", np.float64)
    result = em.fit(ArraySource(x), model_of(start), max_iter=1)
    with pytest.raises(AttributeError):
        result.model.weights = np.ones(3)


def test_converged_on_the_last_iteration_counts():
    x, start, _ = helpers.problem("diag", np.float64)
    long = em.fit(ArraySource(x), model_of(start), tol=1e-3, max_iter=200)
    assert long.converged
    again = em.fit(ArraySource(x), model_of(start), tol=1e-3, max_iter=long.n_iter)
    assert again.converged
    assert not em.fit(ArraySource(x), model_of(start), tol=1e-3, max_iter=long.n_iter - 1).converged


def test_a_far_start_loses_no_digits(structure, device):
    # The means move by a thousand standard deviations in the first iteration.
    x, _, _ = helpers.problem(structure, np.float64)
    k, d = 1, 3
    far = oracle.Mixture(
        structure,
        np.ones(1),
        np.full((k, d), 1e5),
        oracle.pack(structure, np.eye(d)[None], np.ones(1)),
    )
    backend, _ = choose(device)
    result = em.fit(ArraySource(x), model_of(far), max_iter=1, reg_covar=0.0, backend=backend)
    expected = oracle.m_step(x, np.ones((len(x), 1)), structure)
    helpers.assert_close(result.model.means, expected.means, 1e-9)
    helpers.assert_close(result.model.covariances, expected.covariances, 1e-6)


@pytest.mark.parametrize("structure", ["tied", "tied_diag", "tied_spherical"])
def test_tied_components_far_apart_lose_no_digits_in_single_precision(structure, device):
    rng = np.random.default_rng(0)
    start = oracle.random_mixture(rng, structure, 8, 4, separation=1000.0)
    x = start.sample(rng, 2000)[0].astype(np.float32)
    model = helpers.fit(x, start, device, max_iter=1)
    expected = oracle.em(x, start, max_iter=1).mixture
    helpers.assert_close(model.covariances_, expected.covariances, 1e-5)


@pytest.mark.parametrize("structure", ["tied", "tied_diag", "tied_spherical"])
def test_weights_of_many_sizes_lose_no_digits(structure, device):
    # One row weighs more than all others: the mean of the rows is far from their weighted mean.
    x, start, rng = helpers.problem(structure, np.float64, n=200)
    weight = np.where(np.arange(len(x)) == 0, 1.0, 10.0 ** rng.uniform(-9, -7, size=len(x)))
    model = helpers.fit(x, start, device, max_iter=1, reg_covar=0, sample_weight=weight)
    expected = oracle.em(x, start, max_iter=1, sample_weight=weight).mixture
    helpers.assert_close(model.covariances_, expected.covariances, 1e-11)


@pytest.mark.filterwarnings("ignore::fastgmm.errors.DegenerateDataWarning")
@pytest.mark.parametrize("structure", ["tied", "tied_diag", "tied_spherical"])
def test_a_constant_feature_needs_no_second_pass(structure, device, monkeypatch):
    x, start, _ = helpers.problem(structure, np.float32, n=500)
    x[:, 1] = 7.25

    def refuse(*args):
        raise AssertionError("the rows were read again")

    monkeypatch.setattr(em, "within_scatter", refuse)
    model = helpers.fit(x, start, device, max_iter=3, reg_covar=1e-3)
    expected = oracle.em(x, start, max_iter=3, reg_covar=1e-3).mixture
    helpers.assert_close(model.covariances_, expected.covariances, 1e-5)
    if structure != "tied_spherical":
        variances = (
            model.covariances_ if structure == "tied_diag" else model.covariances_.diagonal()
        )
        assert variances[1] == np.float32(1e-3)


@pytest.mark.parametrize("max_iter", [0, 5])
def test_rows_that_are_not_numbers_are_no_fit(structure, device, max_iter):
    x, start, _ = helpers.problem(structure, np.float64)
    x[17, 1] = np.nan
    where = "iteration 1 .*" if max_iter else "the start"
    with pytest.raises(NotFiniteError, match=f"{where}: sums over the rows are not finite"):
        em.fit(ArraySource(x), model_of(start), max_iter=max_iter, backend=choose(device)[0])


def test_source_checks_its_weights():
    x = np.zeros((4, 2))
    for weight in ([1, 1, 1], [1, 1, 1, -1], [1, np.nan, 1, 1]):
        with pytest.raises(InputError):
            ArraySource(x, weight)


@pytest.mark.parametrize("empties", [1, 3], ids=["one", "more than rows"])
@pytest.mark.filterwarnings("ignore::fastgmm.errors.DegenerateDataWarning")
def test_no_component_moves_to_a_row_without_weight(empties):
    x = np.random.default_rng(0).normal(size=(200 if empties == 1 else 4, 2))
    far = np.r_[np.zeros((1, 2)), [[1e6 + k, 1e6] for k in range(empties)]]
    if empties > 1:
        far, x = np.r_[far, [[2e6, 2e6], [3e6, 3e6]]], x[:3]
    settings = {"means_init": far, "weights_init": np.full(len(far), 1 / len(far))}
    settings |= {"precisions_init": np.stack([np.eye(2)] * len(far)), "max_iter": 3, "tol": 0.0}
    plain, weighted = (GaussianMixture(len(far), empty="reseed", **settings) for _ in range(2))
    plain.fit(x)
    weight = np.r_[np.ones(len(x)), np.zeros(9)]
    weighted.fit(np.r_[x, np.full((9, 2), 1e3)], sample_weight=weight)
    helpers.assert_same_mixture(helpers.learnt(weighted), helpers.learnt(plain), 1e-9)
    assert np.abs(weighted.means_[:2]).max() < 10


def test_same_bits_wherever_memory_lies(structure, dtype):
    x, start, rng = helpers.problem(structure, dtype, n=9001, k=5, d=4)
    weight = rng.uniform(0.5, 1.5, size=len(x))
    backend, _ = choose("cpu")
    prepared = backend.prepare(model_of(start), x.dtype)
    # Rows, weights and scratch memory lie elsewhere each time: no sum may depend on where.
    held, seen = [], set()
    for _ in range(300):
        x, weight = x.copy(), weight.copy()
        held = [*held[-8:], x, weight, np.empty(rng.integers(1, 5000))]
        seen.add(backend.accumulate(prepared, x, weight).to_buffer().tobytes())
    assert len(seen) == 1


@pytest.mark.parametrize("structure", ["full", "diag", "tied"])
@pytest.mark.parametrize(("reg_covar", "passes"), [(1e-2, 1), (1e-9, 2)])
def test_digits_below_reg_covar_cost_no_second_pass(structure, reg_covar, passes, monkeypatch):
    # The second feature does not vary within components, and the start is not where they are.
    rng, side = np.random.default_rng(0), 10.0 * (np.arange(200) % 2)
    x = np.column_stack([rng.standard_normal(200), side])
    kind = covariance.get(structure)
    spread, means = kind.spread(np.ones(2), 2), np.array([[0.0, 0.5], [0.0, 10.5]])
    model = MixtureModel.from_covariances(np.full(2, 0.5), means, spread, kind)
    calls = []

    def counting(function):
        def call(*args, **kwargs):
            calls.append(function)
            return function(*args, **kwargs)

        return call

    for name in ("e_step", "within_scatter"):
        monkeypatch.setattr(em, name, counting(getattr(em, name)))
    em.fit(ArraySource(x), model, max_iter=1, reg_covar=reg_covar)
    assert len(calls) == passes
