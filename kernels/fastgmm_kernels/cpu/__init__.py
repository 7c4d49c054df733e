"""Numba kernels: passes over rows for every covariance structure, float32 and float64."""

from .kmeans import candidate_potentials, kmeans_step, update_closest
from .score import per_component, predict, score_samples
from .statistics import accumulate, accumulate_given, accumulate_shared
from .summary import summarise

__all__ = [
    "accumulate",
    "accumulate_given",
    "accumulate_shared",
    "candidate_potentials",
    "kmeans_step",
    "per_component",
    "predict",
    "score_samples",
    "summarise",
    "update_closest",
]
