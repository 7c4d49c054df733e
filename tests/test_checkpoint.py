"""Checkpoints: a fit that is killed at any moment goes on to the same bits."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import fastgmm
import helpers
import streams
from fastgmm import atomic, fitting
from fastgmm.errors import CheckpointError, DegenerateDataWarning, InputError
from fastgmm.sources import Joined

WORK = """
import sys, warnings
import numpy as np
import fastgmm
warnings.simplefilter("ignore")
rows, path, out, pause = sys.argv[1:5]
import time
model = fastgmm.GaussianMixture(
    6, covariance_type="diag", random_state=3, n_init=3, tol=0.0, max_iter=12, batch_size=900
)
model.fit(rows, checkpoint=path, checkpoint_every=2, callback=lambda s: time.sleep(float(pause)))
np.savez(out, means=model.means_, covariances=model.covariances_, weights=model.weights_,
         bounds=model.lower_bounds_)
"""


def start_work(rows, path, out, pause):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(rows), str(path), str(out), str(pause)], env=env
    )


def test_case_64_killed_again_and_again(tmp_path):
    rows = streams.npy(streams.rows(4000), tmp_path)
    assert start_work(rows, tmp_path / "whole.ck", tmp_path / "whole.npz", 0).wait(200) == 0
    moments = random.Random(7)
    path, killed = tmp_path / "killed.ck", 0
    for _ in range(40):
        process = start_work(rows, path, tmp_path / "resumed.npz", 0.02)
        if killed < 4:
            deadline = time.monotonic() + 100
            # From its first write on the fit is under way.
            before = path.stat().st_mtime_ns if path.exists() else 0
            while (path.stat().st_mtime_ns if path.exists() else 0) == before:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.001)
            time.sleep(moments.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
            killed += process.wait(100) == -signal.SIGKILL
        elif process.wait(200) == 0:
            break
    assert killed == 4
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "resumed.npz") as resumed:
        for name in whole.files:
            assert whole[name].tobytes() == resumed[name].tobytes(), name


class Stopped(Exception):
    pass


def stop_at(init, iteration):
    def callback(state):
        if (state.init, state.iteration) == (init, iteration):
            raise Stopped

    return callback


def mixture(structure="full", **params):
    return fastgmm.GaussianMixture(
        4,
        covariance_type=structure,
        **{"random_state": 0, "tol": 0.0, "max_iter": 9, "n_init": 2} | params,
    )


@pytest.mark.parametrize("init_params", ["kmeans", "random", "k-means++"])
@pytest.mark.parametrize("stop", [(0, 1), (0, 4), (0, 9), (1, 1), (1, 7)])
def test_the_same_bits_from_any_iteration(stop, init_params, tmp_path):
    x, path = streams.rows(3000, np.float32), tmp_path / "fit.ck"
    arguments = {"checkpoint": path, "checkpoint_every": 3}
    whole = mixture(init_params=init_params).fit(
        x, checkpoint=tmp_path / "whole.ck", checkpoint_every=3
    )
    with pytest.raises(Stopped):
        mixture(init_params=init_params).fit(x, callback=stop_at(*stop), **arguments)
    seen = []
    resumed = mixture(init_params=init_params).fit(
        x, callback=lambda s: seen.append((s.init, s.iteration)), **arguments
    )
    helpers.assert_same_bits(whole, resumed)
    assert whole.lower_bounds_ == resumed.lower_bounds_
    assert whole.n_iter_ == resumed.n_iter_
    init, iteration = stop
    assert seen[0] == (init, (iteration - 1) // 3 * 3 + 1)


def test_every_structure_goes_on(structure, tmp_path):
    x, _, _ = helpers.problem(structure, np.float64, n=500)
    whole = mixture(structure).fit(x)
    with pytest.raises(Stopped):
        mixture(structure).fit(
            x, callback=stop_at(1, 5), checkpoint=tmp_path / "c", checkpoint_every=1
        )
    resumed = mixture(structure).fit(x, checkpoint=tmp_path / "c", checkpoint_every=1)
    helpers.assert_close(resumed.means_, whole.means_, 1e-12)
    helpers.assert_close(resumed.covariances_, whole.covariances_, 1e-11)
    assert resumed.lower_bounds_ == pytest.approx(whole.lower_bounds_, rel=1e-12)


def test_without_a_seed_the_draws_are_kept(tmp_path):
    x, path = streams.rows(900), tmp_path / "fit.ck"
    with pytest.raises(Stopped):
        mixture(random_state=None).fit(x, callback=stop_at(0, 2), checkpoint=path)
    kept = path.read_bytes()
    fits = []
    for _ in range(2):
        path.write_bytes(kept)
        fits.append(mixture(random_state=None).fit(x, checkpoint=path))
    helpers.assert_same_bits(*fits)


def test_a_fit_that_had_ended_gives_its_result_again(tmp_path):
    x, path = streams.rows(900), tmp_path / "fit.ck"
    first = mixture().fit(x, checkpoint=path)
    called = []
    again = mixture().fit(x, checkpoint=path, callback=called.append)
    assert not called
    helpers.assert_same_bits(first, again)
    assert again.lower_bounds_ == first.lower_bounds_
    assert again.converged_ == first.converged_


def test_convergence_is_kept(tmp_path):
    x, path = streams.rows(900), tmp_path / "fit.ck"
    plain = mixture(tol=1e-3, max_iter=200).fit(x)
    with pytest.raises(Stopped):
        mixture(tol=1e-3, max_iter=200).fit(
            x, callback=stop_at(0, 2), checkpoint=path, checkpoint_every=1
        )
    resumed = mixture(tol=1e-3, max_iter=200).fit(x, checkpoint=path, checkpoint_every=1)
    assert resumed.converged_
    assert resumed.n_iter_ == plain.n_iter_


@pytest.fixture
def begun(tmp_path):
    """Rows, and the checkpoint of a fit that did not end."""
    x, path = streams.rows(900), tmp_path / "fit.ck"
    with pytest.raises(Stopped):
        mixture().fit(x, callback=stop_at(0, 5), checkpoint=path, checkpoint_every=2)
    return x, path


@pytest.mark.parametrize(
    "change",
    [
        {"structure": "diag"},
        {"max_iter": 10},
        {"tol": 1e-5},
        {"reg_covar": 1e-3},
        {"random_state": 1},
        {"n_init": 3},
        {"init_params": "random"},
        {"empty": "error"},
        {"precision": "high"},
        {"weights_init": np.full(4, 0.25)},
        {"means_init": np.zeros((4, 3)) + np.arange(4.0)[:, None]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_are_refused(begun, change):
    x, path = begun
    before = path.read_bytes()
    name = (
        next(iter(change)).replace("structure", "covariance_type").replace("random_state", "seed")
    )
    with pytest.raises(CheckpointError, match=f"written with {name}="):
        mixture(**change).fit(x, checkpoint=path)
    assert path.read_bytes() == before


def test_where_and_how_it_is_computed_may_change(begun):
    x, path = begun
    changed = {"batch_size": 100, "device": "reference", "verbose": 2}
    model = mixture(**changed).fit(x, checkpoint=path)
    whole = mixture().fit(x)
    assert len(model.lower_bounds_) == len(whole.lower_bounds_)
    helpers.assert_close(model.lower_bounds_, whole.lower_bounds_, 1e-9)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: x[:-1], "n_rows was 900, is 899"),
        (lambda x: x[:, :2], "n_features was 3, is 2"),
        (lambda x: x.astype(np.float32), "dtype was float64, is float32"),
        (lambda x: x + 1.0, "minimum was"),
        (lambda x: np.r_[x[:-1], x[:1]], "was"),
    ],
    ids=["rows", "width", "dtype", "shift", "one row"],
)
def test_case_64_other_data_is_refused(begun, change, text):
    x, path = begun
    with pytest.raises(CheckpointError, match=f"other data.*{text}"):
        mixture().fit(change(x), checkpoint=path)


def test_other_weights_are_refused(begun):
    x, path = begun
    with pytest.raises(CheckpointError, match="weight"):
        mixture().fit(x, sample_weight=np.r_[np.ones(899), 3.0], checkpoint=path)


def test_the_same_sums_of_other_rows_are_refused(tmp_path):
    # Folds as weights, none of them 0: sum, largest weight and rows are alike.
    x, path = streams.rows(900), tmp_path / "fit.ck"
    folds = [np.where(np.arange(900) % 3 != fold, 1.0, 0.5) for fold in range(3)]
    first = mixture().fit(x, sample_weight=folds[0], checkpoint=path)
    for fold in folds[1:]:
        with pytest.raises(CheckpointError, match="other data: projected"):
            mixture().fit(x, sample_weight=fold, checkpoint=path)
    shuffled = x.copy()
    np.random.default_rng(0).shuffle(shuffled[:, 1])
    path.unlink()
    mixture().fit(x, checkpoint=path)
    with pytest.raises(CheckpointError, match="other data: projected"):
        mixture().fit(shuffled, checkpoint=path)
    # Rows with their weights in another order are the same data.
    path.unlink()
    mixture().fit(x, sample_weight=folds[0], checkpoint=path)
    again = mixture().fit(x[::-1], sample_weight=folds[0][::-1], checkpoint=path)
    helpers.assert_same_bits(first, again)


@pytest.mark.parametrize("seed", [None, np.random.RandomState(5)], ids=["global", "own"])
def test_the_stream_that_was_given_is_not_wound_back(seed, tmp_path):
    x, path = streams.rows(900), tmp_path / "fit.ck"
    stream = np.random if seed is None else seed
    mixture(random_state=seed).fit(x, checkpoint=path)
    drawn = []
    for _ in range(2):
        mixture(random_state=seed).fit(x, checkpoint=path)
        drawn.append(stream.random_sample())
    assert drawn[0] != drawn[1]


def test_weights_may_be_added_in_another_order(tmp_path):
    x, path = streams.rows(900), tmp_path / "fit.ck"
    weight = np.random.default_rng(0).gamma(2.0, size=900)
    rows = [Joined([(x[:n], weight[:n]), (x[n:], weight[n:])]) for n in (400, 100)]
    with pytest.raises(Stopped):
        mixture().fit(rows[0], checkpoint=path, callback=stop_at(0, 5))
    kept = path.read_bytes()
    for found in (*rows, lambda: iter([(x, weight)])):
        path.write_bytes(kept)
        model = mixture().fit(found, checkpoint=path)
        assert len(model.lower_bounds_) == 9


@pytest.mark.parametrize("damage", ["half", "empty", "noise", "version", "nan"])
def test_damaged_files_are_refused(begun, damage):
    x, path = begun
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    damaged = {
        "half": raw[: len(raw) // 2],
        "empty": b"",
        "noise": os.urandom(500),
        "version": raw.replace(b'format_version\\": 1', b'format_version\\": 9'),
        "nan": raw[: 8 + size] + b"\xff" * (len(raw) - 8 - size),
    }[damage]
    assert damaged != raw
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=str(path)):
        mixture().fit(x, checkpoint=path)


def test_case_65_a_full_disk_warns_and_the_fit_goes_on(begun, monkeypatch):
    x, path = begun
    before, whole = (
        path.read_bytes(),
        mixture().fit(x, checkpoint=path.with_name("w"), checkpoint_every=2),
    )

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.warns(UserWarning, match=r"not written at iteration.*No space left.*goes on"):
        model = mixture().fit(x, checkpoint=path, checkpoint_every=2)
    helpers.assert_same_bits(model, whole)
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".fastgmm*"))


def test_integers_of_numpy(tmp_path):
    x, one = streams.rows(300), np.int64(1)
    settings = {"n_init": 2 * one, "max_iter": 3 * one}
    model = mixture(**settings).fit(x, checkpoint=tmp_path / "c", checkpoint_every=one, warm_up=one)
    again = mixture(**settings).fit(x, checkpoint=tmp_path / "c", warm_up=1)
    helpers.assert_same_bits(model, again)


@pytest.mark.parametrize("name", ["warm_up", "checkpoint_every"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "2"])
def test_counts_are_integers(name, value):
    with pytest.raises(InputError, match=f"{name} must be an int of at least"):
        mixture().fit(streams.rows(100), **{name: value})


def test_arguments_that_cannot_be(tmp_path):
    x = streams.rows(100)
    with pytest.raises(InputError, match="no such folder"):
        mixture().fit(x, checkpoint=tmp_path / "no" / "c")
    with pytest.raises(InputError, match="checkpoint_every"):
        mixture().fit(x, checkpoint=tmp_path / "c", checkpoint_every=0)
    with pytest.raises(InputError, match="warm_start"):
        mixture(warm_start=True).fit(x, checkpoint=tmp_path / "c")
    with pytest.raises(InputError, match="random_state is a Generator"):
        mixture(random_state=np.random.default_rng(0)).fit(x, checkpoint=tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_failed_starts_are_remembered(tmp_path, monkeypatch):
    x, path, made, initial_model = streams.rows(200), tmp_path / "c", [], fitting.initial_model

    def broken_first(*args, **kwargs):
        model = initial_model(*args, **kwargs)
        made.append(model)
        return replace(model, means=np.nan * model.means) if len(made) == 1 else model

    monkeypatch.setattr(fitting, "initial_model", broken_first)
    with pytest.raises(Stopped):
        mixture(n_init=3).fit(x, callback=stop_at(1, 2), checkpoint=path, checkpoint_every=1)
    with pytest.warns(DegenerateDataWarning, match="1 of 3 starts failed and were skipped"):
        mixture(n_init=3).fit(x, checkpoint=path)
    # The first is not tried again, and the second goes on from where it was.
    assert len(made) == 3


def test_huge_rows_without_weight_do_not_tell_data_apart(tmp_path):
    x = np.r_[streams.rows(200), np.full((9, 3), 1e200)]
    weight = np.repeat([1.0, 0.0], [200, 9])
    for _ in range(2):
        model = mixture().fit(x, sample_weight=weight, checkpoint=tmp_path / "c")
    assert np.isfinite(model.lower_bound_)
