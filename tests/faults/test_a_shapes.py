"""Fault cases 1-17: shape and type of what comes in."""

from __future__ import annotations

import datetime
import warnings

import numpy as np
import pytest
from catching import warns
from scipy import sparse, stats
from sklearn.exceptions import NotFittedError

import fastgmm
import helpers
import oracle
from fastgmm.errors import DegenerateDataWarning, InputError, PrecisionWarning
from fastgmm.sources import Joined

READERS = ("predict", "predict_proba", "predict_log_proba", "component_log_prob", "score_samples")
ALL_READERS = (*READERS, "score", "aic", "bic")


def rows(n=40, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.fixture
def model():
    return fastgmm.GaussianMixture(2, random_state=0).fit(rows())


def everywhere(model, x, expected, match):
    """The same refusal in fit and in everything that reads a fitted model."""
    with pytest.raises(expected, match=match):
        fastgmm.GaussianMixture(2).fit(x)
    for name in READERS:
        with pytest.raises(expected, match=match):
            getattr(model, name)(x)


def test_case_01_one_dimension(model):
    x = np.arange(5.0)
    everywhere(model, x, ValueError, r"(?s)(1D|\(5,\)).*reshape\(-1, 1\).*reshape\(1, -1\)")


def test_case_02_three_dimensions(model):
    everywhere(model, np.zeros((4, 3, 2)), ValueError, r"(dim 3|3-?D|ndim=?\s?3)")


def test_case_02_no_dimension(model):
    everywhere(model, np.float64(3.0), ValueError, r"(scalar|0-?D|ndim=?\s?0)")


def test_case_02_ragged(model):
    everywhere(model, [[1.0, 2.0, 3.0], [4.0, 5.0]], ValueError, r"(inhomogeneous|ragged)")


def test_case_03_empty(model):
    everywhere(model, np.zeros((0, 3)), ValueError, r"0 sample\(s\)")
    with pytest.raises(ValueError, match=r"0 feature\(s\)"):
        fastgmm.GaussianMixture(2).fit(np.zeros((5, 0)))


def test_case_04_single_row_is_refused(structure):
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        fastgmm.GaussianMixture(1, covariance_type=structure).fit([[1.0, 2.0]])


def test_case_05_fewer_rows_than_components():
    with pytest.raises(ValueError, match=r"Expected n_samples >= n_components.*7.*5"):
        fastgmm.GaussianMixture(7).fit(rows(5))
    with pytest.raises(ValueError, match="Expected n_samples >= n_components"):
        fastgmm.GaussianMixture(7, means_init=rows(7)).fit(rows(5))


def test_case_05_allowed_with_a_full_start(structure, device):
    rng = np.random.default_rng(1)
    start = oracle.random_mixture(rng, structure, 5, 2, separation=0.3)
    x = start.sample(rng, 4)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        model = helpers.fit(x, start, device, max_iter=1, reg_covar=1e-2)
    expected = oracle.em(x, start, max_iter=1, reg_covar=1e-2).mixture
    helpers.assert_same_mixture(helpers.learnt(model), expected, 1e-10)


def test_case_06_one_row_per_component(structure, device):
    x = 10.0 * rows(4, 2)
    with pytest.warns(DegenerateDataWarning):
        model = fastgmm.GaussianMixture(
            4, covariance_type=structure, random_state=0, device=device, reg_covar=1e-4
        ).fit(x)
    order = np.lexsort(model.means_.T)
    np.testing.assert_allclose(model.means_[order], x[np.lexsort(x.T)], rtol=1e-12)
    np.testing.assert_allclose(model.weights_, 0.25, rtol=1e-12)
    expected = oracle.pack(structure, np.repeat(1e-4 * np.eye(2)[None], 4, 0), np.ones(4))
    np.testing.assert_allclose(model.covariances_, expected, rtol=1e-6, atol=1e-14)


def test_case_07_one_feature_one_component(structure, device):
    x = rows(50, 1)
    model = fastgmm.GaussianMixture(1, covariance_type=structure, reg_covar=0, device=device).fit(x)
    closed = stats.norm(x.mean(), x.std()).logpdf(x[:, 0])
    np.testing.assert_allclose(model.score_samples(x), closed, rtol=1e-12)
    assert model.score(x) == pytest.approx(closed.mean(), rel=1e-12)


def test_case_08_other_number_of_features(model):
    for name in ALL_READERS:
        with pytest.raises(ValueError, match=r"X has 2 features.*3"):
            getattr(model, name)(np.zeros((4, 2)))


def test_case_08_other_feature_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows(), columns=["width", "height", "depth"])
    model = fastgmm.GaussianMixture(2, random_state=0).fit(frame)
    assert list(model.feature_names_in_) == ["width", "height", "depth"]
    with pytest.raises(ValueError, match=r"(?s)feature names.*weight.*depth"):
        model.predict(frame.rename(columns={"depth": "weight"}))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["depth", "height", "width"]])


@pytest.mark.filterwarnings("ignore::fastgmm.errors.DegenerateDataWarning")
@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int16, np.int64])
def test_case_09_integers_become_float64(structure, kind):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2 if kind is np.bool_ else 50, size=(60, 2)).astype(kind)
    params = {"covariance_type": structure, "random_state": 0, "reg_covar": 1e-2}
    model = fastgmm.GaussianMixture(2, **params).fit(x)
    same = fastgmm.GaussianMixture(2, **params).fit(x.astype(np.float64))
    helpers.assert_same_bits(model, same)
    assert model.means_.dtype == np.float64
    np.testing.assert_array_equal(model.score_samples(x), same.score_samples(x.astype(np.float64)))


def as_given(x):
    return x


def as_stream(x):
    return lambda: iter([x])


@pytest.mark.parametrize("given", [as_given, as_stream])
def test_case_09_integers_beyond_float64_warn(given):
    x = np.random.default_rng(0).integers(0, 2**40, size=(60, 2)) + 2**60
    x[3, 1] |= 1
    with pytest.warns(PrecisionWarning, match="float64"):
        fastgmm.GaussianMixture(1).fit(given(x))


def test_case_09_lists_are_told_of_too(model):
    with pytest.warns(PrecisionWarning, match="2\\^53"):
        fastgmm.GaussianMixture(1).fit([[2**53 + 1], [2**60 + 1]])
    if np.finfo(np.longdouble).eps < np.finfo(np.float64).eps:
        with pytest.warns(PrecisionWarning, match="computed in float64"):
            model.predict([list(row) for row in rows().astype(np.longdouble)])


def test_case_10_half_precision_is_computed_in_single():
    x = rows(200, 2).astype(np.float16)
    model = fastgmm.GaussianMixture(1).fit(x)
    assert "float16" in model.backend_
    assert "float32" in model.backend_
    assert model.means_.dtype == np.float32
    np.testing.assert_allclose(model.means_[0], x.astype(np.float64).mean(0), rtol=1e-5)
    assert model.score_samples(x).dtype == np.float32


def test_case_10_half_precision_of_files_tables_and_chunks(tmp_path):
    pandas, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    x = rows(200, 2).astype(np.float16)
    whole = fastgmm.GaussianMixture(1).fit(x)
    np.save(tmp_path / "x.npy", x)
    parquet.write_table(pa.table({"a": x[:, 0], "b": x[:, 1]}), tmp_path / "x.parquet")
    frame = pandas.DataFrame(x)
    mixed = pandas.DataFrame({"a": x[:, 0], "b": x[:, 1].astype(np.float32)})
    for given in (tmp_path / "x.parquet", frame, mixed, Joined([frame, x])):
        model = fastgmm.GaussianMixture(1).fit(given)
        helpers.assert_close(model.means_, whole.means_, 1e-6)
        assert model.means_.dtype == np.float32
    for given in (tmp_path / "x.npy", lambda: iter([(x, np.ones(200))])):
        assert fastgmm.GaussianMixture(1).fit(given).backend_.endswith("float32 (float16 data)")


@pytest.mark.parametrize(
    "x",
    [
        rows().astype(np.complex128),
        np.array([["a", "b"], ["c", "d"], ["e", "f"]]),
        np.array([[{}, {}], [{}, {}], [{}, {}]], dtype=object),
        np.full((4, 2), datetime.datetime(2024, 5, 1), dtype="datetime64[s]"),
    ],
    ids=["complex", "string", "object", "datetime"],
)
def test_case_11_types_without_a_meaning(x):
    with pytest.raises((TypeError, ValueError)):
        fastgmm.GaussianMixture(2).fit(x)
    model = fastgmm.GaussianMixture(2, random_state=0).fit(rows(40, x.shape[1]))
    with pytest.raises((TypeError, ValueError)):
        model.score_samples(x)


@pytest.mark.parametrize("kind", ["array", "bytes", "objects", "list", "frame", "chunk"])
def test_case_11_digits_in_text_are_no_numbers(kind):
    x = np.array([["1", "2"], ["3", "5"], ["4", "9"], ["0", "1.5"]])
    given = {"array": x, "bytes": x.astype("S"), "objects": x.astype(object), "list": x.tolist()}
    if kind == "frame":
        pandas = pytest.importorskip("pandas")
        given["frame"] = pandas.DataFrame({"a": range(4), "b": pandas.Series(x[:, 1], dtype="O")})
    given["chunk"] = lambda: iter([x.astype(object)])
    model = fastgmm.GaussianMixture(2, random_state=0).fit(rows(40, 2))
    for method in (fastgmm.GaussianMixture(2).fit, model.predict):
        with pytest.raises(InputError, match=r"text.*expected numbers"):
            method(given[kind])
    with pytest.raises(InputError, match="'means' has dtype <U3 with text"):
        fastgmm.GaussianMixture(2, means_init=x[:2]).fit(rows(40, 2))
    numbers = rows(40, 2)
    same = fastgmm.GaussianMixture(2, random_state=0).fit(numbers.astype(object))
    helpers.assert_same_bits(same, model)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_case_11_sparse(kind, model):
    everywhere(model, kind(rows()), TypeError, r"(?i)sparse(?s:.*)toarray\(\)")


@pytest.mark.parametrize("given", [as_given, as_stream])
def test_case_12_extended_precision(given):
    if np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        pytest.skip("long double is float64 on this platform")
    x = rows().astype(np.longdouble)
    with pytest.warns(PrecisionWarning, match="float64"):
        model = fastgmm.GaussianMixture(2, random_state=0).fit(given(x))
    same = fastgmm.GaussianMixture(2, random_state=0).fit(given(rows()))
    helpers.assert_same_bits(model, same)


def test_case_13_missing_values_in_a_frame_name_the_column():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows(), columns=["width", "height", "depth"])
    frame["height"] = frame["height"].astype("Float64")
    frame.loc[7, "height"] = pandas.NA
    with pytest.raises(ValueError, match="height"):
        fastgmm.GaussianMixture(2).fit(frame)
    frame["height"] = pandas.Categorical(["low", "high"] * 20)
    with pytest.raises((TypeError, ValueError), match="height"):
        fastgmm.GaussianMixture(2).fit(frame)


def test_case_13_missing_values_in_polars():
    polars = pytest.importorskip("polars")
    x = rows()
    frame = polars.DataFrame({"width": x[:, 0], "height": [*x[:-1, 1].tolist(), None]})
    with pytest.raises(ValueError, match="height"):
        fastgmm.GaussianMixture(2).fit(frame)


def test_case_13_words_in_a_table_name_the_column():
    pa = pytest.importorskip("pyarrow")
    words = pa.array(["10115", "red"] * 20).dictionary_encode()
    for table in (
        pa.table({"a": rows()[:, 0], "colour": words}),
        pa.record_batch({"colour": words}),
    ):
        with pytest.raises(InputError, match=r"'colour'.*dictionary.*expected numbers"):
            fastgmm.GaussianMixture(2).fit(table)


def test_a_record_batch_is_a_table():
    pa = pytest.importorskip("pyarrow")
    x = rows(n=80)
    flag = x[:, 1] > 0
    batch = pa.record_batch({"a": x[:, 0], "flag": pa.array(flag.tolist())})
    model = fastgmm.GaussianMixture(1, random_state=0).fit(batch)
    plain = fastgmm.GaussianMixture(1, random_state=0).fit(np.c_[x[:, 0], flag])
    np.testing.assert_array_equal(model.means_, plain.means_)
    missing = pa.record_batch({"a": pa.array([*x[1:, 0].tolist(), None])})
    with pytest.raises(ValueError, match="NaN"):
        model.fit(missing)


def test_case_09_wide_integers_of_a_table_warn():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": rows()[:, 0], "key": 2**53 + 1 + np.arange(40)})
    with warns(PrecisionWarning, r"'key'.*2\^53"):
        fastgmm.GaussianMixture(1).fit(frame)


def test_case_14_masked_chunks_and_weights():
    x = np.ma.masked_array(rows(), np.arange(120).reshape(40, 3) == 7)
    weight = np.ma.masked_array(np.ones(40), np.arange(40) == 3)
    with pytest.raises(InputError, match="mask"):
        fastgmm.GaussianMixture(2).fit(lambda: iter([x]))
    with pytest.raises(InputError, match="mask"):
        fastgmm.GaussianMixture(2).fit(lambda: iter([(rows(), weight)]))
    for x in (rows(), lambda: iter([rows()])):
        with pytest.raises(InputError, match="mask"):
            fastgmm.GaussianMixture(2).fit(x, sample_weight=weight)


def test_case_14_masked_array(model):
    mask = np.zeros((40, 3), dtype=bool)
    mask[5, 1] = True
    masked = np.ma.masked_array(rows(), mask)
    everywhere(model, masked, (TypeError, ValueError), "(?i)mask")
    everywhere(model, list(masked), InputError, "mask")


@pytest.mark.parametrize("name", ["weights_init", "means_init", "precisions_init"])
def test_case_14_masked_starts(name):
    start = {
        "weights_init": np.array([0.5, 0.5]),
        "means_init": rows(2, 3),
        "precisions_init": np.stack([np.eye(3)] * 2),
    }[name]
    for masked in (np.ma.masked_array(start, start > 0.4), list(np.ma.masked_array(rows(2, 3)))):
        with pytest.raises(InputError, match=f"'.*{name[:5]}.*' .*mask"):
            fastgmm.GaussianMixture(2, **{name: masked}).fit(rows())


@pytest.mark.parametrize("value", [0, -1, 2.5, "2", None, True])
def test_case_15_n_components_refused(value):
    with pytest.raises(ValueError, match=r"'n_components'.*(\[1, inf\)|at least 1|>= 1|positive)"):
        fastgmm.GaussianMixture(value).fit(rows())


def test_case_15_numpy_integers_are_integers():
    model = fastgmm.GaussianMixture(np.int64(3), random_state=0).fit(rows())
    assert model.means_.shape == (3, 3)


@pytest.mark.parametrize(
    ("parameter", "valid"),
    [
        ("covariance_type", oracle.STRUCTURES),
        ("init_params", ("kmeans", "k-means++", "random", "random_from_data")),
        ("device", ("auto", "cpu", "reference", "cuda")),
        ("empty", ("keep", "reseed", "error")),
    ],
)
def test_case_16_unknown_names_list_the_valid_ones(parameter, valid):
    with pytest.raises(ValueError, match=f"(?s){parameter}.*quux|quux.*{parameter}") as caught:
        fastgmm.GaussianMixture(2, **{parameter: "quux"}).fit(rows())
    for name in valid:
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ALL_READERS)
def test_case_17_not_fitted(name):
    with pytest.raises(NotFittedError, match="not fitted yet") as caught:
        getattr(fastgmm.GaussianMixture(2), name)(rows())
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, AttributeError)


def test_case_17_not_fitted_without_rows():
    for action in (
        lambda model: model.sample(3),
        lambda model: model.to_sklearn(),
        lambda model: model.n_parameters(),
    ):
        with pytest.raises(NotFittedError):
            action(fastgmm.GaussianMixture(2))
