"""The estimator: checks its parameters, calls, stores results."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import (
    Interval,
    InvalidParameterError,
    StrOptions,
    validate_parameter_constraints,
)

from fastgmm import covariance, initialise
from fastgmm.arrays import Array, home, is_tensor, to_numpy, working_dtype
from fastgmm.backends import choose
from fastgmm.checks import as_random_state, check_finite, check_rows, check_scale
from fastgmm.convert import MixtureConversion
from fastgmm.em import EMResult
from fastgmm.errors import InputError
from fastgmm.fitting import Settings, best_fit, warn_degenerate
from fastgmm.initialise import Start
from fastgmm.model import MixtureModel
from fastgmm.parameters import check_matrices, check_means, check_weights
from fastgmm.progress import Progress
from fastgmm.sources import ArraySource


class GaussianMixture(MixtureConversion):
    """Gaussian mixture, fitted by expectation-maximisation.

    p(x) = sum_k w_k N(x; mu_k, Sigma_k). Takes the place of ``sklearn.mixture.GaussianMixture``:
    same arguments, defaults, attributes and methods, and those named here beyond them.

    Rows may be NumPy arrays, torch tensors, data frames, or arrays of other libraries on the host.
    Tensors give tensors, on their device; they are taken out of any graph, so that no gradient
    flows through the results.

    Parameters
    ----------
    n_components : int
        Number of components K.
    covariance_type : {"full", "tied", "diag", "spherical", "tied_diag", "tied_spherical"}
        Structure of the covariances, or the name of a registered one.
    tol : float
        EM ends when the mean log-likelihood per row changes by less.
    reg_covar : float
        Added to the variances in every M-step.
    max_iter : int
        0 gives the start parameters.
    n_init : int
        Starts; the best is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}
        How start parameters are found.
    weights_init, means_init, precisions_init : array-like or None
        Given start parameters; each replaces that of ``init_params``.
    random_state : int, RandomState, Generator or None
        The only source of randomness, in initialisation and in :meth:`sample`.
    warm_start : bool
        Whether a fit goes on from the last one.
    verbose : int
        1 prints starts and iterations and shows a progress bar, 2 prints times.
    verbose_interval : int
        Iterations between printed lines.
    empty : {"keep", "reseed", "error"}
        What happens to a component that no row belongs to: it keeps its place with weight 0 and a
        warning, moves to the row that is explained worst, or is an error.
    device : {"auto", "cpu", "cuda", "cuda:1", "reference", "interpreter"}
        Where to compute: where the data is; the compiled CPU kernels; a GPU; plain NumPy or torch
        in float64; the kernels of the GPU on the CPU, for tests. A device that cannot be had, or
        that data on another GPU would have to be moved to, is an error.
    batch_size : int or None
        Rows per pass; all by default.
    precision : {"highest", "high", "medium"}
        Of float32 products on a GPU, as in torch: float32, about 1e-5, TensorFloat-32. It concerns
        neither float64 nor the CPU.

    Attributes
    ----------
    weights_ : array of shape (K,)
    means_ : array of shape (K, D)
    covariances_, precisions_, precisions_cholesky_ : array
        (K, D, D) if full, (D, D) if tied, (K, D) if diag, (K,) if spherical, (D,) if tied_diag,
        () if tied_spherical. Of the dtype, kind and device of the data. To change parameters by
        hand assign new arrays to ``weights_``, ``means_`` and ``precisions_cholesky_``; those of a
        fit are read-only, or copies where they are tensors.
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
        Mean log-likelihood per row at the last E-step; -inf where ``max_iter`` is 0.
    lower_bounds_ : list of float
        At every iteration of the best start.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where the data had names.
    backend_ : str
        What ran, and why.

    Notes
    -----
    Dempster, Laird and Rubin (1977); McLachlan and Peel (2000), Finite Mixture Models.

    Pickles, copies and files of a model fitted on a GPU hold host copies and need no GPU; it
    computes wherever its next data is.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import GaussianMixture
    >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0.5]])
    >>> X[:, 0] += [0, .1, .2, 0, .1, .2]
    >>> mixture = GaussianMixture(n_components=2, random_state=0).fit(X)
    >>> sorted(mixture.means_[:, 0].round(1).tolist())
    [1.1, 10.1]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions(set(initialise.METHODS))],
        "random_state": ["random_state", np.random.Generator],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", Real, np.ndarray, None],
        "empty": [StrOptions({"keep", "reseed", "error"})],
        "device": [str],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "precision": [StrOptions({"highest", "high", "medium"})],
    }

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        empty: str = "keep",
        device: str = "auto",
        batch_size: int | None = None,
        precision: str = "highest",
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.empty = empty
        self.device = device
        self.batch_size = batch_size
        self.precision = precision

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        callback: Callable[[Any], object] | None = None,
    ) -> GaussianMixture:
        """Estimate the parameters by EM.

        A fit that fails leaves the previous one as it was.

        Parameters
        ----------
        X : array-like of shape (N, D), tensor or data frame
            float32 is computed in float32, and so is half precision; anything else in float64.
        y : ignored
        sample_weight : array-like of shape (N,), optional
            Weights of the rows: an integer weight counts as so many copies, 0 as none.
        callback : callable, optional
            Called with a :class:`fastgmm.em.EMState` after every iteration; returning True ends
            the fit.

        Returns
        -------
        self : GaussianMixture

        Raises
        ------
        InputError
            If data or parameters cannot be used.
        SingularCovarianceError
            If a covariance is not positive definite; the message names its component.
        BackendUnavailableError
            If the device cannot be used.

        Warns
        -----
        ConvergenceWarning, DegenerateDataWarning, PrecisionWarning
        """
        self._fit(X, sample_weight, callback)
        return self

    def fit_predict(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        callback: Callable[[Any], object] | None = None,
    ) -> Array:
        """Fit and return the most probable component of each row.

        Parameters
        ----------
        X, y, sample_weight, callback
            As in :meth:`fit`.

        Returns
        -------
        labels : array of shape (N,)
            As ``fit(X).predict(X)`` gives.
        """
        return self.fit(X, y, sample_weight, callback=callback).predict(X)

    def _fit(self, X: Any, sample_weight: Any, callback: Callable[[Any], object] | None) -> None:
        self._check_settings()
        structure = covariance.get(self.covariance_type)
        names = {key: value for key, value in vars(self).items() if key.endswith("_in_")}
        try:
            x = check_rows(self, X, reset=True, minimum=2)
            backend, reason = choose(self.device, home(x), self.precision)
            x = backend.rows(x)
            summary = backend.summarise(x).on_host()
            if not np.all(np.isfinite(summary.mean)):
                check_finite(x, getattr(self, "feature_names_in_", None))
            dtype = working_dtype(x.dtype)
            check_scale(dtype, summary, self.reg_covar)
            warm = self._model if self.warm_start and hasattr(self, "_model") else None
            self._check_size(x, warm)
            source = ArraySource(x, sample_weight, self.batch_size)
            settings = Settings(
                self.n_components,
                structure,
                self.tol,
                self.reg_covar,
                self.max_iter,
                self.n_init,
                self.init_params,
                self.empty,
            )
            result = best_fit(
                source,
                settings,
                backend=backend,
                random_state=as_random_state(self.random_state),
                mean=summary.mean,
                variance=summary.variance,
                start=self._start(x.shape[1]),
                warm=warm,
                previous=-np.inf if warm is None else self.lower_bound_,
                progress=Progress(self.verbose, self.verbose_interval, self.max_iter, len(x)),
                callbacks=[] if callback is None else [callback],
            )
        except BaseException:
            # Feature names and numbers are part of the previous fit too.
            for key in [key for key in vars(self) if key.endswith("_in_")]:
                delattr(self, key)
            for key, value in names.items():
                setattr(self, key, value)
            raise
        constant = summary.maximum == summary.minimum
        warn_degenerate(source, x, result, self.reg_covar, constant)
        self._store(result, dtype, home(X))
        given = str(getattr(X, "dtype", "")).removeprefix("torch.")
        half = given in ("float16", "bfloat16")
        self.backend_ = f"{reason}; {dtype}" + (f" ({given} data)" if half else "")

    def _check_settings(self) -> None:
        names = set(covariance.names())
        constraints = {**self._parameter_constraints, "covariance_type": [StrOptions(names)]}
        if isinstance(self.n_components, bool | np.bool_):
            raise InvalidParameterError(
                "The 'n_components' parameter of GaussianMixture must be an int in the range "
                f"[1, inf). Got {self.n_components!r} instead."
            )
        given = self.get_params(deep=False)
        plain = {name: to_numpy(v) if is_tensor(v) else v for name, v in given.items()}
        validate_parameter_constraints(constraints, plain, caller_name=type(self).__name__)

    def _check_size(self, x: Array, warm: MixtureModel | None) -> None:
        given = None not in (
            type(self.weights_init) if self.weights_init is not None else None,
            type(self.means_init) if self.means_init is not None else None,
            type(self.precisions_init) if self.precisions_init is not None else None,
        )
        if len(x) < self.n_components and not given:
            raise InputError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, "
                f"n_samples = {len(x)}"
            )
        if warm is not None and warm.means.shape != (self.n_components, x.shape[1]):
            raise InputError(
                f"warm_start: the previous fit has means of shape {tuple(warm.means.shape)}, this "
                f"one would have {(self.n_components, x.shape[1])}. Fit with warm_start=False."
            )
        if warm is not None and warm.structure.name != self.covariance_type:
            raise InputError(
                f"warm_start: the previous fit has covariance_type={warm.structure.name!r}, this "
                f"one {self.covariance_type!r}. Fit with warm_start=False."
            )

    def _start(self, n_features: int) -> Start:
        structure, n_components = covariance.get(self.covariance_type), self.n_components
        weights, means, precisions = self.weights_init, self.means_init, self.precisions_init
        if weights is not None:
            weights = check_weights(weights, n_components).astype(np.float64)
        if means is not None:
            means = check_means(means, n_components, n_features).astype(np.float64)
        if precisions is not None:
            precisions = check_matrices(precisions, structure, n_components, n_features)
        return Start(weights, means, precisions)

    def _store(self, result: EMResult, dtype: np.dtype, where: str | None) -> None:
        self._publish(result.model, dtype, where)
        self.converged_ = result.converged
        self.n_iter_ = result.n_iter
        self.lower_bound_ = result.lower_bound
        self.lower_bounds_ = result.lower_bounds
