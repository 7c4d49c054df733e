"""Backends and the choice among them."""

from __future__ import annotations

import re
from functools import cache

from fastgmm.backends.base import Backend, FeatureSummary, KMeansStep
from fastgmm.errors import InputError

__all__ = ["Backend", "FeatureSummary", "KMeansStep", "choose"]

_DEVICES = "'auto', 'cpu', 'reference', 'interpreter', 'cuda', 'cuda:0', 'cuda:1', ..."


def choose(
    device: str, home: str | tuple[str | None, ...] | None = None, precision: str = "highest"
) -> tuple[Backend, str]:
    """Choose where passes run.

    Parameters
    ----------
    device : str
        "auto" runs where the data is, "cpu" the compiled kernels, "cuda" or "cuda:1" those of a
        GPU, "interpreter" the same on the CPU under Triton's interpreter, for tests, "reference"
        plain NumPy or torch in float64.
    home : str, None or tuple of such
        The torch device of the data; None for NumPy arrays. For data in several places each has
        the backend that is chosen for it alone, and they work as one.
    precision : {"highest", "high", "medium"}
        Of float32 products on a GPU.

    Returns
    -------
    backend : Backend
        The same at every call with the same arguments.
    reason : str
        What was chosen and why.

    Raises
    ------
    InputError
        If the name is unknown, or the data is on another device.
    BackendUnavailableError
        If the device cannot be used; nothing falls back in silence.
    """
    if isinstance(home, tuple):
        chosen = [choose(device, one, precision) for one in home]
        if len({backend for backend, _ in chosen}) == 1:
            return chosen[0]
        reasons = dict.fromkeys(reason for _, reason in chosen)
        return _several(device, home, precision), "; ".join(reasons)
    on_host = home is None or home == "cpu"
    if device == "auto":
        if on_host:
            return _cpu(), "cpu: compiled Numba kernels, the data is in the memory of the CPU"
        return _gpu(str(home), precision), f"{home}: compiled Triton kernels, the data is there"
    if device == "reference":
        name = "NumPy" if home is None else f"torch on {home}"
        return _reference(home), f"reference: plain {name} in float64, as asked for"
    if device == "cpu" and on_host:
        return _cpu(), "cpu: compiled Numba kernels, as asked for"
    if not isinstance(device, str) or not re.fullmatch(r"cpu|interpreter|cuda(:\d+)?", device):
        raise InputError(f"device must be one of {_DEVICES}; got {device!r}.")
    if not on_host and home != device and not (device == "cuda" and str(home).startswith("cuda:")):
        raise InputError(
            f"device={device!r} was asked for, but the data is on {home!r}. Move the data, or use "
            "device='auto', which runs where the data is."
        )
    where = device if on_host else str(home)
    if where == "cuda":
        from fastgmm.backends.availability import current_device

        where = current_device()
    return _gpu(where, precision), f"{where}: Triton kernels, as asked for"


@cache
def _several(device: str, homes: tuple[str | None, ...], precision: str) -> Backend:
    from fastgmm.backends.several import Several

    return Several({home: choose(device, home, precision)[0] for home in homes})


@cache
def _cpu() -> Backend:
    from fastgmm.backends.cpu import CPUBackend

    return CPUBackend()


@cache
def _reference(home: str | None) -> Backend:
    from fastgmm.backends.reference import ReferenceBackend

    return ReferenceBackend(home)


@cache
def _gpu(where: str, precision: str) -> Backend:
    from fastgmm.backends.availability import gpu_backend

    return gpu_backend(where, precision)
