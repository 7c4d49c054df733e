"""Numba kernels: passes over rows for every covariance structure, float32 and float64."""

from .batched import batched_backward, batched_per_component, batched_score
from .colour import colour_rows
from .few import few_backward, few_score
from .kmeans import candidate_potentials, kmeans_step, update_closest
from .mixture import centre_mixture
from .order import order_by_label
from .products import product
from .score import per_component, predict, score_samples
from .simd import REGISTER_BYTES
from .statistics import accumulate, accumulate_given, accumulate_shared
from .summary import not_finite, summarise
from .tile import largest_tile, strip_rows
from .totals import join_totals
from .triangular import cholesky

__all__ = [
    "REGISTER_BYTES",
    "accumulate",
    "accumulate_given",
    "accumulate_shared",
    "batched_backward",
    "batched_per_component",
    "batched_score",
    "candidate_potentials",
    "centre_mixture",
    "cholesky",
    "colour_rows",
    "few_backward",
    "few_score",
    "join_totals",
    "kmeans_step",
    "largest_tile",
    "not_finite",
    "order_by_label",
    "per_component",
    "predict",
    "product",
    "score_samples",
    "strip_rows",
    "summarise",
    "update_closest",
]
