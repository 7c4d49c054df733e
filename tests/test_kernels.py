"""The kernels alone: what the estimator's tests would not see."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

import oracle
from fastgmm import GaussianMixture, covariance, functional
from fastgmm.backends.parameters import pack
from fastgmm.backends.totals import Totals
from fastgmm.model import MixtureModel
from fastgmm_kernels import cpu
from fastgmm_kernels.cpu.exp import exp
from fastgmm_kernels.cpu.jit import kernel
from fastgmm_kernels.cpu.log import log
from fastgmm_kernels.cpu.simd import lanes, load, store


@kernel
def _exp_of(x, out):
    for i in range(0, x.shape[1], lanes(x)):
        store(out, 0, i, exp(load(x, 0, i)))


@pytest.mark.parametrize(
    ("dtype", "lowest", "error"), [("f4", -86.9, 1.5e-7), ("f8", -707.0, 5e-16)]
)
def test_exp_is_accurate(dtype, lowest, error):
    x = np.concatenate([np.linspace(lowest, 0, 99_968), -np.logspace(-12, 1, 512)]).astype(dtype)[
        None
    ]
    out = np.full_like(x, np.nan)
    _exp_of(x, out)
    truth = np.exp(x.astype(np.longdouble))
    relative = np.abs(out - truth) / truth
    assert np.max(relative[x > -30]) < error
    # Single precision reduces the argument in one step: its error grows with it.
    assert np.max(relative) < 2 * error


@kernel
def _log_of(x, out):
    for i in range(0, x.shape[1], lanes(x)):
        store(out, 0, i, log(load(x, 0, i)))


@pytest.mark.parametrize(("dtype", "error"), [("f4", 2e-7), ("f8", 4e-16)])
def test_log_is_accurate(dtype, error):
    parts = [np.linspace(0.4, 3, 50_000), np.logspace(-37, 37, 49_152), 2.0 ** np.arange(-64, 64)]
    x = np.concatenate(parts)[: 99_264 // 64 * 64].astype(dtype)[None]
    out = np.full_like(x, np.nan)
    _log_of(x, out)
    truth = np.log(x.astype(np.longdouble))
    # About 1 the logarithm is as small as the rounding of x: its own error is relative still.
    assert (out[truth == 0] == 0).all()
    other = truth != 0
    assert np.max(np.abs(out - truth)[other] / np.abs(truth[other])) < error


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_log_of_nothing_and_of_nan(dtype):
    x = np.resize(np.array([0.0, np.nan], dtype), (1, 64))
    out = np.zeros_like(x)
    _log_of(x, out)
    assert (out[0, ::2] == -np.inf).all()
    assert np.isnan(out[0, 1::2]).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_exp_below_the_normal_numbers_is_zero(dtype):
    x = np.resize(np.array([-1e4, -1e30, -np.inf], dtype), (1, 48))
    out = np.full_like(x, np.nan)
    _exp_of(x, out)
    assert (out == 0).all()


def _packed(structure, dtype, n_components=5, n_features=7):
    mixture = oracle.random_mixture(np.random.default_rng(0), structure, n_components, n_features)
    model = MixtureModel.from_covariances(
        mixture.weights, mixture.means, mixture.covariances, covariance.get(structure)
    )
    return pack(model, dtype)


@pytest.mark.parametrize("structure", oracle.STRUCTURES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("n_rows", [1, 63, 64, 65, 1000])
def test_every_output_is_written(structure, dtype, n_rows):
    packed = _packed(structure, dtype)
    x = np.random.default_rng(1).standard_normal((n_rows, 7)).astype(dtype)
    scores, best = np.full(n_rows, np.nan, dtype), np.full(n_rows, np.nan, dtype)
    labels = np.full(n_rows, -7, np.int64)
    resp, norm = np.full((n_rows, 5), np.nan, dtype), np.full(n_rows, np.nan, dtype)
    shared = packed.kernel_arguments()
    everything = np.full_like(packed.reach, np.inf)
    cpu.score_samples(x, *shared, packed.reach, 0, 64, scores, threads=0)
    cpu.predict(x, *shared, packed.reach, 0, 64, best, labels, threads=0)
    cpu.per_component(x, *shared, everything, 0, 64, 1, norm, resp, threads=0)
    assert np.isfinite(scores).all()
    assert (best <= scores + 1e-3).all()
    assert ((labels >= 0) & (labels < 5)).all()
    np.testing.assert_allclose(resp.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(resp.argmax(axis=1), labels)
    np.testing.assert_allclose(norm, scores, rtol=1e-5)


def _accumulate(run, packed, structure, x, label, blocks, parts, tile, *cut):
    """All outputs of a pass over ``x``, the sums of all blocks together."""
    points = packed.about(None)
    totals = Totals(blocks, points, x.shape[1], covariance.get(structure))
    arrays = totals.count, totals.first, totals.second
    for array in arrays:
        array.fill(np.nan)
    log_likelihood, visited = np.zeros(parts), np.zeros(parts)
    none, labels = np.empty(0, np.int32), np.full(len(x), -1, np.int32)
    run(
        x, none, labels, np.empty(0), *packed.kernel_arguments(), packed.reach, 0, tile,
        packed.thresholds, points, tile, *cut, label, True, *arrays, log_likelihood, visited,
        threads=0,
    )  # fmt: skip
    found = totals.statistics(packed.model.means)
    return [found.counts, found.first, found.second, log_likelihood.sum(), labels]


@pytest.mark.parametrize("structure", oracle.STRUCTURES)
@pytest.mark.parametrize("label", [True, False], ids=["lines", "lists"])
def test_blocks_and_shared_totals_agree(structure, label):
    packed = _packed(structure, np.float64, 20)
    x = np.random.default_rng(1).standard_normal((3001, 7)) * 2
    one = _accumulate(cpu.accumulate, packed, structure, x, label, 3, 3, 64, 1, 1.0)
    other = _accumulate(cpu.accumulate_shared, packed, structure, x, label, 1, 47, 64, 128)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-9)
    assert one[0].sum() == pytest.approx(3001)


@pytest.mark.parametrize("structure", ["full", "diag", "spherical", "tied_spherical"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_lists_and_whole_tiles_agree(structure, dtype):
    packed = _packed(structure, dtype)
    x = (np.random.default_rng(1).standard_normal((2001, 7)) * 2).astype(dtype)
    whole, listed = (
        _accumulate(cpu.accumulate, packed, structure, x, True, 1, 1, 256, 1, share)
        for share in (0.0, 1.0)
    )
    rtol = 1e-11 if dtype == np.float64 else 2e-6
    for a, b in zip(whole, listed, strict=True):
        scale = np.abs(b).max(initial=0)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * scale)


@pytest.mark.parametrize("n_windows", [1, 3, 64])
def test_order_by_label_is_a_stable_sort_of_each_window(n_windows):
    labels = np.random.default_rng(0).integers(7, size=1001).astype(np.int32)
    order = np.full(1001, -1, np.int32)
    cpu.order_by_label(labels, 7, n_windows, order, threads=0)
    edges = np.arange(n_windows + 1) * 1001 // n_windows
    for first, last in itertools.pairwise(edges):
        expected = first + np.argsort(labels[first:last], kind="stable")
        np.testing.assert_array_equal(order[first:last], expected)


def test_float32_scores_are_accurate():
    # Means 10 standard deviations apart, condition number 1e3.
    rng = np.random.default_rng(0)
    n_components, n_features = 16, 32
    basis = np.linalg.qr(rng.standard_normal((n_components, n_features, n_features)))[0]
    scales = np.logspace(0, -1.5, n_features)
    factors = basis * scales
    means = rng.standard_normal((n_components, n_features)) * 10 / np.sqrt(2 * n_features)
    labels = rng.integers(n_components, size=5000)
    noise = rng.standard_normal((5000, n_features))
    x = means[labels] + np.einsum("nij,nj->ni", factors[labels], noise)
    covariances = factors @ np.swapaxes(factors, 1, 2)
    weights = np.full(n_components, 1 / n_components)
    upper = covariance.get("full").precisions_cholesky(covariances)
    single = x.astype(np.float32)
    fast = functional.score_samples(single, weights, means, upper)
    truth = functional.score_samples(
        single.astype(np.float64), weights, means, upper, device="reference"
    )
    assert fast.dtype == np.float32
    assert np.sqrt(np.mean((fast - truth) ** 2)) < 1e-5


def test_a_float32_fit_recovers_small_eigenvalues():
    # Condition number 1e4: the smallest variance is 1e-4 of the largest.
    rng = np.random.default_rng(0)
    n_components, n_features = 4, 16
    scales = np.logspace(0, -2, n_features)
    means = 4 * rng.standard_normal((n_components, n_features))
    bases = np.linalg.qr(rng.standard_normal((n_components, n_features, n_features)))[0]
    centred = zip(means, bases, strict=True)
    x = np.concatenate(
        [m + (rng.standard_normal((3000, n_features)) * scales) @ b for m, b in centred]
    ).astype(np.float32)
    smallest = []
    for dtype in (np.float32, np.float64):
        mixture = GaussianMixture(
            n_components, means_init=means, max_iter=20, tol=0, reg_covar=0, random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mixture.fit(x.astype(dtype))
        smallest.append(np.linalg.eigvalsh(mixture.covariances_.astype(np.float64))[:, 0])
    np.testing.assert_allclose(smallest[0], smallest[1], rtol=1e-3)
