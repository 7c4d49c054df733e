"""save and load: what goes in comes out, to the bit."""

import json
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

import fastgmm
import helpers
from fastgmm import GaussianMixture, covariance, io
from fastgmm.errors import InputError

ARRAYS = (
    "weights_",
    "means_",
    "covariances_",
    "precisions_",
    "precisions_cholesky_",
    "lower_bounds_",
)
FACTS = ("converged_", "n_iter_", "n_jitter_", "lower_bound_", "n_features_in_", "backend_")
STRUCTURES = ("full", "tied", "diag", "spherical", "tied_diag", "tied_spherical")


def rows(dtype=np.float64, n=60, d=3):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, d)) + 4 * rng.integers(0, 2, size=(n, 1))).astype(dtype)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def assert_same(a, b):
    assert a.get_params() == b.get_params()
    for name in ARRAYS:
        ours, theirs = np.asarray(getattr(a, name)), np.asarray(getattr(b, name))
        assert ours.dtype == theirs.dtype, name
        assert ours.shape == theirs.shape, name
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    for name in FACTS:
        assert getattr(a, name) == getattr(b, name), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_round_trip(path, structure, dtype):
    x = rows(dtype)
    model = GaussianMixture(2, covariance_type=structure, random_state=3, max_iter=4).fit(x)
    model.save(path)
    loaded = fastgmm.load(path)
    assert type(loaded) is GaussianMixture
    assert_same(model, loaded)
    for method in ("score_samples", "predict", "predict_proba"):
        np.testing.assert_array_equal(getattr(model, method)(x), getattr(loaded, method)(x))


def test_covariances_with_rounding_can_be_saved(path):
    for scale in (1e-12, 1.0, 1e12):
        matrix = scale * np.array([[[1.0, 0.5], [0.5 + 1e-12, 1.0]]])
        model = GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], matrix)
        np.testing.assert_array_equal(model.covariances_, np.swapaxes(model.covariances_, 1, 2))
        model.save(path)
        helpers.assert_close(fastgmm.load(path).covariances_, matrix, 1e-11)
        matrix[0, 0, 1] *= 1.1
        with pytest.raises(ValueError, match="symmetric"):
            GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], matrix)


def test_single_precision_weights_of_a_start_can_be_used_again(path):
    given = np.array([0.1, 0.9], np.float32)
    GaussianMixture(2, weights_init=given, random_state=0).save(path)
    loaded = fastgmm.load(path)
    assert loaded.weights_init.sum() == pytest.approx(1.0, abs=1e-15)
    loaded.fit(rows())


def test_every_structure_is_covered():
    assert set(STRUCTURES) == set(covariance.names())


@pytest.mark.parametrize(("k", "d"), [(1, 1), (1, 4), (4, 1), (3, 3)])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_sizes(path, structure, k, d):
    model = GaussianMixture(k, covariance_type=structure, random_state=0, max_iter=2)
    model.fit(rows(d=d)).save(path)
    assert_same(model, fastgmm.load(path))


def test_the_function_is_the_method(path, tmp_path):
    model = GaussianMixture(2, random_state=0).fit(rows())
    model.save(path)
    io.save(model, tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == path.read_bytes()


def test_saving_again_gives_the_same_bytes(path):
    GaussianMixture(2, random_state=0).fit(rows()).save(path)
    first = path.read_bytes()
    fastgmm.load(path).save(path)
    assert path.read_bytes() == first


def test_unfitted(path):
    params = {"n_components": 7, "covariance_type": "diag", "tol": 1e-5, "batch_size": 1000}
    GaussianMixture(**params, verbose=1, warm_start=True, random_state=1).save(path)
    loaded = fastgmm.load(path)
    for name, value in params.items():
        assert getattr(loaded, name) == value
    with pytest.raises(NotFittedError):
        check_is_fitted(loaded)


def test_loaded_models_can_be_cloned_and_fitted(path):
    model = GaussianMixture(2, random_state=0).fit(rows())
    model.save(path)
    again = clone(fastgmm.load(path)).fit(rows())
    np.testing.assert_array_equal(again.means_, model.means_)


def test_loaded_arrays_are_the_estimators_own(path):
    GaussianMixture(2, random_state=0).fit(rows()).save(path)
    a, b = fastgmm.load(path), fastgmm.load(path)
    assert not np.shares_memory(a.means_, b.means_)


def test_warm_start_goes_on_from_the_file(path):
    model = GaussianMixture(2, random_state=0, warm_start=True, max_iter=2, tol=0).fit(rows())
    model.save(path)
    loaded = fastgmm.load(path)
    np.testing.assert_array_equal(loaded.fit(rows()).means_, model.fit(rows()).means_)


def test_feature_names(path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(rows(), columns=["length", "Länge", "长度"])
    GaussianMixture(2, random_state=0).fit(frame).save(path)
    loaded = fastgmm.load(path)
    assert list(loaded.feature_names_in_) == list(frame.columns)
    loaded.predict(frame)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame.rename(columns={"length": "width"}))


def test_given_starts_are_kept(path):
    model = GaussianMixture(
        2,
        weights_init=[0.25, 0.75],
        means_init=rows()[:2],
        precisions_init=np.stack([np.eye(3), 2 * np.eye(3)]),
        random_state=0,
    ).fit(rows())
    model.save(path)
    loaded = fastgmm.load(path)
    for name in ("weights_init", "means_init", "precisions_init"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
    np.testing.assert_array_equal(loaded.fit(rows()).means_, model.means_)


def test_numpys_numbers_as_parameters(path):
    model = GaussianMixture(
        np.int64(2), tol=np.float32(0.5), warm_start=np.bool_(True), max_iter=np.int32(3)
    )
    model.save(path)
    loaded = fastgmm.load(path)
    assert (loaded.n_components, loaded.tol, loaded.max_iter) == (2, 0.5, 3)
    assert loaded.warm_start is True


def test_a_generator_is_not_stored(path):
    model = GaussianMixture(2, random_state=np.random.RandomState(0)).fit(rows())
    with pytest.warns(UserWarning, match=r"random_state is a RandomState.*None is stored"):
        model.save(path)
    assert fastgmm.load(path).random_state is None


def test_from_parameters(path):
    model = GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [3.0]], [[[1.0]], [[2.0]]])
    model.save(path)
    loaded = fastgmm.load(path)
    x = rows(d=1)
    np.testing.assert_array_equal(loaded.score_samples(x), model.score_samples(x))


def test_ill_conditioned_float32(path):
    near = 1 - 1e-9
    model = GaussianMixture.from_parameters(
        [1.0], np.zeros((1, 2), np.float32), [[[1.0, near], [near, 1.0]]]
    )
    # What the attribute shows is rounded so far that it is no covariance any more.
    np.testing.assert_array_equal(model.covariances_, np.ones((1, 2, 2), np.float32))
    model.save(path)
    loaded = fastgmm.load(path)
    assert_same(model, loaded)
    x = rows(np.float32, d=2)
    np.testing.assert_array_equal(loaded.score_samples(x), model.score_samples(x))


def test_a_model_from_a_gpu_loads_without_one(path):
    model = GaussianMixture(2, random_state=0).fit(rows())
    model.set_params(device="cuda:7").save(path)
    loaded = fastgmm.load(path)
    assert loaded.device == "cuda:7"
    loaded.set_params(device="cpu").predict(rows())


def test_a_parameter_younger_than_the_file_takes_its_default(path):
    model = GaussianMixture(2, batch_size=5, tol=0.5)
    model.save(path)
    entry = b'\\"batch_size\\": 5, '
    text = path.read_bytes().replace(entry, b" " * len(entry))
    assert text != path.read_bytes()
    path.write_bytes(text)
    loaded = fastgmm.load(path)
    assert (loaded.batch_size, loaded.tol) == (None, 0.5)


def test_any_safetensors_reader_can_look_inside(path):
    model = GaussianMixture(2, random_state=0).fit(rows())
    model.save(path)
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()["fastgmm"])["params"]["n_components"] == 2
        np.testing.assert_array_equal(file.get_tensor("weights"), model.weights_)


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_kinds_of_paths(path, kind):
    GaussianMixture().save(kind(path))
    assert fastgmm.load(kind(path)).n_components == 1


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_load_would_refuse_is_not_saved(path, broken):
    model = GaussianMixture(2, random_state=0).fit(rows())
    model.save(path)
    before = path.read_bytes()
    model.means_ = np.full_like(model.means_, broken)
    with pytest.raises(InputError, match=r"means.*finite"):
        model.save(path)
    assert path.read_bytes() == before


def test_other_objects_are_not_saved(path):
    from sklearn.mixture import GaussianMixture as Theirs

    with pytest.raises(InputError, match="from_sklearn"):
        io.save(Theirs(), path)
    with pytest.raises(InputError, match="'tol'"):
        GaussianMixture(tol=object()).save(path)
    assert not path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")
class TestPosixFiles:
    def test_permissions_of_a_new_file_follow_the_umask(self, path):
        old = os.umask(0o027)
        try:
            GaussianMixture().save(path)
        finally:
            os.umask(old)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def test_permissions_of_an_old_file_stay(self, path):
        path.touch()
        path.chmod(0o600)
        GaussianMixture().save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_links_are_followed(self, path, tmp_path):
        link = tmp_path / "link"
        link.symlink_to(path)
        GaussianMixture(3).save(link)
        assert link.is_symlink()
        assert fastgmm.load(link).n_components == fastgmm.load(path).n_components == 3
