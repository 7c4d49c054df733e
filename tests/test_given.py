"""Mixtures from given parameters and responsibilities: what they take, and their digits."""

from __future__ import annotations

import numpy as np
import pytest

import fastgmm
import helpers
from fastgmm import covariance, functional
from fastgmm.errors import InputError, PrecisionWarning, SingularCovarianceError
from fastgmm.model import MixtureModel
from fastgmm.sources import arrays, batches

from_parameters = fastgmm.GaussianMixture.from_parameters
from_responsibilities = fastgmm.GaussianMixture.from_responsibilities
ONES, WEIGHTS = np.ones((2, 1)), [0.5, 0.5]
# What takes numbers of the shape (2, 1).
TAKERS = {
    "rows": lambda v: functional.score_samples(v, WEIGHTS, ONES, ONES, "diag"),
    "means": lambda v: functional.score_samples(ONES, WEIGHTS, v, ONES, "diag"),
    "factors": lambda v: functional.log_prob(ONES, ONES, v, "diag"),
    "given means": lambda v: from_parameters(WEIGHTS, v, ONES, covariance_type="diag"),
    "given covariances": lambda v: from_parameters(WEIGHTS, ONES, v, covariance_type="diag"),
    "resp": lambda v: from_responsibilities(np.arange(2.0)[:, None], v),
}
REFUSED = {
    "mask": (np.ma.masked_array(ONES, mask=[[True], [False]]), "masked array"),
    "complex": (ONES + 1j, "complex128"),
    "dates": (np.zeros((2, 1), "M8[D]"), "datetime64"),
}
ROUNDED = {
    "wide integers": (np.array([[1], [2**53 + 1]]), "beyond 2\\^53"),
    "longdouble": (ONES.astype(np.longdouble), "computed in float64"),
}
if np.dtype(np.longdouble).itemsize == 8:
    del ROUNDED["longdouble"]


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_lost_is_refused(taker, case):
    value, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        TAKERS[taker](value)


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("case", ROUNDED)
def test_what_is_rounded_is_told(taker, case):
    value, message = ROUNDED[case]
    with pytest.warns(PrecisionWarning, match=message):
        TAKERS[taker](value)


def test_responsibilities_of_a_mapped_file(monkeypatch, tmp_path, structure):
    monkeypatch.setattr(arrays, "MAPPED_BYTES", 0)
    monkeypatch.setattr(batches, "DEFAULT_BYTES", 1000)
    rng = np.random.default_rng(0)
    x, resp, weight = (
        rng.standard_normal((300, 2)),
        rng.uniform(size=(300, 3)),
        rng.uniform(size=300),
    )
    np.save(tmp_path / "x.npy", x)
    found, expected = (
        from_responsibilities(rows, resp, covariance_type=structure, sample_weight=weight)
        for rows in (np.load(tmp_path / "x.npy", mmap_mode="r"), x)
    )
    helpers.assert_close(found.covariances_, expected.covariances_, 1e-12)


def test_components_far_apart_keep_their_digits(structure):
    x = np.random.default_rng(0).standard_normal((2, 500, 1))
    x[1] += 1e9
    resp = np.repeat(np.eye(2), 500, axis=0)
    model = from_responsibilities(x.reshape(-1, 1), resp, covariance_type=structure, reg_covar=0.0)
    expected = (x - [[[0.0]], [[1e9]]]).var(axis=1)[:, 0]
    if structure.startswith("tied"):
        expected = expected.mean()
    helpers.assert_close(model.covariances_.ravel(), np.ravel(expected), 1e-6)


def test_rows_whose_squares_overflow_are_refused(structure, dtype):
    x = np.random.default_rng(0).standard_normal((50, 2))
    x = (x * (1e20 if dtype == np.float32 else 1e155)).astype(dtype)
    with pytest.raises(InputError, match="squares overflow"):
        from_responsibilities(x, np.ones((50, 2)), covariance_type=structure)


def test_infinite_variances_are_not_sound(structure):
    shape = covariance.get(structure).shape(2, 3)
    infinite = np.full(shape, np.inf)
    model = MixtureModel.factorised(
        np.full(2, 0.5), np.zeros((2, 3)), infinite, covariance.get(structure)
    )
    assert not model.sound()


def test_a_row_without_weight_does_not_matter(structure, dtype):
    rng = np.random.default_rng(0)
    x, resp = rng.standard_normal((50, 2)).astype(dtype), rng.uniform(size=(50, 2))
    expected = from_responsibilities(x, resp, covariance_type=structure)
    x, resp = np.r_[x, np.full((50, 2), 1e12, dtype)], np.r_[resp, resp]
    weight = np.repeat([1.0, 0.0], 50)
    found = from_responsibilities(x, resp, covariance_type=structure, sample_weight=weight)
    accuracy = helpers.tolerance(dtype, 1e-10, 1e-4)
    helpers.assert_close(found.covariances_, expected.covariances_, accuracy)


@pytest.mark.parametrize("structure", ["full", "tied"])
def test_rounding_is_mended_and_told(structure, dtype):
    # Two features that are one, with a variance of 4 beside which reg_covar is lost.
    x = np.tile([[2.0, 2.0], [-2.0, -2.0], [102.0, 102.0], [98.0, 98.0]], (10, 1)).astype(dtype)
    resp = np.tile(np.repeat(np.eye(2), 2, axis=0), (10, 1))
    with pytest.warns(
        PrecisionWarning, match=f"from_responsibilities: rounding in {dtype.__name__}"
    ):
        model = from_responsibilities(x, resp, covariance_type=structure, reg_covar=1e-30)
    helpers.assert_close(model.covariances_, np.full(model.covariances_.shape, 4.0), 1e-4)
    with pytest.raises(SingularCovarianceError, match=r"Increase reg_covar \(now 0\)"):
        from_responsibilities(x, resp, covariance_type=structure, reg_covar=0.0)
