"""The format of model files: bytes in, a checked document out; and the way there.

A file is safetensors. Its tensors, all float64, are ``weights (K,)``, ``means (K, D)``,
``covariances`` and ``precisions_cholesky`` (the shape that the covariance structure gives),
``lower_bound ()``, ``lower_bounds (n,)`` and those of ``init.weights``, ``init.means``,
``init.precisions`` that the estimator was given. Its metadata has one entry, ``fastgmm``, a JSON
document with the number of the format, the version that wrote it, the constructor's parameters and
the facts of the fit (null for an unfitted estimator). Nothing in a file is code, and nothing is
built before all of it is checked.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from fastgmm import covariance
from fastgmm.errors import ModelFileError

FORMAT = "fastgmm"
FORMAT_VERSION = 1
MAX_HEADER = 16 * 2**20  # bytes; a header with 100,000 feature names is a tenth of it

PARAMETERS = ("weights", "means", "covariances", "precisions_cholesky")
BOUNDS = ("lower_bound", "lower_bounds")
INIT = {
    "weights_init": "init.weights",
    "means_init": "init.means",
    "precisions_init": "init.precisions",
}
_FIT_KEYS = {"backend", "converged", "dtype", "feature_names", "n_iter", "n_jitter"}

Layout = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Document:
    """What a model file says: parameters of the constructor, facts of the fit, arrays."""

    version: str
    params: dict[str, Any]
    fit: dict[str, Any] | None
    tensors: dict[str, np.ndarray]


def encode(document: Document) -> bytes:
    """The bytes of a model file."""
    model = {
        "fit": document.fit,
        "format_version": FORMAT_VERSION,
        "params": document.params,
        "version": document.version,
    }
    # One entry, because safetensors writes several in any order, and equal models shall be equal
    # files.
    metadata = {FORMAT: json.dumps(model, allow_nan=False, sort_keys=True)}
    return safetensors.numpy.save(document.tensors, metadata)


def decode(data: bytes, defaults: Mapping[str, Any]) -> Document:
    """Check the bytes of a model file in full and take them apart.

    ``defaults`` has the constructor's parameters, which tell the types that a file's may have.
    Raises ModelFileError.
    """
    start = 8 + header_size(data[:8], len(data))
    header = parse_json(data[8:start], "the header")
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or FORMAT not in metadata:
        refuse(f"metadata with an entry {FORMAT!r}", metadata)
    model = parse_json(metadata[FORMAT], "the metadata's model")
    version = model.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        refuse(f"format_version {FORMAT_VERSION}, the one this fastgmm reads", version)
    _check_keys("the model", model, {"fit", "format_version", "params", "version"})
    params, fit = model["params"], model["fit"]
    if not isinstance(model["version"], str) or not re.fullmatch(
        r"\d{1,6}\.\d{1,6}[\w.+-]{0,40}", model["version"], re.ASCII
    ):
        refuse("the version of fastgmm that wrote the file", model["version"])
    _check_params(params, defaults)
    layout = _layout(header)
    if fit is None:
        _check_keys("the tensors", layout, set(), set(INIT.values()))
    else:
        _check_keys("the tensors", layout, {*PARAMETERS, *BOUNDS}, set(INIT.values()))
        _check_fit(fit, params, layout)
    try:
        # Copies, because the parser's arrays share the file's bytes.
        tensors = {name: np.array(t) for name, t in safetensors.numpy.load(data).items()}
    except SafetensorError as error:
        refuse("well-formed safetensors", str(error))
    _check_finite(tensors)
    if fit is not None:
        _check_mixture(tensors, params["covariance_type"], fit["dtype"])
    return Document(model["version"], params, fit, tensors)


def refuse(expected: str, got: Any) -> NoReturn:
    """Raise ModelFileError; text is shown as it is, anything else shortened."""
    shown = got if isinstance(got, str) else reprlib.repr(got)
    raise ModelFileError(f"expected {expected}, got {shown[:300]}")


def header_size(prefix: bytes, file_size: int) -> int:
    """Length of the header from a file's first 8 bytes, before anything is parsed."""
    if len(prefix) < 8:
        refuse("at least 8 bytes (the length of the header)", f"{len(prefix)} bytes")
    size = int.from_bytes(prefix, "little")
    if size > MAX_HEADER:
        refuse(f"a header of at most {MAX_HEADER} bytes", f"a length of {size}")
    if size > file_size - 8:
        refuse(f"a header of {size} bytes", f"{file_size - 8} bytes (truncated?)")
    return size


def check_size(head: bytes, file_size: int) -> None:
    """Compare a file's size with what its head, up to the end of the header, announces."""
    header = parse_json(head[8:], "the header")
    header.pop("__metadata__", None)
    layout = _layout(header)
    size = len(head) + sum(8 * math.prod(shape) for shape in layout.values())
    if size != file_size:
        refuse(f"a file of {size} bytes, as its header says", f"{file_size} bytes (truncated?)")


def parse_json(raw: Any, what: str) -> dict[str, Any]:
    """A JSON object from text or UTF-8; a key that occurs twice is an error."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a key occurs twice")
        return dict(pairs)

    if not isinstance(raw, (bytes, str)):
        refuse(f"{what} to be text", raw)
    try:
        text = raw if isinstance(raw, str) else raw.decode("utf-8")
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        refuse(f"{what} to be JSON", str(error))
    if not isinstance(value, dict):
        refuse(f"{what} to be a JSON object", value)
    return value


def _check_keys(
    what: str, mapping: Mapping[str, Any], required: set[str], optional: set[str] | None = None
) -> None:
    missing = sorted(required - mapping.keys())
    unknown = sorted(mapping.keys() - required - (optional or set()))
    if missing or unknown:
        got = f"missing {reprlib.repr(missing)}, unknown {reprlib.repr(unknown)}"
        refuse(f"{what} to have the keys {sorted(required)}", got)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _layout(header: Mapping[str, Any]) -> Layout:
    """Shape of each tensor; the offsets are the safetensors parser's to check."""
    layout = {}
    for name, entry in header.items():
        what = f"tensor {reprlib.repr(name)}"
        if not isinstance(entry, dict):
            refuse(f"{what} to be described by an object", entry)
        _check_keys(what, entry, {"dtype", "shape", "data_offsets"})
        dtype, shape = entry["dtype"], entry["shape"]
        if dtype != "F64":
            refuse(f"{what} of type F64", dtype)
        if not isinstance(shape, list) or len(shape) > 8 or not all(map(_is_count, shape)):
            refuse(f"{what} to have a shape", shape)
        layout[name] = tuple(shape)
    return layout


def _check_params(params: Any, defaults: Mapping[str, Any]) -> None:
    if not isinstance(params, dict):
        refuse("params to be an object", params)
    # A parameter that is younger than the file takes its default.
    _check_keys("params", params, {"covariance_type", "n_components"}, set(defaults) - INIT.keys())
    for name, value in params.items():
        default = defaults[name]
        number = isinstance(value, (int, float))
        if default is None:
            good = value is None or isinstance(value, (int, str))
        elif isinstance(default, float):
            good = number and not isinstance(value, bool)
        else:
            good = isinstance(value, type(default))
        if not good:
            refuse(f"parameter {name!r} of the type of {default!r}", value)
        if number and not (abs(value) < 2**63 and math.isfinite(value)):
            refuse(f"parameter {name!r} to be finite and below 2**63", value)
    if params["covariance_type"] not in covariance.names():
        refuse(f"covariance_type in {sorted(covariance.names())}", params["covariance_type"])


def _check_fit(fit: Any, params: dict[str, Any], layout: Layout) -> None:
    if not isinstance(fit, dict):
        refuse("fit to be null or an object", fit)
    _check_keys("fit", fit, _FIT_KEYS)
    for name in ("n_iter", "n_jitter"):
        if not _is_count(fit[name]):
            refuse(f"{name} to be a count", fit[name])
    if not isinstance(fit["converged"], bool):
        refuse("converged to be true or false", fit["converged"])
    if not isinstance(fit["backend"], str):
        refuse("backend to be text", fit["backend"])
    if fit["dtype"] not in ("float32", "float64"):
        refuse("dtype to be float32 or float64", fit["dtype"])
    shape = layout["means"]
    if len(shape) != 2 or min(shape) < 1:
        refuse("means of shape (K, D), K and D at least 1", shape)
    k, d = shape
    if params["n_components"] != k:
        refuse(f"n_components to be {k}, the rows of means", params["n_components"])
    names = fit["feature_names"]
    if names is not None:
        texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not texts or len(names) != d:
            refuse(f"feature_names to be null or {d} names", names)
    matrices = tuple(covariance.get(params["covariance_type"]).shape(k, d))
    shapes: dict[str, tuple[int, ...]] = {
        "weights": (k,),
        "covariances": matrices,
        "precisions_cholesky": matrices,
        "lower_bound": (),
    }
    for name, expected in shapes.items():
        if layout[name] != expected:
            refuse(f"{name} of shape {expected}", layout[name])
    if len(layout["lower_bounds"]) != 1:
        refuse("lower_bounds of shape (n,)", layout["lower_bounds"])


def _check_finite(tensors: Mapping[str, np.ndarray]) -> None:
    for name, values in tensors.items():
        # A fit that never finished a pass has a lower bound of -inf.
        bad = np.isnan(values) | (values == np.inf) if name in BOUNDS else ~np.isfinite(values)
        if bad.any():
            index = tuple(np.argwhere(bad)[0].tolist())
            refuse(f"{name} without NaN and infinity", f"{values[index]} at index {index}")


def _check_mixture(tensors: Mapping[str, np.ndarray], covariance_type: str, dtype: str) -> None:
    weights = tensors["weights"]
    # Parameters that were given in float32 agree with each other to that.
    precision = float(np.finfo(dtype).eps)
    if weights.min() < 0:
        index = int(weights.argmin())
        refuse("weights of at least 0", f"{weights[index]} at component {index}")
    with np.errstate(over="ignore"):
        total = weights.sum()
    if abs(total - 1) > 1e-6:
        refuse("weights that sum to 1", f"a sum of {total:g}")
    sigma, chol = tensors["covariances"], tensors["precisions_cholesky"]
    with np.errstate(all="ignore"):
        if covariance.get(covariance_type).family == "full":
            d = sigma.shape[-1]
            _check_matrices(sigma.reshape(-1, d, d), chol.reshape(-1, d, d), precision)
        else:
            _check_variances(sigma.reshape(-1), chol.reshape(-1), precision)


def _check_variances(variance: np.ndarray, chol: np.ndarray, precision: float) -> None:
    for name, values in (("covariances", variance), ("precisions_cholesky", chol)):
        if values.min() <= 0:
            refuse(f"{name} that are positive", f"{values.min()} at flat index {values.argmin()}")
    ratio = np.sqrt(variance) * chol
    # Written so that NaN fails.
    off = ~(np.abs(ratio - 1) <= 64 * precision)
    if off.any():
        index = int(off.argmax())
        got = f"{chol[index]} for a variance of {variance[index]} at flat index {index}"
        refuse("precisions_cholesky to be 1 / sqrt(covariances)", got)


def _check_matrices(sigma: np.ndarray, chol: np.ndarray, precision: float) -> None:
    """U'SU = I for each S (D, D) and U (D, D), upper triangular with a positive diagonal.

    With s the root of S's diagonal and t = |U|'s, rounding S and U moves U'SU by
    at most a few times D eps tt' (Higham, Accuracy and Stability of Numerical Algorithms, 2002,
    section 10.1). The bound follows the condition: an ill-conditioned model passes, and a matrix
    that is not positive definite does not, except where rounding alone could have made it so.
    """
    d = sigma.shape[-1]
    step = max(1, 2**20 // (d * d))
    for first in range(0, len(sigma), step):
        s, u = sigma[first : first + step], chol[first : first + step]
        diagonal = np.diagonal(u, axis1=1, axis2=2)
        variance = np.diagonal(s, axis1=1, axis2=2)
        scale = np.sqrt(variance)
        limit = 64 * d * precision
        skew = np.abs(s - s.transpose(0, 2, 1)) > limit * scale[:, :, None] * scale[:, None, :]
        reach = (np.abs(u).transpose(0, 2, 1) @ scale[:, :, None])[:, :, 0]
        residual = np.abs(u.transpose(0, 2, 1) @ s @ u - np.eye(d))
        checks = {
            "covariances with a positive diagonal": ~(variance > 0).all(axis=1),
            "symmetric covariances": skew.any(axis=(1, 2)),
            "precisions_cholesky with a positive diagonal": ~(diagonal > 0).all(axis=1),
            "upper triangular precisions_cholesky": np.tril(u, -1).any(axis=(1, 2)),
            "covariances to be positive definite, and precisions_cholesky the upper triangular "
            "root of their inverse": ~(
                residual <= limit * reach[:, :, None] * reach[:, None, :]
            ).all(axis=(1, 2)),
        }
        for expected, bad in checks.items():
            if bad.any():
                k = int(bad.argmax())
                smallest = np.linalg.eigvalsh(s[k])[0]
                refuse(
                    expected, f"matrix {first + k}, smallest eigenvalue of covariance {smallest:g}"
                )
