"""Rows in several places: a fit and scores are those of all of them as one array."""

from __future__ import annotations

import importlib.util
import math
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import fastgmm
import helpers
import oracle
import streams
from conftest import CUDA
from fastgmm import backends, chunked, em, rows
from fastgmm.arrays import is_tensor, to_numpy
from fastgmm.backends.several import Several
from fastgmm.errors import InputError
from fastgmm.model import MixtureModel
from fastgmm.sources import ArraySource, Joined, open_source

torch = pytest.importorskip("torch")
TRITON = importlib.util.find_spec("triton") is not None
# Where the tensors are, and the device of the estimator: two backends each, that of arrays first.
PAIRS = [
    pytest.param(("cpu", "reference"), id="reference"),
    pytest.param(
        ("cpu", "mixed"),
        id="numba-interpreter",
        marks=pytest.mark.skipif(CUDA or not TRITON, reason="there is no interpreter"),
    ),
    pytest.param(
        ("cuda:0", "auto"),
        id="numba-cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="there is no CUDA device")],
    ),
]


@pytest.fixture(params=PAIRS)
def pair(request, monkeypatch):
    """The device of tensors, and that of an estimator whose arrays have another backend."""
    where, device = request.param
    if device != "mixed":
        return where, device
    several = Several({None: backends.choose("cpu")[0], "cpu": backends.choose("interpreter")[0]})
    for module in (rows, chunked):
        monkeypatch.setattr(module, "choose", lambda *_: (several, "Numba and Triton"))
    return where, "auto"


def cut(x, where, *edges):
    """Parts of rows, the second of each pair as tensors."""
    return [
        torch.tensor(part, device=where) if i % 2 else part
        for i, part in enumerate(np.split(x, edges))
    ]


def quiet(model, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*args)


def test_a_fit_is_that_of_the_array(pair, structure, dtype):
    where, device = pair
    x, start, rng = helpers.problem(structure, dtype, n=100)
    weight = rng.gamma(2.0, size=100)
    settings = {"max_iter": 2, "reg_covar": 1e-6}
    whole = helpers.fit(x, start, "cpu", weight, **settings)
    parts = zip(cut(x, where, 30, 31), np.split(weight, [30, 31]), strict=True)
    model = quiet(helpers.estimator(start, device, **settings), Joined(parts, 40))
    rtol = helpers.tolerance(dtype, 1e-9, 2e-5)
    helpers.assert_same_mixture(helpers.learnt(model), helpers.learnt(whole), rtol)
    helpers.assert_close(model.lower_bounds_, whole.lower_bounds_, rtol)
    assert isinstance(model.means_, np.ndarray)


@pytest.mark.parametrize("shape", ["full", "tied"])
def test_tensors_first_give_tensors_of_the_same_bits(pair, shape):
    where, device = pair
    x = streams.rows(80)
    settings = {"covariance_type": shape, "max_iter": 2, "random_state": 0}
    settings["init_params"] = "random_from_data"
    whole = quiet(fastgmm.GaussianMixture(3, **settings), x)
    models = [
        quiet(fastgmm.GaussianMixture(3, device=device, **settings), Joined(parts[1:]))
        for parts in [cut(x, where, 0, 50, 70)] * 2
    ]
    assert str(models[0].means_.device) == where
    for name in helpers.PARAMETERS:
        one, other = (getattr(model, name).cpu() for model in models)
        helpers.assert_close(one, getattr(whole, name), 1e-9, name)
        np.testing.assert_array_equal(one, other)
    assert models[0].lower_bounds_ == models[1].lower_bounds_


@pytest.mark.parametrize(
    "method", ["kmeans", "k-means++", "k-means||", "random", "random_from_data"]
)
def test_a_start_is_that_of_the_array(pair, method):
    where, device = pair
    x = streams.rows(120)
    settings = {"init_params": method, "random_state": 0, "max_iter": 1}
    whole = quiet(fastgmm.GaussianMixture(2, **settings), x)
    model = fastgmm.GaussianMixture(2, device=device, **settings)
    quiet(model, Joined(cut(x, where, 50)))
    helpers.assert_close(model.means_, whole.means_, 1e-9)
    helpers.assert_close(model.weights_, whole.weights_, 1e-9)


@pytest.mark.parametrize("first", ["array", "tensor"])
def test_results_are_in_order_and_of_the_first_kind(pair, first, dtype, tmp_path):
    where, device = pair
    x, start, _ = helpers.problem("full", dtype, n=60)
    whole = helpers.fitted(start, "cpu")
    model = helpers.fitted(start, device)
    parts = cut(x, where, 0, 30, 31) if first == "tensor" else cut(x, where, 30, 31)
    joined = Joined(parts[1:] if first == "tensor" else parts, 25)
    rtol = helpers.tolerance(dtype, 1e-9, 1e-4)
    for name in helpers.METHODS:
        got, expected = getattr(model, name)(joined), getattr(whole, name)(x)
        if first == "tensor":
            assert str(got.device) == where
            got = got.cpu().numpy()
        assert got.dtype == expected.dtype
        helpers.assert_close(got, expected, rtol, name)
    for name in ("score", "bic", "aic"):
        expected = getattr(whole, name)(x)
        assert getattr(model, name)(joined) == pytest.approx(expected, rel=rtol)
    model.predict(joined, out=tmp_path / "labels.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), whole.predict(x))


def test_tied_components_far_apart_are_seen_about_their_means(pair):
    where, device = pair
    x, start, rng = helpers.problem("tied", np.float64, n=120)
    x += 1e5 * rng.integers(3, size=(120, 1))
    start = oracle.m_step(x, np.eye(3)[np.searchsorted([5e4, 1.5e5], x[:, 0])], "tied")
    whole = helpers.fit(x, start, "cpu", max_iter=2)
    model = quiet(helpers.estimator(start, device, max_iter=2), Joined(cut(x, where, 50)))
    helpers.assert_close(model.covariances_, whole.covariances_, 1e-7)


@pytest.mark.parametrize("pair", [PAIRS[0], PAIRS[2]], indirect=True)
def test_every_other_way_to_fit(pair, tmp_path):
    where, device = pair
    x = streams.rows(150)
    joined = Joined([*cut(x[:100], where, 40), streams.npy(x[100:], tmp_path)], 30)
    settings = {"n_components": 2, "random_state": 0, "device": device}
    model = fastgmm.GaussianMixture(max_iter=3, **settings)
    first = quiet(model, joined).lower_bounds_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        kept = model.fit(joined, checkpoint=tmp_path / "c", checkpoint_every=1).lower_bounds_
        again = model.fit(joined, checkpoint=tmp_path / "c", checkpoint_every=1).lower_bounds_
        assert model.fit(joined, warm_up=1).lower_bound_ > first[0]
    assert kept == again == first
    stepwise = fastgmm.GaussianMixture(**settings).partial_fit(joined)
    assert stepwise.n_iter_ == len(list(joined))
    empty = {"means_init": [x[0], np.full(3, 1e6)], "empty": "reseed", "max_iter": 1}
    models = [
        quiet(fastgmm.GaussianMixture(**empty, **settings), joined),
        quiet(fastgmm.GaussianMixture(**empty, **settings | {"device": "cpu"}), x),
    ]
    helpers.assert_close(models[0].means_, models[1].means_, 1e-9)


def test_devices_take_their_chunks_in_turns():
    x = np.arange(20.0).reshape(10, 2)
    joined = Joined([ArraySource(x[:6], batch_size=2), x[6:7], ArraySource(x[7:], batch_size=2)])
    turns = []
    total = joined.total(lambda chunk: turns.append(chunk.start) or float(chunk.x.sum()))
    assert total == x.sum()
    assert turns == [0, 6, 7, 2, 9, 4]
    assert [chunk.start for chunk in joined] == [0, 2, 4, 6, 7, 9]


def placed(pair, x, start):
    """Joined rows of two backends, the one that stands for both, and a model of its own."""
    where, device = pair
    joined = Joined(cut(x, where, 20))
    # Of the module, where a fixture has put another choice.
    backend = rows.choose(device, joined.homes, "highest")[0]
    joined.place(backend.rows)
    structure = fastgmm.covariance.get(start.structure)
    given = (start.weights, start.means, start.covariances)
    return joined, backend, MixtureModel.from_covariances(*given, structure).map(backend.own)


def test_each_backend_remembers_the_order_of_its_chunks(pair):
    x, start, _ = helpers.problem("full", np.float64, n=60)
    joined, backend, model = placed(pair, x, start)
    orders = {}
    em.e_step(joined, model, backend, orders=orders)
    for chunk in joined:
        assert type(orders[chunk.start]) is type(backend.of(chunk.x).new_order())
    assert list(orders) == [0, 20]


def sums(backend, prepared, x, labels, about, structure):
    """What a backend gives that belongs to no row."""
    return (
        backend.accumulate(prepared, x, None, about),
        backend.accumulate_given(x, None, structure, about, labels=labels),
        backend.summarise(x),
        backend.kmeans_step(x, None, about),
    )


def test_what_belongs_to_no_row_is_the_first_backends_own(pair):
    x, start, _ = helpers.problem("full", np.float64, n=60)
    joined, backend, model = placed(pair, x, start)
    reference, _ = backends.choose("reference")
    prepared, structure, about = backend.prepare(model, joined.dtype), model.structure, x[:3].copy()
    for chunk in joined:
        host, labels = to_numpy(chunk.x), backend.predict(prepared, chunk.x)
        found = sums(backend, prepared, chunk.x, labels, about, structure)
        expected = sums(reference, model, host, to_numpy(labels), about, structure)
        for ours, theirs in zip(found, expected, strict=True):
            for name in vars(theirs).keys() - {"labels"}:
                assert not is_tensor(getattr(ours, name)), name
                helpers.assert_close(getattr(ours, name), getattr(theirs, name), 1e-11, name)
            # What adds is about the very same points, so that nobody has to compare numbers.
            assert getattr(ours, "about", about) is about
        closest = backend.closest(chunk.x, about[0], None)
        potentials = backend.potentials(chunk.x, None, about, closest)
        assert not is_tensor(potentials)
        wanted = reference.potentials(host, None, about, to_numpy(closest))
        helpers.assert_close(potentials.sum(axis=0), wanted.sum(axis=0), 1e-11)


@pytest.mark.parametrize("mean", [2.0, 1.0])
def test_weights_of_some_parts_leave_the_others_at_one(mean):
    x = streams.rows(200)
    weight = np.tile([0.5, 1.5], 40) * mean
    every = np.concatenate([weight, np.ones(120)])
    whole = fastgmm.GaussianMixture(3, random_state=0).fit(x, sample_weight=every)
    joined = Joined([(x[:80], weight), x[80:]])
    model = fastgmm.GaussianMixture(3, random_state=0)
    # The second fit begins with weights that the first has scaled.
    for _ in range(2):
        model.fit(joined)
        helpers.assert_close(model.means_, whole.means_, 1e-10)
        score = whole.score(x, sample_weight=every)
        assert model.score(joined) == pytest.approx(score, rel=1e-12)


@pytest.mark.parametrize("method", ["kmeans", "k-means||", "random", "random_from_data"])
def test_a_part_may_be_without_weight_or_rows(method):
    x = streams.rows(200)
    weight = np.r_[np.zeros(80), np.full(120, 2.0)]
    whole = fastgmm.GaussianMixture(3, random_state=0, init_params=method)
    whole.fit(x, sample_weight=weight)
    joined = Joined([(x[:80], weight[:80]), (x[:0], weight[:0]), x[:0], (x[80:], weight[80:])])
    model = fastgmm.GaussianMixture(3, random_state=0, init_params=method).fit(joined)
    helpers.assert_close(model.means_, whole.means_, 1e-10)
    with pytest.raises(InputError, match="non-zero"):
        model.fit(Joined([(x, np.zeros(200))] * 2))


def test_criteria_count_weights_as_they_are_given():
    x = streams.rows(100)
    model = fastgmm.GaussianMixture(2, random_state=0).fit(x)
    twice, joined = np.r_[x, x], Joined([(x[:30], np.full(30, 2.0)), (x[30:], np.full(70, 2.0))])
    # The second time with weights that a fit has scaled.
    for _ in range(2):
        assert model.bic(joined) == pytest.approx(model.bic(twice), rel=1e-12)
        assert model.aic(joined) == pytest.approx(model.aic(twice), rel=1e-12)
        fastgmm.GaussianMixture(2, random_state=0).fit(joined)


def test_one_backend_is_not_several():
    x = streams.rows(50)
    parts = Joined([x[:20], torch.tensor(x[20:])])
    assert parts.homes == (None, "cpu")
    assert backends.choose("auto", parts.homes)[0] is backends.choose("cpu")[0]
    one, _ = backends.choose("reference", parts.homes)
    assert one is backends.choose("reference", parts.homes)[0]
    assert isinstance(one, Several)


def test_bad_rows_are_named_by_their_number_among_all(pair):
    where, device = pair
    x = streams.rows(60)
    x[47, 1] = math.nan
    parts = Joined(cut(x, where, 40))
    model = fastgmm.GaussianMixture(2, device=device)
    with pytest.raises(InputError, match="NaN: first at row 47, column 1"):
        model.fit(parts)
    fitted = fastgmm.GaussianMixture(2, device=device, random_state=0).fit(x[:40])
    with pytest.raises(InputError, match="NaN: first at row 47, column 1"):
        fitted.score_samples(parts)


def test_names_of_columns_are_kept_and_compared():
    pandas = pytest.importorskip("pandas")
    x = np.random.default_rng(0).normal(size=(60, 2))
    table = pandas.DataFrame(x, columns=["width", "height"])
    joined = Joined([x[:20], table[20:40], (table[40:], np.ones(20))])
    mixture = fastgmm.GaussianMixture(2, random_state=0).fit(joined)
    assert list(mixture.feature_names_in_) == ["width", "height"]
    assert mixture.predict(joined).shape == (60,)
    with pytest.raises(InputError, match=r"part 1 .*'height', 'width'.*others .*'width', 'height'"):
        Joined([table, table[["height", "width"]]])
    other = Joined([table.rename(columns={"width": "depth"})])
    with pytest.raises(InputError, match="feature names"):
        mixture.predict(other)


def test_passes_at_the_same_time_are_refused_where_rows_would_go_missing(tmp_path):
    x = streams.rows(60)
    source = open_source(streams.npy(x, tmp_path), batch_size=10)
    with pytest.raises(InputError, match=r"rows\.npy: a pass .* was ended by another"):
        fastgmm.GaussianMixture(2).fit(Joined([source, source]))


def test_no_rows_are_refused():
    x = streams.rows(20)
    model, none = fastgmm.GaussianMixture(2, random_state=0).fit(x), Joined([x[:0]])
    for method in (model.predict, model.score, model.bic, model.score_samples, model.fit):
        with pytest.raises(InputError, match=r"0 sample|no rows"):
            method(none)


def test_parts_that_do_not_fit_together():
    x = streams.rows(20)
    with pytest.raises(InputError, match="batch_size"):
        Joined([x], batch_size=0)
    with pytest.raises(InputError, match="no parts"):
        Joined([])
    with pytest.raises(InputError, match=r"part 1 .*\(2, 'float64', None\), others \(3,"):
        Joined([x, x[:, :2]])
    with pytest.raises(InputError, match=r"part 1 .*'float32'"):
        Joined([x, torch.tensor(x, dtype=torch.float32)])
    with pytest.raises(InputError, match="part 1 of the rows has shape"):
        Joined([x, x[0]])
    with pytest.raises(InputError, match="not been counted"):
        Joined([x, lambda: iter([x])])
    with pytest.raises(InputError, match="a Source has its weights itself"):
        fastgmm.GaussianMixture(2).fit(Joined([x]), sample_weight=np.ones(20))


@pytest.mark.gpu
@pytest.mark.skipif(
    not CUDA or torch.cuda.device_count() < 2, reason="there are fewer than two CUDA devices"
)
def test_two_gpus_give_what_one_gives(structure, dtype):
    x, start, _ = helpers.problem(structure, dtype, n=5000)
    settings = {"max_iter": 5, "reg_covar": 1e-6}
    whole = helpers.fit(x, start, ("cuda:0", "cuda"), **settings)
    parts = [torch.tensor(x[:3000], device="cuda:0"), torch.tensor(x[3000:], device="cuda:1")]
    models = [quiet(helpers.estimator(start, "auto", **settings), Joined(parts)) for _ in "ab"]
    rtol = helpers.tolerance(dtype, 1e-9, 2e-5)
    assert models[0].means_.device == parts[0].device
    helpers.assert_close(models[0].means_.cpu(), whole.means_, rtol)
    helpers.assert_close(models[0].covariances_.cpu(), whole.covariances_, rtol)
    assert models[0].lower_bounds_ == models[1].lower_bounds_
    scores = models[0].score_samples(Joined(parts))
    helpers.assert_close(scores.cpu(), whole.score_samples(x), rtol)
