"""Fault cases 1 to 19, 47, 68 and 69 with tensors: types, layouts, errors, graphs and copies."""

from __future__ import annotations

import copy
import pickle
import warnings

import joblib
import numpy as np
import pytest
from sklearn.base import clone

import helpers
from fastgmm import GaussianMixture, functional
from fastgmm.errors import InputError
from helpers import ATTRIBUTES, METHODS, rows

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_case_10_half_precision_is_computed_in_float32(half, device):
    x = torch.tensor(rows()).to(getattr(torch, half))
    settings = {"random_state": 0, "device": device}
    model = GaussianMixture(3, **settings).fit(x)
    whole = GaussianMixture(3, **settings).fit(x.float())
    assert half in model.backend_
    assert "float32" in model.backend_
    for name in ATTRIBUTES:
        assert getattr(model, name).dtype == torch.float32
        assert torch.equal(getattr(model, name), getattr(whole, name))
    scores = model.score_samples(x)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, whole.score_samples(x.float()))


def refused():
    x = torch.tensor(rows(20))
    yield "sparse", x.to_sparse(), TypeError, "to_dense"
    yield "compressed", x.to_sparse_csr(), TypeError, "to_dense"
    yield "complex", x + 1j, InputError, "Complex data not supported"
    yield "meta", x.to("meta"), InputError, "'meta'"
    yield "float8", x.to(torch.float8_e4m3fn), InputError, "float8_e4m3fn"
    scaled = torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8)
    yield "quantised", scaled, InputError, "qint8"


# Compressed layouts and quantised types warn when they are made, of torch's own plans.
@pytest.mark.parametrize("action", ["fit", "predict", "functional"])
def test_case_11_what_cannot_be_read_is_refused(action):
    model = GaussianMixture(2, random_state=0).fit(rows(20))
    parameters = (model.weights_, model.means_, model.precisions_cholesky_)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        cases = list(refused())
    for name, x, error, text in cases:
        call = getattr(model, action, lambda x: functional.predict(x, *parameters))
        with pytest.raises(error, match=text):
            call(x)
        assert model.n_features_in_ == 3, name


def broken():
    x = rows(20)
    nan, infinite = x.copy(), x.copy()
    nan[7, 1] = np.nan
    infinite[4, 2] = -np.inf
    return {
        "1-D": x[:, 0],
        "3-D": x[None],
        "0-D": x[0, 0],
        "no rows": x[:0],
        "no features": x[:, :0],
        "other features": x[:, :2],
        "nan": nan,
        "infinite": infinite,
    }


@pytest.mark.parametrize("name", broken())
@pytest.mark.parametrize("action", ["fit", "predict", "score_samples"])
def test_cases_1_to_19_errors_are_those_of_arrays(name, action, device):
    x = broken()[name]
    if action == "fit" and name == "other features":
        pytest.skip("a fit takes any number of features")
    texts = []
    for data in (np.asarray(x), torch.tensor(x)):
        model = GaussianMixture(2, random_state=0, device=device).fit(rows(20))
        before = model.means_
        with pytest.raises(ValueError, match=r".") as caught:
            getattr(model, action)(data)
        texts.append(str(caught.value))
        assert model.means_ is before
        assert model.n_features_in_ == 3
    assert texts[0] == texts[1]


LAYOUTS = {
    "transposed": lambda x: x.T.contiguous().T,
    "strided": lambda x: torch.stack([x, x], dim=2).reshape(len(x), -1)[:, ::2],
    "offset": lambda x: torch.cat([x[:1], x])[1:],
    "negated": lambda x: torch.complex(x, -x).conj().imag,
    "parameter": torch.nn.Parameter,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_case_47_layouts_do_not_matter(name, device, dtype):
    x = torch.tensor(rows(dtype=dtype))
    other = LAYOUTS[name](x)
    assert torch.equal(other, x)
    settings = {"random_state": 0, "device": device, "max_iter": 3, "tol": 10.0}
    plain, model = (GaussianMixture(3, **settings).fit(data) for data in (x, other))
    rtol = helpers.tolerance(dtype, 1e-12, 1e-6)
    helpers.assert_close(model.means_, plain.means_, rtol)
    helpers.assert_close(model.score_samples(other), plain.score_samples(x), rtol)


def test_case_47_expanded_rows_are_read_as_they_are():
    line = torch.tensor([[1.0, 2.0]])
    model = GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], [1.0], covariance_type="spherical")
    scores = model.score_samples(line.expand(5, 2))
    assert torch.equal(scores, model.score_samples(line).expand(5))


def test_case_68_graphs_end_where_the_mixture_begins(structure):
    x = torch.tensor(rows(), requires_grad=True)
    model = GaussianMixture(2, covariance_type=structure, random_state=0).fit(x * 1.0)
    for name in METHODS:
        assert not getattr(model, name)(x).requires_grad
    assert x.requires_grad
    assert x.grad is None
    # The functions are what gradients are for.
    assert functional.score_samples(
        x, model.weights_, model.means_, model.precisions_cholesky_, structure
    ).requires_grad


def test_case_68_settings_of_torch_change_nothing(structure):
    x = torch.tensor(rows(dtype=np.float32))
    settings = {"covariance_type": structure, "random_state": 0, "device": "reference"}
    expected = GaussianMixture(2, **settings).fit(x)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            model = GaussianMixture(2, **settings).fit(x)
            scores = model.score_samples(x)
    finally:
        torch.set_default_dtype(before)
    helpers.assert_same_bits(model, expected)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, expected.score_samples(x))


def through_pickle(model, tmp_path):
    return pickle.loads(pickle.dumps(model))


def through_joblib(model, tmp_path):
    joblib.dump(model, tmp_path / "model.joblib")
    return joblib.load(tmp_path / "model.joblib", mmap_mode="r")


def through_deepcopy(model, tmp_path):
    return copy.deepcopy(model)


COPIES = (through_pickle, through_joblib, through_deepcopy)


@pytest.mark.parametrize("duplicate", COPIES, ids=lambda f: f.__name__)
def test_case_69_copies_are_whole(structure, duplicate, tmp_path):
    x = torch.tensor(rows())
    settings = {"covariance_type": structure, "random_state": 0, "device": "reference"}
    model = GaussianMixture(3, warm_start=True, means_init=x[:3] + 0.1, **settings).fit(x)
    assert isinstance(model._model.means, torch.Tensor)
    twin = duplicate(model, tmp_path)
    # What a machine without the device could not read must not be in a copy.
    assert isinstance(twin._model.means, np.ndarray)
    for name in ATTRIBUTES:
        assert torch.equal(getattr(twin, name), getattr(model, name))
    np.testing.assert_allclose(twin.score_samples(x), model.score_samples(x), rtol=1e-12)
    helpers.assert_close(twin.fit(x).means_, model.fit(x).means_, 1e-12)
    fresh = clone(model)
    assert torch.equal(fresh.means_init, model.means_init)
    assert not hasattr(fresh, "means_")
