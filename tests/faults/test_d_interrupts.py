"""Fault case 46: an interrupt during a fit."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import fastgmm
import fastgmm.distributed
import helpers
from fastgmm.errors import InputError


def rows(n=200, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def test_case_46_interrupt_leaves_the_previous_fit(structure):
    x = rows()
    model = fastgmm.GaussianMixture(2, covariance_type=structure, random_state=0).fit(x)
    before = helpers.state(model)

    def interrupt(progress):
        if progress.iteration >= 2:
            raise KeyboardInterrupt

    model.set_params(n_components=3, tol=0.0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x + 5.0, callback=interrupt)
    helpers.assert_same_state(model, before)
    model.set_params(tol=1e-3).fit(x)
    assert model.means_.shape == (3, 3)


def interrupting(init, iteration):
    """A callback that stands for Ctrl-C in the midst of a fit."""

    def callback(state):
        if (state.init, state.iteration) == (init, iteration):
            raise KeyboardInterrupt

    return callback


def test_case_46_return_on_interrupt_keeps_the_last_complete_iteration(structure, place):
    x, start, _ = helpers.problem(structure, np.float64)
    params = {"tol": 0.0, "max_iter": 9, "reg_covar": 1e-6}
    model = helpers.estimator(start, place, **params)
    with pytest.warns(ConvergenceWarning, match="interrupted after iteration 3"):
        model.fit(x, callback=interrupting(0, 3), return_on_interrupt=True)
    whole = helpers.fit(x, start, place, **{**params, "max_iter": 3})
    helpers.assert_same_bits(model, whole)
    assert model.n_iter_ == 3
    assert model.lower_bounds_ == whole.lower_bounds_
    assert model.lower_bound_ == whole.lower_bound_
    assert not model.converged_


def test_case_46_an_interrupt_within_an_iteration_leaves_no_half_of_it(monkeypatch):
    from fastgmm.backends.cpu import CPUBackend

    x, start, _ = helpers.problem("full", np.float64)
    whole = helpers.fit(x, start, "cpu", max_iter=2)
    passes, add = [], CPUBackend._add

    def interrupted(self, *args, **kwargs):
        passes.append(1)
        if len(passes) == 5:
            raise KeyboardInterrupt
        return add(self, *args, **kwargs)

    # Two chunks per iteration, so that the interrupt falls into the second of the third.
    monkeypatch.setattr(CPUBackend, "_add", interrupted)
    model = helpers.estimator(start, "cpu", max_iter=9, batch_size=len(x) // 2)
    with pytest.warns(ConvergenceWarning, match="interrupted after iteration 2"):
        model.fit(x, return_on_interrupt=True)
    helpers.assert_same_mixture(helpers.learnt(model), helpers.learnt(whole), 1e-12)


def test_case_46_the_best_start_so_far_is_kept():
    x, _, _ = helpers.problem("full", np.float64, k=4, separation=3.0)
    settings = {"init_params": "random_from_data", "random_state": 1, "tol": 1e-9}
    model = fastgmm.GaussianMixture(4, n_init=6, **settings)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        model.fit(x, callback=interrupting(1, 1), return_on_interrupt=True)
    helpers.assert_same_bits(model, fastgmm.GaussianMixture(4, **settings).fit(x))


def test_case_46_nothing_to_return_before_the_first_iteration(monkeypatch):
    from fastgmm.backends.cpu import CPUBackend

    x = rows()
    model = fastgmm.GaussianMixture(2, random_state=0).fit(x)
    before = helpers.state(model)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(CPUBackend, "kmeans_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x + 1.0, return_on_interrupt=True)
    helpers.assert_same_state(model, before)


def test_case_46_a_checkpoint_goes_on_from_an_interrupt(tmp_path):
    x = rows()
    settings = {"tol": 0.0, "max_iter": 9, "random_state": 0}
    whole = fastgmm.GaussianMixture(3, **settings).fit(x, checkpoint=tmp_path / "a.ck")
    model = fastgmm.GaussianMixture(3, **settings)
    kept = {"checkpoint": tmp_path / "b.ck", "checkpoint_every": 2}
    with pytest.warns(ConvergenceWarning, match="interrupted after iteration 5"):
        model.fit(x, callback=interrupting(0, 5), return_on_interrupt=True, **kept)
    assert model.n_iter_ == 5
    model.fit(x, **kept)
    assert model.n_iter_ == 9
    helpers.assert_same_mixture(helpers.learnt(model), helpers.learnt(whole), 1e-12)


def test_case_46_processes_that_share_a_fit_go_on_from_a_checkpoint_instead():
    # Bare, as it needs other processes to be made.
    shared = object.__new__(fastgmm.distributed.Sharded)
    with pytest.raises(InputError, match=r"return_on_interrupt.*checkpoint"):
        fastgmm.GaussianMixture(2).fit(shared, return_on_interrupt=True)
