"""Components without rows, moved to where the mixture needs them."""

from __future__ import annotations

import numpy as np

from fastgmm.arrays import Array, to_numpy
from fastgmm.backends import Backend
from fastgmm.errors import EmptyComponentError
from fastgmm.model import MixtureModel
from fastgmm.picks import lowest_rows
from fastgmm.sources import Source

# No component has a row.
_UNREACHED = (
    "all components are empty: the density of every row is 0 in {dtype} under each of them. Start "
    "from means nearer the rows or larger variances, or rescale the features."
)


def check_empty(empty: Array, policy: str, context: str, dtype: np.dtype) -> None:
    """Look whether a fit can go on without the rows of some components.

    Parameters
    ----------
    empty : array of shape (K,)
        Mask.
    policy : {"keep", "reseed", "error"}
    context : str
        Begin of the error's text.
    dtype : dtype
        In which rows are computed.

    Raises
    ------
    EmptyComponentError
        If all are empty, or one is and the policy is "error".
    """
    empty = to_numpy(empty)
    if empty.all():
        raise EmptyComponentError(f"{context}: {_UNREACHED.format(dtype=dtype)}")
    if policy == "error" and empty.any():
        raise EmptyComponentError(
            f"{context}: components {np.flatnonzero(empty).tolist()} of {len(empty)} are empty. "
            "Reduce n_components, or use empty='keep' or 'reseed'."
        )


def reseeded(
    source: Source, model: MixtureModel, empty: Array, backend: Backend
) -> tuple[MixtureModel, bool]:
    """Move the empty components to the rows that the mixture explains worst, on the host.

    Each gets its row's weight and the mean covariance of the components that have rows.

    Parameters
    ----------
    source : Source
    model : MixtureModel
    empty : array of shape (K,)
        Mask, not of all components.
    backend : Backend

    Returns
    -------
    model : MixtureModel
        The backend's own.
    moved : bool
        Whether there was a row to move one to: rows without weight are none.
    """
    prepared = backend.prepare(model, source.dtype)
    vacant, model = np.flatnonzero(to_numpy(empty)), model.on_host()
    worst = lowest_rows(source, len(vacant), lambda chunk: backend.score_samples(prepared, chunk.x))
    order = np.argsort(worst.keys, kind="stable")
    order = order[worst.keys[order] < np.inf]
    # Where too few rows have weight the last components stay as they are.
    empty = np.isin(np.arange(model.n_components), vacant[: len(order)])
    alive = ~empty
    means, weights = model.means.copy(), model.weights.copy()
    means[empty] = worst.rows[order]
    # Weights of rows have a mean of 1.
    weights[empty] = (1.0 if worst.weights is None else worst.weights[order]) / source.n_rows
    weights /= weights.sum()
    matrices = [
        model.structure.covariance_matrix(model.covariances, int(k), model.n_features)
        for k in np.flatnonzero(alive)
    ]
    pooled = np.average([np.diag(m) for m in matrices], axis=0, weights=model.weights[alive])
    spread = model.structure.spread(pooled, model.n_components)
    covariances = model.structure.replace(model.covariances, empty, spread)
    seeded = MixtureModel.from_covariances(weights, means, covariances, model.structure)
    return seeded.map(backend.own), len(order) > 0
