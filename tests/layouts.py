"""The same numbers in memory in other ways."""

from __future__ import annotations

import numpy as np


def _strided(x):
    wide = np.full((x.shape[0] * 2, x.shape[1] * 3), np.nan, dtype=x.dtype)
    view = wide[::2, ::3]
    view[...] = x
    return view


def _reversed(x):
    backwards = np.ascontiguousarray(x[::-1, ::-1])
    return backwards[::-1, ::-1]


def _read_only(x):
    copy = x.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = {
    "c": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "strided": _strided,
    "reversed": _reversed,
    "readonly": _read_only,
}
