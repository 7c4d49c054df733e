"""One EM step and one step of k-means: the oracle's, and the bounds of their errors.

With r v of a row and component in error by e_r, x - mu by e_x = u (|x - c| + |mu - c|), and sums of
at most a tile in the precision of the rows (gamma = T u),

    n = sum r v                   e_n <= sum e_r + gamma n + N u w
    f = sum r v (x - mu)          e_f <= sum e_r |x - mu| + r v e_x + gamma r v |x - mu| + N u w sd
    S = sum r v (x - mu)(x - mu)' alike, with both factors

where the last term is what may be skipped (`fastgmm_kernels.cpu.skip`): of each row less than u w,
in units of the deviation. Quotients follow to first order, with twice the error of the
counts; where that reaches half a component has no digits left, and need only be finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import oracle

from .bounds import U64, Distances, Posterior

Array = Any

#: rows of a tile at most, whose sums are in the precision of the rows
TILE = 1024
#: variances (squared shifts over variances) beyond which moments are taken about the new means,
#: and the share of the total scatter below which a tied structure does so (`fastgmm.em`)
_FAR = {"float32": 1e3, "float64": 1e7}
_CANCELS = {"float32": 1e-4, "float64": 1e-7}


@dataclass(frozen=True, eq=False)
class Step:
    """Parameters after one EM step, each with a bound of its error (inf where none is known)."""

    weights: tuple[Array, Array]
    means: tuple[Array, Array]
    covariances: tuple[Array, Array]
    bound: tuple[float, float]
    singular: bool  # whether a covariance is not positive definite within its error


def em_step(
    mixture: oracle.Mixture,
    x: Array,
    weight: Array | None,
    reg_covar: float,
    at: Distances,
    post: Posterior,
    u: float,
    dtype: str,
) -> Step:
    """The oracle's step from a mixture, with bounds for arithmetic of unit ``u``."""
    v = np.ones(len(x)) if weight is None else weight / weight.max()
    v = v / v.mean()
    used = v > 0
    off = float(np.average(post.score_error[used], weights=v[used]))
    bound = float(np.average(post.score[used], weights=v[used]))
    off += (len(x) * U64 + 4 * u) * float(np.average(np.abs(post.score[used]), weights=v[used]))
    with np.errstate(all="ignore"):
        found = _m_step(mixture, x, post.resp, v, reg_covar)
        mass, slack = post.resp * v[:, None], post.resp_error * v[:, None]
        gamma = (min(len(x), TILE) + 8) * u + len(x) * U64
        counts = mass.sum(axis=0)
        skipped = len(x) * u * mixture.weights
        count_error = slack.sum(axis=0) + gamma * counts + skipped
        total = counts.sum()
        share = counts / total
        weight_error = (count_error + share * count_error.sum()) / total
        mean_error, second = _moments(
            mixture, found, x, mass, slack, counts, count_error, gamma, skipped, at, u, dtype
        )
        mean_error += 4 * U64 * np.abs(np.where(counts[:, None] > 0, found.means, 0.0))
        if oracle.is_tied(mixture.structure):
            limit = _CANCELS[dtype]
            rounding = (gamma + u) * np.abs(found.means - mixture.means)
            rounding = np.nan_to_num(rounding) + u * at.points
            second = _tied(found, x, v, share, weight_error, mean_error, rounding, second, limit)
        else:
            second = np.where((count_error < 0.5 * counts)[:, None, None], second, np.inf)
        covariance_error = _packed(mixture.structure, second, share)
    mean_error[~(count_error < 0.5 * counts)] = np.inf
    covariance_error = covariance_error + 8 * U64 * np.abs(found.covariances)
    return Step(
        (share, weight_error + 4 * U64),
        (found.means, mean_error),
        (found.covariances, covariance_error),
        (bound, off),
        _singular(mixture.structure, found.covariances, covariance_error),
    )


def _m_step(
    mixture: oracle.Mixture, x: Array, resp: Array, v: Array, reg_covar: float
) -> oracle.Mixture:
    """The oracle's M-step; what components without rows would have is NaN."""
    alive = v @ resp > 0
    found = oracle.m_step(
        x, resp[:, alive], mixture.structure, reg_covar=reg_covar, sample_weight=v
    )

    def among_all(part: Array, fill: float) -> Array:
        whole = np.full((len(alive), *part.shape[1:]), fill)
        whole[alive] = part
        return whole

    covariances = found.covariances
    if not oracle.is_tied(mixture.structure):
        covariances = among_all(covariances, np.nan)
    weights, means = among_all(found.weights, 0.0), among_all(found.means, np.nan)
    return oracle.Mixture(mixture.structure, weights, means, covariances)


def _moments(
    mixture, found, x, mass, slack, counts, count_error, gamma, skipped, at, u, dtype
):  # fmt: skip
    """Errors of the new means (K, D), and of covariances (K, D, D) about them."""
    n_components, d = mixture.means.shape
    variances = np.einsum("kii->ki", mixture.dense())
    mean_error, second = np.full((n_components, d), np.inf), np.full((n_components, d, d), np.inf)
    fresh = _variances(found)
    shift = found.means - mixture.means
    ratio = np.where(counts[:, None] > 0, shift**2 / fresh, 0.0)
    # A component whose rows may all be skipped may move, and ask for a second pass, or not.
    known = (count_error < 0.5 * counts)[:, None]
    least, most = np.nanmax(np.where(known, ratio, 0.0)), np.nanmax(ratio)
    # The oracle takes its differences from the mean of all rows.
    afar = np.abs(x - np.average(x, axis=0, weights=mass.sum(axis=1)))
    for k in range(n_components):
        n, e_n = counts[k], count_error[k]
        if not e_n < 0.5 * n:
            continue
        e_x = u * (at.moved + at.points[k]) + 8 * U64 * afar
        size = np.abs(x - mixture.means[k])
        skip = skipped[k] * np.sqrt(variances[k])
        sums = e_x + gamma * size + len(x) * U64 * afar
        e_f = slack[:, k] @ size + mass[:, k] @ sums + skip
        mean_error[k] = (e_f + 2 * e_n * np.abs(shift[k])) / n
        abouts = []
        if least < 2 * _FAR[dtype]:
            abouts.append((size, e_x, shift[k]))
        if most > 0.5 * _FAR[dtype]:
            e_new = e_x + u * np.abs(shift[k])
            abouts.append((np.abs(x - found.means[k]), e_new, mean_error[k]))
        second[k] = 0.0
        for distance, e, moved in abouts:
            weights = slack[:, k] + gamma * mass[:, k]
            cross = distance.T @ (mass[:, k, None] * e)
            e_s = distance.T @ (weights[:, None] * distance) + cross + cross.T
            e_s += e.T @ (mass[:, k, None] * e) + np.outer(skip, np.sqrt(variances[k]))
            size_s = distance.T @ (mass[:, k, None] * distance)
            e_m = np.outer(np.abs(moved) + mean_error[k], mean_error[k])
            second[k] += (e_s + 2 * e_n * size_s / n) / n + e_m + e_m.T
    return mean_error, second


def _tied(found, x, v, share, weight_error, mean_error, rounding, within, limit):
    """Error of the total scatter less that between components, or of that within them."""
    centre = np.average(x, axis=0, weights=v)
    moved = x - centre
    total = (np.abs(moved) * v[:, None]).T @ np.abs(moved) / v.sum()
    means = np.where((share > 0)[:, None], found.means, centre)
    offset = np.abs(means - share @ means)
    # A mean of rows is among them, whatever its weights, but for its rounding.
    hull = 2 * np.abs(moved).max(axis=0) + rounding
    e_m = np.minimum(mean_error, hull)
    cross = (share[:, None] * (offset + e_m)).T @ e_m
    error = 2 * (len(x) + 16) * U64 * total + cross + cross.T
    error += (weight_error[:, None] * offset).T @ offset
    scatter = (v[:, None] * moved**2).sum(axis=0) / v.sum()
    between = (share[:, None] * offset**2).sum(axis=0)
    left = (scatter - between) / scatter
    left = left[scatter > 0].min(initial=1.0)
    if left < 2 * limit:
        among = hull[:, :, None] * hull[:, None, :]
        pooled = np.tensordot(share, np.where(np.isfinite(within), within, among), axes=1)
        error = pooled if left < 0.5 * limit else pooled + error
    # Where a feature does not vary, what the oracle has is the rounding of its mean.
    noise = 2 * U64 * np.abs(centre)
    size = np.average(np.abs(moved), axis=0, weights=v) + noise
    return error + np.outer(noise, size) + np.outer(size, noise)


def _variances(found: oracle.Mixture) -> Array:
    """Variances (K, D) of a mixture that need not be positive definite."""
    return np.einsum("kii->ki", np.abs(found.dense()))


def _packed(structure: str, error: Array, share: Array) -> Array:
    """Errors of dense covariances as errors of the structure's own."""
    if structure in ("full", "tied"):
        return error
    diagonal = np.einsum("...ii->...i", error)
    if structure.endswith("spherical"):
        return np.asarray(diagonal.mean(axis=-1))
    return diagonal


def _singular(structure: str, covariances: Array, error: Array) -> bool:
    """Whether a covariance may fail to be positive definite, given the error of its entries."""
    known = np.isfinite(covariances)
    if structure not in ("full", "tied"):
        return bool(np.any(covariances[known] <= error[known]))
    stack, off = (a if a.ndim == 3 else a[None] for a in (covariances, error))
    whole = np.isfinite(stack).all(axis=(1, 2))
    stack, off = stack[whole], off[whole]
    norm = np.abs(off).sum(axis=2).max(axis=1)
    d = stack.shape[1]
    rounding = 4 * d * d * U64 * np.einsum("kii->k", stack)
    return bool(np.any(np.linalg.eigvalsh(stack)[:, 0] <= norm + rounding))


def kmeans_distances(x: Array, centroids: Array, u: float) -> tuple[Array, Array, Array]:
    """Squared distances (N, K), bounds of their errors, and |x - c| with c the kernels' centre."""
    centre = centroids.mean(axis=0)
    moved, d = np.abs(x - centre), x.shape[1]
    square, error = (np.empty((len(x), len(centroids))) for _ in range(2))
    with np.errstate(all="ignore"):
        for k, point in enumerate(centroids):
            distance = np.abs(x - point)
            e = u * (moved + np.abs(point - centre) + distance)
            square[:, k] = (distance**2).sum(axis=1)
            error[:, k] = (2 * distance * e + e**2).sum(axis=1)
        error += (d + 4) * (u + U64) * square
        # Squares that are not normal numbers are off by as much as the smallest.
        error += d * float(np.finfo(np.float32 if u > U64 else np.float64).smallest_subnormal)
    return square, error, moved
