"""Numba kernels: passes over rows for every covariance structure, float32 and float64."""

from .kmeans import candidate_potentials, kmeans_step, update_closest
from .order import order_by_label
from .score import per_component, predict, score_samples
from .simd import REGISTER_BYTES
from .statistics import accumulate, accumulate_given, accumulate_shared
from .summary import remainders, summarise
from .tile import largest_tile, strip_rows

__all__ = [
    "REGISTER_BYTES",
    "accumulate",
    "accumulate_given",
    "accumulate_shared",
    "candidate_potentials",
    "kmeans_step",
    "largest_tile",
    "order_by_label",
    "per_component",
    "predict",
    "remainders",
    "score_samples",
    "strip_rows",
    "summarise",
    "update_closest",
]
