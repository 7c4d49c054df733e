"""The estimator: checks its parameters, calls, stores results."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

from fastgmm import covariance
from fastgmm.arrays import Array
from fastgmm.checks import as_random_state, check_count, check_scale
from fastgmm.distributed import Sharded
from fastgmm.em import EMResult
from fastgmm.errors import InputError
from fastgmm.fitting import Settings, best_fit, warn_degenerate
from fastgmm.progress import Progress
from fastgmm.rows import open_rows
from fastgmm.streaming import MixtureStreaming


class GaussianMixture(MixtureStreaming):
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
    init_params : {"kmeans", "k-means++", "random", "random_from_data", "k-means||"}
        How start parameters are found. Where rows are not in memory "kmeans" and "k-means++"
        choose first centroids among a random sample of max(16384, 32 K) of them; "k-means||" looks
        at all, in 12 passes.
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
    batch_size : int, str or None
        Rows per chunk, or their size such as "64MB". By default all rows of an array at once, and
        64 MiB of rows that are not in memory.
    precision : {"highest", "high", "medium"}
        Of float32 products on a GPU, by torch's names and at least as exact: float32 grade, about
        1e-5 (three bfloat16 products), TensorFloat-32. On AMD "medium" is "high", before capability
        80 all are float32. It concerns neither float64 nor the CPU.

    Attributes
    ----------
    weights_ : array of shape (K,)
    means_ : array of shape (K, D)
    covariances_, precisions_, precisions_cholesky_ : array
        (K, D, D) if full, (D, D) if tied, (K, D) if diag, (K,) if spherical, (D,) if tied_diag,
        () if tied_spherical. Of the dtype, kind and device of the data. To change parameters by
        hand assign new arrays to ``weights_``, ``means_`` and either ``covariances_`` or
        ``precisions_cholesky_``, which need no fit: the next call takes them, and the others
        follow. What is shown is read-only, or a copy where it is a tensor.
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
        Mean log-likelihood per row at the last E-step; that of the start where ``max_iter`` is 0.
    lower_bounds_ : list of float
        At every iteration of the best start.
    n_jitter_ : int
        Covariances that rounding had left indefinite in its M-steps, and a bounded addition to
        their variances has mended; a PrecisionWarning says how much.
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
        batch_size: int | str | None = None,
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
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 10,
        warm_up: int = 0,
        return_on_interrupt: bool = False,
    ) -> GaussianMixture:
        """Estimate the parameters by EM.

        A fit that fails leaves the previous one as it was.

        Parameters
        ----------
        X : array-like of shape (N, D), tensor or data frame, or rows that are not in memory
            float32 is computed in float32, and so is half precision; anything else in float64.
            Rows are read in every pass from a path (.npy, .parquet or a folder of .parquet), a
            :class:`fastgmm.sources.Source`, a function that returns an iterator of chunks, a
            torch Dataset or DataLoader, a pyarrow Dataset, a zarr array, a Dask array or data
            frame, or :class:`fastgmm.distributed.Sharded`. :class:`fastgmm.sources.Joined` makes
            one of rows on several devices. Memory maps of more than 1 GiB, as the floats that they
            are read as, and pyarrow Tables of more than 64 MiB count as such too.
        y : ignored
        sample_weight : array-like of shape (N,), optional
            Weights of the rows: an integer weight counts as so many copies, 0 as none. A path of
            a .npy file will do. A :class:`fastgmm.sources.Source` has its own weights. Rows of
            weight 0 must be finite, and keep their numbers, by which "random",
            "random_from_data" and "k-means||" draw.
        callback : callable, optional
            Called with a :class:`fastgmm.em.EMState` after every iteration; returning True ends
            this start, and with ``n_init`` above 1 the next one begins.
        checkpoint : path-like, optional
            A file that is written after every ``checkpoint_every`` iterations. A fit that was
            interrupted goes on from there when it is called again, to the same bits; one that had
            ended gives its result again. Not with ``warm_start`` or a Generator as random state.
        checkpoint_every : int
        warm_up : int
            Epochs of stepwise EM before EM itself, which bring a start near an optimum. Of
            processes that share a fit the first takes them, with its own rows.
        return_on_interrupt : bool
            Whether Ctrl-C ends the fit with the parameters of the last complete iteration and a
            ConvergenceWarning, ``converged_`` being False; not for processes that share a fit. By
            default, and before the first iteration is complete, KeyboardInterrupt goes through and
            the previous fit stays.

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
        if return_on_interrupt and isinstance(X, Sharded):
            raise InputError(
                "return_on_interrupt: not with Sharded rows, whose processes would have to be "
                "interrupted in the same iteration. Use checkpoint=."
            )
        kept = (checkpoint, checkpoint_every)
        self._fit(X, sample_weight, callback, *kept, warm_up, return_on_interrupt)
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
        if isinstance(X, Sharded):
            raise InputError(
                "fit_predict: X is Sharded. Pass it to fit(), and this process's own rows to "
                "predict()."
            )
        return self.fit(X, y, sample_weight, callback=callback).predict(X)

    def _fit(
        self,
        X: Any,
        sample_weight: Any,
        callback: Callable[[Any], object] | None,
        checkpoint: str | os.PathLike[str] | None,
        checkpoint_every: int,
        warm_up: int,
        return_on_interrupt: bool,
    ) -> None:
        with X.begin() if isinstance(X, Sharded) else nullcontext():
            self._check_settings()
            warm_up = check_count("warm_up", warm_up, 0)
            checkpoint_every = check_count("checkpoint_every", checkpoint_every, 1)
            structure = covariance.get(self.covariance_type)
            warm = self._current_model() if self.warm_start and hasattr(self, "_model") else None
        names = {key: value for key, value in vars(self).items() if key.endswith("_in_")}
        settings = Settings(
            int(self.n_components),
            structure,
            self.tol,
            self.reg_covar,
            int(self.max_iter),
            int(self.n_init),
            self.init_params,
            self.empty,
            warm_up,
            return_on_interrupt,
        )
        try:
            shared = {
                "warm_up": warm_up,
                "checkpoint": checkpoint is not None,
                "checkpoint_every": checkpoint_every,
                "warm_start": warm is not None,
            }
            opened = open_rows(self, X, sample_weight, shared)
            with opened.source as source:
                found = opened.survey
                self._check_size(found.n_rows)
                check_scale(opened.dtype, found.summary(), self.reg_covar, source.names)
                if warm is not None:
                    self._check_warm(warm, source.n_features, "warm_start")
                kept = None
                if checkpoint is not None:
                    kept = self._checkpoint(checkpoint, checkpoint_every, warm_up, opened)
                shown = self.verbose if source.leader else 0
                result = best_fit(
                    source,
                    settings,
                    backend=opened.backend,
                    random_state=source.agree(lambda: as_random_state(self.random_state)),
                    mean=found.mean,
                    variance=found.variance,
                    start=self._start(source.n_features),
                    warm=warm,
                    previous=-np.inf if warm is None else self.lower_bound_,
                    progress=Progress(shown, self.verbose_interval, self.max_iter, found.n_read),
                    callbacks=[] if callback is None else [callback],
                    checkpoint=kept,
                )
                if not result.interrupted:
                    constant = found.maximum == found.minimum
                    parts = (result.model, result.counts)
                    warn_degenerate(source, *parts, self.reg_covar, constant)
        except BaseException:
            # Feature names and numbers are part of the previous fit too.
            for key in [key for key in vars(self) if key.endswith("_in_")]:
                delattr(self, key)
            for key, value in names.items():
                setattr(self, key, value)
            raise
        self._store(result, opened.dtype, opened.home)
        self.backend_ = opened.reason

    def _store(self, result: EMResult, dtype: np.dtype, where: str | None) -> None:
        self._publish(result.model, dtype, where)
        self.converged_ = result.converged
        self.n_iter_ = result.n_iter
        self.lower_bound_ = result.lower_bound
        self.lower_bounds_ = result.lower_bounds
        self.n_jitter_ = result.n_jitter
