"""Seeded data of stated shape, and the start parameters that every implementation shares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Precision = Literal["float32", "float64"]

#: Typical distance between two means in standard deviations of a component. "distant" is what
#: scikit-learn's make_blobs gives in 32 features: 8 standard deviations in each of them.
SEPARATION = {"overlapping": 4.0, "separated": 12.0, "distant": 46.0}


@dataclass(frozen=True)
class Parameters:
    """Parameters of a mixture in float64, with covariances of the structure's own shape.

    ``covariances`` is (K, D, D) for full, (D, D) for tied, (K, D) for diag, (K,) for spherical.
    """

    structure: str
    weights: Array  # (K,)
    means: Array  # (K, D)
    covariances: Array

    @property
    def n_components(self) -> int:
        return int(self.means.shape[0])

    @property
    def n_features(self) -> int:
        return int(self.means.shape[1])

    @property
    def precisions(self) -> Array:
        if self.structure in ("full", "tied"):
            inverse: Array = np.linalg.inv(self.covariances)
            return inverse
        return 1.0 / self.covariances

    @property
    def precisions_cholesky(self) -> Array:
        """Upper-triangular U with precision = U U' (full, tied), else roots of the precisions."""
        if self.structure in ("full", "tied"):
            lower = np.linalg.cholesky(self.covariances)
            return np.swapaxes(np.linalg.inv(lower), -1, -2).copy()
        return 1.0 / np.sqrt(self.covariances)

    def difference(self, other: Parameters) -> float:
        """Largest absolute difference of any weight, mean or covariance; NaN counts as infinite."""
        pairs = (
            (self.weights, other.weights),
            (self.means, other.means),
            (self.covariances, other.covariances),
        )
        worst = max(float(np.max(np.abs(np.float64(a) - b))) for a, b in pairs)
        return worst if np.isfinite(worst) else float("inf")


@dataclass(frozen=True)
class Workload:
    """Rows and the start parameters of one comparison."""

    name: str
    x: Array  # (N, D)
    start: Parameters
    overlap: str

    @property
    def structure(self) -> str:
        return self.start.structure

    @property
    def precision(self) -> str:
        return str(self.x.dtype).removeprefix("torch.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, K, D)."""
        return len(self.x), self.start.n_components, self.start.n_features

    def describe(self) -> str:
        n, k, d = self.shape
        return f"{self.structure}, {self.precision}, N={n:,} K={k} D={d}, {self.overlap}"

    def head(self, n: int) -> Workload:
        """The same workload cut to its first n rows (rows are in random order)."""
        return replace(self, x=self.x[:n])


def make(
    structure: str,
    n: int,
    k: int,
    d: int,
    precision: Precision = "float32",
    overlap: str = "overlapping",
    seed: int = 0,
) -> Workload:
    """Draw n rows from a random mixture, in random order, and a start near the truth.

    Means are normal with the scale that makes two of them `SEPARATION` standard deviations apart
    on average; the start has means off by 0.1 per feature, equal weights and unit-scale
    covariances, so a few EM iterations from it stay in the named regime.
    """
    rng = np.random.default_rng(seed)
    weights, means, factors = draw_truth(structure, k, d, overlap, rng)
    x = _draw(n, weights, means, factors, np.dtype(precision), rng)
    start = draw_start(structure, means, rng)
    return Workload(f"{structure}-{precision}-{overlap}-{n}x{k}x{d}", x, start, overlap)


def draw_truth(
    structure: str, k: int, d: int, overlap: str, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Weights (K,), means (K, D) and factors F of a random mixture, with x = mean + z F.

    F is (K, D, D) for full, (1, D, D) for tied, else (K, D).
    """
    means = rng.normal(size=(k, d)) * (SEPARATION[overlap] / np.sqrt(2 * d))
    weights = rng.dirichlet(np.full(k, 20.0))
    return weights, means, _true_factors(structure, k, d, rng)


def draw_start(structure: str, means: Array, rng: np.random.Generator) -> Parameters:
    """Start parameters near a mixture with these means."""
    k, d = means.shape
    near = means + 0.1 * rng.normal(size=(k, d))
    covariances = _start_covariances(structure, k, d, rng)
    return Parameters(structure, np.full(k, 1.0 / k), near, covariances)


def overlap_of(workload: Workload, resp: Array) -> dict[str, float]:
    """How mixed the rows are: what a reader needs to judge timings of code that skips work.

    ``active``: mean number of components per row with a responsibility of at least 2^-24;
    ``effective``: mean of exp(entropy of a row's responsibilities).
    """
    entropy = -np.sum(np.where(resp > 0, resp * np.log(np.maximum(resp, 1e-300)), 0.0), axis=1)
    return {
        "active": float(np.mean(np.sum(resp >= 2.0**-24, axis=1))),
        "effective": float(np.mean(np.exp(entropy))),
    }


def _true_factors(structure: str, k: int, d: int, rng: np.random.Generator) -> Array:
    if structure in ("full", "tied"):
        count = k if structure == "full" else 1
        rotations = np.linalg.qr(rng.normal(size=(count, d, d)))[0]
        scales = np.exp(rng.uniform(-0.35, 0.35, size=(count, d, 1)))
        return np.asarray(scales * rotations)
    if structure == "diag":
        return np.exp(rng.uniform(-0.35, 0.35, size=(k, d)))
    if structure == "spherical":
        return np.repeat(np.exp(rng.uniform(-0.35, 0.35, size=(k, 1))), d, axis=1)
    raise ValueError(f"no workload is defined for the structure {structure!r}")


def _draw(
    n: int,
    weights: Array,
    means: Array,
    factors: Array,
    dtype: np.dtype[Any],
    rng: np.random.Generator,
) -> Array:
    k, d = means.shape
    labels = rng.choice(k, size=n, p=weights)
    x = rng.standard_normal((n, d), dtype=dtype.type)
    for j in range(k):
        rows = np.flatnonzero(labels == j)
        factor = factors[j % len(factors)].astype(dtype)
        shape = x[rows] @ factor if factor.ndim == 2 else x[rows] * factor
        x[rows] = shape + means[j].astype(dtype)
    return np.ascontiguousarray(x)


def _start_covariances(structure: str, k: int, d: int, rng: np.random.Generator) -> Array:
    scales = rng.uniform(0.9, 1.2, size=k)
    if structure == "full":
        return np.asarray(scales[:, None, None] * np.eye(d))
    if structure == "tied":
        return np.eye(d)
    if structure == "diag":
        return np.repeat(scales[:, None], d, axis=1)
    return scales
