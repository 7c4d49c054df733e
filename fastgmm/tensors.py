"""Torch tensors at the boundary: what comes in, and with which errors it does not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data

from fastgmm.arrays import Array, namespace, to_numpy
from fastgmm.errors import InputError, PrecisionWarning

_FLOATS = ("float16", "bfloat16", "float32", "float64")


def check_tensor(estimator: BaseEstimator, x: Array, *, reset: bool, minimum: int) -> Array:
    """Rows as a floating-point tensor (N, D) on the device where they are, outside any graph.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` is set or compared.
    x : tensor
    reset : bool
        Whether this is a fit.
    minimum : int
        Fewest rows.

    Returns
    -------
    x : tensor of shape (N, D)
        Of a floating-point dtype, half precision as it is; a view wherever that is possible.

    Raises
    ------
    InputError, ValueError, TypeError
        As for arrays.
    """
    x = detached(x)
    known = not reset and not hasattr(estimator, "feature_names_in_")
    if known and x.ndim == 2 and len(x) >= minimum and x.shape[1] == estimator.n_features_in_:
        return x
    # The checks of shapes and their texts are scikit-learn's; no number of the rows is needed.
    shape = tuple(x.shape)
    stand_in = np.broadcast_to(np.float64(0), shape) if x.ndim > 1 else to_numpy(x)
    stand_in = check_array(
        stand_in,
        dtype=[np.float64, np.float32],
        ensure_all_finite=False,
        ensure_min_samples=minimum,
        estimator=estimator,
        input_name="X",
    )
    validate_data(estimator, stand_in, reset=reset, skip_check_array=True)
    return x


def detached(x: Any, name: str = "X") -> Array:
    """A tensor without its graph, integers as float64.

    Raises
    ------
    TypeError
        If it is sparse.
    InputError
        If it has no numbers that could be read, or such as are not real.
    """
    dtype = str(x.dtype).removeprefix("torch.")
    if x.is_nested or str(x.layout) != "torch.strided":
        raise TypeError(
            f"Sparse or nested data was passed for {name} (layout {x.layout}), but dense data is "
            "required. Use '.to_dense()' to convert to a dense tensor."
        )
    if x.device.type == "meta":
        raise InputError(f"{name} is a tensor on the device 'meta', which holds no numbers.")
    if x.is_complex():
        raise InputError(f"Complex data not supported: {name} has dtype {dtype}.")
    if x.is_quantized or (x.is_floating_point() and dtype not in _FLOATS):
        raise InputError(
            f"{name} has dtype {dtype}; expected one of {', '.join(_FLOATS)}, integers or bool. "
            "Convert it with .float() or .dequantize()."
        )
    x = x.detach().resolve_neg()
    if x.is_floating_point():
        return x
    if dtype in ("int64", "uint64") and x.numel():
        # torch can neither order nor compare uint64: those of int64 below 0 are beyond 2^63.
        low, high = x.view(namespace(x).int64).aminmax()
        if high > 2**53 or low < (-(2**53) if dtype == "int64" else 0):
            warnings.warn(
                f"{name} has {dtype} values beyond 2^53, which float64 cannot represent exactly.",
                PrecisionWarning,
                stacklevel=5,
            )
    return x.double()
