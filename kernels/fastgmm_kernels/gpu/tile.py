"""A chunk of rows as the other kernels read it: centred, whitened, padded with zeros."""

from __future__ import annotations

import triton
import triton.language as tl

from .jit import kernel


@kernel
def _load_rows(
    p_x, p_order, p_centre, p_whiten, p_z, n_rows, n_features, width,
    s_xn, s_xd, s_zn, s_zd, s_xb, s_zb, s_cb, s_wb,
    PRODUCT: tl.constexpr, PRECISION: tl.constexpr, B_N: tl.constexpr, B_D: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = p_z.dtype.element_ty
    if s_zb is not None:  # many mixtures
        b = tl.program_id(2).to(tl.int64)
        p_x += b * s_xb
        p_z += b * s_zb
        p_centre += b * s_cb
        if p_whiten is not None:
            p_whiten += b * s_wb
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
    strides, R a multiple of the tile and D' of its features. All but ``order`` may have a leading
    dimension of mixtures.
    """
    n_rows, n_features = x.shape[-2:]
    n_padded, width = z.shape[-2:]
    b_n, b_d = launch.rows, block_of(width, launch.features)
    many = z.ndim == 3
    product = whiten is not None and whiten.ndim == 2 + many
    _load_rows[(triton.cdiv(n_padded, b_n), width // b_d, len(z) if many else 1)](
        x, order, centre, whiten, z, n_rows, n_features, width,
        *x.stride()[-2:], *z.stride()[-2:], *mixture_strides(many, x, z, centre, whiten),
        product, precision if product else "ieee", b_n, b_d,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip


def mixture_strides(many, *arrays):
    """From one mixture to the next in each of the arrays; None for all where there is one alone."""
    return [a.stride(0) if many and a is not None else None for a in arrays]


def lines_of(lp):
    """Rows of an array of log-probabilities, which may be more than there are; 0 without one.

    Rows that fill whole tiles are written in vectors, because Triton knows it of their number.
    """
    return 0 if lp is None else lp.shape[-2]


def block_of(width, most):
    """The largest power of two that divides ``width`` and is at most ``most``."""
    return min(width & -width, most)


def blocks_of(n_padded, width, launch):
    """Components and features of a program, for K' and D'; the matrix unit takes 16 or more."""
    b_k = max(min(launch.components, triton.next_power_of_2(n_padded)), 16)
    return b_k, block_of(width, launch.features)
