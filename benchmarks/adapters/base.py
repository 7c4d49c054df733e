"""The small interface behind which every implementation stands."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar

from ..workloads import Array, Parameters


@dataclass(frozen=True)
class Fitted:
    """What a fit returned, and how many iterations it really ran."""

    parameters: Parameters
    n_iter: int


class Adapter(ABC):
    """One implementation, built from given parameters.

    A subclass states the class variables and overrides the tasks named in `tasks`.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    #: any of "score", "fit", "kmeans"
    tasks: ClassVar[frozenset[str]]
    structures: ClassVar[frozenset[str]]
    precisions: ClassVar[frozenset[str]] = frozenset({"float32", "float64"})
    #: times that the rows are read in one EM iteration
    passes_per_iteration: ClassVar[int] = 1
    #: passes of a fit beyond its iterations; they cancel in the difference of two fits
    extra_passes: ClassVar[int] = 0
    note: ClassVar[str] = ""

    def __init__(self, parameters: Parameters, precision: str, reg_covar: float = 0.0) -> None:
        self.parameters = parameters
        self.precision = precision
        self.reg_covar = reg_covar

    @classmethod
    def missing(cls) -> str | None:
        """Why this implementation cannot be used here, or None when it can."""
        return None if cls.version() else f"the package {cls.package} is not installed"

    @classmethod
    def version(cls) -> str | None:
        try:
            return version(cls.package)
        except PackageNotFoundError:
            return None

    @classmethod
    def cannot(cls, task: str, structure: str, precision: str) -> str | None:
        """Why this implementation has no figure for a row, or None when it has one."""
        if task not in cls.tasks:
            return f"{cls.name} has no {task}"
        if structure not in cls.structures:
            return f"{cls.name} has no {structure} covariance"
        if precision not in cls.precisions:
            return f"{cls.name} has no {precision}"
        return cls.missing()

    def score(self, x: Array) -> Array:
        """Log-likelihood of every row, (N,)."""
        raise NotImplementedError(self.name)

    def predict(self, x: Array) -> Array:
        """Most probable component of every row, (N,)."""
        raise NotImplementedError(self.name)

    def fit(self, x: Array, n_iter: int) -> Fitted:
        """EM from the given parameters with tol = 0 and exactly n_iter iterations."""
        raise NotImplementedError(self.name)

    def em_pass(self, x: Array) -> Parameters:
        """The parameters after one EM iteration."""
        return self.fit(x, 1).parameters

    def kmeans(self, x: Array, n_iter: int) -> Array:
        """Centres after n_iter Lloyd iterations from the given means, (K, D)."""
        raise NotImplementedError(self.name)
