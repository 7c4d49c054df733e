"""What a user passes as rows, opened for a fit or for scoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgmm.arrays import working_dtype
from fastgmm.backends import Backend, choose
from fastgmm.checks import check_rows
from fastgmm.distributed import Sharded
from fastgmm.errors import InputError
from fastgmm.sources import ArraySource, Source, is_stream, open_source
from fastgmm.survey import Survey, survey


@dataclass(frozen=True, eq=False)
class Opened:
    """Rows that a fit can begin with.

    Parameters
    ----------
    source : Source
    backend : Backend
    survey : Survey
    dtype : dtype
        In which rows are computed.
    home : str or None
        The torch device of the rows as they came.
    reason : str
        What was chosen and why, the precision with it.
    """

    source: Source
    backend: Backend
    survey: Survey
    dtype: np.dtype
    home: str | None
    reason: str


def open_rows(estimator: Any, X: Any, sample_weight: Any, settings: Mapping[str, object]) -> Opened:
    """Open rows for a fit and look at all of them once.

    Parameters
    ----------
    estimator : GaussianMixture
        Its feature names and numbers are set.
    X, sample_weight
        As in :meth:`fastgmm.GaussianMixture.fit`.
    settings : mapping
        What processes that share the fit must have in common beside the estimator's own.

    Returns
    -------
    opened : Opened

    Raises
    ------
    InputError
        If rows or weights cannot be used.
    """
    shared = X if isinstance(X, Sharded) else None
    if shared is not None and sample_weight is not None:
        raise InputError("sample_weight: give the weights of a process to its Sharded.")
    source = _open(estimator, X, sample_weight) if shared is None else None
    if shared is not None:
        shared.open(
            lambda X, weight: _placed(estimator, X, weight),
            {**estimator._plain_settings(), **settings},
        )
        source = shared
    if source is None:
        raise InputError("X is None; expected rows.")
    # An error ends a pass that is under way.
    with source:
        backend, reason = choose(estimator.device, source.homes, estimator.precision)
        where, given = source.home, getattr(X, "dtype", source.given)
        source.place(backend.rows)
        source.own = backend.own
        learn_names(estimator, source)
        found = survey(source, backend)
    dtype = working_dtype(source.dtype)
    name = str(given).removeprefix("torch.")
    half = f" ({name} data)" if name in ("float16", "bfloat16") else ""
    return Opened(source, backend, found, dtype, where, f"{reason}; {dtype}{half}")


def _open(estimator: Any, X: Any, sample_weight: Any) -> Source:
    if is_stream(X):
        return open_source(X, sample_weight, estimator.batch_size)
    x = check_rows(estimator, X, reset=True)
    source = ArraySource(x, sample_weight, estimator.batch_size)
    names = getattr(estimator, "feature_names_in_", None)
    source.names = None if names is None else tuple(names)
    return source


def _placed(estimator: Any, X: Any, sample_weight: Any) -> Source:
    """Rows of one of many processes: all that can fail here is done before the others go on."""
    source = _open(estimator, X, sample_weight)
    source.place(choose(estimator.device, source.homes, estimator.precision)[0].rows)
    return source


def learn_names(estimator: Any, source: Source) -> None:
    """Set the feature names and number of an estimator that is about to be fitted."""
    estimator.n_features_in_ = source.n_features
    if source.names is not None and all(isinstance(name, str) for name in source.names):
        estimator.feature_names_in_ = np.array(source.names, dtype=object)
    elif hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_


def open_to_score(estimator: Any, X: Any, sample_weight: Any = None) -> Source:
    """Open rows that are not in memory for one pass of a fitted estimator.

    Parameters
    ----------
    estimator : GaussianMixture
    X, sample_weight
        As in :meth:`fastgmm.GaussianMixture.fit`; an iterator will do.

    Returns
    -------
    source : Source

    Raises
    ------
    InputError
        If the features are others than those of the fit.
    """
    source = open_source(X, sample_weight, estimator.batch_size, once=True)
    expected = estimator._current_model().n_features
    if source.n_features != expected:
        raise InputError(
            f"X has {source.n_features} features, but {type(estimator).__name__} is expecting "
            f"{expected} features as input."
        )
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None and source.names is not None and list(names) != list(source.names):
        raise InputError(
            f"The feature names should match those that were passed during fit: got "
            f"{list(source.names)}, the fit had {list(names)}."
        )
    return source
