"""Passes that give something per row: log-likelihood, label, responsibilities."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from .exp import exp
from .jit import driver, kernel
from .structure import log_prob
from .tile import block_range, load_tile, row_stride

# Blocks of rows that threads take; fixed, so that results do not depend on the threads.
_BLOCKS = 64
# Components whose log-probabilities are formed before they are folded into the running sum.
_GROUP = 16


@kernel
def _fold_sum(lp, group, n, top, reference, total):
    """One step of the online log-sum-exp: log-likelihood so far = top + log(total)."""
    for t in range(n):
        reference[t] = top[t]
    for k in range(group):
        row = lp[k]
        for t in range(n):
            top[t] = max(top[t], row[t])
    for t in range(n):
        # A row that every component so far puts at -inf: any finite reference will do.
        finite = top[t] if top[t] > -np.inf else top.dtype.type(0)
        total[t] *= exp(reference[t] - finite)
        reference[t] = finite
    for k in range(group):
        row = lp[k]
        for t in range(n):
            total[t] += exp(row[t] - reference[t])


@driver
def score_samples(x, centre, whiten, means, factors, constants, tile, out):
    """out[n] = log sum_k w_k p_k(x_n), by one online log-sum-exp."""
    n_rows = x.shape[0]
    n_components = means.shape[0]
    n_tiles = (n_rows + tile - 1) // tile
    stride = row_stride(tile, out.itemsize)
    n_blocks = min(_BLOCKS, n_tiles)
    for block in prange(n_blocks):
        z = np.empty((means.shape[1], stride), out.dtype)
        raw = np.empty((means.shape[1] if whiten.shape[0] > 1 else 0, stride), out.dtype)
        lp = np.empty((_GROUP, stride), out.dtype)
        top = np.empty(tile, out.dtype)
        reference = np.empty(tile, out.dtype)
        total = np.empty(tile, out.dtype)
        tile_0, tile_1 = block_range(block, n_blocks, n_tiles)
        for i in range(tile_0, tile_1):
            start = i * tile
            n = min(tile, n_rows - start)
            load_tile(x, start, n, centre, whiten, raw, z)
            top[:] = -np.inf
            total[:] = 0
            for k in range(0, n_components, _GROUP):
                last = min(k + _GROUP, n_components)
                log_prob(z, means, factors, constants, k, last, lp, n)
                _fold_sum(lp, last - k, n, top, reference, total)
            for t in range(n):
                out[start + t] = top[t] + math.log(total[t])


@kernel
def fold_best(lp, first, group, n, best, label):
    """Running maximum and its component; the first wins a tie."""
    for k in range(group):
        row = lp[k]
        number = np.int32(first + k)
        for t in range(n):
            better = row[t] > best[t]
            best[t] = row[t] if better else best[t]
            label[t] = number if better else label[t]


@driver
def predict(x, centre, whiten, means, factors, constants, tile, best_out, label_out):
    """label_out[n] = argmax_k w_k p_k(x_n) and best_out[n] its logarithm."""
    n_rows = x.shape[0]
    n_components = means.shape[0]
    n_tiles = (n_rows + tile - 1) // tile
    stride = row_stride(tile, best_out.itemsize)
    n_blocks = min(_BLOCKS, n_tiles)
    for block in prange(n_blocks):
        z = np.empty((means.shape[1], stride), best_out.dtype)
        raw = np.empty((means.shape[1] if whiten.shape[0] > 1 else 0, stride), best_out.dtype)
        lp = np.empty((_GROUP, stride), best_out.dtype)
        label = np.empty(tile, np.int32)
        tile_0, tile_1 = block_range(block, n_blocks, n_tiles)
        for i in range(tile_0, tile_1):
            start = i * tile
            n = min(tile, n_rows - start)
            load_tile(x, start, n, centre, whiten, raw, z)
            best = best_out[start : start + n]
            best[:] = -np.inf
            label[:] = 0
            for k in range(0, n_components, _GROUP):
                last = min(k + _GROUP, n_components)
                log_prob(z, means, factors, constants, k, last, lp, n)
                fold_best(lp, k, last - k, n, best, label)
            for t in range(n):
                label_out[start + t] = label[t]


@kernel
def normalise(lp, n_components, n, top, norm, scale):
    """Replace lp by exp(lp - max); norm is the row's log-likelihood, scale 1 / sum."""
    one = lp.dtype.type(1)
    for t in range(n):
        top[t] = -np.inf
        scale[t] = 0
    for k in range(n_components):
        row = lp[k]
        for t in range(n):
            top[t] = max(top[t], row[t])
    for t in range(n):
        norm[t] = top[t]
        if not top[t] > -np.inf:
            top[t] = 0
    for k in range(n_components):
        row = lp[k]
        for t in range(n):
            e = exp(row[t] - top[t])
            row[t] = e
            scale[t] += e
    for t in range(n):
        # A row that no component can reach keeps log-likelihood -inf and no responsibilities.
        total = scale[t]
        norm[t] = norm[t] + math.log(total) if total > 0 else norm[t]
        scale[t] = one / total if total > 0 else total


@driver
def per_component(x, centre, whiten, means, factors, constants, tile, mode, norm_out, out):
    """out[n, k]: 0 weighted log-probabilities, 1 responsibilities, 2 their logarithms.

    norm_out[n] is the row's log-likelihood, in modes 1 and 2.
    """
    n_rows = x.shape[0]
    n_components = means.shape[0]
    n_tiles = (n_rows + tile - 1) // tile
    stride = row_stride(tile, out.itemsize)
    n_blocks = min(_BLOCKS, n_tiles)
    for block in prange(n_blocks):
        z = np.empty((means.shape[1], stride), out.dtype)
        raw = np.empty((means.shape[1] if whiten.shape[0] > 1 else 0, stride), out.dtype)
        lp = np.empty((n_components, stride), out.dtype)
        top = np.empty(tile, out.dtype)
        norm = np.empty(tile, out.dtype)
        scale = np.empty(tile, out.dtype)
        tile_0, tile_1 = block_range(block, n_blocks, n_tiles)
        for i in range(tile_0, tile_1):
            start = i * tile
            n = min(tile, n_rows - start)
            load_tile(x, start, n, centre, whiten, raw, z)
            log_prob(z, means, factors, constants, 0, n_components, lp, n)
            if mode == 2:
                for t in range(n):
                    row = out[start + t]
                    for k in range(n_components):
                        row[k] = lp[k, t]
            if mode > 0:
                normalise(lp, n_components, n, top, norm, scale)
                norm_out[start : start + n] = norm[:n]
            else:
                norm_out[start : start + n] = 0
            if mode == 0:
                for t in range(n):
                    row = out[start + t]
                    for k in range(n_components):
                        row[k] = lp[k, t]
            elif mode == 1:
                for t in range(n):
                    row = out[start + t]
                    for k in range(n_components):
                        row[k] = lp[k, t] * scale[t]
            else:
                for t in range(n):
                    row = out[start + t]
                    # Less the largest first: their sum may be too large to hold the differences.
                    # A row out of reach of all components is settled by the caller.
                    shift = math.log(scale[t]) if scale[t] > 0 else out.dtype.type(0)
                    for k in range(n_components):
                        row[k] = (row[k] - top[t]) + shift
