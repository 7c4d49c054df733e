"""What is finite in the arguments of batched passes, whose kernels order no NaN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastgmm.errors import InputError

Array = np.ndarray


def _each(found: Array) -> Array:
    """Whether something is so for all entries of each mixture."""
    return np.asarray(found.all(axis=tuple(range(1, found.ndim))))


def sane(x: Array, constants: Array, means: Array, factors: Array) -> tuple[Array, Array]:
    """Which rows (B, N) and which mixtures (B,) the kernels may see; they order no NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        all_rows = np.isfinite(x.sum(dtype=np.float64))
    rows = np.ones(x.shape[:2], bool) if all_rows else np.isfinite(x).all(axis=2)
    # A component of weight 0 has the constant -inf.
    whole = _each(np.isfinite(means)) & _each(np.isfinite(factors)) & _each(constants < np.inf)
    return rows, whole


def check_values(x: Array, constants: Array, means: Array, factors: Array) -> None:
    """Refuse what no kernel could make sense of; arguments as for :func:`score`.

    Raises
    ------
    InputError
        Naming the argument, and the first mixture, row or component where it is wrong.
    """
    rows, whole = sane(x, constants, means, factors)
    if not rows.all():
        b, n = np.argwhere(~rows)[0]
        raise InputError(
            f"x of shape {x.shape} has NaN or infinity in {np.sum(~rows)} of {rows.size} rows, "
            f"first in row {n} of mixture {b}."
        )
    if not whole.all():
        b = int(np.argmin(whole))
        for name, array, what in (
            ("means", means, "they must be finite"),
            ("the factors", factors, "they must be finite, and those of a singular scale are not"),
            (
                "the log-weights or log-determinants",
                constants,
                "weights must not be negative or NaN, and diagonals of factors be positive",
            ),
        ):
            fine = np.isfinite(array[b]) if array is not constants else array[b] < np.inf
            if not fine.all():
                k = int(np.argwhere(~fine)[0][0])
                raise InputError(
                    f"{name} of shape {array.shape} cannot be used in component {k} of mixture "
                    f"{b}: {what}."
                )
    empty = _each(np.isneginf(constants))
    if empty.any():
        raise InputError(
            f"the log-weights of mixture {int(np.argmax(empty))} of {len(empty)} are all -inf; at "
            "least one component must have a weight above 0."
        )


def settled(
    run: Callable[..., Array], x: Array, constants: Array, means: Array, factors: Array
) -> Array:
    """What ``run`` gives for finite arguments; NaN comes out as NaN, an infinite row as -inf."""
    rows, mixtures = sane(x, constants, means, factors)
    if rows.all() and mixtures.all():
        return run(x, constants, means, factors)
    zero_rows = np.where(rows[..., None], x, 0)
    out = run(zero_rows, *_replaced(mixtures, constants, means, factors))
    out[~rows] = np.where(np.isnan(x[~rows]).any(axis=-1), np.nan, -np.inf).reshape(
        -1, *(1,) * (out.ndim - 2)
    )
    out[~mixtures] = np.nan
    return out


def _replaced(keep: Array, *arrays: Array) -> list[Array]:
    """The arrays with zeros for the mixtures that are not kept."""
    return [np.where(keep.reshape(-1, *(1,) * (a.ndim - 1)), a, 0) for a in arrays]


def usable(
    upstream: Array, x: Array, constants: Array, means: Array, factors: Array
) -> tuple[Array, list[Array]]:
    """Which mixtures (B,) have finite gradients, and arguments without NaN.

    A row that is not finite spoils those of its mixture, unless its upstream gradient is 0.
    """
    rows, whole = sane(x, constants, means, factors)
    if rows.all() and whole.all():
        return whole, [x, constants, means, factors]
    used = upstream != 0 if upstream.ndim == 2 else (upstream != 0).any(axis=2)
    keep = whole & (rows | ~used).all(axis=1)
    return keep, [np.where(rows[..., None], x, 0), *_replaced(whole, constants, means, factors)]
