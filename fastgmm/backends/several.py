"""Several backends as one: each has the rows that lie where it computes, and their sums add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastgmm.arrays import Array, home, is_tensor, working_dtype
from fastgmm.backends.base import Backend, FeatureSummary, KMeansStep
from fastgmm.covariance import CovarianceStructure
from fastgmm.model import MixtureModel
from fastgmm.statistics import SufficientStatistics


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A model, and what each backend has made of it."""

    model: MixtureModel
    parts: Mapping[Backend, Any]


class Several(Backend):
    """The backend of each device for the rows that lie there.

    What belongs to no row, models, centroids and sums, is that of the first. CUDA works while the
    host goes on: devices compute side by side where no sum has to be brought to the host.

    Parameters
    ----------
    backends : mapping of str or None to Backend
        By the homes of rows, as :func:`fastgmm.arrays.home` gives them.
    """

    name = "several"

    def __init__(self, backends: Mapping[str | None, Backend]) -> None:
        self._first = next(iter(backends.values()))
        self._at = dict(backends)
        for backend in backends.values():
            # A backend may take rows as its own kind of arrays, such as tensors of the host as
            # NumPy's; and rows that a start is chosen from are the first one's own.
            self._at.setdefault(home(backend.own(np.zeros(0))), backend)

    def of(self, x: Array) -> Backend:
        return self._at[home(x)]

    def rows(self, x: Array) -> Array:
        return self.of(x).rows(x)

    def own(self, x: Array) -> Array:
        return self._first.own(x)

    def _number(self, value: Any) -> Any:
        return self.own(value) if is_tensor(value) else value

    def _brought(self, found: SufficientStatistics, about: Array) -> SufficientStatistics:
        """Statistics as the first backend's own, about the very array that all parts share."""
        return replace(
            found.map(self.own),
            about=about,
            log_likelihood=self._number(found.log_likelihood),
            weight=self._number(found.weight),
        )

    def prepare(self, model: MixtureModel, dtype: Any) -> _Prepared:
        backends, dtype = dict.fromkeys(self._at.values()), working_dtype(dtype)
        return _Prepared(model, {b: b.prepare(model.map(b.own), dtype) for b in backends})

    def wait(self) -> None:
        for backend in dict.fromkeys(self._at.values()):
            backend.wait()

    def all_finite(self, x: Array) -> bool:
        return self.of(x).all_finite(x)

    def accumulate(
        self,
        prepared: _Prepared,
        x: Array,
        weight: Array | None,
        about: Array | None = None,
        order: Any = None,
    ) -> SufficientStatistics:
        there = self.of(x)
        points = None if about is None else there.own(about)
        found = there.accumulate(prepared.parts[there], x, weight, points, order)
        return self._brought(found, prepared.model.means if about is None else about)

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
        there = self.of(x)
        found = there.accumulate_given(
            x, weight, structure, there.own(about), labels=labels, resp=resp
        )
        return self._brought(found, about)

    def score_samples(self, prepared: _Prepared, x: Array) -> Array:
        there = self.of(x)
        return there.score_samples(prepared.parts[there], x)

    def predict(self, prepared: _Prepared, x: Array) -> Array:
        there = self.of(x)
        return there.predict(prepared.parts[there], x)

    def responsibilities(self, prepared: _Prepared, x: Array, *, log: bool = False) -> Array:
        there = self.of(x)
        return there.responsibilities(prepared.parts[there], x, log=log)

    def weighted_log_prob(self, prepared: _Prepared, x: Array) -> Array:
        there = self.of(x)
        return there.weighted_log_prob(prepared.parts[there], x)

    def summarise(self, x: Array) -> FeatureSummary:
        found = self.of(x).summarise(x)
        fields = (found.mean, found.variance, found.minimum, found.maximum)
        return FeatureSummary(found.n_rows, *map(self.own, fields))

    def kmeans_step(
        self, x: Array, weight: Array | None, centroids: Array, guess: Array | None = None
    ) -> KMeansStep:
        there = self.of(x)
        step = there.kmeans_step(x, weight, there.own(centroids), guess)
        return KMeansStep(
            step.labels, self.own(step.counts), self.own(step.sums), self._number(step.inertia)
        )

    def closest(self, x: Array, point: Array, closest: Array | None) -> Array:
        there = self.of(x)
        return there.closest(x, there.own(point), closest)

    def potentials(
        self, x: Array, weight: Array | None, candidates: Array, closest: Array
    ) -> Array:
        there = self.of(x)
        return self.own(there.potentials(x, weight, there.own(candidates), closest))
