"""Fits to rows that come once: what the estimator does with one chunk after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self

from fastgmm import covariance
from fastgmm.arrays import to_numpy, working_dtype
from fastgmm.backends import Backend, choose
from fastgmm.checks import as_random_state, check_range, check_rows, check_scale
from fastgmm.errors import InputError
from fastgmm.fitting import warn_degenerate
from fastgmm.initialise import initial_model
from fastgmm.jitter import warn_restored
from fastgmm.model import MixtureModel
from fastgmm.rows import learn_names, open_to_score
from fastgmm.scatter import scatter
from fastgmm.settings import MixtureSettings
from fastgmm.sources import ArraySource, Source, is_stream, open_source
from fastgmm.sources.arrays import NO_WEIGHT
from fastgmm.stepwise import Online, about_model, advance, step_size
from fastgmm.survey import Survey, survey


class MixtureStreaming(MixtureSettings):
    """Partial fits."""

    reg_covar: float
    init_params: str
    empty: str
    batch_size: int | str | None

    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        alpha: float = 0.6,
        t0: float = 1.0,
    ) -> Self:
        """Take one step of stepwise EM per chunk, for streams that never repeat.

        Statistics decay: s <- (1 - g) s + g s(chunk) with step size g = (t + t0)^-alpha, t the
        number of chunks before, and an M-step follows. Every chunk counts the same, however many
        rows it has. The first chunk gives start parameters as ``init_params`` says, and its rows
        are looked at as :meth:`fit` looks at all, unless the mixture is fitted, loaded or set by
        hand: then its parameters count as one chunk. A component is empty, and ``empty`` says what
        happens, if no row of any chunk so far has belonged to it.

        Parameters
        ----------
        X : array-like of shape (N, D), or rows as :meth:`fit` takes them
            An array is one chunk; a source, path, loader or generator gives many. It is read once.
            Chunks whose weights are all 0 are left out. Where one fails those before it have been
            taken, as ``n_iter_`` tells.
        y : ignored
        sample_weight : array-like of shape (N,), optional
            Within the chunk.
        alpha : float
            Above 0.5, up to 1: the smaller the sooner the past is forgotten. With 1 and ``t0`` 1
            every chunk since the first counts the same.
        t0 : float
            At least 1.

        Returns
        -------
        self : GaussianMixture
            With ``n_iter_`` the number of chunks so far and ``lower_bound_`` of the last one.

        Raises
        ------
        InputError, SingularCovarianceError, EmptyComponentError

        Warns
        -----
        DegenerateDataWarning, PrecisionWarning

        Notes
        -----
        Cappé and Moulines (2009), On-line expectation-maximization algorithm for latent data
        models.
        """
        self._check_settings()
        if not 0.5 < alpha <= 1:
            raise InputError(f"alpha must be above 0.5 and at most 1; got {alpha}.")
        if not t0 >= 1:
            raise InputError(f"t0 must be at least 1; got {t0}.")
        known = {key: value for key, value in vars(self).items() if key.endswith("_in_")}
        try:
            steps = 0
            for source, first in self._steps(X, sample_weight):
                self._step(source, first, alpha, t0)
                steps += 1
            if steps == 0:
                raise InputError(NO_WEIGHT)
        except BaseException:
            if not hasattr(self, "_model"):
                for key in [key for key in vars(self) if key.endswith("_in_")]:
                    delattr(self, key)
                self.__dict__.update(known)
            raise
        return self

    def _steps(self, X: Any, sample_weight: Any) -> Iterator[tuple[ArraySource, int]]:
        """The rows of each step, all of an array or a chunk of a stream, and where they begin."""
        if hasattr(self, "means_"):
            self._current_model()  # which takes up what was set by hand
        fitted = hasattr(self, "_model")
        if not is_stream(X):
            yield ArraySource(check_rows(self, X, reset=not fitted), sample_weight), 0
            return
        if fitted:
            stream = open_to_score(self, X, sample_weight)
        else:
            stream = open_source(X, sample_weight, self.batch_size, once=True)
            learn_names(self, stream)
        with stream:
            for chunk in stream:
                if chunk.weight is None or chunk.weight.any():
                    yield ArraySource(chunk.x, chunk.weight), chunk.start

    def _step(self, source: ArraySource, first: int, alpha: float, t0: float) -> None:
        backend, reason = choose(self.device, source.home, self.precision)
        where = source.home
        source.place(backend.rows)
        names = getattr(self, "feature_names_in_", None)
        source.names = None if names is None else tuple(names)
        dtype = working_dtype(source.dtype)
        found = survey(source, backend, first)
        reg_covar, begins = self.reg_covar, not hasattr(self, "_model")
        online: Online | None = getattr(self, "_online", None)
        if begins:
            self._check_size(found.n_rows)
            check_scale(dtype, found.summary(), reg_covar, source.names)
            online = about_model(self._initial(source, backend, found))
            size = 1.0
        else:
            model = self._current_model()
            self._check_warm(model, source.n_features, "partial_fit")
            centre = to_numpy(model.weights @ model.means)
            check_range(dtype, found.summary(), centre, source.names)
            if online is None or online.model is not model:
                # It counts as the first chunk, or the next one would replace it.
                online = replace(about_model(model), steps=1, n_jitter=self.n_jitter_)
            size = step_size(online.steps, alpha, t0)
        before = online.n_jitter
        online = advance(online, source, backend, reg_covar=reg_covar, size=size, empty=self.empty)
        self._publish(online.model, dtype, where)
        self._online = online
        self.n_jitter_ = online.n_jitter
        self.converged_ = False
        self.n_iter_ = online.steps
        self.lower_bound_ = online.bound
        self.lower_bounds_ = [online.bound]
        self.backend_ = f"{reason}; {dtype}"
        # Last: where warnings are errors the step has been taken as a whole.
        if online.n_jitter > before:
            warn_restored(online.n_jitter - before, "partial_fit", dtype, stacklevel=3)
        if begins:
            counts = online.statistics.counts * found.n_rows
            constant = found.maximum == found.minimum
            warn_degenerate(source, online.model, counts, reg_covar, constant)

    def _initial(self, source: Source, backend: Backend, found: Survey) -> MixtureModel:
        structure = covariance.get(self.covariance_type)
        total = scatter(source, found.mean, structure.family, backend) if structure.tied else None
        return initial_model(
            source,
            self.n_components,
            structure,
            method=self.init_params,
            random_state=as_random_state(self.random_state),
            backend=backend,
            mean=found.mean,
            variance=found.variance,
            reg_covar=self.reg_covar,
            start=self._start(source.n_features),
            row_scatter=total,
        )
