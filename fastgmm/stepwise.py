"""Stepwise EM: parameters follow decayed statistics, one small step after every few rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fastgmm.arrays import Array, to_numpy, working_dtype
from fastgmm.backends import Backend
from fastgmm.em import e_step, maximise
from fastgmm.jitter import mended, warn_restored
from fastgmm.model import ARRAYS, MixtureModel
from fastgmm.reseed import check_empty, reseeded
from fastgmm.scatter import total_sums
from fastgmm.sources import Chunk, Source
from fastgmm.statistics import SufficientStatistics

# Of the steps before EM: Liang and Klein (2009) find exponents near 0.7 and few rows per step best.
_ALPHA, _OFFSET = 0.7, 2.0


@dataclass(frozen=True, eq=False)
class Online:
    """Statistics of a stream so far, on the host.

    Parameters
    ----------
    model : MixtureModel
        The parameters that follow from them.
    statistics : SufficientStatistics
        Per unit of weight.
    origin, mean, square : ndarray or None
        For tied structures: a point, and moments of the rows about it, per unit of weight.
    steps : int
        Chunks so far.
    bound : float
        Mean log-likelihood per row of the last chunk, before its step.
    n_jitter : int
        Covariances that :func:`fastgmm.jitter.restored` has repaired.
    """

    model: MixtureModel
    statistics: SufficientStatistics
    origin: np.ndarray
    mean: np.ndarray | None
    square: np.ndarray | None
    steps: int
    bound: float = -np.inf
    n_jitter: int = 0

    def scatter(self) -> np.ndarray | None:
        """As :func:`fastgmm.scatter.scatter` gives."""
        if self.mean is None or self.square is None:
            return None
        full = self.square.ndim == 2
        return self.square - (np.outer(self.mean, self.mean) if full else self.mean**2)


class OneChunk(Source):
    """The rows of one chunk."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = replace(chunk, start=0)
        self.n_rows, self.n_features = chunk.x.shape
        self.dtype = chunk.x.dtype

    def __iter__(self) -> Iterator[Chunk]:
        yield self._chunk


def step_size(step: int, alpha: float, offset: float) -> float:
    """Weight of a chunk's statistics: (t + t0)^-alpha, at most 1."""
    return min(float(step + offset) ** -alpha, 1.0)


def about_model(model: MixtureModel) -> Online:
    """The statistics that a model is the M-step of, for a stream that goes on from it.

    Parameters
    ----------
    model : MixtureModel

    Returns
    -------
    online : Online
        With no steps.
    """
    model = model.on_host()
    structure, weights = model.structure, np.asarray(model.weights)
    shape = model.means.shape
    second, square, mean = np.empty(0), None, None
    origin = weights @ model.means
    if structure.tied:
        matrix = structure.covariance_matrix(model.covariances, 0, shape[1])
        apart = model.means - origin
        mean = np.zeros(shape[1])
        square = matrix + (weights[:, None] * apart).T @ apart
        if structure.family != "full":
            square = np.diag(square).copy()
    else:
        matrices = (
            structure.covariance_matrix(model.covariances, k, shape[1]) for k in range(shape[0])
        )
        full = structure.moments == "full"
        second = np.stack(
            [w * (m if full else np.diag(m)) for w, m in zip(weights, matrices, strict=True)]
        )
    statistics = SufficientStatistics(
        weights.copy(), np.zeros(shape), second, model.means, 0.0, 1.0, 0
    )
    return Online(model, statistics, origin, mean, square, 0)


def moved(statistics: SufficientStatistics, about: Array) -> SufficientStatistics:
    """The same statistics with moments about other points.

    Parameters
    ----------
    statistics : SufficientStatistics
        Whose second moments are by component, or empty.
    about : array of shape (K, D)

    Returns
    -------
    statistics : SufficientStatistics
    """
    step = statistics.about - about
    counts, first, second = statistics.counts[:, None], statistics.first, statistics.second
    if second.ndim == 3:
        cross = first[:, :, None] * step[:, None, :]
        square = counts[:, :, None] * step[:, :, None] * step[:, None, :]
        second = second + cross + np.swapaxes(cross, 1, 2) + square
    elif second.ndim == 2:
        second = second + 2 * first * step + counts * step**2
    return replace(statistics, first=first + counts * step, second=second, about=about)


def advance(
    online: Online,
    source: Source,
    backend: Backend,
    *,
    reg_covar: float,
    size: float,
    empty: str = "keep",
) -> Online:
    """One step: blend the statistics of some rows into those so far, and maximise.

    s <- (1 - size) s + size s(rows), moments moved to common points first.

    Parameters
    ----------
    online : Online
    source : Source
        Its rows count as one, however many they are.
    backend : Backend
    reg_covar : float
    size : float
        1 forgets all before.
    empty : {"keep", "reseed", "error"}
        What happens to a component to which neither these rows nor any before belong.

    Returns
    -------
    online : Online

    Raises
    ------
    SingularCovarianceError
        If a covariance is not positive definite.
    EmptyComponentError
        If a component is empty and ``empty="error"``, or if all are.

    Notes
    -----
    Cappé and Moulines (2009), On-line expectation-maximization algorithm for latent data models.
    """
    model = online.model
    seen = e_step(source, model.map(backend.own), backend)
    seen = replace(seen.map(to_numpy), about=model.means)
    total, weight = float(seen.log_likelihood), float(seen.weight)
    seen = replace(seen, log_likelihood=total, weight=weight).scale(1 / weight)
    old = replace(moved(online.statistics, model.means), about=model.means)
    statistics = old.scale(1 - size) + seen.scale(size)
    mean, square = online.mean, online.square
    if mean is not None and square is not None:
        sums = total_sums(source, backend.own(online.origin), model.structure.family, backend)
        parts = [to_numpy(part) / float(sums.weight) for part in (sums.first, sums.second)]
        mean = (1 - size) * mean + size * parts[0]
        square = (1 - size) * square + size * parts[1]
    after = replace(
        online,
        statistics=statistics,
        mean=mean,
        square=square,
        steps=online.steps + 1,
        bound=total / weight,
    )
    context, dtype = f"stepwise EM, step {after.steps}", working_dtype(source.dtype)
    check_empty(statistics.empty, empty, context, dtype)
    advice = (
        f"Increase reg_covar (now {reg_covar:g}), pass more rows at a time, or fewer components."
    )
    found, repaired = mended(
        maximise(statistics, model, after.scatter(), reg_covar),
        reg_covar, dtype, statistics.counts, context, advice,
    )  # fmt: skip
    after = replace(after, model=found, n_jitter=online.n_jitter + repaired)
    if empty == "reseed" and statistics.empty.any():
        found, _ = reseeded(source, found.map(backend.own), statistics.empty, backend)
        begun = about_model(found)
        after = replace(begun, steps=after.steps, bound=after.bound, n_jitter=after.n_jitter)
    return after


def stepwise_epochs(
    source: Source, model: MixtureModel, epochs: int, reg_covar: float, backend: Backend
) -> MixtureModel:
    """Bring a start near an optimum by some epochs of stepwise EM, for full EM to go on from.

    Where several processes share the fit the first takes these steps, with its own rows.

    Parameters
    ----------
    source : Source
    model : MixtureModel
    epochs : int
        Reads of all rows.
    reg_covar : float
    backend : Backend

    Returns
    -------
    model : MixtureModel
        The backend's own.
    """
    if epochs == 0:
        return model
    rows = max(1024, 16 * model.n_components, 8 * model.n_features)

    def run() -> tuple[np.ndarray, ...]:
        online = about_model(model)
        for _ in range(epochs):
            for chunk in source:
                for begin in range(0, len(chunk.x), rows):
                    part = slice(begin, begin + rows)
                    weight = None if chunk.weight is None else chunk.weight[part]
                    if weight is not None and not float(weight.sum()) > 0:
                        continue
                    few = OneChunk(Chunk(chunk.x[part], weight, 0))
                    size = step_size(online.steps, _ALPHA, _OFFSET)
                    online = advance(online, few, backend, reg_covar=reg_covar, size=size)
        if online.n_jitter:
            dtype = working_dtype(source.dtype)
            warn_restored(online.n_jitter, "warm-up", dtype, stacklevel=6)
        return tuple(to_numpy(getattr(online.model, name)) for name in ARRAYS)

    found = source.agree(run)
    weights, means, covariances, factors = map(backend.own, found)
    return MixtureModel(weights, means, covariances, factors, model.structure)
