"""Standard normal rows turned into rows of the components of mixtures."""

from __future__ import annotations

from numba import prange
from numba.extending import overload

from .jit import driver, kernel
from .tile import block_range

_BLOCKS = 64


@kernel
def _colour_full(z, mean, factor, out):
    for d in range(z.shape[0]):
        total = mean[d]
        for i in range(d + 1):
            total += factor[d, i] * z[i]
        out[d] = total


@kernel
def _colour_diag(z, mean, factor, out):
    for d in range(z.shape[0]):
        out[d] = mean[d] + factor[d] * z[d]


def _colour(z, mean, factor, out):
    """out = mean + factor z."""
    raise NotImplementedError("only for compiled callers")


@overload(_colour)
def _compiled_colour(z, mean, factor, out):
    function = _colour_full if factor.ndim == 2 else _colour_diag
    return lambda z, mean, factor, out: function(z, mean, factor, out)


@driver
def colour_rows(noise, labels, means, factors, out):
    """out[b, s] = means[b, k] + factors[b, k] noise[b, s], with k = labels[b, s].

    noise and out (B, S, D); factors are lower triangles (B, K, D, D), or diagonals (B, K, D). A
    shared one has 1 in place of K.
    """
    n_rows = noise.shape[0] * noise.shape[1]
    n_blocks = min(_BLOCKS, n_rows)
    last = factors.shape[1] - 1
    for block in prange(n_blocks):
        first_row, last_row = block_range(block, n_blocks, n_rows)
        for row in range(first_row, last_row):
            b, s = row // noise.shape[1], row % noise.shape[1]
            k = labels[b, s]
            _colour(noise[b, s], means[b, k], factors[b, min(k, last)], out[b, s])
