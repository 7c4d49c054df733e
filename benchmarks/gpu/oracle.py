"""Float64 EM in plain torch over blocks of rows and components: what every result is compared with.

Written for clarity and bounded memory, on the device because the host would take minutes. It shares
no code with any implementation that is timed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from ..workloads import Array, Parameters

Tensor = torch.Tensor

#: rows of a block, and numbers of one (components, rows, features) array
ROWS, NUMBERS = 16_384, 2**26


def score_samples(x: Tensor, p: Parameters) -> Tensor:
    """Log-likelihood of every row, (N,)."""
    here = _OnDevice(p, x.device)
    return torch.cat([torch.logsumexp(_log_joint(rows, here), dim=1) for rows in _blocks(x)])


def predict(x: Tensor, p: Parameters) -> Tensor:
    """Most probable component of every row, (N,)."""
    here = _OnDevice(p, x.device)
    return torch.cat([_log_joint(rows, here).argmax(dim=1) for rows in _blocks(x)])


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


def _groups(n_rows: int, p: _OnDevice) -> Iterator[slice]:
    """Components that are handled together."""
    size = max(1, NUMBERS // (n_rows * p.n_features))
    for first in range(0, p.n_components, size):
        yield slice(first, min(first + size, p.n_components))


class _OnDevice:
    """Parameters as float64 tensors where the rows are, with what every block needs of them."""

    def __init__(self, p: Parameters, device: torch.device) -> None:
        self.structure = p.structure
        self.n_components, self.n_features = p.means.shape
        arrays = (p.weights, p.means, p.precisions_cholesky)
        weights, self.means, self.factors = (
            torch.as_tensor(a, dtype=torch.float64, device=device) for a in arrays
        )
        roots = self.factors
        if p.structure in ("full", "tied"):
            roots = roots.diagonal(dim1=-2, dim2=-1)
        if p.structure == "spherical":
            roots = roots[:, None].expand(p.means.shape)
        determinants = roots.log().sum(dim=-1)
        constant = -0.5 * self.n_features * math.log(2 * math.pi)
        self.constants = weights.log() + determinants + constant


def _log_joint(rows: Tensor, p: _OnDevice) -> Tensor:
    """log w_k + log N(x | mean_k, covariance_k), (n, K)."""
    out = rows.new_empty(len(rows), p.n_components)
    for group in _groups(len(rows), p):
        centred = rows - p.means[group, None]
        if p.structure == "tied":
            y = centred @ p.factors
        elif p.structure == "full":
            y = centred @ p.factors[group]
        elif p.structure == "diag":
            y = centred * p.factors[group, None]
        else:
            y = centred * p.factors[group, None, None]
        out[:, group] = -0.5 * (y**2).sum(dim=2).T
    return out + p.constants


def _iterate(x: Tensor, p: Parameters) -> Parameters:
    """One EM iteration; second moments are taken about the current means."""
    k, d = p.means.shape
    whole = p.structure in ("full", "tied")
    here = _OnDevice(p, x.device)
    means = here.means
    counts, first = torch.zeros_like(means[:, 0]), torch.zeros_like(means)
    second = means.new_zeros((k, d, d) if whole else (k, d))
    for rows in _blocks(x):
        resp = torch.softmax(_log_joint(rows, here), dim=1)
        counts += resp.sum(dim=0)
        for group in _groups(len(rows), here):
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
