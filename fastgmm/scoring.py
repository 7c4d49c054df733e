"""What a fitted mixture says about rows: the half of the estimator that does not fit."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from fastgmm.arrays import Array, as_given, home, like, namespace, to_numpy, working_dtype
from fastgmm.backends import Backend, choose
from fastgmm.budget import check_result
from fastgmm.checks import as_random_state, check_finite, check_rows, is_whole
from fastgmm.chunked import Compute, compute_stream, log_likelihood
from fastgmm.errors import InputError
from fastgmm.model import MixtureModel
from fastgmm.sampling import sample
from fastgmm.sources import batch_rows, check_weights, is_stream
from fastgmm.writing import check_output, write_parts

PathLike = str | os.PathLike[str]


class MixtureScoring(DensityMixin, BaseEstimator):
    """Scores, labels, responsibilities, samples and information criteria of a fitted mixture."""

    device: str
    precision: str
    random_state: Any
    means_: Array
    _prepared: dict[Any, Any]

    def _current_model(self) -> MixtureModel:
        """The fitted parameters in float64, or those that the caller has put in their place."""
        raise NotImplementedError

    def _ready(self, X: Any, *, weighted: bool = True) -> tuple[Backend, Any, Array]:
        check_is_fitted(self, "means_")
        self._current_model()  # knows the number of features where parameters were assigned
        x = check_rows(self, X, reset=False)
        backend, _ = choose(self.device, home(x), self.precision)
        x = backend.rows(x)
        if not backend.all_finite(x):
            check_finite(x, getattr(self, "feature_names_in_", None))
        return backend, self._prepare(backend, x.dtype, weighted), x

    def _prepare(self, backend: Backend, dtype: Any, weighted: bool) -> Any:
        model = self._current_model()
        key = (backend, dtype, weighted)
        if key not in self._prepared:
            model = (model if weighted else model.unweighted()).map(backend.own)
            prepared = backend.prepare(model, dtype)
            # From now on threads with other streams may find it.
            backend.wait()
            self._prepared[key] = prepared
        return self._prepared[key]

    def _results(
        self, X: Any, compute: Compute, name: str, out: PathLike | None, *, weighted: bool = True
    ) -> Any:
        """Results per row: in the kind of the rows, or written to a file."""
        if out is None and not is_stream(X):
            backend, prepared, x = self._ready(X, weighted=weighted)
            if "{}" in name and home(x) in (None, "cpu"):
                check_result(len(x), len(self.means_), working_dtype(x.dtype).itemsize)
            return as_given(compute(backend, prepared, x), X)
        check_is_fitted(self, "means_")
        names = [name.format(k) for k in range(len(self.means_) if "{}" in name else 1)]
        if is_stream(X):
            return compute_stream(self, X, compute, out, names, weighted=weighted)
        path = check_output(str(out))
        backend, prepared, x = self._ready(X, weighted=weighted)
        rows = batch_rows(None, len(names) * working_dtype(x.dtype).itemsize)
        parts = (x[start : start + rows] for start in range(0, len(x), rows))
        return write_parts(path, (to_numpy(compute(backend, prepared, p)) for p in parts), names)

    def score_samples(self, X: Any, *, out: PathLike | None = None) -> Any:
        """Log-likelihood of each row: log p(x) = log sum_k w_k N(x; mu_k, Sigma_k).

        Parameters
        ----------
        X : array-like of shape (N, D), or rows that are not in memory, as in :meth:`fit`
        out : path-like, optional
            A .npy or .parquet file, written chunk by chunk; its path is returned.

        Returns
        -------
        log_likelihood : array of shape (N,)
            In nats. -inf only where the squared distance overflows.

        Raises
        ------
        NotFittedError
            Before a fit.
        InputError
            If ``X`` has another number of features, NaN or infinity.
        """
        return self._results(X, lambda b, p, x: b.score_samples(p, x), "log_likelihood", out)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log-likelihood per row.

        Parameters
        ----------
        X : array-like of shape (N, D), or rows that are not in memory, as in :meth:`fit`
        y : ignored
        sample_weight : array-like of shape (N,), optional

        Returns
        -------
        log_likelihood : float
            In nats per row.
        """
        if sample_weight is None and not is_stream(X):
            # In the precision of the scores, as scikit-learn has it.
            return float(self.score_samples(X).mean())
        return self._mean_score(X, sample_weight)[0]

    def _mean_score(self, X: Any, sample_weight: Any) -> tuple[float, float]:
        """Mean log-likelihood of the rows, and their number, as their weights count them."""
        if is_stream(X):
            check_is_fitted(self, "means_")
            tally = log_likelihood(self, X, sample_weight)
            return tally.mean, tally.count
        scores = self.score_samples(X)
        if sample_weight is None:
            return float(scores.mean(dtype=namespace(scores).float64)), len(scores)
        weight = check_weights(sample_weight, len(scores))
        used = weight > 0
        share = weight[used] / weight.max()
        numbers = to_numpy(scores)[used].astype(np.float64)
        return float(np.average(numbers, weights=share)), float(weight.sum())

    def predict(self, X: Any, *, out: PathLike | None = None) -> Any:
        """Number of the most probable component of each row.

        Parameters
        ----------
        X : array-like of shape (N, D), or rows that are not in memory, as in :meth:`fit`
        out : path-like, optional
            A .npy or .parquet file, written chunk by chunk; its path is returned.

        Returns
        -------
        labels : array of shape (N,)
            int64; the first component wins a tie.
        """
        return self._results(X, lambda b, p, x: b.predict(p, x), "label", out)

    def predict_proba(self, X: Any, *, out: PathLike | None = None) -> Any:
        """Responsibilities: r_nk = w_k p(x_n | k) / p(x_n).

        Parameters
        ----------
        X : array-like of shape (N, D), or rows that are not in memory, as in :meth:`fit`
        out : path-like, optional
            A .npy or .parquet file, written chunk by chunk; its path is returned.

        Returns
        -------
        resp : array of shape (N, K)
            Rows are finite and sum to 1, however far a row is from every component.

        Raises
        ------
        InputError
            If the result would be larger than the memory: pass ``out``.
        """
        return self._results(X, lambda b, p, x: b.responsibilities(p, x), "component_{}", out)

    def predict_log_proba(self, X: Any, *, out: PathLike | None = None) -> Any:
        """Logarithms of the responsibilities, computed as differences and not as log of them.

        Parameters
        ----------
        X : array-like of shape (N, D), or rows that are not in memory, as in :meth:`fit`
        out : path-like, optional
            A .npy or .parquet file, written chunk by chunk; its path is returned.

        Returns
        -------
        log_resp : array of shape (N, K)

        Raises
        ------
        InputError
            If the result would be larger than the memory: pass ``out``.
        """
        return self._results(
            X, lambda b, p, x: b.responsibilities(p, x, log=True), "component_{}", out
        )

    def component_log_prob(self, X: Any, *, out: PathLike | None = None) -> Any:
        """Log-density of each component, without its weight: log N(x_n; mu_k, Sigma_k).

        Parameters
        ----------
        X : array-like of shape (N, D), or rows that are not in memory, as in :meth:`fit`
        out : path-like, optional
            A .npy or .parquet file, written chunk by chunk; its path is returned.

        Returns
        -------
        log_prob : array of shape (N, K)
            In nats.

        Raises
        ------
        InputError
            If the result would be larger than the memory: pass ``out``.
        """
        return self._results(
            X, lambda b, p, x: b.weighted_log_prob(p, x), "component_{}", out, weighted=False
        )

    def sample(
        self, n_samples: int = 1, *, random_state: Any = None, shuffle: bool = False
    ) -> tuple[Array, Array]:
        """Draw random rows.

        Rows come grouped by component, as in scikit-learn; in random order any part of them is a
        sample too, which ``shuffle=True`` gives.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState, Generator or None
            None takes that of the estimator: an int there gives the same rows at every call.
        shuffle : bool

        Returns
        -------
        X : array of shape (n_samples, D)
            Of the dtype and kind, and on the device, of the fitted parameters.
        labels : array of shape (n_samples,)

        Raises
        ------
        InputError
            If ``n_samples`` is not an integer, or below 1.
        """
        check_is_fitted(self, "means_")
        if not is_whole(n_samples) or n_samples < 1:
            raise InputError(
                f"Invalid value for 'n_samples': {n_samples!r}. The sampling requires an "
                "integer, at least one sample."
            )
        chosen = self.random_state if random_state is None else random_state
        model = self._current_model().on_host()
        rng = as_random_state(chosen)
        x, labels = sample(model, int(n_samples), rng, shuffle=shuffle)
        x = x.astype(working_dtype(self.means_.dtype), copy=False)
        return like(x, self.means_), like(labels, self.means_)

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

    def bic(self, X: Any, sample_weight: Any = None) -> float:
        """Bayesian information criterion: -2 log-likelihood + n_parameters log N.

        Parameters
        ----------
        X : array-like of shape (N, D), or rows that are not in memory, as in :meth:`fit`
        sample_weight : array-like of shape (N,), optional
            N is their sum, and so it is where a source has weights: an integer weight counts as so
            many rows.

        Returns
        -------
        bic : float
            The lower the better (Schwarz, 1978).
        """
        mean, count = self._mean_score(X, sample_weight)
        return -2 * mean * count + self.n_parameters() * math.log(count)

    def aic(self, X: Any, sample_weight: Any = None) -> float:
        """Akaike information criterion: -2 log-likelihood + 2 n_parameters.

        Parameters
        ----------
        X : array-like of shape (N, D), or rows that are not in memory, as in :meth:`fit`
        sample_weight : array-like of shape (N,), optional
            As in :meth:`bic`.

        Returns
        -------
        aic : float
            The lower the better (Akaike, 1974).
        """
        mean, count = self._mean_score(X, sample_weight)
        return -2 * mean * count + 2 * self.n_parameters()
