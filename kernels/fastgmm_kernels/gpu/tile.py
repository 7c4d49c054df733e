"""A chunk of rows as the other kernels read it: centred, whitened, padded with zeros."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _load_rows(
    p_x, p_order, p_centre, p_whiten, p_z, n_rows, n_features, width,
    s_xn, s_xd, s_zn, s_zd,
    PRODUCT: tl.constexpr, PRECISION: tl.constexpr, B_N: tl.constexpr, B_D: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = p_z.dtype.element_ty
    o_n = tl.program_id(0).to(tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
    m_n = o_n < n_rows
    i_n = o_n
    if p_order is not None:
        i_n = tl.load(p_order + o_n, mask=m_n, other=0).to(tl.int64)
    j_d = tl.program_id(1)
    o_d = (j_d * B_D + tl.arange(0, B_D)).to(tl.int64)  # (B_D,)
    if PRODUCT:
        z = tl.zeros((B_N, B_D), dtype)
        # The factor is lower triangular: features beyond the block do not matter.
        for i in range(j_d + 1):
            o_i = (i * B_D + tl.arange(0, B_D)).to(tl.int64)
            m_x = m_n[:, None] & (o_i < n_features)[None, :]
            x = tl.load(p_x + i_n[:, None] * s_xn + o_i[None, :] * s_xd, mask=m_x, other=0.0)
            c = tl.load(p_centre + o_i)
            x = tl.where(m_x, x.to(dtype) - c[None, :], 0.0)
            w = tl.load(p_whiten + o_d[None, :] * width + o_i[:, None])  # (B_D, B_D)
            z = tl.dot(x, w, z, input_precision=PRECISION, out_dtype=dtype)
    else:
        m_x = m_n[:, None] & (o_d < n_features)[None, :]
        x = tl.load(p_x + i_n[:, None] * s_xn + o_d[None, :] * s_xd, mask=m_x, other=0.0)
        z = tl.where(m_x, x.to(dtype) - tl.load(p_centre + o_d)[None, :], 0.0)  # (B_N, B_D)
        if p_whiten is not None:
            z *= tl.load(p_whiten + o_d)[None, :]
    tl.store(p_z + o_n[:, None] * s_zn + o_d[None, :] * s_zd, z)


def load_rows(x, order, centre, whiten, z, *, precision, launch):
    """z = whiten (x - centre), with zeros beyond the last row and feature.

    ``x`` (n, D) has any floating dtype and strides; ``order`` (n,) picks its rows, or is None;
    ``centre`` (D'); ``whiten`` is None, (D') or lower triangular (D', D'); ``z`` (R, D') has any
    strides, R a multiple of the tile and D' of its features.
    """
    n_rows, n_features = x.shape
    b_n, b_d = launch.rows, block_of(z.shape[1], launch.features)
    product = whiten is not None and whiten.ndim == 2
    _load_rows[(triton.cdiv(z.shape[0], b_n), z.shape[1] // b_d)](
        x, order, centre, whiten, z, n_rows, n_features, z.shape[1],
        *x.stride(), *z.stride(),
        product, precision, b_n, b_d,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip


def block_of(width, most):
    """The largest power of two that divides ``width`` and is at most ``most``."""
    return min(width & -width, most)
