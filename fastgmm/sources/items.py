"""One chunk as a stream gives it: arrays, tensors, tables, with weights or without."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgmm import frames
from fastgmm.arrays import float_dtype, is_tensor, refuse_mask, refuse_text, to_numpy
from fastgmm.errors import InputError
from fastgmm.sources.batches import Rows
from fastgmm.tensors import detached

# Memory of the host, as DLPack numbers devices: ordinary, and pinned for CUDA.
_DLPACK_HOST = (1, 3)


def as_rows(item: Any, where: str) -> Rows:
    """Rows and weights of what a stream gave.

    Parameters
    ----------
    item : array-like, tensor or table of shape (n, D), or a tuple of such and weights (n,)
    where : str
        Which chunk of which stream, for errors.

    Returns
    -------
    x : array of shape (n, D)
        float32 or float64, or a tensor of a floating-point dtype.
    weight : ndarray of shape (n,) or None

    Raises
    ------
    InputError
        If it is anything else; the message names the chunk.
    """
    weight = None
    for part in item if isinstance(item, tuple) else (item,):
        refuse_mask(part, where)
    if isinstance(item, tuple):
        if len(item) != 2:
            raise InputError(
                f"{where} is a tuple of {len(item)}; expected rows, or a tuple (rows, weights)."
            )
        item, given = item
        weight = None if given is None else np.asarray(to_numpy(given), np.float64)
    x = item
    if frames.is_frame(item):
        x = frames.to_array(item)
    elif not is_tensor(item):
        x = np.asarray(readable(item, where))
    if x.ndim != 2 or x.shape[1] == 0:
        raise InputError(
            f"{where} has shape {tuple(x.shape)}; expected (rows, features). Reshape it before it "
            "is given."
        )
    x = detached(x, where) if is_tensor(x) else floating(x, where)
    if weight is not None:
        _check(weight, len(x), where)
    return x, weight


def readable(x: Any, where: str) -> Any:
    """``x`` as NumPy reads it without losing a mask: arrays of other libraries without a copy.

    Raises
    ------
    InputError
        If it is masked, or NumPy cannot read it; ``where`` names it.
    """
    refuse_mask(x, where)
    if isinstance(x, np.ndarray) or not hasattr(x, "__dlpack_device__"):
        return x
    kind = int(x.__dlpack_device__()[0])
    if kind not in _DLPACK_HOST:
        raise InputError(
            f"{where} is a {type(x).__name__} on a device (DLPack type {kind}). Pass "
            "torch.from_dlpack of it, which is computed where it is, or a copy on the host."
        )
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError) as error:
        raise InputError(
            f"{where} is a {type(x).__name__} that NumPy cannot read: {error}. Convert it to "
            "float32 or float64."
        ) from None


def floating(x: np.ndarray, where: str) -> np.ndarray:
    """Real numbers of any NumPy dtype as float32 or float64; ``where`` names them in errors."""
    refuse_text(x, where)
    if x.dtype.kind not in "fiubO":
        raise InputError(
            f"{where} has dtype {x.dtype}; expected real numbers. Convert it to such first."
        )
    frames.warn_of_wide(x, where, str(x.dtype), stacklevel=4)
    return x.astype(float_dtype(x.dtype), copy=False)


def _check(weight: np.ndarray, n_rows: int, where: str) -> None:
    if weight.shape != (n_rows,):
        raise InputError(f"{where} has {n_rows} rows and weights of shape {weight.shape}.")
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"{where}: weights must be finite and not negative; got {weight[row]} at its row {row}."
        )
