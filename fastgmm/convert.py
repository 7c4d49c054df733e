"""Fitted parameters in and out: from arrays, responsibilities, scikit-learn and files."""

from __future__ import annotations

import operator
import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils.validation import check_is_fitted

from fastgmm import covariance, given
from fastgmm.arrays import (
    Array,
    cast,
    home,
    is_tensor,
    namespace,
    to_numpy,
    to_tensor,
    working_dtype,
)
from fastgmm.backends import choose
from fastgmm.checks import check_finite, check_rows
from fastgmm.errors import InputError
from fastgmm.linalg import inverse_transposed
from fastgmm.model import ARRAYS, MixtureModel
from fastgmm.parameters import check_matrices
from fastgmm.scoring import MixtureScoring
from fastgmm.version import VERSION

if TYPE_CHECKING:
    from typing import Self


class MixtureConversion(MixtureScoring):
    """Ways to a fitted estimator other than a fit, and ways out of it."""

    covariance_type: str
    _published: tuple[Any, ...] = (None, None, None, None)

    def _publish(self, model: MixtureModel, dtype: np.dtype, where: str | None) -> None:
        """Store a model and show it under scikit-learn's attributes.

        They are NumPy arrays where ``where`` is None, and otherwise tensors on that device.
        """
        self._model = model
        self._prepared: dict[Any, Any] = {}
        self.n_features_in_ = model.n_features
        precisions = model.structure.precisions(model.precisions_cholesky)
        self.weights_ = _frozen(model.weights, dtype, where)
        self.means_ = _frozen(model.means, dtype, where)
        self.covariances_ = _frozen(model.covariances, dtype, where)
        self.precisions_cholesky_ = _frozen(model.precisions_cholesky, dtype, where)
        self.precisions_ = _frozen(precisions, dtype, where)
        self._published = self._shown()

    def _shown(self) -> tuple[Any, ...]:
        """What parameters may be assigned by; either of the last two will do."""
        spread = (getattr(self, name, None) for name in ("covariances_", "precisions_cholesky_"))
        return (self.weights_, self.means_, *spread)

    def _current_model(self) -> MixtureModel:
        shown = self._shown()
        if not all(map(operator.is_, shown, self._published)):
            # Parameters were assigned by hand, as users of scikit-learn do, or to begin with.
            weights, means, covariances, factors = shown
            structure = covariance.get(self.covariance_type)
            by_covariances = covariances is not self._published[2]
            by_factors = factors is not self._published[3]
            if by_covariances and not by_factors:
                found = given.from_parameters(weights, means, structure, covariances)
            else:
                found = given.from_parameters(weights, means, structure, factors=factors)
            if by_covariances and by_factors:
                _check_agreement(covariances, factors, found[0])
            adopt = self._publish if hasattr(self, "_model") else self._fitted
            adopt(*found)
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        if hasattr(self, "_model"):
            self._current_model()
        state = dict(super().__getstate__())
        if "_prepared" in state:
            state["_prepared"] = {}
        if "_published" in state:
            # Identity does not survive; the arrays do.
            del state["_published"]
            state["_model"] = self._model.on_host()
        # Tensors of the host, so that a machine without the device can read them.
        state = {key: v.cpu() if is_tensor(v) else v for key, v in state.items()}
        return {**state, "_fastgmm_version": VERSION}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        version = state.pop("_fastgmm_version", "unknown")
        if version != VERSION:
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=type(self).__name__,
                    current_sklearn_version=f"fastgmm {VERSION}",
                    original_sklearn_version=f"fastgmm {version}",
                ),
                stacklevel=2,
            )
        super().__setstate__(state)
        if "_model" in state:
            self._published = self._shown()
            for name in (*ARRAYS, "precisions"):
                shown = getattr(self, name + "_")
                if not is_tensor(shown):
                    shown.flags.writeable = False  # which is lost on the way

    @classmethod
    def from_parameters(
        cls,
        weights: Any,
        means: Any,
        covariances: Any = None,
        *,
        precisions: Any = None,
        precisions_cholesky: Any = None,
        covariance_type: str = "full",
        **params: Any,
    ) -> Self:
        """Build a fitted estimator from known parameters.

        Parameters
        ----------
        weights : array-like of shape (K,)
            Non-negative, sum 1.
        means : array-like of shape (K, D)
        covariances, precisions, precisions_cholesky : array-like of the structure's shape
            Exactly one of them.
        covariance_type : str
        **params
            Further arguments of the constructor.

        Returns
        -------
        mixture : GaussianMixture
            With ``n_iter_`` 0 and attributes of the dtype, kind and device of ``means``.

        Raises
        ------
        InputError, SingularCovarianceError
            If a shape or value does not fit.

        Examples
        --------
        >>> from fastgmm import GaussianMixture
        >>> mixture = GaussianMixture.from_parameters(
        ...     [0.5, 0.5], [[-1.0], [1.0]], [1.0, 1.0], covariance_type="spherical")
        >>> mixture.predict([[-3.0], [2.0]])
        array([0, 1])
        """
        structure = covariance.get(covariance_type)
        found = given.from_parameters(
            weights, means, structure, covariances, precisions, precisions_cholesky
        )
        params.setdefault("n_components", found[0].n_components)
        return cls(covariance_type=covariance_type, **params)._fitted(*found)

    def _fitted(self, model: MixtureModel, dtype: np.dtype, where: str | None) -> Self:
        self._publish(model, dtype, where)
        self.converged_ = True
        self.n_iter_ = self.n_jitter_ = 0
        self.lower_bound_ = -np.inf
        self.lower_bounds_: list[float] = []
        self.backend_ = f"{choose(self.device, where, self.precision)[1]}; no fit"
        return self

    @classmethod
    def from_responsibilities(
        cls,
        X: Any,
        resp: Any,
        *,
        covariance_type: str = "full",
        reg_covar: float = 1e-6,
        sample_weight: Any = None,
        **params: Any,
    ) -> Self:
        """Build a fitted estimator by one M-step from given responsibilities.

        Parameters
        ----------
        X : array-like of shape (N, D)
        resp : array-like of shape (N, K)
            Not negative; rows need not sum to 1. A component without any has weight 0 and unit
            variances, unless it shares them.
        covariance_type : str
        reg_covar : float
        sample_weight : array-like of shape (N,), optional
        **params
            Further arguments of the constructor.

        Returns
        -------
        mixture : GaussianMixture

        Raises
        ------
        InputError, SingularCovarianceError
        """
        resp = cast(given.numbers(resp, "resp"), np.float64)
        if resp.ndim != 2 or 0 in resp.shape:
            raise InputError(f"resp must have shape (N, K); got {tuple(resp.shape)}.")
        params.setdefault("n_components", resp.shape[1])
        self = cls(covariance_type=covariance_type, reg_covar=reg_covar, **params)
        x = check_rows(self, X, reset=True)
        check_finite(x)
        if len(x) != len(resp):
            raise InputError(f"X has {len(x)} rows and resp {len(resp)}; they must agree.")
        if not (namespace(resp).isfinite(resp) & (resp >= 0)).all() or not resp.any():
            raise InputError("resp must be finite, not negative and not all 0.")
        backend, _ = choose(self.device, home(x), self.precision)
        structure = covariance.get(covariance_type)
        model, n_jitter = given.from_responsibilities(
            backend.rows(x), resp, sample_weight, structure, reg_covar, backend
        )
        self._fitted(model, working_dtype(x.dtype), home(X)).n_jitter_ = n_jitter
        return self

    def to_sklearn(self) -> Any:
        """Return a fitted ``sklearn.mixture.GaussianMixture`` with the same parameters.

        "tied_diag" and "tied_spherical", which scikit-learn lacks, become "tied".

        Returns
        -------
        estimator : sklearn.mixture.GaussianMixture
            Its parameters are NumPy arrays.
        """
        from sklearn.mixture import GaussianMixture as Theirs

        check_is_fitted(self, "means_")
        model = self._current_model()
        names = Theirs().get_params()
        known = {
            key: to_numpy(value) if is_tensor(value) else value
            for key, value in self.get_params(deep=False).items()
            if key in names
        }
        special = model.structure.tied and model.structure.family != "full"
        if special:
            known["covariance_type"] = "tied"
            known["precisions_init"] = None
        theirs = Theirs(**known)
        theirs.weights_ = to_numpy(self.weights_).copy()
        theirs.means_ = to_numpy(self.means_).copy()
        for name in ("covariances_", "precisions_", "precisions_cholesky_"):
            value = to_numpy(getattr(self, name))
            if special:
                value = np.diag(np.broadcast_to(value, model.n_features))
            setattr(theirs, name, value.copy())
        for name in ("converged_", "n_iter_", "lower_bound_", "lower_bounds_", "n_features_in_"):
            setattr(theirs, name, getattr(self, name))
        if hasattr(self, "feature_names_in_"):
            theirs.feature_names_in_ = self.feature_names_in_
        return theirs

    @classmethod
    def from_sklearn(cls, estimator: Any) -> Self:
        """Take over a fitted ``sklearn.mixture.GaussianMixture``.

        Parameters
        ----------
        estimator : sklearn.mixture.GaussianMixture

        Returns
        -------
        mixture : GaussianMixture
        """
        check_is_fitted(estimator, "means_")
        params = estimator.get_params(deep=False)
        self = cls.from_parameters(
            estimator.weights_,
            estimator.means_,
            precisions_cholesky=estimator.precisions_cholesky_,
            **params,
        )
        for name in ("converged_", "n_iter_", "lower_bound_", "lower_bounds_"):
            if hasattr(estimator, name):
                setattr(self, name, getattr(estimator, name))
        if hasattr(estimator, "feature_names_in_"):
            self.feature_names_in_ = estimator.feature_names_in_
        return self

    def to_distribution(self) -> Any:
        """Return the fitted mixture as a torch distribution, for gradients and sampling.

        Returns
        -------
        mixture : fastgmm.distributions.GaussianMixture
            Of the dtype of the fit, on the CPU. Its ``to_estimator()`` is the way back.
        """
        import torch

        from fastgmm.distributions import GaussianMixture as Distribution

        check_is_fitted(self, "means_")
        model = self._current_model().on_host()
        dtype = torch.float32 if str(self.means_.dtype).endswith("float32") else torch.float64
        matrices, scale = model.structure.family == "full", model.covariances
        if matrices:
            # With the factors at hand nothing is factorised again, which would lose digits.
            factors = model.precisions_cholesky
            stack = factors.reshape(-1, *factors.shape[-2:])
            scale = inverse_transposed(stack, lower=False).reshape(factors.shape)
        weights, means, scale = (
            torch.tensor(np.asarray(a), dtype=dtype) for a in (model.weights, model.means, scale)
        )
        return Distribution(
            weights,
            means,
            scale_tril=scale if matrices else None,
            variances=None if matrices else scale,
            covariance_type=model.structure.name,
        )

    def to_module(self, epsilon: float = 1e-6) -> Any:
        """Return the fitted mixture as a torch module, to go on by gradient.

        Parameters
        ----------
        epsilon : float
            Of the module: what its covariances never fall below.

        Returns
        -------
        module : fastgmm.nn.GMM
            The same mixture. Its ``to_estimator()`` is the way back.
        """
        from fastgmm.nn import GMM

        return GMM.from_distribution(self.to_distribution(), epsilon)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the estimator to a safetensors file with JSON metadata, atomically.

        Parameters
        ----------
        path : path-like
        """
        from fastgmm import io

        io.save(self, path)


def _check_agreement(covariances: Any, factors: Any, model: MixtureModel) -> None:
    """Refuse assigned covariances that are not those of the Cholesky factors assigned with them."""
    arrays = [given.numbers(value, "covariances_") for value in (covariances, factors)]
    sizes = model.n_components, model.n_features
    found = check_matrices(arrays[0], model.structure, *sizes, "covariance")
    scale = found
    if model.structure.family == "full":
        deviations = np.sqrt(np.diagonal(found, axis1=-2, axis2=-1))
        scale = deviations[..., :, None] * deviations[..., None, :]
    off = float((np.abs(found - model.covariances) / scale).max())
    if off > (1e-6 if all(working_dtype(a.dtype) == np.float64 for a in arrays) else 1e-3):
        raise InputError(
            "covariances_ and precisions_cholesky_ were both assigned, and they disagree by "
            f"{off:.1g} of the variances. Assign one of them; the other follows."
        )


def _frozen(array: Array, dtype: np.dtype, where: str | None) -> Array:
    """A read-only copy: an edit in place would not reach the kernels, so it must not pass."""
    if where is not None:  # torch knows no such thing
        return to_tensor(cast(array, dtype), where).clone()
    result = np.array(to_numpy(array), dtype=dtype)
    result.flags.writeable = False
    return result
