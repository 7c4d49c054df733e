"""The kernels alone: what the estimator's tests would not see."""

from __future__ import annotations

import numpy as np
import pytest

import oracle
from fastgmm import covariance, functional
from fastgmm.backends.parameters import pack
from fastgmm.model import MixtureModel
from fastgmm_kernels import cpu
from fastgmm_kernels.cpu.exp import exp
from fastgmm_kernels.cpu.jit import kernel


@kernel
def _exp_of(x, out):
    for i in range(x.shape[0]):
        out[i] = exp(x[i])


@pytest.mark.parametrize(
    ("dtype", "lowest", "error"), [("f4", -86.9, 1.5e-7), ("f8", -707.0, 5e-16)]
)
def test_exp_is_accurate(dtype, lowest, error):
    x = np.concatenate([np.linspace(lowest, 0, 100_001), -np.logspace(-12, 1, 501)]).astype(dtype)
    out = np.full_like(x, np.nan)
    _exp_of(x, out)
    truth = np.exp(x.astype(np.longdouble))
    assert np.max(np.abs(out - truth) / truth) < error


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_exp_below_the_normal_numbers_is_zero(dtype):
    x = np.array([-1e4, -1e30, -np.inf], dtype)
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
    cpu.score_samples(x, *shared, 64, scores, threads=0)
    cpu.predict(x, *shared, 64, best, labels, threads=0)
    cpu.per_component(x, *shared, 64, 1, norm, resp, threads=0)
    assert np.isfinite(scores).all()
    assert (best <= scores + 1e-3).all()
    assert ((labels >= 0) & (labels < 5)).all()
    np.testing.assert_allclose(resp.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(resp.argmax(axis=1), labels)
    np.testing.assert_allclose(norm, scores, rtol=1e-5)


def _totals(packed, structure, blocks, width):
    last = {"full": (width, width), "diag": (width,), "none": (0,)}[
        covariance.get(structure).moments
    ]
    return np.zeros((blocks, 5)), np.zeros((blocks, 5, width)), np.zeros((blocks, 5, *last))


@pytest.mark.parametrize("structure", oracle.STRUCTURES)
def test_blocks_and_shared_totals_agree(structure):
    packed = _packed(structure, np.float64)
    x = np.random.default_rng(1).standard_normal((3001, 7)) * 2
    sums = []
    for run, blocks, tiles in ((cpu.accumulate, 3, 3), (cpu.accumulate_shared, 1, 47)):
        totals = _totals(packed, structure, blocks, 8)
        log_likelihood = np.zeros(tiles)
        run(
            x, np.empty(0), *packed.kernel_arguments(), packed.thresholds, packed.means,
            64, 128, 0.25, *totals, log_likelihood, threads=0,
        )  # fmt: skip
        sums.append([t.sum(axis=0) for t in totals] + [log_likelihood.sum()])
    for one, other in zip(*sums, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-9)
    assert sums[0][0].sum() == pytest.approx(3001)


def test_sparse_and_dense_moments_agree():
    packed = _packed("full", np.float64)
    x = np.random.default_rng(1).standard_normal((2000, 7)) * 2
    sums = []
    for share in (0.0, 1.0):  # every tile dense, every tile gathered
        totals = _totals(packed, "full", 1, 8)
        cpu.accumulate(
            x, np.empty(0), *packed.kernel_arguments(), packed.thresholds, packed.means,
            256, 512, share, *totals, np.zeros(1), threads=0,
        )  # fmt: skip
        sums.append(totals)
    for one, other in zip(*sums, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-9)


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
