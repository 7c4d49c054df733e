"""What a covariance structure is, and the registry of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

from fastgmm.arrays import Array
from fastgmm.errors import InputError

if TYPE_CHECKING:
    from fastgmm.statistics import SufficientStatistics

Family = Literal["full", "diag", "spherical"]


class CovarianceStructure(ABC):
    """A shape that the covariances of a mixture may have.

    A structure has no state: it maps statistics to covariances, covariances to factors of the
    precisions, and says which family of kernels evaluates it. Users add their own with
    :func:`fastgmm.covariance.register`. What is computed from statistics, covariances, precisions
    or factors takes arrays of either kind, and does not wait for a device; ``covariance_matrix``,
    ``colour`` and ``spread`` are for the host.

    Attributes
    ----------
    name : str
        The value of ``covariance_type``.
    family : {"full", "diag", "spherical"}
        The kernels that evaluate the density.
    moments : {"full", "diag", "none"}
        The second moments that the M-step needs of a pass: (K, D, D), (K, D) or none.
    tied : bool
        Whether all components share one covariance. Tied structures take their covariance from
        the total scatter of the rows, which no parameter changes.
    """

    name: str
    family: Family
    moments: Literal["full", "diag", "none"]
    tied: bool = False

    @abstractmethod
    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Shape of the covariances, and of the precisions and their Cholesky factors."""

    @abstractmethod
    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free parameters of the covariances."""

    @abstractmethod
    def maximise(
        self, statistics: SufficientStatistics, scatter: Array | None, reg_covar: float
    ) -> Array:
        """Covariances that maximise the expected log-likelihood (the M-step), plus ``reg_covar``.

        ``scatter`` is the second moment of all rows about the mean of the component means, per
        row weight: (D, D) or (D,), for tied structures alone.
        """

    @abstractmethod
    def precisions_cholesky(self, covariances: Array) -> Array:
        """Upper triangular U with precision U U'; off the full family 1 / standard deviation.

        NaN where a covariance is not positive definite or not finite: nothing needs to be read to
        go on.
        """

    @abstractmethod
    def factor_precisions(self, precisions: Array) -> Array:
        """The same factor from precisions in place of covariances."""

    @abstractmethod
    def precisions(self, precisions_cholesky: Array) -> Array:
        """Precisions from their Cholesky factors."""

    @abstractmethod
    def covariances(self, precisions_cholesky: Array) -> Array:
        """Covariances from the Cholesky factors of the precisions."""

    @abstractmethod
    def log_determinants(self, precisions_cholesky: Array, n_features: int) -> Array:
        """log |U| of each component, (K,), or a scalar where tied."""

    @abstractmethod
    def covariance_matrix(self, covariances: Array, component: int, n_features: int) -> Array:
        """The covariance of one component as a (D, D) matrix."""

    @abstractmethod
    def colour(self, covariances: Array, component: int, noise: Array) -> Array:
        """Standard normal rows (n, D) turned into rows with the component's covariance."""

    @abstractmethod
    def spread(self, variances: Array, n_components: int) -> Array:
        """Covariances of this structure from one variance per feature (D,), alike for all."""

    @abstractmethod
    def replace(self, covariances: Array, mask: Array, other: Array) -> Array:
        """``covariances`` with those of the components in ``mask`` taken from ``other``."""


_REGISTRY: dict[str, CovarianceStructure] = {}


def register(structure: CovarianceStructure) -> CovarianceStructure:
    """Make a structure known under its name.

    Parameters
    ----------
    structure : CovarianceStructure
        An instance. A name that is taken is replaced.

    Returns
    -------
    structure : CovarianceStructure
        The same instance.
    """
    _REGISTRY[structure.name] = structure
    return structure


def get(name: str) -> CovarianceStructure:
    """Return the structure of that name.

    Parameters
    ----------
    name : str
        One of :func:`names`.

    Returns
    -------
    structure : CovarianceStructure

    Raises
    ------
    InputError
        If no structure has that name; the message lists those that there are.
    """
    try:
        return _REGISTRY[name]
    except (KeyError, TypeError):
        raise InputError(
            f"covariance_type must be one of {', '.join(map(repr, names()))}; got {name!r}."
        ) from None


def names() -> tuple[str, ...]:
    """Return the names of all registered structures.

    Returns
    -------
    names : tuple of str
        In order of registration.
    """
    return tuple(_REGISTRY)
