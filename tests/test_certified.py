"""Certified data: NIST-style univariate sets, and blobs far from the origin."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastgmm
import helpers
import oracle


def alternating(base, low, high):
    return np.array([base, *([low, high] * 500)])


# Rows and the exact population variance: sum of squares 2 over 3, 10 over 1001.
NUMACC = {
    1: (np.array([10000001.0, 10000003.0, 10000002.0]), 2.0 / 3.0),
    2: (alternating(1.2, 1.1, 1.3), 10.0 / 1001.0),
    3: (alternating(1000000.2, 1000000.1, 1000000.3), 10.0 / 1001.0),
    4: (alternating(10000000.2, 10000000.1, 10000000.3), 10.0 / 1001.0),
}
# Correct digits of a two-pass sum; rounding the decimals to binary64 sets them for 2 to 4.
CEILING = {1: 16.0, 2: 15.1, 3: 9.2, 4: 8.0}


def correct_digits(got, exact):
    """-log10 of the relative error; 16 where nothing is wrong that float64 could hold."""
    error = abs(float(got) - exact) / exact
    return 16.0 if error <= 1e-16 else min(16.0, -np.log10(error))


@pytest.mark.parametrize("number", NUMACC)
def test_two_pass_sum_reaches_the_ceiling(number):
    x, exact = NUMACC[number]
    digits = correct_digits(np.square(x - x.mean()).mean(), exact)
    assert digits >= CEILING[number] - 0.1


@pytest.mark.parametrize("chunks", [1, 7, 1001])
@pytest.mark.parametrize("number", NUMACC)
def test_variance_digits(structure, place, number, chunks):
    x, exact = NUMACC[number]
    model = helpers.make(
        1,
        place,
        covariance_type=structure,
        reg_covar=0.0,
        batch_size=max(1, -(-len(x) // chunks)),
    ).fit(x[:, None])
    digits = correct_digits(np.ravel(model.covariances_)[0], exact)
    assert digits >= CEILING[number] - 0.3
    assert correct_digits(model.means_[0, 0], x.mean()) >= 15.0


def blobs(offset, dtype):
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1], [400, 600])
    centres = np.array([[-3.0, 0.0], [3.0, 1.0]])
    x = centres[labels] + rng.standard_normal((1000, 2)) + offset
    return x.astype(dtype), labels


def far_truth(x, start, reg_covar, n_iter):
    """EM on exactly shifted rows: subtracting neighbouring floats rounds nothing."""
    base = float(x[0, 0])
    near = x.astype(np.float64) - base
    trace = oracle.em(near, start.mapped(1.0, -base), max_iter=n_iter, reg_covar=reg_covar)
    return trace.mixture, base


@pytest.mark.parametrize(
    ("offset", "dtype"),
    [(1e8, np.float64), (1e4, np.float32), (1e6, np.float32)],
    ids=["1e8-float64", "1e4-float32", "1e6-float32"],
)
def test_blobs_far_from_the_origin(structure, place, offset, dtype):
    x, labels = blobs(offset, dtype)
    shifted = x.astype(np.float64) - offset
    near_start = oracle.start_from_labels(shifted, labels, structure)
    start = near_start.mapped(1.0, offset)
    model = helpers.fit(x, start, place, max_iter=20, reg_covar=1e-6)
    truth, base = far_truth(x, start, 1e-6, 20)
    helpers.assert_close(model.weights_, truth.weights, 1e-3, "weights")
    helpers.assert_close(model.covariances_, truth.covariances, 1e-3, "covariances")
    # A float32 mean at 1e6 is itself rounded to 0.06: half a unit in the last place.
    spacing = float(np.spacing(dtype(offset)))
    np.testing.assert_allclose(
        model.means_.astype(np.float64) - base, truth.means, atol=max(6e-3, spacing)
    )


@pytest.mark.parametrize("offset_dtype", [(1e8, np.float64), (1e4, np.float32)])
def test_blobs_are_found_without_help(structure, offset_dtype):
    x, labels = blobs(*offset_dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = fastgmm.GaussianMixture(2, covariance_type=structure, random_state=0).fit(x)
    order = np.argsort(model.means_[:, 0])
    helpers.assert_close(model.weights_[order], [0.4, 0.6], 0.03)
    found = np.argsort(order)[model.predict(x)]
    assert (found == labels).mean() > 0.99
