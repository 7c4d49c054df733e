"""The structure of the covariances, chosen when compiling by the dimensions of an array.

Passes call the generic functions below; Numba replaces them by those of the structure, so that
each pass is written once and compiled for what is used.
"""

from __future__ import annotations

from numba.extending import overload

from .axes import visit_axes
from .dense import add_dense_diag, add_dense_full
from .full import visit_full
from .sparse import add_rows_diag, add_rows_full

_DENSE = {3: add_dense_full, 2: add_dense_diag}
_ROWS = {3: add_rows_full, 2: add_rows_diag}


def visit(
    z, means, factors, constants, reach, early, first, last, base, begin, end, state, out, masks
):  # fmt: skip
    """Weighted log-probabilities of rows; ``factors`` is (K, P, 4), (K, D') or (K,)."""
    raise NotImplementedError("only for compiled callers")


@overload(visit)
def _visit(
    z, means, factors, constants, reach, early, first, last, base, begin, end, state, out, masks
):  # fmt: skip
    function = visit_full if factors.ndim == 3 else visit_axes

    def run(
        z, means, factors, constants, reach, early, first, last, base, begin, end, state, out, masks
    ):  # fmt: skip
        return function(
            z, means, factors, constants, reach, early, first, last, base, begin, end, state, out,
            masks,
        )  # fmt: skip

    return run


def add_dense(z, resp, listed, n_listed, about, n, g, first, second):
    """Moments of a tile; ``second`` is (K, R, C) for full moments, else (K, C) or (K, 0)."""
    raise NotImplementedError("only for compiled callers")


@overload(add_dense)
def _add_dense(z, resp, listed, n_listed, about, n, g, first, second):
    function = _DENSE[second.ndim]
    return lambda z, resp, listed, n_listed, about, n, g, first, second: function(
        z, resp, listed, n_listed, about, n, g, first, second
    )


def add_rows(rows, index, share, n, about, k, g, first, second):
    """Moments of listed rows; ``second`` as for :func:`add_dense`."""
    raise NotImplementedError("only for compiled callers")


@overload(add_rows)
def _add_rows(rows, index, share, n, about, k, g, first, second):
    function = _ROWS[second.ndim]
    return lambda rows, index, share, n, about, k, g, first, second: function(
        rows, index, share, n, about, k, g, first, second
    )
