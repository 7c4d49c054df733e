"""The small interface behind which every implementation stands, on arrays and on tensors."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import numpy as np

from ..workloads import Array, Parameters

#: a torch.device; None means NumPy arrays on the host
Device = Any
#: numbers of one intermediate array in code that works by chunks of rows: 1 GB on a device, where
#: long kernels are wanted, 16 MB on a host, where they should stay near its caches
CHUNK_NUMBERS = {"cuda": 2**28, "cpu": 2**22}


@dataclass(frozen=True)
class Fitted:
    """What a fit returned, and how many iterations it really ran."""

    parameters: Parameters
    n_iter: int


class Adapter:
    """One implementation, built from given parameters.

    A subclass states the class variables and overrides `prepare` and the tasks named in `tasks`.

    Parameters
    ----------
    parameters : Parameters
        The start of fits, and what scores and labels are computed with.
    precision : {"float32", "float64"}
        Of the rows, in which the parameters are handed over.
    reg_covar : float
    device : torch.device or None
        Where rows come as tensors; None when they come as NumPy arrays.
    mode : {"highest", "high", "medium"}
        Precision of float32 products on a device, with torch's meaning.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    #: any of "score", "predict", "fit", "kmeans"
    tasks: ClassVar[frozenset[str]]
    structures: ClassVar[frozenset[str]]
    precisions: ClassVar[frozenset[str]] = frozenset({"float32", "float64"})
    #: precisions of float32 products that are measured apart on a device
    modes: ClassVar[tuple[str, ...]] = ("highest",)
    #: times that the rows are read in one EM iteration
    passes_per_iteration: ClassVar[int] = 1
    #: passes of a fit beyond its iterations; they cancel in the difference of two fits
    extra_passes: ClassVar[int] = 0
    #: whether it takes tensors on a device
    on_devices: ClassVar[bool] = True
    #: code may be compiled when a fit of another length, or more rows, are first met
    compiles_shapes: ClassVar[bool] = False
    #: whether its memory on a device comes from torch, which counts it
    memory_counted: ClassVar[bool] = True
    #: computes part of the work alone, so that there is nothing to compare with the oracle
    yardstick: ClassVar[bool] = False
    #: measured in a process of its own: its threads do not get on with those of others
    own_process: ClassVar[bool] = False
    note: ClassVar[str] = ""

    def __init__(
        self,
        parameters: Parameters,
        precision: str,
        reg_covar: float = 0.0,
        *,
        device: Device = None,
        mode: str = "highest",
    ) -> None:
        self.parameters = parameters
        self.precision = precision
        self.reg_covar = reg_covar
        self.device = self.place(device)
        self.mode = mode
        self.prepare()

    def place(self, device: Device) -> Device:
        """Where the rows lie that the tasks take."""
        return device

    def prepare(self) -> None:
        """Copy and convert the parameters, which is not timed."""

    @classmethod
    def missing(cls) -> str | None:
        """Why this implementation cannot be used here, or None when it can."""
        return None if cls.version() else f"the package {cls.package} is not installed"

    @classmethod
    def version(cls) -> str | None:
        """Version of the package, None where it is not installed."""
        try:
            return version(cls.package)
        except PackageNotFoundError:
            return None

    @classmethod
    def cannot(cls, task: str, structure: str, precision: str, device: Device = None) -> str | None:
        """Why this implementation has no figure for a row, or None when it has one."""
        if task not in cls.tasks:
            return f"the adapter of {cls.name} has no {task}"
        if structure not in cls.structures:
            return f"{cls.name} has no {structure} covariance"
        if precision not in cls.precisions:
            return f"{cls.name} has no {precision}"
        if device is not None and not cls.on_devices:
            return f"{cls.name} takes no tensors"
        return cls.missing()

    def rows(self, x: Any) -> Any:
        """Rows in the form that the tasks take; those that come from here stay as they are."""
        return x

    def score(self, x: Any) -> Any:
        """Log-likelihood of every row, (N,)."""
        raise NotImplementedError(self.name)

    def predict(self, x: Any) -> Any:
        """Most probable component of every row, (N,)."""
        raise NotImplementedError(self.name)

    def fit(self, x: Any, n_iter: int) -> Fitted:
        """EM from the given parameters with tol = 0 and exactly n_iter iterations."""
        raise NotImplementedError(self.name)

    def em_pass(self, x: Any) -> Parameters:
        """The parameters after one EM iteration."""
        return self.fit(x, 1).parameters

    def kmeans(self, x: Any, n_iter: int) -> Array:
        """Centres after n_iter Lloyd iterations from the given means, (K, D)."""
        raise NotImplementedError(self.name)

    def own(self, array: Array) -> Any:
        """Parameters in the precision of the rows, of their kind and where they are."""
        if self.device is None:
            return array.astype(self.precision)
        import torch

        return torch.as_tensor(array, dtype=getattr(torch, self.precision), device=self.device)

    def fitted(self, weights: Any, means: Any, covariances: Any, n_iter: int) -> Fitted:
        """Results as NumPy arrays on the host, which waits for a device."""
        arrays = [to_host(a) for a in (weights, means, covariances)]
        return Fitted(Parameters(self.parameters.structure, *arrays), n_iter)


class TensorAdapter(Adapter):
    """An implementation that takes torch tensors; those of a host share the rows' memory."""

    def place(self, device: Device) -> Device:
        import torch

        return torch.device("cpu") if device is None else device

    @classmethod
    def missing(cls) -> str | None:
        if importlib.util.find_spec("torch") is None:
            return "the package torch is not installed"
        return super().missing()

    def rows(self, x: Any) -> Any:
        import torch

        return torch.as_tensor(x, device=self.device)

    def chunks(self, x: Any, numbers: int) -> Any:
        """Rows by chunks, for intermediate arrays of so many numbers per row."""
        return x.split(max(1, CHUNK_NUMBERS[self.device.type] // numbers))


def to_host(array: Any) -> Array:
    """An array's or a tensor's numbers as float64 on the host."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
    return np.asarray(array, dtype=np.float64)
