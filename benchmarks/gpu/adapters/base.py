"""The interface of implementations that take torch tensors where they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch

from ...adapters import Adapter, Fitted
from ...workloads import Array, Parameters

Tensor = torch.Tensor

#: numbers of one intermediate array in code that works by chunks of rows
CHUNK_NUMBERS = 2**28


class TensorAdapter(Adapter):
    """One implementation on one device, built from given parameters.

    Rows come in as a tensor on the device and scores stay there; parameters go out as NumPy arrays.
    """

    #: precisions of float32 products that are measured apart; "highest" is torch's default
    modes: ClassVar[tuple[str, ...]] = ("highest",)
    #: a fit of another length is compiled anew
    compiles_lengths: ClassVar[bool] = False
    #: whether its memory comes from torch, which counts it
    memory_counted: ClassVar[bool] = True

    def __init__(
        self,
        parameters: Parameters,
        precision: str,
        device: torch.device,
        mode: str = "highest",
        reg_covar: float = 0.0,
    ) -> None:
        super().__init__(parameters, precision, reg_covar)
        self.device, self.mode = device, mode
        self.dtype: torch.dtype = getattr(torch, precision)

    @classmethod
    def cannot(cls, task: str, structure: str, precision: str) -> str | None:
        if task not in cls.tasks:
            return f"the adapter of {cls.name} has no {task}"
        return super().cannot(task, structure, precision)

    @classmethod
    def absent(cls, device: torch.device) -> str | None:
        """Why this implementation cannot run on the device, or None when it can."""
        return None

    def tensor(self, array: Array) -> Tensor:
        """An array in the precision of the rows, on the device."""
        return torch.as_tensor(array, dtype=self.dtype, device=self.device)

    def chunks(self, x: Tensor, numbers: int) -> Iterator[Tensor]:
        """Rows by chunks, for intermediate arrays of so many numbers per row."""
        yield from x.split(max(1, CHUNK_NUMBERS // numbers))

    def fitted(self, weights: Tensor, means: Tensor, covariances: Tensor, n_iter: int) -> Fitted:
        """Results on the host, which waits for the device."""
        arrays = [to_host(a) for a in (weights, means, covariances)]
        return Fitted(Parameters(self.parameters.structure, *arrays), n_iter)


def to_host(tensor: Tensor) -> Array:
    """A tensor's numbers as float64 on the host."""
    return tensor.detach().cpu().double().numpy()
