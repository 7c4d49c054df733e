"""Triton kernels: passes over chunks of rows for every covariance structure, float32 and float64.

Nothing here allocates, checks or chooses sizes; ``precision`` is what ``tl.dot`` calls
``input_precision``.
"""

from .axes import expect_diag, expect_spherical
from .colour import colour_rows
from .few import few_backward, few_score
from .full import expect_full
from .gradient import pull
from .kmeans import candidate_potentials, update_closest
from .product import input_precision, interpreted
from .score import combine, finish, respond
from .spherical import expect_product
from .statistics import TILE, UNROLL, moments
from .summary import summarise
from .tile import block_of, blocks_of, load_rows
from .trace import moments_product

__all__ = [
    "TILE",
    "UNROLL",
    "block_of",
    "blocks_of",
    "candidate_potentials",
    "colour_rows",
    "combine",
    "expect_diag",
    "expect_full",
    "expect_product",
    "expect_spherical",
    "few_backward",
    "few_score",
    "finish",
    "input_precision",
    "interpreted",
    "load_rows",
    "moments",
    "moments_product",
    "pull",
    "respond",
    "summarise",
    "update_closest",
]
