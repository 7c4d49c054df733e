"""Input checks at the boundary; the kernels behind it check nothing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, validate_data

from fastgmm import frames
from fastgmm.arrays import Array, is_tensor, namespace, to_numpy
from fastgmm.backends import FeatureSummary
from fastgmm.errors import DegenerateDataWarning, InputError, PrecisionWarning
from fastgmm.sources.arrays import check_file, mapped
from fastgmm.sources.items import floating, readable
from fastgmm.tensors import check_tensor

# Kernels square deviations times precisions; beyond this the product overflows.
_LARGEST = {np.dtype(np.float32): 1e16, np.dtype(np.float64): 1e150}


def check_rows(estimator: BaseEstimator, x: Any, *, reset: bool, minimum: int = 1) -> Array:
    """Rows as a float32 or float64 array (N, D), or a tensor, never copied if they are one already.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set or compared.
    x : array-like, tensor, data frame or table
    reset : bool
        Whether this is a fit.
    minimum : int
        Fewest rows.

    Returns
    -------
    x : array of shape (N, D)
        A tensor where one was given, of any floating-point dtype.

    Raises
    ------
    InputError, ValueError, TypeError
        As scikit-learn does; frames with the column's name.
    """
    file = mapped(x)
    if file is not None:
        check_file(file)
    if not reset and _is_plain(estimator, x):
        return x
    if is_tensor(x):
        return check_tensor(estimator, x, reset=reset, minimum=minimum)
    framed = frames.is_frame(x)
    array = check_array(
        frames.to_array(x) if framed else readable(x, "X"),
        dtype=None,
        ensure_all_finite=False,
        ensure_min_samples=minimum,
        estimator=estimator,
        input_name="X",
    )
    array = floating(array, "X")
    validate_data(estimator, x if framed else array, reset=reset, skip_check_array=True)
    return array


def _is_plain(estimator: BaseEstimator, x: Any) -> bool:
    """Whether nothing needs to be done: the common case, and the fast one for single rows."""
    return (
        type(x) is np.ndarray
        and x.ndim == 2
        and x.dtype.char in "fd"
        and x.dtype.isnative
        and x.shape[0] > 0
        and x.shape[1] == estimator.n_features_in_
        and not hasattr(estimator, "feature_names_in_")
    )


def _named(column: int, names: Sequence[str] | None) -> str:
    return str(column) if names is None else f"{column} ({names[column]!r})"


def _list(mask: np.ndarray, names: Sequence[str] | None) -> str:
    return "[" + ", ".join(_named(int(column), names) for column in np.flatnonzero(mask)) + "]"


def is_whole(value: Any) -> bool:
    """Whether it is an integer of any kind, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def check_count(name: str, value: Any, least: int) -> int:
    """An argument that counts something, as an int.

    Raises
    ------
    InputError
        If it is no integer, or below ``least``.
    """
    if not is_whole(value) or value < least:
        raise InputError(f"{name} must be an int of at least {least}; got {value!r}.")
    return int(value)


def check_finite(x: Array, names: Sequence[str] | None = None, start: int = 0) -> None:
    """Raise InputError where ``x`` has NaN or infinity, naming the first place and the count.

    ``start`` is the number of its first row among all rows.
    """
    bad = to_numpy(~namespace(x).isfinite(x))
    count = int(bad.sum())
    if count == 0:  # finite values whose sum overflows
        return
    row, column = np.unravel_index(int(bad.argmax()), bad.shape)
    value = float(x[row, column])
    what = "NaN" if namespace(x).isnan(x).any() else "infinity"
    where = _named(int(column), names)
    raise InputError(
        f"Input X contains {what}: first at row {start + row}, column {where} ({value}), {count} "
        f"not finite among {len(x)} rows (NaN, inf or -inf). Impute them or drop these rows."
    )


def check_range(
    dtype: np.dtype,
    summary: FeatureSummary,
    mean: np.ndarray,
    names: Sequence[str] | None = None,
) -> None:
    """Raise InputError where squares of the deviations from ``mean`` would overflow."""
    spread = np.maximum(summary.maximum - mean, mean - summary.minimum)
    if not np.all(spread < _LARGEST[dtype]):
        column = int(np.argmax(np.where(np.isfinite(spread), spread, np.inf)))
        raise InputError(
            f"feature {_named(column, names)} ranges from {summary.minimum[column]:.3g} to "
            f"{summary.maximum[column]:.3g}: squares overflow in {dtype}. Rescale the features"
            + (", or pass float64." if dtype == np.float32 else ".")
        )


def check_scale(
    dtype: np.dtype,
    summary: FeatureSummary,
    reg_covar: float,
    names: Sequence[str] | None = None,
) -> None:
    """Errors and warnings about the scale of the features, before a fit.

    Raises
    ------
    InputError
        If squares of the deviations would overflow.
    """
    check_range(dtype, summary, summary.mean, names)
    largest = np.maximum(np.abs(summary.minimum), np.abs(summary.maximum))
    spacing = np.spacing(largest.astype(dtype)).astype(np.float64)
    deviation = np.sqrt(summary.variance)
    coarse = (spacing > deviation / 8) & (deviation > 0)
    constant = summary.maximum == summary.minimum
    # A spread that the rounding has wiped out looks constant, at a magnitude where it must.
    lost = constant & (spacing >= 0.5) & (dtype == np.float32)
    if (coarse | lost).any():
        column = int(np.argmax(coarse | lost))
        warnings.warn(
            f"feature {_named(column, names)}: numbers near {largest[column]:.3g} have spacing "
            f"{spacing[column]:.2g} in {dtype}, their standard deviation is "
            f"{deviation[column]:.2g}. Pass float64, or subtract an offset first.",
            PrecisionWarning,
            stacklevel=4,
        )
    if constant.any():
        columns = _list(constant, names)
        warnings.warn(
            f"features {columns} are constant; their variance is reg_covar ({reg_covar:g}).",
            DegenerateDataWarning,
            stacklevel=4,
        )
    dominated = (summary.variance < reg_covar) & ~constant
    if dominated.any():
        columns = _list(dominated, names)
        smallest = summary.variance[dominated].min()
        warnings.warn(
            f"reg_covar ({reg_covar:g}) exceeds the variance of features {columns} (down to "
            f"{smallest:.2g}): it hides their structure. Rescale the features or reduce reg_covar.",
            DegenerateDataWarning,
            stacklevel=4,
        )


def as_random_state(seed: Any) -> np.random.RandomState:
    """scikit-learn's RandomState of a seed; a Generator lends its stream, and advances.

    Parameters
    ----------
    seed : int, RandomState, Generator or None

    Returns
    -------
    random_state : RandomState
    """
    if isinstance(seed, np.random.Generator):
        return np.random.RandomState(seed.bit_generator)
    return check_random_state(seed)
