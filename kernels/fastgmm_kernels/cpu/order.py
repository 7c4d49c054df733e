"""Rows in the order of their labels, so that the rows of a tile are alike."""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import driver, kernel
from .tile import block_range

# Bytes of a cache line.
_LINE = 64


@kernel
def read_ahead(x, first, last, scrap):
    """Read rows in turn, so that they are in the cache when they are wanted out of turn."""
    step = max(_LINE // x.itemsize, 1)
    total = x.dtype.type(0)
    for n in range(first, last):
        for d in range(0, x.shape[1], step):
            total += x[n, d]
    scrap[0] = total


@kernel
def _order_window(labels, first, last, places, order):
    """Counting sort of one window."""
    places[:] = 0
    for n in range(first, last):
        places[labels[n]] += 1
    total = first
    for k in range(places.shape[0]):
        here = places[k]
        places[k] = total
        total += here
    for n in range(first, last):
        k = labels[n]
        order[places[k]] = n
        places[k] += 1


@driver
def order_by_label(labels, n_components, n_windows, order):
    """``order`` (N,) int32 lists the rows of each window by label; equal ones stay in order.

    Windows are runs of rows of nearly equal length. Rows are read out of turn within a window
    alone, which fits in a cache.
    """
    n_rows = labels.shape[0]
    for i in prange(n_windows):
        first, last = block_range(i, n_windows, n_rows)
        _order_window(labels, first, last, np.empty(n_components, np.int64), order)
