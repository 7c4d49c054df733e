"""The laws that every structure on every device obeys, in every precision.

Each law takes ``(structure, device, dtype)`` and raises AssertionError; the device may be a pair,
of the device of tensors and that of the estimator that gets them. They are identities: none
compares with a stored number. A new structure or device joins by joining the lists in
``conftest.py``.
"""

from __future__ import annotations

import warnings
from unittest import mock

import numba
import numpy as np
from scipy import integrate, stats
from sklearn.exceptions import ConvergenceWarning

import oracle
from fastgmm import functional, threads
from fastgmm.arrays import to_numpy, to_tensor
from helpers import (
    assert_close,
    assert_same_bits,
    assert_same_mixture,
    fit,
    fitted,
    generator,
    learnt,
    make,
    problem,
    tolerance,
)


def likelihood_never_decreases(structure, device, dtype):
    x, start, _ = problem(structure, dtype)
    bounds = np.asarray(fit(x, start, device, max_iter=25).lower_bounds_, np.float64)
    assert len(bounds) == 25
    slack = tolerance(dtype, 1e-12, 2e-6) * np.abs(bounds).max()
    assert np.diff(bounds).min() >= -slack


def em_is_the_oracles(structure, device, dtype):
    x, start, rng = problem(structure, dtype)
    weight = rng.uniform(0.2, 3.0, size=len(x))
    for w in (None, weight):
        model = fit(x, start, device, sample_weight=w)
        expected = oracle.em(x, start, max_iter=5, sample_weight=w)
        assert_same_mixture(learnt(model), expected.mixture, tolerance(dtype, 1e-10, 2e-5))
        rtol = tolerance(dtype, 1e-12, 2e-6)
        assert_close(model.lower_bounds_, expected.lower_bounds, rtol, "lower bounds")
        assert model.means_.dtype == np.dtype(dtype)


def permuting_components_permutes(structure, device, dtype):
    x, start, rng = problem(structure, dtype, k=4)
    order = rng.permutation(4)
    plain, permuted = fit(x, start, device), fit(x, start.permuted(order), device)
    rtol = tolerance(dtype, 1e-10, 2e-5)
    assert_same_mixture(learnt(permuted), learnt(plain).permuted(order), rtol)
    assert_close(permuted.predict_proba(x), plain.predict_proba(x)[:, order], 10 * rtol)


def permuting_rows_permutes(structure, device, dtype):
    x, start, rng = problem(structure, dtype)
    order = rng.permutation(len(x))
    plain, permuted = fit(x, start, device), fit(x[order], start, device)
    rtol = tolerance(dtype, 1e-10, 2e-5)
    assert_same_mixture(learnt(permuted), learnt(plain), rtol)
    model = fitted(start, device)
    np.testing.assert_allclose(
        model.score_samples(x[order]), model.score_samples(x)[order], rtol=rtol
    )


def permuting_features_permutes(structure, device, dtype):
    x, start, rng = problem(structure, dtype, d=4)
    order = rng.permutation(4)

    def reorder(mixture):
        covariances = mixture.covariances
        if structure in ("full", "tied"):
            covariances = covariances[..., order, :][..., :, order]
        elif structure in ("diag", "tied_diag"):
            covariances = covariances[..., order]
        return oracle.Mixture(structure, mixture.weights, mixture.means[:, order], covariances)

    plain, permuted = fit(x, start, device), fit(x[:, order], reorder(start), device)
    rtol = tolerance(dtype, 1e-10, 2e-5)
    assert_same_mixture(learnt(permuted), reorder(learnt(plain)), rtol)
    assert_close(permuted.lower_bounds_, plain.lower_bounds_, rtol)


def affine_maps_carry_over(structure, device, dtype):
    x, start, _ = problem(structure, dtype)
    # Dyadic numbers: the map itself rounds nothing away that the law would notice.
    scale, shift = 4.0, np.array([3.0, -2.0, 0.5])
    x = np.round(x * 256) / 256
    mapped_x = (x.astype(np.float64) * scale + shift).astype(dtype)
    plain = fit(x, start, device)
    mapped = fit(mapped_x, start.mapped(scale, shift), device)
    rtol = tolerance(dtype, 1e-10, 2e-5)
    assert_same_mixture(learnt(mapped), learnt(plain).mapped(scale, shift), rtol)
    moved = np.asarray(plain.lower_bounds_) - x.shape[1] * np.log(scale)
    assert_close(mapped.lower_bounds_, moved, rtol)


def integer_weights_are_duplication(structure, device, dtype):
    x, start, rng = problem(structure, dtype)
    times = rng.integers(1, 5, size=len(x))
    weighted = fit(x, start, device, sample_weight=times)
    repeated = fit(np.repeat(x, times, axis=0), start, device)
    rtol = tolerance(dtype, 1e-10, 2e-5)
    assert_same_mixture(learnt(weighted), learnt(repeated), rtol)
    assert_close(weighted.lower_bounds_, repeated.lower_bounds_, rtol)


def zero_weight_is_removal(structure, device, dtype):
    x, start, rng = problem(structure, dtype)
    keep = rng.uniform(size=len(x)) < 0.6
    x[~keep] += 3.0
    weighted = fit(x, start, device, sample_weight=keep.astype(np.float64))
    removed = fit(x[keep], start, device)
    rtol = tolerance(dtype, 1e-10, 2e-5)
    assert_same_mixture(learnt(weighted), learnt(removed), rtol)
    assert_close(weighted.lower_bounds_, removed.lower_bounds_, rtol)


def shapes_agree_in_one_dimension(structure, device, dtype):
    reference = "tied" if oracle.is_tied(structure) else "full"
    x, start, _ = problem(reference, dtype, d=1)
    own_shape = oracle.covariance_shape(structure, 3, 1)
    own = oracle.Mixture(
        structure, start.weights, start.means, start.covariances.reshape(own_shape)
    )
    a, b = fit(x, start, device), fit(x, own, device)
    rtol = tolerance(dtype, 1e-12, 2e-6)
    assert_close(b.lower_bounds_, a.lower_bounds_, rtol)
    assert_close(np.ravel(b.covariances_), np.ravel(a.covariances_), rtol)
    assert_close(b.score_samples(x), a.score_samples(x), rtol)


def one_component_is_closed_form(structure, device, dtype):
    x, _, _ = problem(structure, dtype, d=4)
    model = make(1, device, covariance_type=structure, reg_covar=0.0).fit(x)
    x = x.astype(np.float64)
    covariance = np.cov(x.T, bias=True)
    expected = oracle.pack(structure, covariance[None], np.ones(1))
    rtol = tolerance(dtype, 1e-12, 1e-6)
    assert_close(model.means_[0], x.mean(axis=0), rtol)
    assert_close(model.covariances_, expected, rtol)
    assert_close(model.weights_, [1.0], 1e-15)
    gaussian = stats.multivariate_normal(x.mean(0), oracle.dense(structure, expected, 1, 4)[0])
    assert_close(model.score(x), gaussian.logpdf(x).mean(), rtol)


def responsibilities_sum_to_one(structure, device, dtype):
    rng = generator(structure, 5)
    mixture = oracle.random_mixture(rng, structure, 7, 3, separation=2.0)
    x, _ = mixture.sample(rng, 100)
    # Some rows are far from everything: they keep the same promise.
    x[:10] *= 1e3
    resp = fitted(mixture, device).predict_proba(x.astype(dtype))
    assert np.isfinite(resp).all()
    assert resp.min() >= 0.0
    np.testing.assert_allclose(
        resp.sum(axis=1, dtype=np.float64), 1.0, rtol=14 * np.finfo(dtype).eps
    )


def counts_sum_to_weights(structure, device, dtype):
    x, start, rng = problem(structure, dtype, n=300)
    weight = rng.uniform(0.0, 2.0, size=300)
    model = fit(x, start, device, sample_weight=weight, max_iter=1)
    rtol = tolerance(dtype, 1e-13, 1e-6)
    assert_close(np.sum(model.weights_, dtype=np.float64), 1.0, rtol)
    resp = start.responsibilities(x)
    assert_close(model.weights_, weight @ resp / weight.sum(), 10 * rtol)
    home, device = (None, device) if isinstance(device, str) else device
    parameters = (start.weights, start.means, start.precisions_cholesky(), structure)
    statistics = functional.sufficient_statistics(
        x if home is None else to_tensor(x, home), *parameters, weight, device=device
    )
    counts = to_numpy(statistics.counts)
    assert_close(np.sum(counts), weight.sum(), rtol)
    assert counts.dtype == np.float64


def density_integrates_to_one(structure, device, dtype):
    tol = tolerance(dtype, 1e-8, 1e-4)
    line = oracle.random_mixture(generator(structure, 1), structure, 3, 1)
    model = fitted(line, device)
    x = np.linspace(-30.0, 30.0, 4001)
    density = np.exp(model.score_samples(x[:, None].astype(dtype)).astype(np.float64))
    assert abs(integrate.simpson(density, x=x) - 1.0) < tol
    plane = oracle.random_mixture(generator(structure, 2), structure, 2, 2, separation=1.0)
    model = fitted(plane, device)
    x = np.linspace(-24.0, 24.0, 401)
    grid = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    density = np.exp(model.score_samples(grid.astype(dtype)).astype(np.float64)).reshape(401, 401)
    total = integrate.simpson(integrate.simpson(density, x=x), x=x)
    assert abs(total - 1.0) < tol


def density_is_scipys(structure, device, dtype):
    rng = generator(structure, 3)
    mixture = oracle.random_mixture(rng, structure, 4, 3, separation=1.0)
    x = mixture.sample(rng, 150)[0].astype(dtype)
    expected = sum(
        w * stats.multivariate_normal(m, c).pdf(x.astype(np.float64))
        for w, m, c in zip(mixture.weights, mixture.means, mixture.dense(), strict=True)
    )
    got = fitted(mixture, device).score_samples(x)
    assert got.dtype == np.dtype(dtype)
    np.testing.assert_allclose(
        np.exp(got.astype(np.float64)), expected, rtol=tolerance(dtype, 1e-10, 2e-5)
    )


def device_is_the_reference(structure, device, dtype):
    x, start, rng = problem(structure, dtype, n=700, k=5, d=6)
    weight = rng.uniform(0.5, 1.5, size=len(x))
    here = fit(x, start, device, sample_weight=weight)
    there = fit(x, start, "reference", sample_weight=weight)
    rtol = tolerance(dtype, 1e-10, 2e-5)
    assert_same_mixture(learnt(here), learnt(there), rtol)
    assert_close(here.lower_bounds_, there.lower_bounds_, rtol)
    assert_close(here.score_samples(x), there.score_samples(x), rtol)
    assert_close(here.predict_proba(x), there.predict_proba(x), 20 * rtol)
    assert (here.predict(x) == there.predict(x)).mean() > tolerance(dtype, 0.999, 0.99)


def skipped_work_is_negligible(structure, device, dtype):
    """Far components and small responsibilities may be skipped; nothing may show it."""
    rng = generator(structure, 9)
    truth = oracle.random_mixture(rng, structure, 24, 4, separation=15.0)
    x, labels = truth.sample(rng, 3000)
    # Alike rows side by side are where whole tiles could be skipped.
    x = x[np.argsort(labels)].astype(dtype)
    rtol = tolerance(dtype, 1e-10, 2e-5)
    model = fit(x, truth, device, max_iter=2, reg_covar=1e-3)
    expected = oracle.em(x, truth, max_iter=2, reg_covar=1e-3)
    assert_same_mixture(learnt(model), expected.mixture, rtol)
    assert_close(model.lower_bounds_, expected.lower_bounds, rtol)
    # A dying component lives on the tails of another: it keeps its own few digits.
    small = 1e-9 if np.dtype(dtype) == np.float64 else 1e-5
    spread = oracle.pack(structure, np.stack([np.eye(2), 4 * np.eye(2)]), np.ones(2))
    means = np.array([[0.0, 0.0], [1.0, -1.0]])
    dying = oracle.Mixture(structure, np.array([1 - small, small]), means, spread)
    x = rng.standard_normal((2000, 2)).astype(dtype)
    model = fit(x, dying, device, max_iter=1)
    expected = oracle.em(x, dying, max_iter=1).mixture
    assert_close(model.weights_[1], expected.weights[1], 100 * rtol, "weight")
    assert_close(model.means_[1], expected.means[1], 100 * rtol, "mean")
    assert_close(learnt(model).dense()[1], expected.dense()[1], 100 * rtol, "covariance")


def chunks_are_the_whole(structure, device, dtype):
    x, start, rng = problem(structure, dtype, n=1001)
    weight = rng.uniform(0.5, 1.5, size=len(x))
    whole = fit(x, start, device, sample_weight=weight, max_iter=3)
    rtol = tolerance(dtype, 1e-11, 1e-6)
    for batch_size in (97, 1000, 5000):
        chunked = fit(x, start, device, sample_weight=weight, max_iter=3, batch_size=batch_size)
        assert_same_mixture(learnt(chunked), learnt(whole), rtol)
        assert_close(chunked.lower_bounds_, whole.lower_bounds_, rtol)
        model = fitted(start, device, batch_size=batch_size)
        plain = fitted(start, device)
        np.testing.assert_array_equal(model.predict(x), plain.predict(x))
        assert_close(model.score_samples(x), plain.score_samples(x), rtol)
        assert_close(model.predict_proba(x), plain.predict_proba(x), rtol)


def threads_do_not_matter(structure, device, dtype):
    x, start, rng = problem(structure, dtype, n=9001, k=5, d=4)
    weight = rng.uniform(0.5, 1.5, size=len(x))
    own = {"covariance_type": structure, "random_state": 3, "max_iter": 2, "tol": 0.5}
    before = numba.get_num_threads()
    results = []
    # Small passes would run on one thread whatever they are allowed; without any it is other code.
    for count, least in ((1, 0), (min(2, numba.config.NUMBA_NUM_THREADS), 0), (1, 0), (1, np.inf)):
        with mock.patch.object(threads, "PARALLEL_FLOPS", least):
            numba.set_num_threads(count)
            try:
                model = fit(x, start, device, sample_weight=weight, max_iter=3)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    drawn = make(4, device, **own).fit(x)
                arrays = [getattr(model, name)(x) for name in ("score_samples", "predict_proba")]
            finally:
                numba.set_num_threads(before)
            results.append((model, drawn, *arrays))
    for other in results[1:]:
        assert_same_bits(results[0][0], other[0])
        assert_same_bits(results[0][1], other[1])
        np.testing.assert_array_equal(results[0][2], other[2])
        np.testing.assert_array_equal(results[0][3], other[3])


def same_seed_same_result(structure, device, dtype):
    x, _, _ = problem(structure, dtype)
    for init_params in ("kmeans", "k-means++", "random", "random_from_data"):
        a, b = (
            make(
                3,
                device,
                covariance_type=structure,
                init_params=init_params,
                random_state=11,
                n_init=2,
                max_iter=3,
                tol=10.0,
            ).fit(x)
            for _ in range(2)
        )
        assert_same_bits(a, b)
        np.testing.assert_array_equal(a.sample(20)[0], b.sample(20)[0])


LAWS = (
    likelihood_never_decreases,
    em_is_the_oracles,
    permuting_components_permutes,
    permuting_rows_permutes,
    permuting_features_permutes,
    affine_maps_carry_over,
    integer_weights_are_duplication,
    zero_weight_is_removal,
    shapes_agree_in_one_dimension,
    one_component_is_closed_form,
    responsibilities_sum_to_one,
    counts_sum_to_weights,
    density_integrates_to_one,
    density_is_scipys,
    device_is_the_reference,
    skipped_work_is_negligible,
    chunks_are_the_whole,
    threads_do_not_matter,
    same_seed_same_result,
)
