"""Where the differentiable operators run: one engine per type of device.

An engine is a module with ``score``, ``per_component``, ``backward``, ``few_score``,
``few_backward`` and ``colour`` on torch tensors, and ``is_few``, which says when the fourth takes
the place of the first; :mod:`fastgmm.autograd.cpu` says what they take and give.
"""

from __future__ import annotations

from types import ModuleType

import torch

from fastgmm.errors import BackendUnavailableError

#: Whether tensors on the CPU go to the kernels of GPUs, in Triton's interpreter: for tests.
INTERPRET = False


def engine_for(tensor: torch.Tensor) -> ModuleType:
    """The engine of the device that holds ``tensor``: the one place where devices are told apart.

    Parameters
    ----------
    tensor : Tensor

    Returns
    -------
    engine : module

    Raises
    ------
    BackendUnavailableError
        If there are no kernels for the device, or triton is missing.
    """
    kind = tensor.device.type
    if kind == "cpu" and not INTERPRET:
        from fastgmm.autograd import cpu

        return cpu
    if kind in ("cpu", "cuda"):
        try:
            from fastgmm.autograd import gpu
        except ModuleNotFoundError as error:
            raise BackendUnavailableError(
                f"mixtures on device {tensor.device}: {error.name} is not installed, and the "
                "kernels of GPUs need it. Install it, or move the tensors with .cpu()."
            ) from error
        return gpu
    raise BackendUnavailableError(
        f"mixtures on device {tensor.device}: there are differentiable kernels for the CPU and for "
        "CUDA devices. Move the tensors with .cpu()."
    )
