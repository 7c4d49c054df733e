"""Tables (pandas, polars, pyarrow) as plain arrays, column by column checked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastgmm.arrays import float_dtype, refuse_text
from fastgmm.errors import InputError, PrecisionWarning

_LIBRARIES = ("pandas", "polars", "pyarrow")
# How the names of types that hold numbers begin, in lower case.
_NUMBERS = ("int", "uint", "float", "halffloat", "double", "bool", "decimal", "object", "sparse[")


def is_frame(x: object) -> bool:
    """Whether ``x`` is a table of one of the libraries known here, none of which is imported."""
    kind = type(x)
    return kind.__module__.split(".")[0] in _LIBRARIES and hasattr(x, "columns")


def names(x: Any) -> list[Any]:
    """Column names of a table."""
    return list(x.column_names if hasattr(x, "column_names") else x.columns)


def check_names(names: Sequence[str], where: object) -> None:
    """Raise InputError where two columns of a file have one name."""
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(f"{where}: columns {twice} are there twice. Rename them.")


def to_array(x: Any) -> np.ndarray:
    """Numbers of a table as an array (N, D): float32 if all have half or single precision.

    Everything else becomes float64.

    Parameters
    ----------
    x : data frame or table

    Returns
    -------
    array : ndarray of shape (N, D)

    Raises
    ------
    InputError
        If a column is not numeric or has missing values; the message names it.
    """
    columns = [_column(x, position, name) for position, name in enumerate(names(x))]
    if not columns:
        raise InputError(
            f"Found array with 0 feature(s) (shape={x.shape}) while a minimum of 1 is required."
        )
    dtype = max(float_dtype(c.dtype) for c in columns)
    return np.column_stack([c.astype(dtype) for c in columns])


def _column(x: Any, position: int, name: Any) -> np.ndarray:
    if hasattr(x, "iloc"):
        series = x.iloc[:, position]
    elif hasattr(x, "column_names"):
        series = x.column(position)
    else:
        series = x[name]
    kind = str(getattr(series, "dtype", getattr(series, "type", "")))
    lower = kind.lower()
    if not lower.startswith(_NUMBERS):
        raise InputError(
            f"column {name!r} (position {position}) has dtype {kind}; expected numbers. "
            "Drop it or encode it as numbers."
        )
    missing = _missing(series)
    if missing and "float" not in lower and "double" not in lower:
        raise InputError(
            f"column {name!r} (position {position}, {kind}) has {missing} missing values (NA, "
            "which would become NaN). Impute or drop them."
        )
    arrow = hasattr(x, "column_names")
    values = series.to_numpy(zero_copy_only=False) if arrow else series.to_numpy()
    refuse_text(values, f"column {name!r} (position {position})")
    try:
        values = values if values.dtype.kind in "fiub" else values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"column {name!r} (position {position}) has dtype {kind}: {error}. "
            "Drop it or encode it as numbers."
        ) from None
    warn_of_wide(values, f"column {name!r}", kind, stacklevel=7)
    return values


def warn_of_wide(values: np.ndarray, what: str, kind: str, stacklevel: int) -> None:
    """Warn of numbers that float64 would round; ``kind`` is their type as the caller knows it."""
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        warnings.warn(
            f"{what} has dtype {kind}; it is computed in float64.",
            PrecisionWarning,
            stacklevel=stacklevel,
        )
    wide = values.dtype.kind in "iu" and values.dtype.itemsize == 8 and values.size
    if wide and max(abs(int(values.max())), abs(int(values.min()))) > 2**53:
        warnings.warn(
            f"{what} has {kind} values beyond 2^53, which float64 cannot represent exactly.",
            PrecisionWarning,
            stacklevel=stacklevel,
        )


def _missing(series: Any) -> int:
    if hasattr(series, "isna"):
        return int(series.isna().sum())
    count = series.null_count
    return int(count() if callable(count) else count)
