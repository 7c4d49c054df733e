"""The structure of the covariances, chosen when compiling by the dimensions of an array.

Passes call ``log_prob`` and ``add_moments``; Numba replaces them by the functions of the
structure, so that each pass is written once and compiled for what is used.
"""

from __future__ import annotations

from numba.extending import overload

from .diag import add_moments_diag, log_prob_diag
from .full import add_moments_full, log_prob_full
from .spherical import log_prob_spherical

_LOG_PROB = {3: log_prob_full, 2: log_prob_diag, 1: log_prob_spherical}
_MOMENTS = {2: add_moments_full, 1: add_moments_diag}


def log_prob(z, means, factors, constants, first, last, y, out, n):
    """Weighted log-probabilities of a tile; ``factors`` is (K, D, D), (K, D) or (K,)."""
    raise NotImplementedError("only for compiled callers")


@overload(log_prob)
def _log_prob(z, means, factors, constants, first, last, y, out, n):
    function = _LOG_PROB[factors.ndim]
    return lambda z, means, factors, constants, first, last, y, out, n: function(
        z, means, factors, constants, first, last, y, out, n
    )


def add_moments(g, s, n, first, second):
    """Moments of gathered rows; ``second`` is (D, D) for full moments, else (D,) or (0,)."""
    raise NotImplementedError("only for compiled callers")


@overload(add_moments)
def _add_moments(g, s, n, first, second):
    function = _MOMENTS[second.ndim]
    return lambda g, s, n, first, second: function(g, s, n, first, second)
