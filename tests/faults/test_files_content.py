"""Case 62: whatever a model file holds, load gives a checked model or ModelFileError."""

import json
import warnings

import numpy as np
import pytest
import safetensors.numpy

import fastgmm
from fastgmm import GaussianMixture, model_file
from fastgmm.errors import ModelFileError


def fitted(structure="full", dtype=np.float64):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, 2)) + 4 * rng.integers(0, 2, size=(50, 1))).astype(dtype)
    return GaussianMixture(3, covariance_type=structure, random_state=0, max_iter=3).fit(x)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


class Parts:
    """A model file taken apart, to be put together wrongly."""

    def __init__(self, data):
        size = int.from_bytes(data[:8], "little")
        self.model = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["fastgmm"])
        self.tensors = safetensors.numpy.load(data)

    def write(self, path):
        text = self.model if isinstance(self.model, str) else json.dumps(self.model)
        tensors = {name: np.asarray(values) for name, values in self.tensors.items()}
        path.write_bytes(safetensors.numpy.save(tensors, {"fastgmm": text}))


def tampered(path, change, structure="full", dtype=np.float64):
    """Save a model, let ``change`` edit its parts, and write them back."""
    fitted(structure, dtype).save(path)
    parts = Parts(path.read_bytes())
    change(parts)
    parts.write(path)


def refused(path, match):
    with pytest.raises(ModelFileError, match=match) as caught:
        fastgmm.load(path)
    assert str(path) in str(caught.value)


def raw(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_62_empty_file(path):
    path.touch()
    refused(path, "0 bytes")


def test_62_truncated_at_every_length(path):
    fitted().save(path)
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(ModelFileError):
            fastgmm.load(path)


def test_62_bytes_too_many(path):
    fitted().save(path)
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path, "as its header says")


@pytest.mark.parametrize("size", [model_file.MAX_HEADER + 1, 2**40, 2**63, 2**64 - 1])
def test_62_oversized_header(path, size):
    path.write_bytes(size.to_bytes(8, "little") + b"{}")
    refused(path, "a header of at most")


def test_62_a_large_file_of_another_kind_is_not_read(path):
    with open(path, "wb") as file:
        file.write(raw({"x": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}))
        file.truncate(2**40)
    refused(path, "as its header says")


def test_62_pickle_is_not_executed(path, tmp_path):
    witness = tmp_path / "executed"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(witness).encode() + b"'\ntR.")
    refused(path, "header")
    assert not witness.exists()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"a": 1, "a": 2}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{" + b'"x": ' + b"9" * 10_000 + b"}",
        {},
        {"__metadata__": None},
        {"__metadata__": []},
        {"__metadata__": {"format": "pt"}},
        {"__metadata__": {"fastgmm": None}},
        {"__metadata__": {"fastgmm": {}}},
        {"weights": 3},
        {"weights": {}},
        {"weights": {"dtype": "F64", "shape": [-1], "data_offsets": [0, 8]}},
        {"weights": {"dtype": "F64", "shape": [True], "data_offsets": [0, 8]}},
        {"weights": {"dtype": "F64", "shape": [2**60], "data_offsets": [0, 8]}},
        {"weights": {"dtype": ["F64"], "shape": [1], "data_offsets": [0, 8]}},
        {"weights": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}},
    ],
    ids=lambda header: repr(header)[:40],
)
def test_62_bad_header(path, header):
    path.write_bytes(raw(header, b"\0" * 8))
    refused(path, "expected")


@pytest.mark.parametrize("version", [0, 2, -1, 1.5, True, "1", None, [1]])
def test_62_unknown_format_version(path, version):
    tampered(path, lambda parts: parts.model.update(format_version=version))
    refused(path, "format_version 1")


@pytest.mark.parametrize("name", model_file.PARAMETERS + model_file.BOUNDS)
def test_62_missing_tensor(path, name):
    tampered(path, lambda parts: parts.tensors.pop(name))
    refused(path, f"missing .*{name}")


def test_62_unknown_tensor(path):
    tampered(path, lambda parts: parts.tensors.update(extra=np.zeros(1)))
    refused(path, "unknown .*extra")


@pytest.mark.parametrize(
    ("structure", "name"),
    [
        (structure, name)
        for structure in ("full", "tied", "diag", "spherical", "tied_diag", "tied_spherical")
        for name in model_file.PARAMETERS
    ],
)
def test_62_wrong_shape(path, structure, name):
    def change(parts):
        parts.tensors[name] = np.stack([parts.tensors[name]] * 2)

    tampered(path, change, structure)
    refused(path, "shape|n_components")


def test_62_no_components(path):
    def change(parts):
        for name in model_file.PARAMETERS:
            parts.tensors[name] = parts.tensors[name][:0]
        parts.model["params"]["n_components"] = 0

    tampered(path, change)
    refused(path, "at least 1")


@pytest.mark.parametrize("name", model_file.PARAMETERS)
def test_62_wrong_type(path, name):
    def change(kind):
        return lambda parts: parts.tensors.update({name: parts.tensors[name].astype(kind)})

    for kind in (np.float32, np.int64, np.float16, np.bool_):
        tampered(path, change(kind))
        refused(path, f"{name}.* of type F64")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", model_file.PARAMETERS)
def test_62_not_finite(path, name, value):
    tampered(path, lambda parts: parts.tensors[name].__setitem__(-1, value))
    refused(path, f"{name} without NaN and infinity")


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ([-0.1, 0.6, 0.5], "at component 0"),
        ([0.3, 0.3, 0.3], "a sum of 0.9"),
        ([0.0, 0.0, 0.0], "a sum of 0[.]"),
        ([0.5, 0.5, 0.5], "a sum of 1.5"),
        ([1e308, 1e308, 1e308], "a sum of inf"),
    ],
)
def test_62_weights(path, weights, match):
    tampered(path, lambda parts: parts.tensors.update(weights=np.array(weights)))
    refused(path, match)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "structure", ["full", "tied", "diag", "spherical", "tied_diag", "tied_spherical"]
)
def test_62_covariances(path, structure, dtype):
    def scale(name, factor):
        return lambda parts: parts.tensors.update({name: parts.tensors[name] * factor})

    for name in ("covariances", "precisions_cholesky"):
        for factor in (1.01, -1.0, 0.0, 1e30):
            tampered(path, scale(name, factor), structure, dtype)
            refused(path, "covariances|precisions_cholesky")


@pytest.mark.parametrize("structure", ["full", "tied"])
def test_62_not_positive_definite(path, structure):
    def matrices(parts, name):
        return parts.tensors[name].reshape(-1, 2, 2)

    def indefinite(parts):
        matrices(parts, "covariances")[-1] = [[1.0, 2.0], [2.0, 1.0]]

    def skew(parts):
        matrices(parts, "covariances")[-1, 0, 1] += 0.01

    def lower(parts):
        matrices(parts, "precisions_cholesky")[-1, 1, 0] = 0.01

    def flipped(parts):
        matrices(parts, "precisions_cholesky")[-1] *= -1

    for change, match in [
        (indefinite, "positive definite.* smallest eigenvalue of covariance -1"),
        (skew, "symmetric"),
        (lower, "upper triangular"),
        (flipped, "positive diagonal"),
    ]:
        tampered(path, change, structure)
        refused(path, match)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("covariance_type", "banded"),
        ("covariance_type", ["full"]),
        ("covariance_type", {}),
        ("n_components", 4),
        ("n_components", "3"),
        ("n_components", 3.0),
        ("n_components", 10**300),
        ("tol", "small"),
        ("tol", None),
        ("tol", float("nan")),
        ("tol", float("inf")),
        ("tol", -1.0),
        ("max_iter", 1.5),
        ("max_iter", -1),
        ("warm_start", "yes"),
        ("random_state", [1, 2]),
        ("device", {"cuda": 0}),
        ("init_params", "__import__('os')"),
        ("means_init", [[0.0]]),
        ("__class__", "os.system"),
        ("self", 1),
    ],
)
def test_62_params(path, name, value):
    tampered(path, lambda parts: parts.model["params"].update({name: value}))
    refused(path, "expected")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("converged", 1),
        ("n_iter", -1),
        ("n_iter", 1.5),
        ("n_iter", True),
        ("n_jitter", -1),
        ("backend", None),
        ("dtype", "float16"),
        ("dtype", None),
        ("dtype", ["float64"]),
        ("feature_names", ["a"]),
        ("feature_names", ["a", 1]),
        ("feature_names", "ab"),
        ("unknown", 0),
    ],
)
def test_62_facts_of_the_fit(path, name, value):
    tampered(path, lambda parts: parts.model["fit"].update({name: value}))
    refused(path, "expected")


@pytest.mark.parametrize("key", ["version", "params", "fit"])
@pytest.mark.parametrize("value", [0, [], "x", "1.2" * 100])
def test_62_the_model(path, key, value):
    tampered(path, lambda parts: parts.model.update({key: value}))
    refused(path, "expected")
    tampered(path, lambda parts: parts.model.pop(key))
    refused(path, f"missing .*{key}")


@pytest.mark.parametrize("text", ["", "[]", "{", "NaN", "{}", '"text"', "[" * 50_000])
def test_62_model_is_not_json(path, text):
    tampered(path, lambda parts: setattr(parts, "model", text))
    refused(path, "expected")


@pytest.mark.parametrize("version", ["0.0.1", "99.1.0", "0.99.0.dev1+local"])
def test_62_another_version_warns(path, version):
    tampered(path, lambda parts: parts.model.update(version=version))
    with pytest.warns(UserWarning, match="saved by fastgmm"):
        assert fastgmm.load(path).n_components == 3


def test_62_a_patch_release_does_not_warn(path):
    major, minor = fastgmm.__version__.split(".")[:2]
    tampered(path, lambda parts: parts.model.update(version=f"{major}.{minor}.99"))
    fastgmm.load(path)


def test_62_random_damage(path):
    """Whatever bytes change: a model of numbers, or ModelFileError, and nothing else."""
    fitted().save(path)
    good = path.read_bytes()
    rng = np.random.default_rng(62)
    header = 8 + int.from_bytes(good[:8], "little")
    outcomes = {"model": 0, "refused": 0}
    for trial in range(300):
        data = bytearray(good)
        # A third of the damage in the length and the header, which are most of what is parsed.
        end = (16, header, len(data))[trial % 3]
        for place in rng.integers(0, end, size=rng.integers(1, 4)):
            data[place] = rng.integers(0, 256)
        if trial % 10 == 0:
            cut = rng.integers(0, len(data))
            data[cut : cut + rng.integers(1, 9)] = rng.bytes(rng.integers(0, 9))
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The model was saved by", UserWarning)
            try:
                model = fastgmm.load(path)
            except ModelFileError:
                outcomes["refused"] += 1
                continue
        outcomes["model"] += 1
        assert not np.isnan(model.score_samples(np.zeros((1, 2)))).any()
    assert outcomes["refused"] > 100
