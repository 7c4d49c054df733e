"""Where the differentiable operators run: one engine per type of device.

An engine is a module with ``score``, ``per_component``, ``backward``, ``few_score``,
``few_backward`` and ``colour`` on torch tensors, and the number ``FEW`` of rows up to which the
fourth takes the place of the first; :mod:`fastgmm.autograd.cpu` says what they take and give.
"""

from __future__ import annotations

from types import ModuleType

import torch

from fastgmm.errors import BackendUnavailableError


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
        If there are no kernels for the device.
    """
    if tensor.device.type == "cpu":
        from fastgmm.autograd import cpu

        return cpu
    raise BackendUnavailableError(
        f"mixtures on device {tensor.device}: there are differentiable kernels for the CPU alone. "
        "Move the tensors with .cpu()."
    )
