"""From checked rows and settings to fitted parameters: starts, restarts and what they warn of."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastgmm.arrays import Array, to_numpy, working_dtype
from fastgmm.backends import Backend
from fastgmm.checkpoint import Checkpoint, Stage, random_stage
from fastgmm.covariance import CovarianceStructure
from fastgmm.em import Callback, EMResult, EMState, fit
from fastgmm.errors import (
    DegenerateDataWarning,
    EmptyComponentError,
    FastGMMError,
    NotFiniteError,
    PrecisionWarning,
    SingularCovarianceError,
)
from fastgmm.initialise import Start, initial_model
from fastgmm.jitter import warn_restored
from fastgmm.linalg import diagonal, inverse_cholesky
from fastgmm.model import MixtureModel
from fastgmm.picks import distinct_rows
from fastgmm.progress import Progress
from fastgmm.scatter import scatter
from fastgmm.sources import Source
from fastgmm.stepwise import stepwise_epochs

# Operations of the eigenvalues above which the rank of the covariances is not looked at.
_RANK_COST = 10**8

INTERRUPTED = (
    "The fit was interrupted after iteration {n_iter} of its best start; the parameters are those "
    "that this iteration gave."
)

NOT_CONVERGED = (
    "Best performing initialization did not converge. Try different init parameters, or increase "
    "max_iter, tol, or check for degenerate data."
)


@dataclass(frozen=True)
class Settings:
    """Settings of a fit, as in :class:`fastgmm.GaussianMixture`."""

    n_components: int
    structure: CovarianceStructure
    tol: float
    reg_covar: float
    max_iter: int
    n_init: int
    init_params: str
    empty: str
    warm_up: int = 0
    return_on_interrupt: bool = False


class _Latest:
    """A callback that keeps the last complete iteration of a start.

    One assignment per iteration, so that an interrupt finds all of it or nothing.
    """

    def __init__(self, so_far: Sequence[float]) -> None:
        self._kept: tuple[EMState | None, list[float]] = (None, list(so_far))

    def __call__(self, state: EMState) -> None:
        self._kept = (state, [*self._kept[1], state.lower_bound])

    def result(self, n_rows: int) -> EMResult | None:
        """The outcome of the iterations so far; None if there was none."""
        state, bounds = self._kept
        if state is None:
            return None
        model = state.model
        # Weights of rows have a mean of 1.
        counts = model.weights * n_rows
        done = state.iteration
        return EMResult(model, False, done, bounds, bounds[-1], counts, state.n_jitter)


def best_fit(
    source: Source,
    settings: Settings,
    *,
    backend: Backend,
    random_state: np.random.RandomState,
    mean: np.ndarray,
    variance: np.ndarray,
    start: Start,
    warm: MixtureModel | None,
    previous: float,
    progress: Progress,
    callbacks: Sequence[Callback],
    checkpoint: Checkpoint | None = None,
) -> EMResult:
    """Run EM from ``n_init`` starts, or go on from ``warm``, and keep the best.

    A start that fails is skipped; if all do the error names every reason.

    Returns
    -------
    result : EMResult
        Of the start with the largest lower bound.

    Raises
    ------
    SingularCovarianceError, EmptyComponentError, NotFiniteError
        If no start gives a valid mixture: the last reason decides which.
    """
    structure = settings.structure
    total = scatter(source, mean, structure.family, backend) if structure.tied else None
    best: EMResult | None = None
    failures: list[str] = []
    refusal: type[FastGMMError] = SingularCovarianceError
    stage = None if checkpoint is None else source.agree(checkpoint.read)
    if stage is not None:
        # One of its own: the stream that was given is not this fit's alone.
        random_state = np.random.RandomState()
        random_state.set_state(stage.random_state)
        best, failures = stage.best, stage.failures

    def keep(
        init: int,
        model: MixtureModel | None,
        bounds: list[float],
        n_jitter: int = 0,
        done: bool = False,
    ) -> None:
        if checkpoint is not None:
            state = random_stage(random_state)
            checkpoint.write(Stage(init, state, model, bounds, best, failures, n_jitter, done))

    n_init = settings.n_init if warm is None else 1
    for init in range(0 if stage is None else stage.init, 0 if stage and stage.done else n_init):
        progress.begin(init)
        model, so_far, n_jitter = warm, list[float](), 0
        if stage is not None and init == stage.init:
            model, so_far, n_jitter = stage.model, stage.bounds, stage.n_jitter
        latest = _Latest(so_far)
        watching = [latest] if settings.return_on_interrupt else []
        try:
            if model is None:
                keep(init, None, [])
                model = initial_model(
                    source,
                    settings.n_components,
                    structure,
                    method=settings.init_params,
                    random_state=random_state,
                    backend=backend,
                    mean=mean,
                    variance=variance,
                    reg_covar=settings.reg_covar,
                    start=start,
                    row_scatter=total,
                )
                model = stepwise_epochs(
                    source, model, settings.warm_up, settings.reg_covar, backend
                )
                keep(init, model, [])
            result = fit(
                source,
                model,
                tol=settings.tol,
                max_iter=settings.max_iter,
                reg_covar=settings.reg_covar,
                empty=settings.empty,
                backend=backend,
                callbacks=[*watching, progress, *callbacks],
                init=init,
                previous=previous,
                row_scatter=total,
                so_far=so_far,
                n_jitter=n_jitter,
                keep=None if checkpoint is None else partial(keep, init),
                keep_every=1 if checkpoint is None else checkpoint.every,
            )
        except (SingularCovarianceError, EmptyComponentError, NotFiniteError) as error:
            refusal = type(error)
            failures.append(str(error))
            continue
        except KeyboardInterrupt:
            found = [r for r in (best, latest.result(source.n_rows)) if r is not None]
            if not settings.return_on_interrupt or not found:
                raise
            best = max(found, key=lambda r: r.lower_bound)
            warnings.warn(INTERRUPTED.format(n_iter=best.n_iter), ConvergenceWarning, stacklevel=4)
            return replace(best, interrupted=True)
        finally:
            progress.close()
        if settings.max_iter > 0:
            progress.end(result.lower_bound, result.converged)
        if best is None or result.lower_bound > best.lower_bound:
            best = result
    if best is None and len(failures) == 1:
        raise refusal(failures[0])
    if best is None:
        reasons = "\n".join(f"start {i}: {error}" for i, error in enumerate(failures))
        raise refusal(f"all {len(failures)} starts failed.\n{reasons}")
    keep(n_init - 1, None, [], done=True)
    if failures:
        warnings.warn(
            f"{len(failures)} of {settings.n_init} starts failed and were skipped; the first: "
            f"{failures[0]}",
            DegenerateDataWarning,
            stacklevel=4,
        )
    if best.n_jitter:
        warn_restored(best.n_jitter, "M-steps", working_dtype(source.dtype), stacklevel=4)
    if not best.converged and settings.max_iter > 0:
        warnings.warn(NOT_CONVERGED, ConvergenceWarning, stacklevel=4)
    return best


def warn_degenerate(
    source: Source, model: MixtureModel, counts: Array, reg_covar: float, constant: np.ndarray
) -> None:
    """Warn of components that the data does not determine.

    Parameters
    ----------
    source : Source
    model : MixtureModel
    counts : array of shape (K,)
        Effective number of rows of each component.
    reg_covar : float
    constant : ndarray of shape (D,)
        Mask of constant features, which have been warned of already.
    """
    model = model.on_host()
    n_components = model.n_components
    distinct = distinct_rows(source, n_components)
    if distinct < n_components:
        warnings.warn(
            f"X has {distinct} distinct rows, fewer than n_components={n_components}: some "
            "components are alike or empty.",
            DegenerateDataWarning,
            stacklevel=4,
        )
        return
    empty = np.flatnonzero(model.weights == 0)
    if len(empty):
        warnings.warn(
            f"components {empty.tolist()} of {n_components} are empty: no row belongs to them. "
            "Reduce n_components, or use empty='reseed'.",
            DegenerateDataWarning,
            stacklevel=4,
        )
    _warn_coarse(model, working_dtype(source.dtype))
    _warn_rank(model, to_numpy(counts), reg_covar, constant)


def _warn_coarse(model: MixtureModel, dtype: np.dtype) -> None:
    """Warn of components so far from the others that rows relative to them all lose their spread.

    A pass takes rows relative to the mean of the mixture, in their own precision.
    """
    variances = model.covariances
    if model.structure.family == "full":
        variances = diagonal(variances)
    elif not model.structure.tied:
        variances = variances.reshape(model.n_components, -1)
    deviations = np.broadcast_to(np.sqrt(variances), model.means.shape)
    away = np.abs(model.means - model.weights @ model.means)
    spacing = np.spacing(away.astype(dtype)).astype(np.float64)
    coarse = (spacing > deviations / 8) & (model.weights > 0)[:, None]
    if coarse.any():
        k, column = np.unravel_index(int(coarse.argmax()), coarse.shape)
        advice = "Pass float64, or fit" if dtype == np.float32 else "Fit"
        warnings.warn(
            f"component {k} lies {away[k, column]:.3g} from the mean of the mixture in feature "
            f"{column}, where numbers in {dtype} are {spacing[k, column]:.2g} apart; its standard "
            f"deviation is {deviations[k, column]:.2g}. {advice} such rows by themselves.",
            PrecisionWarning,
            stacklevel=5,
        )


def _ranks(model: MixtureModel, least: float, kept: np.ndarray) -> np.ndarray:
    """Directions of each covariance, in the features of a mask, with more than some variance."""
    structure = model.structure
    matrices = (
        structure.covariance_matrix(model.covariances, k, model.n_features)
        for k in range(1 if structure.tied else model.n_components)
    )
    if structure.family != "full":
        return np.array([(np.diagonal(matrix)[kept] > least).sum() for matrix in matrices])
    stack = np.stack([matrix[kept][:, kept] for matrix in matrices])
    ranks = np.full(len(stack), kept.sum())
    # Eigenvalues cost many times what it takes to see that none is too small.
    factors = inverse_cholesky(stack - least * np.eye(stack.shape[1]))
    doubtful = ~np.isfinite(factors).all(axis=(1, 2))
    ranks[doubtful] = (np.linalg.eigvalsh(stack[doubtful]) > least).sum(axis=1)
    return ranks


def _warn_rank(
    model: MixtureModel, counts: np.ndarray, reg_covar: float, constant: np.ndarray
) -> None:
    """Warn of covariances that are positive definite by ``reg_covar`` alone.

    Constant features make directions of that kind too, and have been warned of.
    """
    structure = model.structure
    n_components = 1 if structure.tied else model.n_components
    if reg_covar == 0 or n_components * model.n_features**3 > _RANK_COST:
        return
    ranks = _ranks(model, 1.5 * reg_covar, ~constant)
    bad = np.flatnonzero(ranks < (~constant).sum())
    if len(bad) == 0:
        return
    k = int(bad[0])
    rank = int(ranks[k])
    rows = counts.sum() if structure.tied else counts[k]
    which = "the shared covariance has" if structure.tied else f"components {bad.tolist()} have"
    advice = " or covariance_type='diag'" if structure.family == "full" else ""
    warnings.warn(
        f"{which} directions whose variance is reg_covar ({reg_covar:g}) alone: rank {rank} of "
        f"{model.n_features} with {rows:.1f} effective samples in the first. Reduce n_components, "
        f"increase reg_covar{advice}.",
        DegenerateDataWarning,
        stacklevel=5,
    )
