"""Log-probabilities of components with one variance each, on the matrix unit.

Of rows z and means m, both relative to the centre of the mixture,

    |z - m|^2 = |z|^2 - 2 z.m + |m|^2,

with z.m a product, in blocks of features. What is rounded is of the size of s = |z|^2 + |m|^2, so
the error is about c u s, with u the unit of the product's precision (2^-22 for 3xTF32, the rounding
unit for float64) and c about 2. The blocks are taken off one by one: the matrix unit cuts off
digits of what it adds to, and c would grow with D. The relative error stays below 4 c u where

    s <= 4 |z - m|^2,

which is tested for every pair. A component that fails for a row is evaluated by differences for all
rows of the tile. Such components are more than about sqrt(3 D / 2) standard deviations from the
centre, and fail where their own rows are: of clusters far apart as many per tile as its rows have
labels. The bound is relative to the square, so it serves far components, callers who want every
log-probability, and k-means, whose squares have no scale of their own.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .jit import kernel
from .online import any_row, first_of, fold_block, slack_of, start_of, within_reach
from .tile import blocks_of, lines_of

# |z|^2 + |m|^2 by |z - m|^2 at most.
RATIO = 4.0
# By precision, what is taken off |z|^2 + |m|^2 for a lower bound: some units of the product.
_MARGINS = {"tf32x3": 2.0**-18, "bf16x3": 2.0**-11, "tf32": 2.0**-6, "ieee": 2.0**-18}


@triton.jit
def _rows(p_z, o_n, o_d, s_z):
    """Features o_d of rows o_n, (B_N, B_D)."""
    return tl.load(p_z + o_d.to(tl.int64)[None, :] * s_z + o_n[:, None])


@triton.jit
def _columns(p_mean, o_d, o_k, n_padded):
    """Features o_d of means o_k, (B_D, B_K)."""
    p = p_mean + o_d.to(tl.int64)[:, None] * n_padded + o_k[None, :]
    return tl.load(p, mask=(o_k < n_padded)[None, :], other=0.0)


@kernel
def _expect_product(
    p_z, p_mean, p_factor, p_constant, p_square, p_reach, p_begin, p_weight,
    p_top, p_total, p_label, p_lp,
    n_rows, n_lines, n_components, n_padded, per_group, p_tallest, s_z, s_out, s_ln, s_lk,
    SKIP: tl.constexpr, EARLY: tl.constexpr, PRECISION: tl.constexpr,
    RATIO: tl.constexpr, MARGIN: tl.constexpr,
    D: tl.constexpr, B_N: tl.constexpr, B_K: tl.constexpr, B_D: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = p_z.dtype.element_ty
    i_group = tl.program_id(1)
    o_n = tl.program_id(0).to(tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
    m_n, m_l = o_n < n_rows, o_n < n_lines
    o_d = tl.arange(0, B_D)
    top = tl.full((B_N,), float("-inf"), dtype)
    total = tl.zeros((B_N,), dtype)
    label = tl.full((B_N,), 2147483647, tl.int32)
    if D == B_D:
        z = _rows(p_z, o_n, o_d, s_z)  # (B_N, D), held
        square = tl.sum(z * z, axis=1)
    else:
        square = tl.zeros((B_N,), dtype)
        for d in range(0, D, B_D):
            y = _rows(p_z, o_n, d + o_d, s_z)
            square += tl.sum(y * y, axis=1)
    if SKIP:
        slack = slack_of(p_weight, o_n, m_n, p_tallest, dtype)
        o_e = tl.arange(0, EARLY)
        z_e = _rows(p_z, o_n, o_e, s_z)
        square_e = tl.sum(z_e * z_e, axis=1)
    b_0 = i_group * per_group
    b_1 = tl.minimum(b_0 + per_group, tl.cdiv(n_padded, B_K))
    begin = b_0
    if p_begin is not None:
        begin = start_of(tl.load(p_begin + tl.program_id(0)) // B_K, b_0, b_1)
    for i in range(b_0, b_1):
        # Likely components first: what is skipped depends on the top so far.
        b = begin + i - b_0
        k_0 = tl.where(b < b_1, b, b - (b_1 - b_0)) * B_K
        o_k = k_0 + tl.arange(0, B_K)  # (B_K,)
        m_k = o_k < n_padded
        factor = tl.load(p_factor + o_k, mask=m_k, other=0.0)
        alive = True
        if SKIP:
            m_e = _columns(p_mean, o_e, o_k, n_padded)
            both = square_e[:, None] + tl.sum(m_e * m_e, axis=0)[None, :]
            product = tl.dot(z_e, m_e, input_precision=PRECISION, out_dtype=dtype)
            q_e = both * (1 - MARGIN) - 2 * product
            reach = tl.load(p_reach + o_k, mask=m_k, other=float("-inf"))
            near = within_reach(factor[None, :] * q_e, reach[None, :], top[:, None], slack[:, None])
            # Squares beyond the range of the precision say nothing.
            near |= q_e != q_e
            alive = any_row(m_n & (tl.max(near.to(tl.int32), axis=1) > 0))
        m_own = (o_k < n_components)[None, :]
        m_lp = m_l[:, None] & m_own
        if alive:
            square_k = tl.load(p_square + o_k, mask=m_k, other=0.0)
            q = square[:, None] + square_k[None, :]  # (B_N, B_K)
            if D == B_D:
                m = _columns(p_mean, o_d, o_k, n_padded)
                q -= 2 * tl.dot(z, m, input_precision=PRECISION, out_dtype=dtype)
            else:
                # Each block from 0: the matrix unit cuts off digits of what it adds to.
                for d in range(0, D, B_D):
                    y = _rows(p_z, o_n, d + o_d, s_z)
                    m = _columns(p_mean, d + o_d, o_k, n_padded)
                    q -= 2 * tl.dot(y, m, input_precision=PRECISION, out_dtype=dtype)
            exact = RATIO * q - square[:, None] >= square_k[None, :]
            wrong = tl.max((m_n[:, None] & (exact == 0)).to(tl.int32), axis=0)  # (B_K,)
            wrong = ((wrong > 0) | (square_k == float("inf"))) & (o_k < n_components)
            k = first_of(wrong, o_k)
            while k < n_padded:
                q_k = tl.zeros((B_N,), dtype)
                for d in range(0, D, B_D):
                    m_d = tl.load(p_mean + (d + o_d).to(tl.int64) * n_padded + k)
                    y = _rows(p_z, o_n, d + o_d, s_z) - m_d[None, :]
                    q_k += tl.sum(y * y, axis=1)
                q = tl.where((o_k == k)[None, :], q_k[:, None], q)
                k = first_of(wrong & (o_k > k), o_k)
            constant = tl.load(p_constant + o_k, mask=m_k, other=float("-inf"))
            lp = constant[None, :] - factor[None, :] * q
            lp = tl.where(lp == lp, lp, float("-inf"))
            top, total, label = fold_block(lp, k_0, top, total, label)
            if p_lp is not None:
                p = p_lp + o_k.to(tl.int64)[None, :] * s_lk + o_n[:, None] * s_ln
                tl.store(p, lp, mask=m_lp)
        elif p_lp is not None:
            nothing = tl.full((B_N, B_K), float("-inf"), dtype)
            p = p_lp + o_k.to(tl.int64)[None, :] * s_lk + o_n[:, None] * s_ln
            tl.store(p, nothing, mask=m_lp)
    o_out = i_group.to(tl.int64) * s_out + o_n
    tl.store(p_top + o_out, top)
    tl.store(p_total + o_out, total)
    tl.store(p_label + o_out, label)


def expect_product(z, n_rows, parameters, top, total, label, lp, *, skip, precision, launch):
    """As :func:`expect_spherical`, of one mixture, on the matrix unit; D' is 16 or more."""
    means = parameters.means
    width, n_padded = means.shape
    n_groups, n_rows_padded = top.shape
    b_k, b_d = blocks_of(n_padded, width, launch)
    per_group = triton.cdiv(triton.cdiv(n_padded, b_k), n_groups)
    begin, weight = (None, None) if skip is None else skip
    margin = _MARGINS[precision] if z.itemsize == 4 else 2.0**-46
    _expect_product[(n_rows_padded // launch.rows, n_groups)](
        z, means, parameters.factors, parameters.constants, parameters.squares, parameters.reach,
        begin, weight, top, total, label, lp,
        n_rows, lines_of(lp), parameters.n_components, n_padded, per_group, parameters.tallest,
        z.stride(1), top.stride(0), *((0, 0) if lp is None else lp.stride()),
        skip is not None, launch.early, precision, RATIO, margin,
        width, launch.rows, b_k, b_d,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip
