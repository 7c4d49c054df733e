"""The rest of a loop of one's own, as functions on arrays: parameters, M-step, samples.

``fastgmm.functional`` has the passes over rows and shows these beside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastgmm import covariance, em
from fastgmm.arrays import Array, as_given, cast, home, is_tensor, like, to_numpy, working_dtype
from fastgmm.backends import choose
from fastgmm.checks import as_random_state
from fastgmm.errors import InputError
from fastgmm.given import from_parameters, numbers
from fastgmm.parameters import check_factors, check_matrices
from fastgmm.sampling import sample as draw
from fastgmm.scatter import scatter
from fastgmm.sources import ArraySource
from fastgmm.statistics import SufficientStatistics
from fastgmm.survey import survey


def _sizes(array: Array, structure: covariance.CovarianceStructure) -> tuple[int, int]:
    """K and D that an array of the structure's shape is of; 1 where it does not depend on them."""
    shape = tuple(array.shape)
    if structure.tied:
        return 1, shape[-1] if shape else 1
    return (shape[0], shape[-1] if len(shape) > 1 else 1) if shape else (1, 1)


def _converted(result: np.ndarray, given: Array) -> Array:
    return as_given(cast(result, working_dtype(given.dtype)), given)


def precisions_cholesky(covariances: Any, covariance_type: str = "full") -> Array:
    """Factors of the inverse of covariances: upper triangular U_k with Sigma_k^-1 = U_k U_k'.

    Parameters
    ----------
    covariances : array-like of the structure's shape
        (K, D, D) if full, (D, D) if tied, (K, D) if diag, (K,) if spherical, (D,) if tied_diag, ()
        if tied_spherical.
    covariance_type : str

    Returns
    -------
    precisions_cholesky : array of the same shape
        Off full and tied 1 / standard deviation.

    Raises
    ------
    InputError, SingularCovarianceError
        If the shape does not fit, or a covariance is not symmetric and positive definite.

    Examples
    --------
    >>> from fastgmm import functional
    >>> functional.precisions_cholesky([[4.0, 0.25]], "diag")
    array([[0.5, 2. ]])
    """
    structure, array = covariance.get(covariance_type), numbers(covariances, "covariances")
    sizes = _sizes(array, structure)
    found = check_matrices(to_numpy(array), structure, *sizes, "covariance").astype(np.float64)
    return _converted(structure.precisions_cholesky(found), array)


def covariances(precisions_cholesky: Any, covariance_type: str = "full") -> Array:
    """Covariances Sigma_k = U_k^-T U_k^-1 of factors of precisions.

    Parameters
    ----------
    precisions_cholesky : array-like of the structure's shape
    covariance_type : str

    Returns
    -------
    covariances : array of the same shape

    Raises
    ------
    InputError, SingularCovarianceError
        If the shape does not fit, or a factor is no upper triangle with a positive diagonal.
    """
    structure = covariance.get(covariance_type)
    array = numbers(precisions_cholesky, "precisions_cholesky")
    found = check_factors(to_numpy(array), structure, *_sizes(array, structure)).astype(np.float64)
    return _converted(structure.covariances(found), array)


def row_scatter(
    x: Any, sample_weight: Any = None, covariance_type: str = "tied", *, device: str = "auto"
) -> Array:
    """Second moments of all rows about their mean, which tied structures need once per fit.

    T = sum_n v_n (x_n - m)(x_n - m)' / sum_n v_n, or its diagonal, with m the weighted mean.

    Parameters
    ----------
    x : array-like of shape (N, D)
    sample_weight : array-like of shape (N,), optional
    covariance_type : {"tied", "tied_diag", "tied_spherical"}
    device : {"auto", "cpu", "cuda", "reference", ...}

    Returns
    -------
    scatter : array of shape (D, D) if tied, else (D,)
        float64, of the kind of ``x``.

    Raises
    ------
    InputError
        If a row is not finite, or the structure is not tied.
    """
    structure = covariance.get(covariance_type)
    if not structure.tied:
        raise InputError(f"covariance_type must be a tied one; got {covariance_type!r}.")
    rows = numbers(x, "x")
    backend, _ = choose(device, home(rows))
    source = ArraySource(backend.rows(rows), sample_weight)
    mean = survey(source, backend).mean
    return as_given(scatter(source, mean, structure.family, backend), x)


def m_step(
    statistics: SufficientStatistics,
    weights: Any,
    means: Any,
    precisions_cholesky: Any,
    covariance_type: str = "full",
    *,
    reg_covar: float = 1e-6,
    scatter: Any = None,
) -> tuple[Array, Array, Array]:
    """The mixture that maximises the expected log-likelihood of the statistics.

    w_k = n_k / n, mu_k the mean and Sigma_k the covariance of component k's share of the rows, plus
    ``reg_covar`` on the diagonal; components without rows keep their mean and covariance and get
    weight 0.

    Parameters
    ----------
    statistics : SufficientStatistics
        As :func:`fastgmm.functional.sufficient_statistics` gives, of all rows: parts add.
    weights, means, precisions_cholesky : array-like
        The mixture of the E-step.
    covariance_type : str
    reg_covar : float
    scatter : array, optional
        As :func:`row_scatter` gives; required if the structure is tied.

    Returns
    -------
    weights, means, precisions_cholesky : array
        float64, of the kind of the statistics.

    Raises
    ------
    InputError, SingularCovarianceError
        If ``scatter`` is missing, or a covariance is not positive definite.

    Notes
    -----
    Dempster, Laird and Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm.
    """
    structure, about = covariance.get(covariance_type), statistics.counts
    if structure.tied and scatter is None:
        raise InputError(f"covariance_type={covariance_type!r} needs scatter=row_scatter(x).")
    model = from_parameters(weights, means, structure, factors=precisions_cholesky)[0]
    total = None if scatter is None else like(numbers(scatter, "scatter"), about)
    found = em.m_step(
        statistics, model.map(lambda array: like(array, about)), total, reg_covar,
        advice=f"Increase reg_covar (now {reg_covar:g}).",
    )  # fmt: skip
    arrays = found.weights, found.means, found.precisions_cholesky
    # What is read-only here belongs to the caller there.
    copies = (array if is_tensor(array) else np.array(array) for array in arrays)
    return tuple(copies)  # type: ignore[return-value]


def sample(
    n_samples: int,
    weights: Any,
    means: Any,
    precisions_cholesky: Any,
    covariance_type: str = "full",
    *,
    random_state: Any = None,
) -> tuple[Array, Array]:
    """Draw rows of a mixture, grouped by component.

    Parameters
    ----------
    n_samples : int
        At least 1.
    weights, means, precisions_cholesky : array-like
    covariance_type : str
    random_state : int, RandomState, Generator or None

    Returns
    -------
    x : array of shape (n_samples, D)
        Of the kind and dtype of the means.
    labels : array of shape (n_samples,)
        int64.

    Raises
    ------
    InputError
        If ``n_samples`` is no positive number.
    """
    if not isinstance(n_samples, int | np.integer) or n_samples < 1:
        raise InputError(f"n_samples must be an integer of at least 1; got {n_samples!r}.")
    structure, given = covariance.get(covariance_type), numbers(means, "means")
    model = from_parameters(weights, means, structure, factors=precisions_cholesky)[0]
    x, labels = draw(model, int(n_samples), as_random_state(random_state), shuffle=False)
    return _converted(x, given), as_given(labels, given)
