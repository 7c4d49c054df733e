"""Float64 EM in plain NumPy over chunks of rows: what every timed result is compared with.

Written for clarity and bounded memory. It shares no code with any implementation that is timed.
Full covariances are looked at one by one. The others are diagonal in some coordinates, those of the
rows or whitened ones, where squares expand into products of matrices: about the middle of the means
that costs a few of the sixteen digits.
"""

from __future__ import annotations

import numpy as np

from .workloads import Array, Parameters

#: rows whose arrays stay near the caches
CHUNK = 4_000


def log_joint(x: Array, p: Parameters) -> Array:
    """log w_k + log N(x | mean_k, covariance_k) as an (n, K) array of float64."""
    x = np.asarray(x, dtype=np.float64)
    k, d = p.means.shape
    factors = p.precisions_cholesky
    if p.structure == "full":
        out = np.empty((len(x), k))
        for j in range(k):
            y = (x - p.means[j]) @ factors[j]
            out[:, j] = np.sum(np.log(np.diag(factors[j]))) - 0.5 * np.einsum("ij,ij->i", y, y)
    else:
        middle = p.means.mean(axis=0)
        rows, means = x - middle, p.means - middle
        roots = np.ones((k, d))  # of the precisions, in these coordinates
        log_det = np.zeros(k)
        if p.structure == "tied":
            rows, means = rows @ factors, means @ factors
            log_det += np.sum(np.log(np.diag(factors)))
        else:
            roots *= factors if p.structure == "diag" else factors[:, None]
            log_det += np.sum(np.log(roots), axis=1)
        scaled = means * roots**2
        squares = rows**2 @ (roots**2).T - 2 * rows @ scaled.T + np.sum(means * scaled, axis=1)
        out = log_det - 0.5 * squares
    return np.asarray(out + np.log(p.weights) - 0.5 * d * np.log(2 * np.pi))


def log_sum_exp(log_prob: Array) -> Array:
    top = log_prob.max(axis=1)
    return np.asarray(top + np.log(np.sum(np.exp(log_prob - top[:, None]), axis=1)))


def score_samples(x: Array, p: Parameters) -> Array:
    """Log-likelihood of every row, (N,)."""
    chunks = range(0, len(x), CHUNK)
    return np.concatenate([log_sum_exp(log_joint(x[i : i + CHUNK], p)) for i in chunks])


def predict(x: Array, p: Parameters) -> Array:
    """Most probable component of every row, (N,)."""
    chunks = range(0, len(x), CHUNK)
    return np.concatenate([log_joint(x[i : i + CHUNK], p).argmax(axis=1) for i in chunks])


def responsibilities(x: Array, p: Parameters) -> Array:
    """Probability of every component given the row, (n, K)."""
    log_prob = log_joint(x, p)
    return np.asarray(np.exp(log_prob - log_sum_exp(log_prob)[:, None]))


def fit(x: Array, p: Parameters, n_iter: int, reg_covar: float = 0.0) -> Parameters:
    """The parameters after so many EM iterations."""
    for _ in range(n_iter):
        p = _iterate(x, p, reg_covar)
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


def _iterate(x: Array, p: Parameters, reg_covar: float) -> Parameters:
    """One EM iteration; moments are taken about the middle of the means, for full about each."""
    k, d = p.means.shape
    middle = p.means.mean(axis=0)
    about = p.means if p.structure == "full" else np.broadcast_to(middle, (k, d))
    counts, first = np.zeros(k), np.zeros((k, d))
    second = np.zeros({"full": (k, d, d), "tied": (d, d)}.get(p.structure, (k, d)))
    for i in range(0, len(x), CHUNK):
        rows = np.asarray(x[i : i + CHUNK], dtype=np.float64)
        resp = responsibilities(rows, p)
        counts += resp.sum(axis=0)
        if p.structure == "full":
            for j in range(k):
                centred = rows - about[j]
                weighted = resp[:, j, None] * centred
                first[j] += weighted.sum(axis=0)
                second[j] += weighted.T @ centred
        else:
            centred = rows - middle
            first += resp.T @ centred
            second += centred.T @ centred if p.structure == "tied" else resp.T @ centred**2
    weights = counts / counts.sum()
    shift = first / counts[:, None]
    if p.structure == "full":
        covariances = second / counts[:, None, None] - shift[:, :, None] * shift[:, None, :]
    elif p.structure == "tied":
        covariances = second / counts.sum() - (shift.T * weights) @ shift
    else:
        covariances = second / counts[:, None] - shift**2
        if p.structure == "spherical":
            covariances = covariances.mean(axis=1)
    floor = reg_covar * np.eye(d) if p.structure in ("full", "tied") else reg_covar
    return Parameters(p.structure, weights, about + shift, covariances + floor)
