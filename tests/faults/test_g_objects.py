"""Fault cases 69 and 70 on a CPU: copies, pickles, interpreters and locales."""

from __future__ import annotations

import copy
import locale
import pickle
import shutil
import subprocess
import sys
import sysconfig
import warnings

import joblib
import numpy as np
import pytest
from processes import run_python
from sklearn.base import clone

import fastgmm
import helpers
import oracle
from fastgmm import tables


def through_pickle(model, tmp_path):
    return pickle.loads(pickle.dumps(model))


def through_cloudpickle(model, tmp_path):
    cloudpickle = pytest.importorskip("cloudpickle")
    return cloudpickle.loads(cloudpickle.dumps(model))


def through_joblib(model, tmp_path):
    joblib.dump(model, tmp_path / "model.joblib")
    return joblib.load(tmp_path / "model.joblib", mmap_mode="r")


def through_deepcopy(model, tmp_path):
    return copy.deepcopy(model)


COPIES = (through_pickle, through_cloudpickle, through_joblib, through_deepcopy)


@pytest.mark.parametrize("duplicate", COPIES, ids=lambda f: f.__name__)
def test_case_69_fitted_models_survive(structure, dtype, duplicate, tmp_path):
    x, _, _ = helpers.problem(structure, dtype)
    model = fastgmm.GaussianMixture(
        3, covariance_type=structure, random_state=0, warm_start=True, max_iter=3, tol=0
    ).fit(x)
    twin = duplicate(model, tmp_path)
    helpers.assert_same_bits(twin, model)
    assert twin.get_params() == model.get_params()
    assert twin.n_features_in_ == 3
    for name in ("score_samples", "predict", "predict_proba"):
        np.testing.assert_array_equal(getattr(twin, name)(x), getattr(model, name)(x))
    np.testing.assert_array_equal(twin.sample(10)[0], model.sample(10)[0])
    # And they go on from where they were.
    helpers.assert_same_bits(twin.fit(x), model.fit(x))


@pytest.mark.parametrize("duplicate", COPIES, ids=lambda f: f.__name__)
def test_case_69_unfitted_models_survive(duplicate, tmp_path):
    model = fastgmm.GaussianMixture(4, covariance_type="tied_diag", means_init=np.zeros((4, 2)))
    twin = duplicate(model, tmp_path)
    assert twin.n_components == 4
    assert twin.covariance_type == "tied_diag"
    np.testing.assert_array_equal(twin.means_init, 0.0)
    assert not hasattr(twin, "means_")


def test_case_69_clone_forgets_the_fit():
    x = np.random.default_rng(0).standard_normal((30, 2))
    model = fastgmm.GaussianMixture(2, random_state=0).fit(x)
    fresh = clone(model)
    assert fresh.get_params() == model.get_params()
    assert not hasattr(fresh, "means_")


def test_case_69_an_older_versions_pickle_warns():
    x = np.random.default_rng(0).standard_normal((30, 2))
    model = fastgmm.GaussianMixture(2, random_state=0).fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(pickle.dumps(model))
    kept = model.__getstate__()
    versions = [key for key in kept if "version" in key]
    assert versions
    kept.update(dict.fromkeys(versions, "0.0.1"))
    old = fastgmm.GaussianMixture.__new__(fastgmm.GaussianMixture)
    with pytest.warns(UserWarning, match=r"0\.0\.1"):
        old.__setstate__(kept)
    np.testing.assert_array_equal(old.predict(x), model.predict(x))


def test_case_70_checks_do_not_vanish_with_asserts():
    out = run_python(
        """
        import numpy as np, warnings
        warnings.simplefilter("ignore")
        import fastgmm
        assert False, "asserts are off"
        x = np.random.default_rng(0).standard_normal((50, 2))
        model = fastgmm.GaussianMixture(2, random_state=0).fit(x)
        bad = x.copy(); bad[3, 1] = np.nan
        refusals = 0
        for action in (
            lambda: model.predict(x[:, :1]),
            lambda: model.score_samples(bad),
            lambda: fastgmm.GaussianMixture(0).fit(x),
            lambda: fastgmm.GaussianMixture(2, weights_init=[0.5, 0.6]).fit(x),
            lambda: fastgmm.GaussianMixture(2).fit(x, sample_weight=-np.ones(50)),
            lambda: fastgmm.GaussianMixture(2).fit(x[:1]),
        ):
            try:
                action()
            except ValueError:
                refusals += 1
        print(refusals)
        """,
        "-OO",
    )
    assert out.split() == ["6"]


COMMA = """LC_NUMERIC
decimal_point "<U002C>"
thousands_sep "<U002E>"
grouping 3;3
END LC_NUMERIC
"""


def use_a_comma(folder, monkeypatch):
    """Set a locale with a decimal comma: one made here where none is installed, if glibc can."""
    compiler = shutil.which("localedef")
    if sys.platform == "linux" and compiler is not None:
        (folder / "comma").write_text(COMMA)
        made = [compiler, "-c", "-i", folder / "comma", "-f", "UTF-8", folder / "comma.UTF-8"]
        # It complains of all that the locale leaves out.
        subprocess.run(made, capture_output=True, check=False)
    for name in ("de_DE.UTF-8", "de_DE.utf8", "German_Germany.1252", "comma.UTF-8"):
        if name == "comma.UTF-8":
            monkeypatch.setenv("LOCPATH", str(folder))
        try:
            locale.setlocale(locale.LC_NUMERIC, name)
        except locale.Error:
            continue
        assert locale.localeconv()["decimal_point"] == ","
        return
    pytest.skip("no locale with a decimal comma is installed, nor can be made")


def test_case_70_locale_does_not_matter(tmp_path, monkeypatch):
    before = locale.setlocale(locale.LC_NUMERIC)
    try:
        use_a_comma(tmp_path, monkeypatch)
        (tmp_path / "x.csv").write_text("1.5,2\n2.5,4\n")
        np.testing.assert_array_equal(tables.read(tmp_path / "x.csv").values, [[1.5, 2], [2.5, 4]])
        mixture = oracle.random_mixture(np.random.default_rng(0), "full", 2, 2)
        model = helpers.fitted(mixture, "cpu")
        model.save(tmp_path / "model.safetensors")
        again = fastgmm.load(tmp_path / "model.safetensors")
        helpers.assert_close(again.means_, mixture.means, 1e-15)
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)


# Threads that meet at the very first call, where what is made once is made.
AT_ONCE = """
import importlib, sys, threading
for name in ("numpy", "numba", "scipy", "sklearn", "safetensors", "tqdm"):
    importlib.import_module(name)
locked = getattr(sys, "_is_gil_enabled", lambda: True)
before = locked()
import numpy as np
import fastgmm
sys.setswitchinterval(1e-6)
x = np.random.default_rng(0).standard_normal((3000, 2))
model = fastgmm.GaussianMixture.from_parameters(
    [0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], [1.0, 2.0], covariance_type="spherical")
start, found = threading.Barrier(6), [None] * 6

def work(i):
    start.wait()
    fit = fastgmm.GaussianMixture(
        2, covariance_type="spherical", means_init=model.means_, random_state=0, max_iter=2)
    found[i] = model.score_samples(x).tobytes() + model.predict(x).tobytes()
    found[i] += fit.fit(x).means_.tobytes()

threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(set(found)), None in found, locked() == before)
"""


def test_case_70_first_calls_of_many_threads_at_once():
    assert run_python(AT_ONCE, "-W", "ignore").split() == ["1", "False", "True"]


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="needs a free-threaded build of Python"
)
def test_case_70_free_threaded_builds_run_without_the_lock():
    code = AT_ONCE + "print(locked())\n"
    out = run_python(code, "-W", "ignore", "-X", "gil=0").split()
    assert out == ["1", "False", "True", "False"]


@pytest.mark.parametrize("on", [True, False])
def test_case_70_free_threaded_builds_are_told_apart(on, monkeypatch):
    from fastgmm import environment

    plain = environment.describe()["python"]
    monkeypatch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": 1}.get)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: on, raising=False)
    expected = f", free-threaded build, GIL {'on' if on else 'off'}"
    assert environment._python() == plain.partition(", free")[0] + expected
