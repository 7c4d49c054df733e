"""The parameters of a mixture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastgmm.covariance import CovarianceStructure
from fastgmm.errors import SingularCovarianceError

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
    weights : ndarray of shape (K,)
        Non-negative, sum 1.
    means : ndarray of shape (K, D)
    covariances, precisions_cholesky : ndarray
        Of the structure's shape.
    structure : CovarianceStructure
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    precisions_cholesky: np.ndarray
    structure: CovarianceStructure

    def __post_init__(self) -> None:
        for name in ("weights", "means", "covariances", "precisions_cholesky"):
            view = np.asarray(getattr(self, name)).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.means.shape[0]

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.means.shape[1]

    def log_determinants(self) -> np.ndarray:
        """log |U_k|, (K,)."""
        values = self.structure.log_determinants(self.precisions_cholesky, self.n_features)
        return np.broadcast_to(values, (self.n_components,))

    def log_weights(self) -> np.ndarray:
        """log w_k, -inf for components of weight 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.weights)

    def unweighted(self) -> MixtureModel:
        """The same components with log-weights 0: what they give is log p(x | k)."""
        return replace(self, weights=np.ones_like(self.weights))

    @classmethod
    def from_covariances(
        cls,
        weights: np.ndarray,
        means: np.ndarray,
        covariances: np.ndarray,
        structure: CovarianceStructure,
        *,
        counts: np.ndarray | None = None,
        context: str = "M-step",
        advice: str = "",
    ) -> MixtureModel:
        """Build a model, factorising the covariances.

        Parameters
        ----------
        weights, means, covariances : ndarray
            Float64.
        structure : CovarianceStructure
        counts : ndarray of shape (K,), optional
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
        try:
            factors = structure.precisions_cholesky(covariances)
        except np.linalg.LinAlgError:
            factors = None
        if factors is None or not np.all(np.isfinite(factors)):
            raise SingularCovarianceError(
                _describe(means, covariances, structure, counts, context, advice)
            ) from None
        return cls(weights, means, covariances, factors, structure)


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
