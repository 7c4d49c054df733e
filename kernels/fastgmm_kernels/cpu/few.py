"""Mixtures of few rows each: triangular solves in place of tiles, and no factor is prepared.

Where a network gives every row a mixture of its own, to invert and pack D^2 numbers for one row
would cost D^3. Here y = L^-1 (x - mu) and u = L^-T y are solved for each (row, component), in the
precision of the rows, and gradients are rank-one updates:

    d/d mu = w u,   d/dx = -w u,   d/d L = w (tril u y' - diag 1 / L).
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numba.extending import overload

from .jit import driver, kernel
from .tile import block_range

_GROUPS = 64
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@kernel
def _height_full(scale):
    total = scale.dtype.type(0)
    for d in range(scale.shape[0]):
        total -= math.log(scale[d, d])
    return total


@kernel
def _height_diag(scale):
    total = scale.dtype.type(0)
    for d in range(scale.shape[0]):
        total -= math.log(scale[d])
    return total


@kernel
def _solve_full(x, mean, scale, y):
    q = y.dtype.type(0)
    for d in range(y.shape[0]):
        rest = x[d] - mean[d]
        for i in range(d):
            rest -= scale[d, i] * y[i]
        y[d] = rest / scale[d, d]
        q += y[d] * y[d]
    return q


@kernel
def _solve_diag(x, mean, scale, y):
    q = y.dtype.type(0)
    for d in range(y.shape[0]):
        y[d] = (x[d] - mean[d]) / scale[d]
        q += y[d] * y[d]
    return q


@kernel
def _reached(lp):
    """A log-probability; squares beyond the range of the precision may have met as 0 * inf."""
    return -np.inf if math.isnan(lp) else lp


@kernel
def _pull_full(scale, y, w, u, dscale):
    n = y.shape[0]
    for d in range(n):
        u[d] = w * y[d]
    for d in range(n - 1, -1, -1):
        u[d] /= scale[d, d]
        for i in range(d):
            u[i] -= scale[d, i] * u[d]
    for d in range(n):
        for i in range(d + 1):
            dscale[d, i] += u[d] * y[i]
        dscale[d, d] -= w / scale[d, d]


@kernel
def _pull_diag(scale, y, w, u, dscale):
    for d in range(y.shape[0]):
        u[d] = w * y[d] / scale[d]
        dscale[d] += u[d] * y[d] - w / scale[d]


def _height(scale):
    """-log |L| of a triangle (D, D) or a diagonal (D,)."""
    raise NotImplementedError("only for compiled callers")


@overload(_height)
def _compiled_height(scale):
    function = _height_full if scale.ndim == 2 else _height_diag
    return lambda scale: function(scale)


def _solve(x, mean, scale, y):
    """y = L^-1 (x - mean); returns its square."""
    raise NotImplementedError("only for compiled callers")


@overload(_solve)
def _compiled_solve(x, mean, scale, y):
    function = _solve_full if scale.ndim == 2 else _solve_diag
    return lambda x, mean, scale, y: function(x, mean, scale, y)


def _pull(scale, y, w, u, dscale):
    """u = w L^-T y, and what a row adds to the gradient by L."""
    raise NotImplementedError("only for compiled callers")


@overload(_pull)
def _compiled_pull(scale, y, w, u, dscale):
    function = _pull_full if scale.ndim == 2 else _pull_diag
    return lambda scale, y, w, u, dscale: function(scale, y, w, u, dscale)


@driver
def few_score(x, log_weights, means, scale, out):
    """out[b, n] = log sum_k w_k N(x_bn; mu_bk, L_bk L_bk').

    x (B, N, D); scale (B, K, D, D) or (B, K, D), with 1 in place of K where components share it.
    """
    n_mixtures, n_rows, n_features = x.shape
    n_components = means.shape[1]
    last = scale.shape[1] - 1
    n_groups = min(_GROUPS, n_mixtures)
    for group in prange(n_groups):
        y = np.empty(n_features, out.dtype)
        lp = np.empty(n_components, out.dtype)
        height = np.empty(n_components, out.dtype)
        first_mixture, last_mixture = block_range(group, n_groups, n_mixtures)
        for b in range(first_mixture, last_mixture):
            for k in range(n_components):
                height[k] = log_weights[b, k] - n_features * _HALF_LOG_2PI
                height[k] += _height(scale[b, min(k, last)])
            for n in range(n_rows):
                top = out.dtype.type(-np.inf)
                for k in range(n_components):
                    q = _solve(x[b, n], means[b, k], scale[b, min(k, last)], y)
                    lp[k] = _reached(height[k] - q / 2)
                    top = max(top, lp[k])
                total = out.dtype.type(0)
                for k in range(n_components):
                    total += math.exp(lp[k] - top) if top > -np.inf else out.dtype.type(0)
                out[b, n] = top + math.log(total) if top > -np.inf else top


@driver
def few_backward(x, upstream, log_weights, means, scale, dx, dweights, dmeans, dscale):
    """Gradients of sum_bn upstream_bn few_score_bn; all but dx are zero on entry.

    dx (B, N, D), dweights (B, K), and dmeans and dscale of the shapes of their arguments.
    """
    n_mixtures, n_rows, n_features = x.shape
    n_components = means.shape[1]
    last = scale.shape[1] - 1
    n_groups = min(_GROUPS, n_mixtures)
    for group in prange(n_groups):
        y = np.empty((n_components, n_features), dx.dtype)
        u = np.empty(n_features, dx.dtype)
        lp = np.empty(n_components, dx.dtype)
        height = np.empty(n_components, dx.dtype)
        first_mixture, last_mixture = block_range(group, n_groups, n_mixtures)
        for b in range(first_mixture, last_mixture):
            for k in range(n_components):
                height[k] = log_weights[b, k] + _height(scale[b, min(k, last)])
            for n in range(n_rows):
                dx[b, n, :] = 0
                if upstream[b, n] == 0:
                    continue
                top = dx.dtype.type(-np.inf)
                for k in range(n_components):
                    q = _solve(x[b, n], means[b, k], scale[b, min(k, last)], y[k])
                    lp[k] = _reached(height[k] - q / 2)
                    top = max(top, lp[k])
                total = dx.dtype.type(0)
                for k in range(n_components):
                    # A row out of reach of all components pulls at nothing.
                    lp[k] = math.exp(lp[k] - top) if top > -np.inf else dx.dtype.type(0)
                    total += lp[k]
                for k in range(n_components):
                    if lp[k] == 0:
                        continue
                    w = upstream[b, n] * (lp[k] / total)
                    shared = min(k, last)
                    _pull(scale[b, shared], y[k], w, u, dscale[b, shared])
                    dweights[b, k] += w
                    for d in range(n_features):
                        dmeans[b, k, d] += u[d]
                        dx[b, n, d] -= u[d]
