"""Torch tensors in the estimator: what goes in, what comes out, what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastgmm
import helpers
import oracle
from fastgmm import GaussianMixture, functional
from fastgmm.arrays import to_numpy
from fastgmm.backends import choose
from fastgmm.errors import BackendUnavailableError, InputError, PrecisionWarning
from fastgmm.sources import Joined
from helpers import ATTRIBUTES, METHODS, rows

torch = pytest.importorskip("torch")


def assert_tensor(got, expected):
    """The same numbers in the same dtype, as a tensor of the host."""
    assert isinstance(got, torch.Tensor)
    assert got.device.type == "cpu"
    assert not got.requires_grad
    assert got.numpy().dtype == expected.dtype
    np.testing.assert_array_equal(got.numpy(), expected)


def test_tensors_give_what_arrays_give_as_tensors(structure, dtype, device):
    x = rows(dtype=dtype)
    settings = {"covariance_type": structure, "random_state": 0, "device": device}
    arrays = GaussianMixture(3, **settings).fit(x)
    tensors = GaussianMixture(3, **settings).fit(torch.tensor(x))
    exact = device == "cpu"
    for name in ATTRIBUTES:
        got, expected = getattr(tensors, name), getattr(arrays, name)
        if exact:
            assert_tensor(got, expected)
        assert got.dtype == torch.tensor(x).dtype
        helpers.assert_close(got, expected, helpers.tolerance(dtype, 1e-9, 1e-5), name)
    for name in METHODS:
        got, expected = getattr(tensors, name)(torch.tensor(x)), getattr(arrays, name)(x)
        if exact:
            assert_tensor(got, expected)
        assert isinstance(got, torch.Tensor)
        assert got.numpy().dtype == expected.dtype
    for name in ("score", "aic", "bic"):
        got = getattr(tensors, name)(torch.tensor(x))
        assert type(got) is float
        assert got == pytest.approx(getattr(arrays, name)(x), rel=1e-5)
    drawn = tensors.sample(9)
    helpers.assert_close(drawn[0], arrays.sample(9)[0], 1e-5)
    assert drawn[0].dtype == tensors.means_.dtype
    assert drawn[1].dtype == torch.int64
    assert isinstance(tensors.lower_bound_, float)
    assert tensors.n_iter_ == arrays.n_iter_


def test_a_model_takes_either_kind_whatever_it_was_fitted_with(structure, device):
    x = rows()
    settings = {"covariance_type": structure, "random_state": 0, "device": device}
    for data in (x, torch.tensor(x)):
        model = GaussianMixture(3, **settings).fit(data)
        for name in METHODS:
            there, here = getattr(model, name)(torch.tensor(x)), getattr(model, name)(x)
            assert isinstance(there, torch.Tensor)
            assert isinstance(here, np.ndarray)
            np.testing.assert_allclose(there.numpy(), here, rtol=1e-10, atol=1e-12)
        assert len(model._prepared) == (2 if device == "cpu" else 4)


def test_host_tensors_are_read_where_they_are():
    x = torch.tensor(rows())[::2, 1:].T.contiguous().T
    backend, reason = choose("auto", "cpu")
    assert np.shares_memory(backend.rows(x), x.numpy())
    assert "memory of the CPU" in reason


def test_integers_become_float64():
    x = torch.tensor(np.round(rows() * 4)).long()
    model = GaussianMixture(2, random_state=0).fit(x)
    assert model.means_.dtype == torch.float64
    same = GaussianMixture(2, random_state=0).fit(x.numpy())
    assert_tensor(model.means_, same.means_)
    assert model.predict(x > 3).dtype == torch.int64
    for value in (2**53 + 1, -(2**53) - 1, -(2**63), 2**64 - 1):
        huge = x.abs().numpy().astype(np.uint64 if value > 2**63 else np.int64)
        huge[0, 0] = value
        with pytest.warns(PrecisionWarning, match=r"2\^53"):
            model.predict(torch.tensor(huge))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        huge[0, 0] = 2**53
        model.predict(torch.tensor(huge))


def test_weights_of_rows_may_be_tensors(structure):
    x, weight = rows(), np.random.default_rng(1).uniform(size=200)
    make = lambda: GaussianMixture(3, covariance_type=structure, random_state=0)  # noqa: E731
    expected = make().fit(x, sample_weight=weight)
    for data in (x, torch.tensor(x)):
        model = make().fit(data, sample_weight=torch.tensor(weight))
        np.testing.assert_array_equal(to_numpy(model.means_), expected.means_)
        score = model.score(data, sample_weight=torch.tensor(weight))
        assert score == expected.score(x, sample_weight=weight)
    with pytest.raises(InputError, match="row 3"):
        make().fit(torch.tensor(x), sample_weight=1.0 - torch.eye(200)[3] * 2)


@pytest.mark.parametrize("given", ["covariances", "precisions", "precisions_cholesky"])
def test_parameters_may_be_tensors(structure, given):
    mixture = oracle.random_mixture(np.random.default_rng(0), structure, 3, 2)
    value = getattr(mixture, given)
    value = value() if callable(value) else value
    settings = {"covariance_type": structure}
    arrays = GaussianMixture.from_parameters(
        mixture.weights, mixture.means, **{given: value}, **settings
    )
    tensors = GaussianMixture.from_parameters(
        torch.tensor(mixture.weights),
        torch.tensor(mixture.means, requires_grad=True),
        **{given: torch.tensor(value)},
        **settings,
    )
    for name in ATTRIBUTES:
        assert_tensor(getattr(tensors, name), getattr(arrays, name))
    # Assigned by hand, as users of scikit-learn do.
    tensors.means_ = tensors.means_ + 1.0
    arrays.means_ = arrays.means_ + 1.0
    x = rows(50, 2)
    assert_tensor(tensors.score_samples(torch.tensor(x)), arrays.score_samples(x))


def test_start_parameters_may_be_tensors(structure, device):
    x, start, _ = helpers.problem(structure, np.float64)
    expected = helpers.fit(x, start, device)
    model = helpers.estimator(start, device)
    for name in ("weights_init", "means_init", "precisions_init"):
        setattr(model, name, torch.tensor(getattr(model, name)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(torch.tensor(x))
    helpers.assert_close(model.means_, expected.means_, 1e-12)
    part = GaussianMixture(
        3, covariance_type=structure, means_init=torch.tensor(start.means), max_iter=0
    ).fit(torch.tensor(x))
    helpers.assert_close(part.means_, start.means, 1e-15)


def test_from_responsibilities(structure, device):
    mixture = oracle.random_mixture(np.random.default_rng(0), structure, 3, 2)
    x = mixture.sample(np.random.default_rng(1), 100)[0]
    resp = mixture.responsibilities(x)
    settings = {"covariance_type": structure, "device": device}
    expected = GaussianMixture.from_responsibilities(x, resp, **settings)
    for given in (resp, torch.tensor(resp)):
        model = GaussianMixture.from_responsibilities(torch.tensor(x), given, **settings)
        assert isinstance(model.means_, torch.Tensor)
        helpers.assert_close(model.means_, expected.means_, 1e-12)
        helpers.assert_close(model.covariances_, expected.covariances_, 1e-10)
    with pytest.raises(InputError, match="resp must be finite"):
        GaussianMixture.from_responsibilities(torch.tensor(x), -torch.tensor(resp), **settings)


def test_functional(structure, dtype, device):
    mixture = oracle.random_mixture(np.random.default_rng(0), structure, 3, 2)
    x = mixture.sample(np.random.default_rng(1), 60)[0].astype(dtype)
    rest = (mixture.weights, mixture.means, mixture.precisions_cholesky(), structure)
    on_tensors = tuple(v if isinstance(v, str) else torch.tensor(v) for v in rest)
    for name in ("score_samples", "predict", "responsibilities"):
        function = getattr(functional, name)
        got, expected = (function(torch.tensor(x), *on_tensors, device=device), function(x, *rest))
        assert isinstance(got, torch.Tensor)
        assert got.numpy().dtype == expected.dtype
        helpers.assert_close(got, expected, helpers.tolerance(dtype, 1e-11, 1e-5), name)
        # Rows of no library beside a mixture of tensors.
        plain = function(x.astype(np.float64).tolist(), *on_tensors)
        helpers.assert_close(plain, expected, helpers.tolerance(dtype, 1e-11, 1e-5), name)
    log_prob = functional.log_prob(torch.tensor(x), *on_tensors[1:], device=device)
    helpers.assert_close(log_prob, functional.log_prob(x, *rest[1:]), 1e-5)
    weight = torch.arange(60.0)
    got = functional.sufficient_statistics(torch.tensor(x), *on_tensors, weight, device=device)
    expected = functional.sufficient_statistics(x, *rest, weight)
    assert isinstance(got.counts, torch.Tensor)
    rtol = helpers.tolerance(dtype, 1e-10, 2e-5)
    helpers.assert_close((got + got).to_buffer(), (expected + expected).to_buffer(), rtol)
    nothing = functional.sufficient_statistics(torch.tensor(x[:0]), *on_tensors, device=device)
    helpers.assert_close((got + nothing).to_buffer(), got.to_buffer(), 1e-15)
    again = got.from_buffer(got.to_buffer())
    helpers.assert_close(again.first, got.first, 1e-15)
    with pytest.raises(InputError, match=r"\(N, 2\)"):
        functional.predict(torch.tensor(x[:, :1]), *rest, device=device)


def test_warm_start_goes_on_with_the_other_kind():
    x, start, _ = helpers.problem("full", np.float64)
    whole = helpers.fit(x, start, "reference", max_iter=6)
    model = helpers.estimator(start, "reference", max_iter=3, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x).fit(torch.tensor(x))
    helpers.assert_close(model.means_, whole.means_, 1e-10)
    assert isinstance(model.means_, torch.Tensor)


def test_callbacks_see_tensors():
    x, start, _ = helpers.problem("full", np.float64)
    seen = []
    model = helpers.estimator(start, "reference", max_iter=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(torch.tensor(x), callback=seen.append)
    assert [type(s.lower_bound) for s in seen] == [float] * 4
    assert torch.equal(seen[-1].model.means, model.means_)


class Foreign:
    """An array of some other library that speaks DLPack and nothing else."""

    def __init__(self, array, kind=1):
        self._array, self._kind = array, kind

    def __dlpack__(self, **kwargs):
        return self._array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return (self._kind, 0)


def test_arrays_of_other_libraries_come_in_by_dlpack():
    x = rows()
    model = GaussianMixture(2, random_state=0).fit(Foreign(x))
    expected = GaussianMixture(2, random_state=0).fit(x)
    helpers.assert_same_bits(model, expected)
    np.testing.assert_array_equal(model.predict(Foreign(x)), expected.predict(x))
    with pytest.raises(InputError, match=r"torch\.from_dlpack"):
        model.predict(Foreign(x, kind=2))
    with pytest.raises(InputError, match="Foreign"):
        model.predict(Foreign(torch.tensor(x).bfloat16()))
    for given in (Joined([Foreign(x[:50]), x[50:]]), lambda: iter([Foreign(x)])):
        np.testing.assert_array_equal(model.predict(given), expected.predict(x))


def test_choice_of_the_device():
    assert choose("auto")[0] is choose("auto", "cpu")[0] is choose("cpu", "cpu")[0]
    assert choose("reference")[0] is not choose("reference", "cpu")[0]
    for device in ("cpu", "interpreter", "cuda:0"):
        with pytest.raises(InputError, match=f"'{device}'.*'cuda:1'"):
            choose(device, "cuda:1")
    for device in ("gpu", "cuda:", "cuda:x", "CPU", ""):
        with pytest.raises(InputError, match="'auto', 'cpu', 'reference'"):
            choose(device)
    with pytest.raises(BackendUnavailableError, match="mps"):
        choose("auto", "mps:0")


def test_precision_is_checked():
    with pytest.raises(ValueError, match=r"precision.*'highest'"):
        GaussianMixture(precision="tf32").fit(rows())
    x = rows(dtype=np.float32)
    models = [GaussianMixture(2, random_state=0, precision=p).fit(x) for p in ("highest", "medium")]
    helpers.assert_same_bits(*models)


def test_files_hold_arrays_of_the_host(structure, dtype, tmp_path):
    x = torch.tensor(rows(dtype=dtype))
    model = GaussianMixture(
        3, covariance_type=structure, random_state=0, device="reference", means_init=x[:3] + 0.1
    ).fit(x)
    model.save(tmp_path / "model.safetensors")
    again = fastgmm.load(tmp_path / "model.safetensors")
    assert isinstance(again.means_, np.ndarray)
    assert again.means_.dtype == np.dtype(dtype)
    for name in ATTRIBUTES:
        helpers.assert_close(getattr(again, name), getattr(model, name), 1e-14)
    assert torch.equal(again.predict(x), model.predict(x))
    helpers.assert_close(again.means_init, model.means_init, 1e-15)
    theirs = model.to_sklearn()
    np.testing.assert_array_equal(theirs.predict(x.numpy()), model.predict(x).numpy())
    assert isinstance(theirs.means_init, np.ndarray)


def test_pictures_of_models_on_tensors():
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    from fastgmm import plot

    x = torch.tensor(rows())
    model = GaussianMixture(3, random_state=0).fit(x)
    for draw in (plot.plot_components, plot.plot_density):
        assert draw(model, x).collections
    assert plot.plot_convergence(model).lines
    pyplot.close("all")
