"""Arrays of either kind: NumPy's, and torch's on any device.

Above the backends one source serves both kinds. What they have in common is called on the arrays
or through :func:`namespace`; what differs is here and in ``fastgmm.linalg``. torch is not imported
before a tensor has come in.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np

from fastgmm.errors import BackendUnavailableError, InputError

Array = Any
"""A NumPy array or a torch tensor."""


def is_tensor(x: object) -> bool:
    """Whether ``x`` is a torch tensor, without importing torch."""
    if type(x) is np.ndarray:
        return False
    # Another thread may be importing torch just now.
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and isinstance(x, tensor)


@cache
def _torch() -> Any:
    try:
        from array_api_compat import torch
    except ImportError:
        raise BackendUnavailableError(
            'torch tensors need array-api-compat: pip install "fastgmm[torch]", '
            "or pass NumPy arrays."
        ) from None
    return torch


def namespace(x: Array) -> Any:
    """The array API functions for arrays like ``x``: NumPy itself, or its counterpart for torch."""
    return _torch() if is_tensor(x) else np


def home(x: Array) -> str | None:
    """Device of a tensor, such as "cpu" or "cuda:0"; None for everything else."""
    return str(x.device) if is_tensor(x) else None


def refuse_mask(x: object, what: str) -> None:
    """Raise InputError for a masked array, or a list of such, of which NumPy loses the masks."""
    rows = x if isinstance(x, list | tuple) else (x,)
    if any(isinstance(row, np.ma.MaskedArray) for row in rows):
        raise InputError(
            f"{what} is a masked array; its mask would be lost. Fill or drop the masked entries."
        )


def refuse_text(x: np.ndarray, what: str) -> None:
    """Raise InputError for text, which NumPy would take for numbers where it looks like some."""
    kind, text = x.dtype.kind, (str, bytes)
    if kind in "SUT" or (kind == "O" and any(isinstance(value, text) for value in x.flat)):
        raise InputError(f"{what} has dtype {x.dtype} with text; expected numbers. Convert it.")


def float_dtype(dtype: np.dtype) -> np.dtype:
    """The precision in which real numbers of NumPy are read: float32 for halves and itself."""
    return np.dtype(np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64)


def working_dtype(dtype: Any) -> np.dtype:
    """The precision in which rows of a dtype of NumPy or torch are computed and results given."""
    return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)


def to_numpy(x: Array) -> np.ndarray:
    """An array on the host, a copy only where there is no other way; half precision is widened."""
    if not is_tensor(x):
        return np.asarray(x)
    x = x.detach().cpu().resolve_neg()
    # NumPy has no bfloat16, and halves are computed in float32 anyway.
    return (x.float() if x.is_floating_point() and x.element_size() < 4 else x).numpy()


def to_tensor(x: Array, device: str) -> Array:
    """A tensor on a device with the numbers and dtype of ``x``, a copy only where it must be."""
    if is_tensor(x):
        return x.to(device)
    import torch

    x = native(np.asarray(x))
    # torch cannot hold read-only memory or strides below zero.
    if not x.flags.writeable or min(x.strides, default=0) < 0:
        x = x.copy()
    return torch.from_numpy(x).to(device)


def like(x: Array, other: Array) -> Array:
    """``x`` as an array of the kind and on the device of ``other``."""
    where = home(other)
    return to_numpy(x) if where is None else to_tensor(x, where)


def as_given(result: Array, given: object) -> Array:
    """A result in the kind of what the user gave: a tensor for a tensor, on its device."""
    return like(result, given) if is_tensor(given) else result


def copied(x: Array) -> Array:
    """A copy of its own, where ``x`` is."""
    return x.clone() if is_tensor(x) else np.array(x)


def cast(x: Array, dtype: Any) -> Array:
    """``x`` in a dtype of NumPy, without a copy where it has it already."""
    if is_tensor(x):
        return x.to(getattr(_torch(), np.dtype(dtype).name))
    return np.asarray(x).astype(dtype, copy=False)


def native(x: np.ndarray) -> np.ndarray:
    """``x`` in the byte order of the machine, a copy only where it is in the other one."""
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def read(*values: Any) -> list[float]:
    """Numbers as floats; those on a device come in one copy, however many they are."""
    tensors = [value for value in values if is_tensor(value)]
    if not tensors:
        return [float(value) for value in values]
    xp = _torch()
    numbers = iter(xp.stack([value.to(xp.float64) for value in tensors]).tolist())
    return [next(numbers) if is_tensor(value) else float(value) for value in values]
