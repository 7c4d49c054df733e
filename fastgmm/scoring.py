"""What a fitted mixture says about rows: the half of the estimator that does not fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from fastgmm.backends import Backend, choose
from fastgmm.checks import as_random_state, check_finite, check_rows
from fastgmm.errors import InputError
from fastgmm.model import MixtureModel
from fastgmm.sampling import sample
from fastgmm.sources import check_weights


class MixtureScoring(DensityMixin, BaseEstimator):
    """Scores, labels, responsibilities, samples and information criteria of a fitted mixture."""

    device: str
    random_state: Any
    means_: np.ndarray
    _prepared: dict[str, Any]

    def _current_model(self) -> MixtureModel:
        """The fitted parameters in float64, or those that the caller has put in their place."""
        raise NotImplementedError

    def _ready(self, X: Any) -> tuple[Backend, Any, np.ndarray]:
        check_is_fitted(self, "means_")
        x = check_rows(self, X, reset=False)
        backend, _ = choose(self.device)
        if not backend.all_finite(x):
            check_finite(x, getattr(self, "feature_names_in_", None))
        model = self._current_model()
        key = f"{backend.name} {x.dtype.char}"
        if key not in self._prepared:
            self._prepared[key] = backend.prepare(model, x.dtype)
        return backend, self._prepared[key], x

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-likelihood of each row: log p(x) = log sum_k w_k N(x; mu_k, Sigma_k).

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        log_likelihood : ndarray of shape (N,)
            In nats. -inf only where the squared distance overflows.

        Raises
        ------
        NotFittedError
            Before a fit.
        InputError
            If ``X`` has another number of features, NaN or infinity.
        """
        backend, prepared, x = self._ready(X)
        return backend.score_samples(prepared, x)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log-likelihood per row.

        Parameters
        ----------
        X : array-like of shape (N, D)
        y : ignored
        sample_weight : array-like of shape (N,), optional

        Returns
        -------
        log_likelihood : float
            In nats per row.
        """
        scores = self.score_samples(X)
        if sample_weight is None:
            return float(scores.mean())
        weight = check_weights(sample_weight, len(scores))
        weight /= weight.max()
        used = weight > 0
        return float(np.average(scores[used].astype(np.float64), weights=weight[used]))

    def predict(self, X: Any) -> np.ndarray:
        """Number of the most probable component of each row.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        labels : ndarray of shape (N,)
            int64; the first component wins a tie.
        """
        backend, prepared, x = self._ready(X)
        return backend.predict(prepared, x)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Responsibilities: r_nk = w_k p(x_n | k) / p(x_n).

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        resp : ndarray of shape (N, K)
            Rows are finite and sum to 1, however far a row is from every component.
        """
        backend, prepared, x = self._ready(X)
        return backend.responsibilities(prepared, x)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of the responsibilities, computed as differences and not as log of them.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        log_resp : ndarray of shape (N, K)
        """
        backend, prepared, x = self._ready(X)
        return backend.responsibilities(prepared, x, log=True)

    def component_log_prob(self, X: Any) -> np.ndarray:
        """Log-density of each component, without its weight: log N(x_n; mu_k, Sigma_k).

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        log_prob : ndarray of shape (N, K)
            In nats.
        """
        backend, _, x = self._ready(X)
        key = f"{backend.name} {x.dtype.char} unweighted"
        if key not in self._prepared:
            model = self._current_model().unweighted()
            self._prepared[key] = backend.prepare(model, x.dtype)
        return backend.weighted_log_prob(self._prepared[key], x)

    def sample(
        self, n_samples: int = 1, *, random_state: Any = None, shuffle: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw random rows.

        Rows come in random order, so that any part of them is a sample too; scikit-learn groups
        them by component, which ``shuffle=False`` gives.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState, Generator or None
            None takes that of the estimator: an int there gives the same rows at every call.
        shuffle : bool

        Returns
        -------
        X : ndarray of shape (n_samples, D)
            Of the dtype of the fitted parameters.
        labels : ndarray of shape (n_samples,)

        Raises
        ------
        InputError
            If ``n_samples`` is below 1.
        """
        check_is_fitted(self, "means_")
        if n_samples < 1:
            raise InputError(
                f"Invalid value for 'n_samples': {n_samples}. The sampling requires at least one "
                "sample."
            )
        chosen = self.random_state if random_state is None else random_state
        model = self._current_model()
        rng = as_random_state(chosen)
        x, labels = sample(model, int(n_samples), rng, shuffle=shuffle)
        return x.astype(self.means_.dtype, copy=False), labels

    def n_parameters(self) -> int:
        """Number of free parameters: of the covariances, K D for the means, K - 1 for the weights.

        Returns
        -------
        n_parameters : int
        """
        check_is_fitted(self, "means_")
        model = self._current_model()
        n_components, n_features = model.means.shape
        free = model.structure.n_parameters(n_components, n_features)
        return free + n_components * n_features + n_components - 1

    # scikit-learn's private name, which user code has come to call.
    _n_parameters = n_parameters

    def bic(self, X: Any) -> float:
        """Bayesian information criterion: -2 log-likelihood + n_parameters log N.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        bic : float
            The lower the better (Schwarz, 1978).
        """
        scores = self.score_samples(X)
        total = float(scores.sum(dtype=np.float64))
        return -2 * total + self.n_parameters() * math.log(len(scores))

    def aic(self, X: Any) -> float:
        """Akaike information criterion: -2 log-likelihood + 2 n_parameters.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        aic : float
            The lower the better (Akaike, 1974).
        """
        total = float(self.score_samples(X).sum(dtype=np.float64))
        return -2 * total + 2 * self.n_parameters()
