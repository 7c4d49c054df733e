"""How far rounding may lead: a priori bounds of the errors of log-probabilities and what follows.

The kernels form, with c the centre, A = L^-1 and u half a unit in the last place,

    z = x - c,  m = mu - c,  y = A (z - m),  q = |y|^2,  lp = constant - q / 2

Every step rounds by at most u, so componentwise (Higham, Accuracy and Stability of Numerical
Algorithms, section 3.1)

    |error of y| <= u b,  b = |A| (|x - c| + |mu - c| + (D + 2) |x - mu|)

and |error of q| <= 2 u |y|'b + u^2 b'b + (D + 2) u q. Where components share A, rows and means are
multiplied by it before their difference is formed: b = (D + 2) |A| (|x - c| + |mu - c|) + 2 |y|.
The factor A itself comes from a Cholesky factorisation in float64, whose backward error moves q by
at most about 4 (D + 1)^2 kappa u q, with kappa the condition number of the correlation matrix
(Higham, theorem 10.6). That holds for the oracle alike, so each bound is taken twice.
No constant here was fitted to what the fuzzer found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.special import logsumexp

import oracle

Array = Any

U64 = 2.0**-53
_MANTISSA = {"float32": 24, "float64": 53}
#: digits of a product in a matrix unit, by precision; the split products lose the last ones
_PRODUCT = {"highest": 20, "high": 15, "medium": 10}
#: rounding errors of an exponential and a logarithm, in units of u, with the bound of `exp.py`
_EXP = 16


def unit(dtype: str) -> float:
    """Half a unit in the last place at 1."""
    return 2.0 ** -_MANTISSA[dtype]


def product_unit(dtype: str, precision: str) -> float:
    """The same of a product in a matrix unit."""
    return unit(dtype) if dtype == "float64" else 2.0 ** -_PRODUCT[precision]


@dataclass(frozen=True, eq=False)
class Distances:
    """What the bounds of a mixture on rows are made of; all (N, K) unless stated."""

    square: Array  # q
    product: Array  # |y|'b
    spread: Array  # b'b
    reach: Array  # the largest product on the way to y, squared
    condition: Array  # (K,)
    constants: Array  # (K,), without weights
    moved: Array  # |x - c| (N, D)
    points: Array  # |mu - c| (K, D)
    log_prob: Array  # the oracle's, without weights


def distances(mixture: oracle.Mixture, x: Array) -> Distances:
    """Truth and sensitivity of every (row, component) pair."""
    n_components, d = mixture.means.shape
    matrices = mixture.dense()
    whole = mixture.structure in ("full", "tied")
    shares = mixture.weights / mixture.weights.sum()
    # The centre is the mean of the mixture, or of its components where weights are left out.
    centres = shares @ mixture.means, mixture.means.mean(axis=0)
    with np.errstate(all="ignore"):
        moved = np.maximum(*(np.abs(x - c) for c in centres))
        points = np.maximum(*(np.abs(mixture.means - c) for c in centres))
        found = [np.empty((len(x), n_components)) for _ in range(4)]
        condition, constants = np.empty(n_components), np.empty(n_components)
        for k, (mean, matrix) in enumerate(zip(mixture.means, matrices, strict=True)):
            sd = np.sqrt(np.diag(matrix))
            difference = x - mean
            if whole:
                lower = cholesky(matrix, lower=True)
                size = np.abs(solve_triangular(lower, np.eye(d), lower=True))
                y = np.abs(solve_triangular(lower, difference.T, lower=True, check_finite=False).T)
                outer, inner = (moved + points[k]) @ size.T, np.abs(difference) @ size.T
                constants[k] = -np.sum(np.abs(np.log(np.diag(lower))))
                # Squared Frobenius norms of the factor of the correlation matrix and its inverse.
                condition[k] = d * np.sum((size * sd) ** 2)
            else:
                y = inner = np.abs(difference) / sd
                outer = (moved + points[k]) / sd
                constants[k] = -np.sum(np.abs(np.log(sd)))
                condition[k] = 1.0
            if oracle.is_tied(mixture.structure):
                b = (d + 2) * outer + 2 * y
            else:
                b = outer + (d + 2) * inner
            largest = np.maximum(outer, inner)
            if mixture.structure.endswith("spherical"):
                # Squares are added up before they are scaled.
                largest = np.maximum(largest, moved + points[k])
            sums = (y**2, y * b, b**2, largest**2)
            for part, terms in zip(found, sums, strict=True):
                part[:, k] = terms.sum(axis=1)
        constants -= 0.5 * d * np.log(2 * np.pi)
        try:
            log_prob = mixture.component_log_prob(x)
        except ValueError:  # LAPACK is not asked about rows whose squares overflow
            log_prob = np.full_like(found[0], np.nan)
    return Distances(*found, condition, np.abs(constants), moved, points, log_prob)


def log_prob_error(at: Distances, u: float) -> Array:
    """Bound of the error of log-probabilities (N, K) computed with unit ``u``."""
    d = at.moved.shape[1]
    factor = 4.0 * (d + 1) ** 2 * at.condition * U64
    with np.errstate(all="ignore"):
        total = factor * (at.square + d)
        for v in (u, U64):
            # 0.5 of the square; 1.1 for products of errors
            total += 0.5 * 1.1 * (2 * v * at.product + v**2 * at.spread + (d + 6) * v * at.square)
            total += v * (3 * at.constants + d + 4)
    return total


@dataclass(frozen=True, eq=False)
class Posterior:
    """The oracle's values for rows under a weighted mixture, and the bounds of their errors."""

    log_prob: Array  # (N, K), weighted
    log_prob_error: Array
    score: Array  # (N,)
    score_error: Array
    resp: Array  # (N, K)
    resp_error: Array
    lost: Array  # (N,): squares may overflow under every component, or do in the oracle


def posterior(mixture: oracle.Mixture, at: Distances, u: float, dtype: str) -> Posterior:
    """Scores and responsibilities, and how far they may be off.

    The logarithm of a sum of exponentials grows with each of its terms, so that its value for all
    terms as large, and as small, as they may be encloses it.
    """
    k = mixture.n_components
    with np.errstate(all="ignore"):
        log_weights = np.log(mixture.weights)
        error = log_prob_error(at, u) + u * (np.abs(np.maximum(log_weights, -800.0)) + 1)
        log_prob = at.log_prob + log_weights
        known = np.isfinite(at.log_prob) & (mixture.weights > 0)
        log_prob = np.where(known, log_prob, -np.inf)
        error = np.where(known, error + 2 * u * np.abs(log_prob), 0.0)
        score = logsumexp(log_prob, axis=1)
        high = logsumexp(log_prob + error, axis=1)
        low = logsumexp(log_prob - error, axis=1)
        score_error = np.maximum(high - score, score - low)
        # What is skipped is below one unit in the last place of the sum.
        score_error += u * (k + _EXP + 3 * np.abs(score))
        resp = np.exp(log_prob - score[:, None])
        # Of rows far away the oracle's own rounding shows in their sum.
        resp /= resp.sum(axis=1, keepdims=True)
        off = error + score_error[:, None] + _EXP * u
        most = np.exp(np.minimum(log_prob - score[:, None] + off, 0.0))
        resp_error = np.maximum(most - resp, -resp * np.expm1(-off))
        resp_error = resp_error + 4 * float(np.finfo(dtype).tiny)
        limit = float(np.finfo(dtype).max) / 64
        beyond = ~(at.reach < limit) | (mixture.weights == 0)
    lost = beyond.all(axis=1) | ~np.isfinite(score)
    return Posterior(log_prob, error, score, score_error, resp, resp_error, lost)
