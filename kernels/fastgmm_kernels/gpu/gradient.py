"""What weighted components pull back to the rows: the gradient of log-probabilities by x.

With weights w (upstream times responsibility) and precisions Q_k a row gets

    -sum_k w_k Q_k (z - m_k),

with z - m_k formed before the product. All other gradients are moments (``statistics.py``) under
the same weights, which may be negative. Mixtures are the last axis of the grid.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .jit import kernel
from .tile import block_of, mixture_strides


@kernel
def _pull_full(
    p_z, p_weight, p_point, p_precision, p_out,
    n_rows, n_features, n_components, s_zn, s_zd, s_wk, s_on, s_od, s_zb, s_wb, s_pb, s_qb, s_ob,
    PRECISION: tl.constexpr, D: tl.constexpr, B_N: tl.constexpr, B_D: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = p_z.dtype.element_ty
    b = tl.program_id(2).to(tl.int64)
    p_z += b * s_zb
    p_weight += b * s_wb
    p_point += b * s_pb
    p_precision += b * s_qb
    p_out += b * s_ob
    o_n = tl.program_id(0).to(tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
    o_d = tl.arange(0, B_D)
    o_j = tl.program_id(1) * B_D + o_d  # (B_D,)
    pull = tl.zeros((B_N, B_D), dtype)
    for k in range(n_components):
        i_k = tl.cast(k, tl.int64)
        w = tl.load(p_weight + i_k * s_wk + o_n)  # (B_N,)
        for i in range(0, D, B_D):
            z = tl.load(p_z + o_n[:, None] * s_zn + (i + o_d)[None, :] * s_zd)  # (B_N, B_D)
            d = (z - tl.load(p_point + i_k * D + i + o_d)[None, :]) * w[:, None]
            q = tl.load(p_precision + (i_k * D + i + o_d[:, None]) * D + o_j[None, :])
            pull = tl.dot(d, q, pull, input_precision=PRECISION, out_dtype=dtype)
    m = (o_n < n_rows)[:, None] & (o_j < n_features)[None, :]
    tl.store(p_out + o_n[:, None] * s_on + o_j[None, :] * s_od, -pull, mask=m)


@kernel
def _pull_diag(
    p_z, p_weight, p_point, p_precision, p_out,
    n_rows, n_features, n_components, width, s_zn, s_zd, s_wk, s_on, s_od,
    s_zb, s_wb, s_pb, s_qb, s_ob,
    B_N: tl.constexpr, B_D: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = p_z.dtype.element_ty
    b = tl.program_id(2).to(tl.int64)
    p_z += b * s_zb
    p_weight += b * s_wb
    p_point += b * s_pb
    p_out += b * s_ob
    if p_precision is not None:
        p_precision += b * s_qb
    o_n = tl.program_id(0).to(tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
    o_d = tl.program_id(1) * B_D + tl.arange(0, B_D)  # (B_D,)
    z = tl.load(p_z + o_n[None, :] * s_zn + o_d[:, None] * s_zd)  # (B_D, B_N)
    pull = tl.zeros((B_D, B_N), dtype)
    for k in range(n_components):
        i_k = tl.cast(k, tl.int64)
        w = tl.load(p_weight + i_k * s_wk + o_n)  # (B_N,)
        d = z - tl.load(p_point + i_k * width + o_d)[:, None]
        if p_precision is not None:
            d *= tl.load(p_precision + i_k * width + o_d)[:, None]
        pull += d * w[None, :]
    m = (o_n < n_rows)[None, :] & (o_d < n_features)[:, None]
    tl.store(p_out + o_n[None, :] * s_on + o_d[:, None] * s_od, -pull, mask=m)


def pull(z, weights, points, precisions, out, n_components, *, product, launch):
    """out (B, n, D) = -sum_k w_k Q_k (z - m_k), any strides.

    ``z`` (B, R, D') has any strides, R a multiple of the launch's rows; ``weights`` (B, K', R);
    ``points`` (B, K', D'); ``precisions`` are symmetric matrices (B, K', D', D'), diagonals
    (B, K', D'), or None for ones. ``product`` is the precision of products.
    """
    n_mixtures, n_rows, n_features = out.shape
    width = z.shape[-1]
    b_d = block_of(width, launch.features)
    own = mixture_strides(True, z, weights, points, precisions, out)
    grid = (triton.cdiv(n_rows, launch.rows), width // b_d, n_mixtures)
    strides = *z.stride()[1:], weights.stride(1), *out.stride()[1:]
    if precisions is not None and precisions.ndim == 4:
        _pull_full[grid](
            z, weights, points, precisions, out, n_rows, n_features, n_components, *strides, *own,
            product, width, launch.rows, b_d,
            num_warps=launch.warps, num_stages=launch.stages,
        )  # fmt: skip
        return
    _pull_diag[grid](
        z, weights, points, precisions, out, n_rows, n_features, n_components, width, *strides,
        *own, launch.rows, b_d,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip
