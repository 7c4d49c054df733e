"""Expectation-maximisation: a loop around one additive pass over the rows.

rows --pass(model)--> SufficientStatistics --M-step--> model
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgmm.arrays import Array, home, is_tensor, read, to_numpy, working_dtype
from fastgmm.backends import Backend, choose
from fastgmm.errors import NotFiniteError
from fastgmm.jitter import mended
from fastgmm.linalg import diagonal, weighted_sum
from fastgmm.model import MixtureModel
from fastgmm.reseed import check_empty, reseeded
from fastgmm.scatter import scatter, within_scatter
from fastgmm.sources import Chunk, Source
from fastgmm.statistics import SufficientStatistics

# Means that move by more than this many variances (squared) between iterations lose digits of the
# new covariance to cancellation; the moments are then taken again about the new means.
_FAR = {np.dtype(np.float32): 1e3, np.dtype(np.float64): 1e7}
# Share of the total scatter below which that within components is not what is left of it: the new
# means are off by roundings of their distance from the centre, which the difference magnifies.
_LEFT = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-7}
_NOT_FINITE = (
    "sums over the rows are not finite: rows, weights or parameters contain NaN or infinity, or "
    "are so large that their squares overflow. Look for them, or rescale."
)


@dataclass(frozen=True, eq=False)
class EMState:
    """What a callback sees after each iteration.

    Parameters
    ----------
    init : int
        Number of the start, from 0.
    iteration : int
        From 1.
    lower_bound : float
        Mean log-likelihood per row, in nats, of the parameters before this iteration's M-step.
    change : float
        Its change since the iteration before.
    model : MixtureModel
        The parameters after the M-step.
    n_jitter : int
        Covariances that had to be repaired so far, as in :class:`EMResult`.
    """

    init: int
    iteration: int
    lower_bound: float
    change: float
    model: MixtureModel
    n_jitter: int = 0


@dataclass(frozen=True, eq=False)
class EMResult:
    """Outcome of :func:`fit`.

    Parameters
    ----------
    model : MixtureModel
        The parameters after the last M-step.
    converged : bool
        Whether the last change was below ``tol``, on the last allowed iteration too.
    n_iter : int
    lower_bounds : list of float
        Mean log-likelihood per row at the beginning of each iteration.
    lower_bound : float
        The last of them; where there was no iteration, that of the start. It is of the parameters
        before the last M-step, as everywhere in the field; those after it are scored by a pass.
    counts : array of shape (K,)
        Effective number of rows of each component in the last iteration.
    n_jitter : int
        Covariances that :func:`fastgmm.jitter.restored` has repaired, over all iterations.
    interrupted : bool
        Whether an interrupt has ended the fit before it was done.
    """

    model: MixtureModel
    converged: bool
    n_iter: int
    lower_bounds: list[float]
    lower_bound: float
    counts: Array
    n_jitter: int = 0
    interrupted: bool = False

    @property
    def change(self) -> float:
        """Change of the lower bound in the last iteration, in nats; inf where there is none."""
        bounds = self.lower_bounds
        return bounds[-1] - bounds[-2] if len(bounds) > 1 else np.inf


Callback = Callable[[EMState], object]
Keep = Callable[[MixtureModel, list[float], int], object]


def e_step(
    source: Source,
    model: MixtureModel,
    backend: Backend,
    about: Array | None = None,
    orders: dict[int, Any] | None = None,
) -> SufficientStatistics:
    """Sufficient statistics of all rows of a source under a model.

    Parameters
    ----------
    source : Source
    model : MixtureModel
    backend : Backend
    about : array of shape (K, D), optional
        Reference points of the moments; the means by default.
    orders : dict, optional
        Empty before the first of several passes, and then the same: what the backend remembers of
        each chunk to make the next pass cheaper. It is left empty where rows do not stay in
        memory.

    Returns
    -------
    statistics : SufficientStatistics
    """
    prepared = backend.prepare(model, source.dtype)
    if not source.resident:
        orders = None

    def order_of(chunk: Chunk) -> Any:
        if orders is None:
            return None
        if chunk.start not in orders:
            orders[chunk.start] = backend.of(chunk.x).new_order()
        return orders[chunk.start]

    def accumulate(chunks: Iterable[Chunk]) -> SufficientStatistics:
        parts = ((chunk.x, chunk.weight, order_of(chunk)) for chunk in chunks)
        return backend.accumulate_all(prepared, parts, about)

    return source.fold(accumulate)


def m_step(
    statistics: SufficientStatistics,
    model: MixtureModel,
    scatter: Array | None,
    reg_covar: float,
    *,
    context: str = "M-step",
    advice: str = "",
) -> MixtureModel:
    """Parameters that maximise the expected log-likelihood of the statistics.

    Empty components keep their mean and covariance and get weight 0.

    Parameters
    ----------
    statistics : SufficientStatistics
    model : MixtureModel
        The parameters of the E-step.
    scatter : array or None
        As :func:`scatter` gives, for tied structures.
    reg_covar : float
        Added to the variances.
    context, advice : str
        For the text of an error.

    Returns
    -------
    model : MixtureModel

    Raises
    ------
    SingularCovarianceError
        If a covariance is not positive definite.
    """
    model = maximise(statistics, model, scatter, reg_covar)
    if not model.sound():
        model.refuse(statistics.counts, context, advice)
    return model


def maximise(
    statistics: SufficientStatistics, model: MixtureModel, scatter: Array | None, reg_covar: float
) -> MixtureModel:
    """The M-step without a look at its outcome, which may not be sound.

    Parameters
    ----------
    statistics, model, scatter, reg_covar
        As for :func:`m_step`.

    Returns
    -------
    model : MixtureModel
        As :meth:`MixtureModel.factorised` gives.
    """
    structure = model.structure
    covariances = structure.maximise(statistics, scatter, reg_covar)
    empty = statistics.empty
    # A device would have to be waited for to know whether there is one.
    if is_tensor(empty) or empty.any():
        covariances = structure.replace(covariances, empty, model.covariances)
    return MixtureModel.factorised(statistics.weights, statistics.means, covariances, structure)


def _moved_far(statistics: SufficientStatistics, limit: float, reg_covar: float) -> Array:
    """Whether a mean moved so far that second / n - shift^2 loses digits.

    Those of a variance that is small beside ``reg_covar`` matter to nothing.
    """
    second = statistics.mean_second
    variances = diagonal(second) if second.ndim == 3 else second
    return (statistics.shift**2 * (1 + 1 / limit) > variances + reg_covar).any()


def _cancels(
    statistics: SufficientStatistics, row_scatter: Array, limit: float, reg_covar: float
) -> Array:
    """Whether the components lie so far apart that total less between scatter loses digits."""
    shares, offsets = statistics.offsets(row_scatter)
    total = diagonal(row_scatter) if row_scatter.ndim == 2 else row_scatter
    left = total - weighted_sum(shares, offsets**2)
    # Of features that do not vary, nothing is left and nothing lost.
    return ((total > 0) & (left + reg_covar < limit * total)).any()


def _finite(array: Array) -> bool:
    return bool(np.isfinite(to_numpy(array)).all())


def fit(
    source: Source,
    model: MixtureModel,
    *,
    tol: float = 1e-3,
    max_iter: int = 100,
    reg_covar: float = 1e-6,
    empty: str = "keep",
    backend: Backend | None = None,
    callbacks: Sequence[Callback] = (),
    init: int = 0,
    previous: float = -np.inf,
    row_scatter: Array | None = None,
    so_far: Sequence[float] = (),
    n_jitter: int = 0,
    keep: Keep | None = None,
    keep_every: int = 1,
) -> EMResult:
    """Fit a mixture by EM from given start parameters.

    Iterates E-step and M-step until the mean log-likelihood per row changes by less than ``tol``.

    Parameters
    ----------
    source : Source
        Its rows are such as the backend takes.
    model : MixtureModel
        The start; its arrays may be of any kind.
    tol : float
        In nats per row.
    max_iter : int
    reg_covar : float
        Added to the variances in every M-step.
    empty : {"keep", "reseed", "error"}
        What happens to a component without rows.
    backend : Backend, optional
        The compiled CPU kernels by default, which take NumPy arrays.
    callbacks : sequence of callables
        Each is called with an :class:`EMState` after every iteration; one that returns True ends
        the fit, in all processes that share it.
    init : int
        Number of the start, for the callbacks.
    previous : float
        Lower bound of the iteration before, when a fit goes on.
    row_scatter : array, optional
        As :func:`scatter` gives; computed here if a tied structure needs it.
    so_far : sequence of float
        Lower bounds of the iterations that led to ``model``, when an interrupted fit goes on.
    n_jitter : int
        Covariances repaired in them.
    keep : callable, optional
        Called with the model, the lower bounds and the number of repaired covariances so far after
        every ``keep_every`` iterations unless they were the last. A fit that goes on from there has
        the same bits.
    keep_every : int

    Returns
    -------
    result : EMResult

    Raises
    ------
    SingularCovarianceError
        If a covariance is not positive definite.
    EmptyComponentError
        If a component is empty and ``empty="error"``, or if all are.
    NotFiniteError
        If rows, weights or parameters are NaN or infinite.

    Notes
    -----
    Dempster, Laird and Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm.

    A device is waited for once per iteration: what an iteration may find is read in one copy after
    its M-step, and only if another way must be taken is anything done again.
    """
    backend = choose("cpu")[0] if backend is None else backend
    model, structure = model.map(backend.own), model.structure
    if structure.tied and row_scatter is None:
        row_scatter = scatter(source, model.means.mean(axis=0), structure.family, backend)
    dtype = working_dtype(source.dtype)
    where = f"{dtype} on {home(model.means) or 'cpu'}"
    advice = f"Increase reg_covar (now {reg_covar:g}) or reduce n_components"
    advice += ", or pass float64." if dtype == np.float32 else "."
    bounds = list(so_far)
    previous = bounds[-1] if bounds else previous
    converged = False
    if max_iter == 0:
        statistics = e_step(source, model, backend)
        total, weight, moved = read(
            statistics.log_likelihood, statistics.weight, statistics.means.sum()
        )
        if math.isnan(total) or not math.isfinite(moved):
            raise NotFiniteError(f"the start: {_NOT_FINITE}")
        bound = total / weight
        return EMResult(model, False, 0, bounds, bound, statistics.counts)
    orders: dict[int, Any] = {}
    for iteration in range(len(bounds) + 1, max_iter + 1):
        statistics = e_step(source, model, backend, orders=orders)
        if row_scatter is None:
            inexact = _moved_far(statistics, _FAR[dtype], reg_covar)
        else:
            inexact = _cancels(statistics, row_scatter, _LEFT[dtype], reg_covar)
        after = maximise(statistics, model, row_scatter, reg_covar)
        total, weight, again, vacant, sound = read(
            statistics.log_likelihood,
            statistics.weight,
            inexact,
            statistics.empty.sum(),
            after.sound(),
        )
        if again:
            if row_scatter is None:
                statistics = e_step(source, model, backend, statistics.means)
            else:
                statistics = within_scatter(source, model, backend, statistics)
            after = maximise(statistics, model, row_scatter, reg_covar)
            (sound,) = read(after.sound())
        counts, context = statistics.counts, f"M-step, iteration {iteration} ({where})"
        # To kernels, which order no NaN, such rows and means are far away.
        lost = vacant == model.n_components and not _finite(model.means)
        if math.isnan(total) or lost or not (sound or _finite(after.covariances)):
            raise NotFiniteError(f"{context}: {_NOT_FINITE}")
        if vacant:
            check_empty(statistics.empty, empty, context, dtype)
        if not sound:
            after, repaired = mended(after, reg_covar, dtype, counts, context, advice)
            after, n_jitter = after.map(backend.own), n_jitter + repaired
        model, seeded = after, False
        if vacant and empty == "reseed":
            model, seeded = reseeded(source, model, statistics.empty, backend)
        bound = total / weight
        bounds.append(bound)
        change = bound - previous
        previous = bound
        state = EMState(init, iteration, bound, change, model, n_jitter)
        # Comparisons with numbers of NumPy give its own kind of True.
        said = [callback(state) for callback in callbacks]
        stop = [isinstance(s, bool | np.bool_) and bool(s) for s in said]
        # One that ends the fit here ends it everywhere, or others would wait for this process.
        stopped = source.anywhere(any(stop))
        # Rows have not been seen under components that have just been moved.
        converged = abs(change) < tol and not seeded
        if converged or stopped:
            break
        if keep is not None and iteration % keep_every == 0 and iteration < max_iter:
            keep(model, bounds, n_jitter)
            # Sums have other bits in an order that a fit which goes on from here does not know.
            orders.clear()
    return EMResult(model, converged, iteration, bounds, bound, counts, n_jitter)
