"""The parameters of a mixture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from fastgmm.arrays import Array, home, is_tensor, namespace, to_numpy
from fastgmm.covariance import CovarianceStructure
from fastgmm.errors import SingularCovarianceError

ARRAYS = ("weights", "means", "covariances", "precisions_cholesky")

ILL_DEFINED = (
    "Fitting the mixture model failed because some components have ill-defined empirical "
    "covariance (for instance caused by singleton or collapsed samples). Try to decrease the "
    "number of components, increase reg_covar, or scale the input data."
)


@dataclass(frozen=True, eq=False)
class MixtureModel:
    """Weights, means and covariances of a Gaussian mixture; float64, immutable.

    p(x) = sum_k w_k N(x; mu_k, Sigma_k), with Sigma_k^-1 = U_k U_k'.

    Parameters
    ----------
    weights : array of shape (K,)
        Non-negative, sum 1.
    means : array of shape (K, D)
    covariances, precisions_cholesky : array
        Of the structure's shape.
    structure : CovarianceStructure

    Notes
    -----
    All four are NumPy arrays, or all are tensors on one device, which no one must write to.
    """

    weights: Array
    means: Array
    covariances: Array
    precisions_cholesky: Array
    structure: CovarianceStructure

    def __post_init__(self) -> None:
        for name in ARRAYS:
            value = getattr(self, name)
            if not is_tensor(value):
                view = np.asarray(value).view()
                view.setflags(write=False)
                object.__setattr__(self, name, view)

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.means.shape[0]

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.means.shape[1]

    def log_determinants(self) -> Array:
        """log |U_k|, (K,)."""
        values = self.structure.log_determinants(self.precisions_cholesky, self.n_features)
        if values.ndim:
            return values
        return namespace(values).broadcast_to(values, (self.n_components,))

    def log_weights(self) -> Array:
        """log w_k, -inf for components of weight 0."""
        with np.errstate(divide="ignore"):
            return namespace(self.weights).log(self.weights)

    def unweighted(self) -> MixtureModel:
        """The same components with log-weights 0: what they give is log p(x | k)."""
        return replace(self, weights=namespace(self.weights).ones_like(self.weights))

    def map(self, function: Callable[[Array], Array]) -> MixtureModel:
        """The model with a function applied to each of its arrays.

        Parameters
        ----------
        function : callable
            For instance what takes arrays to another device.

        Returns
        -------
        model : MixtureModel
        """
        return replace(self, **{name: function(getattr(self, name)) for name in ARRAYS})

    def on_host(self) -> MixtureModel:
        """The model in NumPy arrays; itself where it is so already."""
        return self if home(self.means) is None else self.map(to_numpy)

    @classmethod
    def factorised(
        cls, weights: Array, means: Array, covariances: Array, structure: CovarianceStructure
    ) -> MixtureModel:
        """Build a model whose covariances may fail to be positive definite, without looking.

        Returns
        -------
        model : MixtureModel
            With NaN in its factors where a covariance is not positive definite.
        """
        factors = structure.precisions_cholesky(covariances)
        return cls(weights, means, covariances, factors, structure)

    def sound(self) -> Array:
        """Whether all factors are finite, a number of the model's kind: nothing is read."""
        return namespace(self.precisions_cholesky).isfinite(self.precisions_cholesky).all()

    def refuse(self, counts: Array | None, context: str, advice: str) -> NoReturn:
        """Raise the error of a model that is not sound.

        Raises
        ------
        SingularCovarianceError
            It names the worst component, its effective number of rows and smallest eigenvalue.
        """
        host = self.on_host()
        sizes = None if counts is None else to_numpy(counts)
        raise SingularCovarianceError(
            _describe(host.means, host.covariances, host.structure, sizes, context, advice)
        )

    @classmethod
    def from_covariances(
        cls,
        weights: Array,
        means: Array,
        covariances: Array,
        structure: CovarianceStructure,
        *,
        counts: Array | None = None,
        context: str = "M-step",
        advice: str = "",
    ) -> MixtureModel:
        """Build a model, factorising the covariances.

        Parameters
        ----------
        weights, means, covariances : array
            Float64.
        structure : CovarianceStructure
        counts : array of shape (K,), optional
            Effective number of rows of each component, for the error's text.
        context, advice : str
            Begin and end of the error's text.

        Returns
        -------
        model : MixtureModel

        Raises
        ------
        SingularCovarianceError
            If a covariance is not positive definite; the message names the component, its
            effective number of rows and its smallest eigenvalue.
        """
        model = cls.factorised(weights, means, covariances, structure)
        if not model.sound():
            model.refuse(counts, context, advice)
        return model


def _describe(
    means: np.ndarray,
    covariances: np.ndarray,
    structure: CovarianceStructure,
    counts: np.ndarray | None,
    context: str,
    advice: str,
) -> str:
    """Name the worst component of a set of covariances that cannot be factorised."""
    n_components, n_features = means.shape
    worst, smallest = 0, np.inf
    for k in range(1 if structure.tied else n_components):
        matrix = structure.covariance_matrix(covariances, k, n_features)
        # NaN first: an eigenvalue solver would only say that it did not converge.
        eigenvalue = np.linalg.eigvalsh(matrix)[0] if np.all(np.isfinite(matrix)) else np.nan
        if not eigenvalue >= smallest:
            worst, smallest = k, eigenvalue
        if np.isnan(eigenvalue):
            break
    which = "the shared covariance" if structure.tied else f"covariance of component {worst}"
    if not structure.tied:
        which += f" of {n_components}"
    rows = ""
    if counts is not None:
        size = counts.sum() if structure.tied else counts[worst]
        rows = f"effective samples {size:.1f}, "
    what = "is not finite" if np.isnan(smallest) else "is not positive definite"
    return (
        f"{ILL_DEFINED} {context}: {which} {what} ({rows}smallest eigenvalue {smallest:.2g}). "
        f"{advice}"
    ).strip()
