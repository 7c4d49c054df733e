"""Random rows from a mixture."""

from __future__ import annotations

import numpy as np

from fastgmm.model import MixtureModel


def sample(
    model: MixtureModel, n_samples: int, random_state: np.random.RandomState, *, shuffle: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows by ancestral sampling: components first, then their normals.

    Only the rows that are returned are drawn, component by component.

    Parameters
    ----------
    model : MixtureModel
    n_samples : int
        At least 1.
    random_state : RandomState
    shuffle : bool
        Whether rows come in random order; otherwise grouped by component.

    Returns
    -------
    x : ndarray of shape (n_samples, D)
    labels : ndarray of shape (n_samples,)
        int64.
    """
    # In float64 and normalised again: float32 weights may sum to more than 1.
    counts = random_state.multinomial(n_samples, model.weights / model.weights.sum())
    labels = np.repeat(np.arange(model.n_components), counts)
    if shuffle:
        random_state.shuffle(labels)
    x = random_state.standard_normal((n_samples, model.n_features))
    order = np.argsort(labels, kind="stable") if shuffle else np.arange(n_samples)
    ends = np.cumsum(counts)
    for k in np.flatnonzero(counts):
        rows = order[ends[k] - counts[k] : ends[k]]
        x[rows] = model.means[k] + model.structure.colour(model.covariances, int(k), x[rows])
    return x, labels
