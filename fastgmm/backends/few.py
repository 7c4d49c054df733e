"""Many mixtures of few rows each on the compiled CPU kernels, forward and backward.

Mixtures b < B come as ``log_weights`` (B, K), ``means`` (B, K, D) and ``scale``: lower Cholesky
factors of the covariances (B, K, D, D), or standard deviations (B, K, D), with 1 in place of K
where components share one.
"""

from __future__ import annotations

import numpy as np

from fastgmm.arrays import Array, namespace
from fastgmm.backends import finite
from fastgmm.backends.batched import Gradients
from fastgmm.linalg import diagonal
from fastgmm.threads import threads
from fastgmm_kernels import cpu as kernels

# Rows of a mixture up to which its factors are not worth preparing.
FEW = 16


def _flops(x: Array, means: Array, scale: Array) -> float:
    cost = x.shape[2] ** 2 if scale.ndim == 4 else 4 * x.shape[2]
    return float(x.shape[0] * x.shape[1] * means.shape[1]) * (4 * cost + 40)


def sound_constants(log_weights: Array, scale: Array) -> Array:
    """The log-weights, NaN where the diagonal of a scale is not positive: no mixture to use.

    Arrays, or tensors on any device.
    """
    entries = diagonal(scale) if scale.ndim == 4 else scale
    return namespace(scale).where((entries > 0).all(axis=-1), log_weights, float("nan"))


def check_values(x: Array, log_weights: Array, means: Array, scale: Array) -> None:
    """Refuse what no kernel could make sense of; arguments as for :func:`score`.

    Raises
    ------
    InputError
        Naming the argument, and the first mixture, row or component where it is wrong.
    """
    finite.check_values(x, sound_constants(log_weights, scale), means, scale)


def score(x: Array, log_weights: Array, means: Array, scale: Array) -> Array:
    """log sum_k w_k N(x; mu_k, L_k L_k') of every row.

    Parameters
    ----------
    x : ndarray of shape (B, N, D)
        float32 or float64, any strides.
    log_weights, means, scale : ndarray
        As the module says, of the dtype of ``x``.

    Returns
    -------
    log_likelihood : ndarray of shape (B, N)
        NaN and a diagonal that is not positive give NaN, an infinite row -inf.
    """
    return finite.settled(_score, x, sound_constants(log_weights, scale), means, scale)


def _score(x: Array, log_weights: Array, means: Array, scale: Array) -> Array:
    out = np.empty(x.shape[:2], x.dtype)
    kernels.few_score(
        x,
        *(np.ascontiguousarray(a) for a in (log_weights, means, scale)),
        out,
        threads=threads(_flops(x, means, scale)),
    )
    return out


def backward(
    upstream: Array, x: Array, log_weights: Array, means: Array, scale: Array
) -> Gradients:
    """Gradients of sum_bn upstream_bn score_bn.

    Parameters
    ----------
    upstream : ndarray of shape (B, N)
        A row with upstream 0 takes no part, whatever it holds.
    x, log_weights, means, scale : ndarray
        As for :func:`score`.

    Returns
    -------
    gradients : Gradients
        By x, log_weights (``constants``), means and scale (``factors``).
    """
    keep, (x, log_weights, means, scale) = finite.usable(
        upstream, x, sound_constants(log_weights, scale), means, scale
    )
    arguments = [np.ascontiguousarray(a) for a in (upstream, log_weights, means, scale)]
    found = [np.empty(x.shape, x.dtype), *(np.zeros(a.shape, x.dtype) for a in arguments[1:])]
    kernels.few_backward(x, *arguments, *found, threads=threads(2 * _flops(x, means, scale)))
    for array in found:
        array[~keep] = np.nan
    return Gradients(*found)
