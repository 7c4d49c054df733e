"""Backends and the choice among them."""

from __future__ import annotations

import re
from functools import cache

from fastgmm.backends.base import Backend, FeatureSummary, KMeansStep
from fastgmm.errors import BackendUnavailableError, InputError

__all__ = ["Backend", "FeatureSummary", "KMeansStep", "choose"]

_DEVICES = "'auto', 'cpu', 'reference', 'cuda', 'cuda:0', 'cuda:1', ..."


@cache
def choose(device: str) -> tuple[Backend, str]:
    """Choose where passes run.

    Parameters
    ----------
    device : str
        "auto" runs where the data is, "cpu" the compiled kernels, "reference" plain NumPy in
        float64.

    Returns
    -------
    backend : Backend
    reason : str
        What was chosen and why.

    Raises
    ------
    InputError
        If the name is unknown.
    BackendUnavailableError
        If the device cannot be used; nothing falls back in silence.
    """
    if device == "reference":
        from fastgmm.backends.reference import ReferenceBackend

        return ReferenceBackend(), "reference: plain NumPy in float64, as asked for"
    if device in ("auto", "cpu"):
        from fastgmm.backends.cpu import CPUBackend

        why = "as asked for" if device == "cpu" else "the data is in the memory of the CPU"
        return CPUBackend(), f"cpu: compiled Numba kernels, {why}"
    if isinstance(device, str) and re.fullmatch(r"cuda(:\d+)?", device):
        raise BackendUnavailableError(
            f"device={device!r}: this version of fastgmm has no GPU kernels yet. "
            "Use device='cpu' or 'auto'."
        )
    raise InputError(f"device must be one of {_DEVICES}; got {device!r}.")
