"""The structure of the covariances, chosen when compiling by the dimensions of an array.

Passes call the generic functions below; Numba replaces them by those of the structure, so that
each pass is written once and compiled for what is used.
"""

from __future__ import annotations

from numba.extending import overload

from .diag import add_dense_diag, add_gathered_diag, log_prob_diag
from .full import add_dense_full, add_gathered_full, log_prob_full
from .spherical import log_prob_spherical

_LOG_PROB = {3: log_prob_full, 2: log_prob_diag, 1: log_prob_spherical}
_DENSE = {3: add_dense_full, 2: add_dense_diag}
_GATHERED = {3: add_gathered_full, 2: add_gathered_diag}


def log_prob(z, means, factors, constants, first, last, out, n):
    """Weighted log-probabilities of a tile; ``factors`` is (K, D, D), (K, D) or (K,)."""
    raise NotImplementedError("only for compiled callers")


@overload(log_prob)
def _log_prob(z, means, factors, constants, first, last, out, n):
    function = _LOG_PROB[factors.ndim]
    return lambda z, means, factors, constants, first, last, out, n: function(
        z, means, factors, constants, first, last, out, n
    )


def add_dense(z, resp, k, about, n, g, s, first, second):
    """Moments of a tile; ``second`` is (K, D, D) for full moments, else (K, D) or (K, 0)."""
    raise NotImplementedError("only for compiled callers")


@overload(add_dense)
def _add_dense(z, resp, k, about, n, g, s, first, second):
    function = _DENSE[second.ndim]
    return lambda z, resp, k, about, n, g, s, first, second: function(
        z, resp, k, about, n, g, s, first, second
    )


def add_gathered(g, s, n, k, first, second):
    """Moments of gathered rows; ``second`` as for :func:`add_dense`."""
    raise NotImplementedError("only for compiled callers")


@overload(add_gathered)
def _add_gathered(g, s, n, k, first, second):
    function = _GATHERED[second.ndim]
    return lambda g, s, n, k, first, second: function(g, s, n, k, first, second)
