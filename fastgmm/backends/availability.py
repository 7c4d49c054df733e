"""Whether the GPU kernels can run here, found out when they are chosen and not in a fit."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fastgmm.errors import BackendUnavailableError, InputError

if TYPE_CHECKING:
    from fastgmm.backends.base import Backend

_PRECISIONS = ("highest", "high", "medium")


def _refuse(device: str, reason: str, advice: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"device={device!r} cannot be used: {reason}. {advice}, or use device='cpu'."
    )


def _need_packages(device: str) -> None:
    if find_spec("torch") is None:
        raise _refuse(device, "torch is not installed", "Install fastgmm[torch]")
    if find_spec("triton") is None:
        raise _refuse(
            device,
            "triton is not installed",
            "Install torch for Linux with CUDA, which brings the triton that it was built with",
        )


def _need_compiler(device: str) -> None:
    """Triton builds a small C library to launch kernels."""
    given = os.environ.get("CC")
    if shutil.which(given) is None if given else not any(map(shutil.which, ("gcc", "clang", "cc"))):
        reason = f"CC={given} is not there" if given else "no C compiler is there"
        raise _refuse(
            device, f"{reason}, and triton needs one to launch kernels", "Install gcc or clang"
        )
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        raise _refuse(
            device,
            "the headers of Python are not there, and triton needs them to launch kernels",
            "Install them (python3-dev or python3-devel)",
        )


def _need_device(device: str) -> None:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        reason = f"torch {torch.__version__} finds no CUDA device"
        if built is None:
            raise _refuse(device, reason + ", being built without CUDA", "Install torch with CUDA")
        raise _refuse(device, reason, "Install a driver for CUDA " + built + " or later")
    number = int(device.partition(":")[2] or 0)
    if number >= torch.cuda.device_count():
        raise _refuse(
            device, f"there are {torch.cuda.device_count()} CUDA devices", "Name one of them"
        )


def current_device() -> str:
    """The CUDA device that "cuda" means in this thread just now.

    Raises
    ------
    BackendUnavailableError
        If there is none.
    """
    _need_packages("cuda")
    _need_device("cuda")
    import torch

    return f"cuda:{torch.cuda.current_device()}"


def gpu_backend(device: str, precision: str) -> Backend:
    """The backend of a CUDA device, or of Triton's interpreter.

    Parameters
    ----------
    device : str
        "cuda:0", "cuda:1", ... or "interpreter".
    precision : {"highest", "high", "medium"}

    Returns
    -------
    backend : GPUBackend

    Raises
    ------
    InputError
        If the precision is unknown.
    BackendUnavailableError
        If a package, a device or a compiler is missing; the message says what to install.
    """
    if precision not in _PRECISIONS:
        raise InputError(f"precision must be one of {_PRECISIONS}; got {precision!r}.")
    _need_packages(device)
    interpreter = device == "interpreter"
    if not interpreter:
        _need_device(device)
        _need_compiler(device)
    import torch

    from fastgmm.backends.gpu import GPUBackend
    from fastgmm_kernels.gpu import interpreted

    if interpreter != interpreted():
        raise _refuse(
            device,
            "triton was imported " + ("without" if interpreter else "with") + " TRITON_INTERPRET=1",
            "Set it before Python starts" if interpreter else "Unset it before Python starts",
        )
    where = torch.device("cpu" if interpreter else device)
    return GPUBackend(where, precision=precision)
