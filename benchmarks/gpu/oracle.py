"""Float64 EM in plain torch over blocks of rows and components: what every result is compared with.

Written for clarity and bounded memory, on the device because the host would take minutes. It shares
no code with any implementation that is timed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ..workloads import Array, Parameters

Tensor = torch.Tensor

#: rows of a block, and numbers of one (components, rows, features) array
ROWS, NUMBERS = 16_384, 2**26


def score_samples(x: Tensor, p: Parameters) -> Tensor:
    """Log-likelihood of every row, (N,)."""
    return torch.cat([torch.logsumexp(_log_joint(rows, p), dim=1) for rows in _blocks(x)])


def fit(x: Tensor, p: Parameters, n_iter: int) -> Parameters:
    """The parameters after so many EM iterations."""
    for _ in range(n_iter):
        p = _iterate(x, p)
    return p


def kmeans(x: Tensor, start: Array, n_iter: int) -> Array:
    """Lloyd's iterations; a centre without rows stays where it is."""
    centres = torch.as_tensor(start, dtype=torch.float64, device=x.device)
    for _ in range(n_iter):
        sums, counts = torch.zeros_like(centres), torch.zeros_like(centres[:, 0])
        for rows in _blocks(x):
            distance = (centres**2).sum(dim=1) - 2.0 * rows @ centres.T
            members = torch.nn.functional.one_hot(distance.argmin(dim=1), len(centres)).double()
            sums += members.T @ rows
            counts += members.sum(dim=0)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres.cpu().numpy()


def _blocks(x: Tensor) -> Iterator[Tensor]:
    for rows in x.split(ROWS):
        yield rows.double()


def _groups(n_rows: int, p: Parameters) -> Iterator[slice]:
    """Components that are handled together."""
    size = max(1, NUMBERS // (n_rows * p.n_features))
    for first in range(0, p.n_components, size):
        yield slice(first, min(first + size, p.n_components))


def _on(rows: Tensor, array: Array) -> Tensor:
    return torch.as_tensor(array, dtype=torch.float64, device=rows.device)


def _log_joint(rows: Tensor, p: Parameters) -> Tensor:
    """log w_k + log N(x | mean_k, covariance_k), (n, K)."""
    n, d = rows.shape
    means, u = _on(rows, p.means), _on(rows, p.precisions_cholesky)
    out = torch.empty(n, p.n_components, dtype=torch.float64, device=rows.device)
    for group in _groups(n, p):
        centred = rows - means[group, None]
        if p.structure == "tied":
            y, log_det = centred @ u, u.diagonal().log().sum()
        elif p.structure == "full":
            y, log_det = centred @ u[group], u[group].diagonal(dim1=1, dim2=2).log().sum(dim=1)
        elif p.structure == "diag":
            y, log_det = centred * u[group, None], u[group].log().sum(dim=1)
        else:
            y, log_det = centred * u[group, None, None], d * u[group].log()
        out[:, group] = log_det - 0.5 * (y**2).sum(dim=2).T
    return out + _on(rows, np.log(p.weights)) - 0.5 * d * np.log(2 * np.pi)


def _iterate(x: Tensor, p: Parameters) -> Parameters:
    """One EM iteration; second moments are taken about the current means."""
    k, d = p.means.shape
    whole = p.structure in ("full", "tied")
    means = _on(x, p.means)
    counts, first = torch.zeros_like(means[:, 0]), torch.zeros_like(means)
    second = means.new_zeros((k, d, d) if whole else (k, d))
    for rows in _blocks(x):
        resp = torch.softmax(_log_joint(rows, p), dim=1)
        counts += resp.sum(dim=0)
        for group in _groups(len(rows), p):
            centred = rows - means[group, None]
            weighted = centred * resp.T[group, :, None]
            first[group] += weighted.sum(dim=1)
            second[group] += weighted.mT @ centred if whole else (weighted * centred).sum(dim=1)
    shift = first / counts[:, None]
    if whole:
        scatter = second / counts[:, None, None] - shift[:, :, None] * shift[:, None, :]
    else:
        scatter = second / counts[:, None] - shift**2
    weights = counts / counts.sum()
    if p.structure == "tied":
        covariances = torch.tensordot(weights, scatter, dims=1)
    else:
        covariances = scatter.mean(dim=1) if p.structure == "spherical" else scatter
    arrays = (weights, means + shift, covariances)
    return Parameters(p.structure, *(a.cpu().numpy() for a in arrays))
