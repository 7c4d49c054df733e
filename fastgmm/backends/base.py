"""What a backend does: passes over rows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fastgmm.arrays import Array, cast, like, namespace, to_numpy
from fastgmm.covariance import CovarianceStructure
from fastgmm.model import MixtureModel
from fastgmm.statistics import SufficientStatistics, pairwise_sum

# A chunk of a pass: rows, weights if there are any, and what `Backend.new_order` gave for them.
Part: TypeAlias = tuple[Array, Array | None, Any]


@dataclass(frozen=True)
class FeatureSummary:
    """Unweighted count, mean, variance and range of each feature, float64, as the backend's own."""

    n_rows: int
    mean: Array
    variance: Array
    minimum: Array
    maximum: Array

    def on_host(self) -> FeatureSummary:
        """The same in NumPy arrays, for checks and warnings."""
        fields = (self.mean, self.variance, self.minimum, self.maximum)
        return FeatureSummary(self.n_rows, *map(to_numpy, fields))


@dataclass(frozen=True)
class KMeansStep:
    """Outcome of one assignment: labels (N,), and per centroid the weight and the sum of rows.

    Labels are integers of the rows' kind; the others are the backend's own, ``inertia`` a float or
    a tensor of shape ().
    """

    labels: Array
    counts: Array
    sums: Array
    inertia: Any


class Backend(ABC):
    """Where passes over rows run.

    Rows are arrays (N, D) of the kind, device and dtype that ``rows`` gives; weights and results
    per row are of the same kind and device, results in the rows' dtype (float32 for half
    precision). Everything else, models, centroids, statistics, is the backend's own: float64,
    NumPy or tensors on its device, as ``own`` gives. No pass of a fit waits for the device:
    numbers that depend on the rows may be tensors of shape (). ``prepare`` turns a model into what
    the passes need, once for many calls.
    """

    name: str

    def rows(self, x: Array) -> Array:
        """Rows in the form that the passes take; as they are wherever that is possible."""
        return x

    def own(self, x: Array) -> Array:
        """Float64 array of the backend's kind, on its device; as it is where it is so already."""
        return cast(to_numpy(x), np.float64)

    def of(self, x: Array) -> Backend:
        """The backend of these rows: itself, but for one that stands for several."""
        return self

    def wait(self) -> None:
        """Return when the device has done what this thread has asked of it."""
        return

    @abstractmethod
    def prepare(self, model: MixtureModel, dtype: Any) -> Any:
        """Return the model in the form that the passes take.

        The model is the backend's own; ``dtype`` is that of the rows, NumPy's or torch's.
        """

    def all_finite(self, x: Array) -> bool:
        """Whether no NaN and no infinity is there; may be False for huge numbers too."""
        with np.errstate(over="ignore", invalid="ignore"):
            return math.isfinite(x.sum(dtype=namespace(x).float64))

    def new_order(self) -> Any:
        """What passes over one chunk of rows may remember for the next; None for nothing."""
        return None

    @abstractmethod
    def accumulate(
        self,
        prepared: Any,
        x: Array,
        weight: Array | None,
        about: Array | None = None,
        order: Any = None,
    ) -> SufficientStatistics:
        """E-step and sufficient statistics; moments about the means unless ``about`` is given.

        The result's ``about`` is the very array of the model or that given.

        ``order`` is what :meth:`new_order` gave for these rows, for the first of many passes.
        """

    def accumulate_all(
        self, prepared: Any, chunks: Iterable[Part], about: Array | None = None
    ) -> SufficientStatistics:
        """The sum of :meth:`accumulate` over chunks, of which none is kept."""
        return pairwise_sum(
            self.accumulate(prepared, x, weight, about, order) for x, weight, order in chunks
        )

    @abstractmethod
    def accumulate_given(
        self,
        x: Array,
        weight: Array | None,
        structure: CovarianceStructure,
        about: Array,
        *,
        labels: Array | None = None,
        resp: Array | None = None,
    ) -> SufficientStatistics:
        """Sufficient statistics of given labels (N,) or responsibilities (N, K)."""

    @abstractmethod
    def score_samples(self, prepared: Any, x: Array) -> Array:
        """log p(x), (N,)."""

    @abstractmethod
    def predict(self, prepared: Any, x: Array) -> Array:
        """The most probable component, (N,) int64."""

    @abstractmethod
    def responsibilities(self, prepared: Any, x: Array, *, log: bool = False) -> Array:
        """p(k | x), (N, K), or its logarithm."""

    @abstractmethod
    def weighted_log_prob(self, prepared: Any, x: Array) -> Array:
        """log w_k + log p(x | k), (N, K)."""

    @abstractmethod
    def summarise(self, x: Array) -> FeatureSummary:
        """Mean, variance and range of each feature."""

    @abstractmethod
    def kmeans_step(
        self, x: Array, weight: Array | None, centroids: Array, guess: Array | None = None
    ) -> KMeansStep:
        """Assign rows to the nearest centroid; sums of the rows of each.

        ``guess`` are earlier labels (N,), near which the new ones are looked for first.
        """

    @abstractmethod
    def closest(self, x: Array, point: Array, closest: Array | None) -> Array:
        """min(closest, |x - point|^2) per row, in the dtype of ``x``; updates ``closest``."""

    @abstractmethod
    def potentials(
        self, x: Array, weight: Array | None, candidates: Array, closest: Array
    ) -> Array:
        """Sum over rows of v min(closest, |x - c|^2) for each candidate c, (P, C).

        One line for each of P parts of the rows, which begin at row p N // P.
        """


def settle_unreachable(model: MixtureModel, x: Array) -> Array:
    """Component of rows so far away that every density underflows to 0 in the row's precision.

    Squared distances overflow there, so their logarithms are compared: with s the largest
    deviation from the mean, log |U'(x - mu)|^2 = 2 log s + log |U'((x - mu) / s)|^2. Such
    distances differ by far more than any log-weight, except where the deviations are equal to
    rounding; those ties go to the larger density at the mean. There are few such rows, if any: they
    are settled on the host.
    """
    rows, x, model = x, cast(to_numpy(x), np.float64), model.on_host()
    best = np.full(x.shape[0], np.inf)
    label = np.zeros(x.shape[0], np.int64)
    height = model.log_weights() + model.log_determinants()
    for k in np.argsort(-height, kind="stable"):
        if model.weights[k] == 0:
            continue
        # Halves, because a difference of two huge numbers may itself overflow.
        difference = x / 2 - model.means[k] / 2
        size = np.abs(difference).max(axis=1)
        scaled = difference / size[:, None]
        matrix = model.structure.covariance_matrix(model.covariances, int(k), model.n_features)
        whitened = np.linalg.solve(np.linalg.cholesky(matrix), scaled.T)
        distance = 2 * np.log(size) + np.log((whitened**2).sum(axis=0))
        closer = distance < best
        best[closer] = distance[closer]
        label[closer] = k
    return like(label, rows)
