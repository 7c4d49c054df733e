"""How many threads a pass takes."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from fastgmm import GaussianMixture, threads

MANY = 1e12


def test_small_passes_stay_on_the_calling_thread():
    assert threads.threads(threads.PARALLEL_FLOPS - 1) == 0
    assert threads.threads(MANY) >= 1


def test_threadpoolctl_limits_openmp():
    with threadpool_limits(limits=1, user_api="openmp"):
        assert threads.threads(MANY) == 1
    free = threads.threads(MANY)
    with threadpool_limits(limits=1, user_api="blas"):
        assert threads.threads(MANY) == free


def test_numba_keeps_its_own_number(monkeypatch):
    monkeypatch.setattr(threads, "PARALLEL_FLOPS", 0)
    x = np.random.default_rng(0).standard_normal((9001, 3))
    before = numba.get_num_threads()
    with threadpool_limits(limits=1, user_api="openmp"):
        limited = GaussianMixture(4, random_state=0, max_iter=3, tol=0).fit(x)
    assert numba.get_num_threads() == before
    numba.set_num_threads(1)
    try:
        GaussianMixture(4, random_state=0, max_iter=3, tol=0).fit(x)
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)
    free = GaussianMixture(4, random_state=0, max_iter=3, tol=0).fit(x)
    np.testing.assert_array_equal(limited.means_, free.means_)
    assert limited.lower_bounds_ == free.lower_bounds_


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
@pytest.mark.parametrize("started", [True, False])
def test_a_child_of_a_threaded_parent_stays_serial(started, monkeypatch):
    # Whoever has started Numba's threads.
    monkeypatch.setattr("numba.np.ufunc.parallel._is_initialized", started)
    monkeypatch.setattr(threads._process, "forked", False)
    threads._process._after_fork()
    assert (threads.threads(MANY) == 0) == started
