"""SufficientStatistics: addition, scaling, the flat buffer, and what follows from them."""

from __future__ import annotations

import numpy as np
import pytest

from fastgmm.arrays import to_numpy
from fastgmm.errors import InputError
from fastgmm.statistics import SufficientStatistics

FIELDS = ("counts", "first", "second", "log_likelihood", "weight", "n_rows")


@pytest.fixture
def parts(rng):
    x = rng.standard_normal((30, 2))
    resp = rng.dirichlet(np.ones(3), size=30)
    about = rng.standard_normal((3, 2))
    return x, resp, about


@pytest.fixture
def moments(kind):
    """A function that gives full statistics of some rows by definition."""

    def by_definition(x, resp, about):
        difference = x[:, None] - about
        arrays = (
            resp.sum(0),
            np.einsum("nk,nkd->kd", resp, difference),
            np.einsum("nk,nki,nkj->kij", resp, difference, difference),
            about,
        )
        sums = (float(x.sum()), float(resp.sum()), len(x))
        return SufficientStatistics(*map(kind, arrays), *sums)

    return by_definition


def assert_equal(a, b):
    for field in FIELDS:
        np.testing.assert_allclose(getattr(a, field), getattr(b, field), rtol=1e-12, atol=1e-13)


def test_parts_add_up_to_the_whole(parts, moments):
    x, resp, about = parts
    whole = moments(x, resp, about)
    assert_equal(moments(x[:7], resp[:7], about) + moments(x[7:], resp[7:], about), whole)


def test_addition_has_no_side_effects(parts, moments):
    x, resp, about = parts
    a, b = moments(x[:7], resp[:7], about), moments(x[7:], resp[7:], about)
    before = a.to_buffer()
    a + b
    np.testing.assert_array_equal(a.to_buffer(), before)


def test_scaling_is_other_row_weights(parts, moments):
    x, resp, about = parts
    twice = moments(x, resp, about).scale(2.0)
    for field in ("counts", "first", "second"):
        doubled = getattr(moments(np.repeat(x, 2, 0), np.repeat(resp, 2, 0), about), field)
        np.testing.assert_allclose(getattr(twice, field), doubled, rtol=1e-12)
    assert twice.n_rows == 30


def test_buffers_add_as_statistics_do(parts, moments):
    x, resp, about = parts
    a, b = moments(x[:7], resp[:7], about), moments(x[7:], resp[7:], about)
    buffer = a.to_buffer() + b.to_buffer()
    assert buffer.ndim == 1
    assert to_numpy(buffer).dtype == np.float64
    assert_equal(a.from_buffer(buffer), a + b)
    with pytest.raises(InputError, match="buffer"):
        a.from_buffer(buffer[:-1])


def test_moments_about_other_points_do_not_add(parts, moments):
    x, resp, about = parts
    with pytest.raises(InputError, match="same points"):
        moments(x, resp, about) + moments(x, resp, about + 1.0)
    with pytest.raises(TypeError):
        moments(x, resp, about) + 1.0


def test_empty_components_stay_where_they_are(parts, moments):
    x, resp, about = parts
    resp = resp * [1.0, 0.0, 1.0]
    statistics = moments(x, resp, about)
    np.testing.assert_array_equal(statistics.empty, [False, True, False])
    np.testing.assert_array_equal(statistics.means[1], about[1])
    assert statistics.weights[1] == 0.0
    assert statistics.weights.sum() == pytest.approx(1.0, rel=1e-15)
