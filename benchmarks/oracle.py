"""Float64 EM in plain NumPy over chunks of rows: what every timed result is compared with.

Written for clarity and bounded memory. It shares no code with any implementation that is timed.
"""

from __future__ import annotations

import numpy as np

from .workloads import Array, Parameters

CHUNK = 20_000


def log_joint(x: Array, p: Parameters) -> Array:
    """log w_k + log N(x | mean_k, covariance_k) as an (n, K) array of float64."""
    x = np.asarray(x, dtype=np.float64)
    k, d = p.means.shape
    out = np.empty((len(x), k))
    factors = p.precisions_cholesky
    for j in range(k):
        u = factors if p.structure == "tied" else factors[j]
        centred = x - p.means[j]
        if u.ndim == 2:
            y, log_det = centred @ u, np.sum(np.log(np.diag(u)))
        else:
            y, log_det = centred * u, np.sum(np.log(u)) * (d if u.ndim == 0 else 1)
        out[:, j] = log_det - 0.5 * np.einsum("ij,ij->i", y, y)
    return out + np.log(p.weights) - 0.5 * d * np.log(2 * np.pi)


def log_sum_exp(log_prob: Array) -> Array:
    top = log_prob.max(axis=1)
    return np.asarray(top + np.log(np.sum(np.exp(log_prob - top[:, None]), axis=1)))


def score_samples(x: Array, p: Parameters) -> Array:
    chunks = range(0, len(x), CHUNK)
    return np.concatenate([log_sum_exp(log_joint(x[i : i + CHUNK], p)) for i in chunks])


def responsibilities(x: Array, p: Parameters) -> Array:
    log_prob = log_joint(x, p)
    return np.asarray(np.exp(log_prob - log_sum_exp(log_prob)[:, None]))


def fit(x: Array, p: Parameters, n_iter: int) -> Parameters:
    for _ in range(n_iter):
        p = _iterate(x, p)
    return p


def kmeans(x: Array, centres: Array, n_iter: int) -> Array:
    """Lloyd's iterations; a centre without rows stays where it is."""
    centres = np.array(centres, dtype=np.float64)
    for _ in range(n_iter):
        sums, counts = np.zeros_like(centres), np.zeros(len(centres))
        for i in range(0, len(x), CHUNK):
            rows = np.asarray(x[i : i + CHUNK], dtype=np.float64)
            distance = np.sum(centres**2, axis=1) - 2.0 * rows @ centres.T
            labels = distance.argmin(axis=1)
            members = labels[:, None] == np.arange(len(centres))
            sums += members.T.astype(np.float64) @ rows
            counts += members.sum(axis=0)
        moved = counts > 0
        centres[moved] = sums[moved] / counts[moved, None]
    return centres


def _iterate(x: Array, p: Parameters) -> Parameters:
    """One EM iteration; second moments are taken about the current means."""
    k, d = p.means.shape
    whole = p.structure in ("full", "tied")
    counts, first = np.zeros(k), np.zeros((k, d))
    second = np.zeros((k, d, d) if whole else (k, d))
    for i in range(0, len(x), CHUNK):
        rows = np.asarray(x[i : i + CHUNK], dtype=np.float64)
        resp = responsibilities(rows, p)
        counts += resp.sum(axis=0)
        for j in range(k):
            centred = rows - p.means[j]
            weighted = resp[:, j, None] * centred
            first[j] += weighted.sum(axis=0)
            second[j] += weighted.T @ centred if whole else np.sum(weighted * centred, axis=0)
    shift = first / counts[:, None]
    if whole:
        scatter = second / counts[:, None, None] - shift[:, :, None] * shift[:, None, :]
    else:
        scatter = second / counts[:, None] - shift**2
    if p.structure == "tied":
        covariances = np.tensordot(counts / counts.sum(), scatter, axes=1)
    else:
        covariances = scatter.mean(axis=1) if p.structure == "spherical" else scatter
    return Parameters(p.structure, counts / counts.sum(), p.means + shift, covariances)
