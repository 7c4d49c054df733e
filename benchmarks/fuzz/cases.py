"""One random case from one seed: a mixture, rows, weights of rows and settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import oracle
from layouts import LAYOUTS

Array = Any

#: sizes at which tiles, strips, blocks and padding change
_ROWS = (1, 2, 15, 16, 17, 63, 64, 65, 127, 129, 255, 257, 511, 512, 513, 1025, 4097, 16385)
_COMPONENTS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 127, 128, 129, 300)
_FEATURES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 130)
#: N K D^2 at most, by which the cost of the oracle grows; and where kernels are interpreted
_WORK, _SMALL_WORK = 3e7, 1e6
_SMALL = (200, 12, 40)
#: decades that the scale of the data may be away from 1: squares of it are numbers of the dtype
_DECADES = {"float32": 15.0, "float64": 120.0}
#: decades of an offset, in units of the scale: beyond it the rows have too few digits left
_OFFSETS = {"float32": 3.0, "float64": 8.0}
#: condition number of a correlation matrix at most, in decades
_CONDITION = {"float32": 3.0, "float64": 6.0}


@dataclass(frozen=True, eq=False)
class Case:
    """What is computed, and how it is handed over.

    ``given`` is what the estimator gets; ``rows`` the numbers that it computes with, in float64.
    """

    seed: int
    small: bool
    dtype: str
    layout: str
    given: Array
    rows: Array  # (N, D)
    mixture: oracle.Mixture
    weight: Array | None
    reg_covar: float
    n_steps: int
    batch_size: int | str | None
    precision: str
    centroids: Array  # (K, D)
    traits: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, K, D)."""
        return len(self.rows), self.mixture.n_components, self.mixture.n_features

    def describe(self) -> str:
        n, k, d = self.shape
        words = [self.mixture.structure, self.dtype, f"N={n} K={k} D={d}", self.layout]
        words += [f"reg_covar={self.reg_covar:.2g}", f"batch_size={self.batch_size}"]
        return ", ".join([*words, *self.traits])


def draw(seed: int, *, small: bool = False) -> Case:
    """The case of a seed; ``small`` keeps it cheap enough for interpreted kernels."""
    rng = np.random.default_rng(seed)
    traits: list[str] = []

    def sometimes(share: float, trait: str) -> bool:
        found = bool(rng.uniform() < share)
        if found:
            traits.append(trait)
        return found

    structure = str(rng.choice(oracle.STRUCTURES))
    dtype = str(rng.choice(["float32", "float64"]))
    n, k, d = _shape(rng, small)
    mixture, scale = _mixture(rng, structure, dtype, k, d, sometimes)
    x = mixture.sample(rng, n)[0]
    x = _spoil(rng, x, mixture, dtype, scale, sometimes)
    layout, given = _lay_out(rng, x.astype(dtype))
    # Integers are computed in float64, half precision in float32.
    dtype = {"integer": "float64", "half": "float32"}.get(layout, dtype)
    rows = np.array(given, dtype).astype(np.float64)
    weight = _weight(rng, n, traits)
    spread = float(np.sqrt(np.mean(np.einsum("kii->ki", mixture.dense()))))
    share = 0.0 if sometimes(0.15, "no regularisation") else 10.0 ** rng.uniform(-6, -1)
    return Case(
        seed,
        small,
        dtype,
        layout,
        given,
        rows,
        mixture,
        weight,
        reg_covar=share * spread**2,
        n_steps=int(rng.integers(1, 5)),
        batch_size=_batch(rng, n),
        precision=str(rng.choice(["highest", "high", "medium"], p=[0.8, 0.1, 0.1])),
        centroids=_centroids(rng, x, mixture),
        traits=traits,
    )


def _size(rng: np.random.Generator, special: tuple[int, ...], most: int) -> int:
    if rng.uniform() < 0.5:
        return int(rng.choice([s for s in special if s <= most]))
    return int(np.exp(rng.uniform(0, np.log(most + 1))))


def _shape(rng: np.random.Generator, small: bool) -> tuple[int, int, int]:
    most = _SMALL if small else (20_000, 300, 130)
    work = _SMALL_WORK if small else _WORK
    n, k, d = (_size(rng, s, m) for s, m in zip((_ROWS, _COMPONENTS, _FEATURES), most, strict=True))
    k = max(min(k, int(work / d**2)), 1)
    n = max(min(n, int(work / (k * d**2))), 1)
    return n, k, d


def _mixture(rng, structure, dtype, k, d, sometimes):
    """A mixture of any separation, scale, condition and offset, and its scale."""
    separation = float(rng.choice([0.0, 1.0, 3.0, 6.0, 12.0, 46.0]))
    scale = 1.0
    if sometimes(0.2, "other scale"):
        scale = 10.0 ** rng.uniform(-_DECADES[dtype], _DECADES[dtype])
    means = separation * rng.standard_normal((k, d)) / np.sqrt(d)
    factors = _factors(rng, structure, k, d, _CONDITION[dtype] * rng.uniform())
    if sometimes(0.2, "scales of features"):
        feature = 10.0 ** rng.uniform(-2, 2, size=d)
        means, factors = means * feature, factors * feature[:, None]
    covariances = factors @ np.swapaxes(factors, 1, 2)
    weights = rng.dirichlet(np.full(k, 0.3 if sometimes(0.15, "uneven weights") else 5.0))
    if k > 1 and sometimes(0.1, "components without weight"):
        weights[rng.permutation(k)[: int(rng.integers(1, k))]] = 0.0
    if k > 1 and sometimes(0.05, "components alike"):
        means[1:], covariances[1:] = means[0], covariances[0]
    weights = np.maximum(weights, 0.0)
    weights = weights / weights.sum() if weights.sum() > 0 else np.full(k, 1.0 / k)
    packed = oracle.pack(structure, covariances, np.full(k, 1.0))
    shift = np.zeros(d)
    if sometimes(0.25, "offset"):
        shift = rng.standard_normal(d) * scale * 10.0 ** rng.uniform(0, _OFFSETS[dtype])
    mixture = oracle.Mixture(structure, weights, means, packed).mapped(scale, shift)
    return mixture, scale


def _factors(rng, structure, k, d, decades):
    """Square roots (K, D, D) of covariances of about unit scale and 10^decades condition."""
    if "diag" in structure or "spherical" in structure:
        return np.exp(rng.uniform(-0.5, 0.5, size=(k, d, 1))) * np.eye(d)
    rotations = np.linalg.qr(rng.standard_normal((k, d, d)))[0]
    roots = 10.0 ** (-0.5 * decades * rng.uniform(size=(k, 1, d)))
    return rotations * roots


def _spoil(rng, x, mixture, dtype, scale, sometimes):
    """Rows that no mixture gives: copies, constants, outliers, whole numbers."""
    n, d = x.shape
    if sometimes(0.1, "few distinct rows"):
        x = x[rng.integers(max(n // 20, 1), size=n)]
    if sometimes(0.1, "constant features"):
        fixed = rng.uniform(size=d) < 0.3
        x[:, fixed] = x[0, fixed]
    if sometimes(0.1, "whole numbers"):
        x = np.round(x / scale) * scale
    if sometimes(0.1, "rows from elsewhere"):
        x = x + scale * rng.choice([3.0, 30.0, 3e3]) * rng.standard_normal(d)
    if sometimes(0.15, "outliers"):
        far = rng.integers(n, size=1 + n // 100)
        reach = 10.0 ** rng.uniform(1, 6, size=(len(far), 1))
        x[far] += scale * reach * rng.standard_normal((len(far), d))
    if sometimes(0.05, "outliers beyond squares"):
        limit = np.log10(float(np.finfo(dtype).max)) - 1
        # All signs, so that products of a row with a factor overflow both ways.
        reach = 10.0 ** rng.uniform(limit / 2, limit)
        x[rng.integers(n)] = reach * rng.choice([-1.0, 1.0], size=d)
    return x


def _lay_out(rng, x):
    """The same numbers as a user may have them."""
    names = [*LAYOUTS, "swapped", "unaligned", "repeated", "integer", "half", "list"]
    odds = np.array([4.0 if name in LAYOUTS else 1.0 for name in names])
    name = str(rng.choice(names, p=odds / odds.sum()))
    if name in ("integer", "half") and not 1e-2 < np.abs(x).max() < 3e4:
        name = "c"
    if name == "swapped":
        return name, x.astype(x.dtype.newbyteorder())
    if name == "unaligned":
        raw = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype)
        raw[:] = x.ravel()
        return name, raw.reshape(x.shape)
    if name == "repeated":
        return name, np.broadcast_to(x[:1], x.shape)
    if name == "integer":
        return name, np.round(x).astype(np.int32)
    if name == "half":
        return name, x.astype(np.float16)
    if name == "list":
        # Numbers of Python are of double precision.
        return ("list", x.tolist()) if x.dtype == np.float64 else ("c", x)
    return name, LAYOUTS[name](x)


def _weight(rng, n, traits):
    """None, or weights (N,): gentle, with zeros, whole, of any scale, of all scales at once."""
    kind = str(rng.choice(["none", "gamma", "zeros", "whole", "huge", "wild"], p=[0.5] + [0.1] * 5))
    if kind == "none":
        return None
    traits.append(f"{kind} weights")
    weight = rng.gamma(1.0, size=n) + 1e-3
    if kind == "zeros":
        weight[rng.uniform(size=n) < 0.5] = 0.0
    elif kind == "whole":
        weight = rng.integers(0, 4, size=n).astype(np.float64)
    elif kind == "huge":
        weight = weight * 10.0 ** rng.uniform(-300, 300)
    elif kind == "wild":
        weight = 10.0 ** rng.uniform(-12, 12, size=n)
    if not weight.any():
        weight[rng.integers(n)] = 1.0
    return weight


def _batch(rng, n):
    kind = rng.uniform()
    if kind < 0.6:
        return None
    return "1MB" if kind < 0.65 else int(rng.integers(max(n // 50, 1), n + 2))


def _centroids(rng, x, mixture):
    """Start of k-means: rows, which may repeat, or the means."""
    if rng.uniform() < 0.5:
        return mixture.means
    return x[rng.integers(len(x), size=mixture.n_components)]
