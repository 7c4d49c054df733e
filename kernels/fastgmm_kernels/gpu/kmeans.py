"""k-means: squared distances from points; the potentials of k-means++ candidates.

The assignment itself is the pass of components with one variance each, and the sums of the rows of
each centroid are moments of hard labels.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .jit import kernel
from .online import zeros
from .statistics import UNROLL


@triton.jit
def _squared_distances(p_z, p_point, o_n, n_features, width, s_z, C: tl.constexpr):
    """|z - c|^2 of rows o_n for C points, a tuple of (B_N,)."""
    q = zeros(C, o_n.shape[0], p_z.dtype.element_ty)
    for d in range(n_features):
        z = tl.load(p_z + tl.cast(d, tl.int64) * s_z + o_n)
        sums = ()
        for c in tl.static_range(C):
            y = z - tl.load(p_point + c * width + d)
            sums = sums + (q[c] + y * y,)
        q = sums
    return q


@kernel
def _update_closest(p_z, p_point, p_closest, n_rows, n_features, width, s_z, B_N: tl.constexpr):
    o_n = tl.program_id(0).to(tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
    m_n = o_n < n_rows
    q = _squared_distances(p_z, p_point, o_n, n_features, width, s_z, 1)
    closest = tl.load(p_closest + o_n, mask=m_n, other=0.0)
    tl.store(p_closest + o_n, tl.minimum(closest, q[0]), mask=m_n)


def update_closest(z, n_features, point, closest, *, launch):
    """closest (n,) = min(closest, |z - point|^2), in place; ``z`` (R, D') is feature-major."""
    n_rows = len(closest)
    _update_closest[(triton.cdiv(n_rows, launch.rows),)](
        z, point, closest, n_rows, n_features, z.shape[1], z.stride(1), launch.rows,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip


@kernel
def _candidate_potentials(
    p_z, p_point, p_closest, p_weight, p_potential, n_rows, n_features, width, n_points, s_z,
    C: tl.constexpr, B_N: tl.constexpr,
):  # fmt: skip
    o_n = tl.program_id(0).to(tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
    m_n = o_n < n_rows
    c_0 = tl.program_id(1) * C
    q = _squared_distances(p_z, p_point + c_0 * width, o_n, n_features, width, s_z, C)
    closest = tl.load(p_closest + o_n, mask=m_n, other=0.0)
    v = m_n.to(tl.float64)
    if p_weight is not None:
        v = tl.load(p_weight + o_n, mask=m_n, other=0.0).to(tl.float64)
    for c in tl.static_range(C):
        total = tl.sum(v * tl.minimum(q[c], closest).to(tl.float64), axis=0)
        tl.store(p_potential + tl.program_id(0).to(tl.int64) * n_points + c_0 + c, total)


def candidate_potentials(z, n_features, points, closest, weight, potential, *, launch):
    """potential (T, C'): sum over each tile of v min(closest, |z - c|^2), float64.

    ``points`` (C', D') are padded to a multiple of UNROLL.
    """
    n_rows, n_points = len(closest), len(points)
    _candidate_potentials[(triton.cdiv(n_rows, launch.rows), n_points // UNROLL)](
        z, points, closest, weight, potential,
        n_rows, n_features, z.shape[1], n_points, z.stride(1), UNROLL, launch.rows,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip
