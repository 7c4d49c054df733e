"""Statistics of components with one variance each, by products of responsibilities and rows.

With responsibilities r, points a_k and the means m_k of the E-step:

    n_k = sum r,   f_k = sum r z,   t_k = sum r |z - m_k|^2.

The squares are those of the E-step, so the second moment costs nothing per feature: ``respond``
sums them over each tile, and here they are added up. The first moment about a_k is f_k - n_k a_k,
which cancels: its error is about u n_k |a_k|, with u the unit of the product. For components with
|a_k|^2 beyond 64 D sigma_k^2 the sum is of z - a_k, with n_k a_k added in float64; so no mean is
off by more than some 10 u sigma_k per feature.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .jit import kernel
from .online import any_row, first_of
from .statistics import TILE
from .tile import blocks_of

# |a_k|^2 / (2 sigma_k^2) at most, per feature.
LIMIT = 32.0


@kernel
def _moments_product(
    p_z, p_resp, p_spread, p_active, p_about, p_factor, p_count, p_first, p_trace,
    n_padded, n_tiles, per_split, flush, s_z, s_rk,
    SKIP: tl.constexpr, PRECISION: tl.constexpr, LIMIT: tl.constexpr, D: tl.constexpr,
    TILE: tl.constexpr, B_N: tl.constexpr, B_K: tl.constexpr, B_D: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = p_z.dtype.element_ty
    o_k = tl.program_id(0) * B_K + tl.arange(0, B_K)  # (B_K,)
    m_k = o_k < n_padded
    i_k = o_k.to(tl.int64)
    o_d = tl.program_id(1) * B_D + tl.arange(0, B_D)  # (B_D,)
    i_d = o_d.to(tl.int64)
    slot = tl.program_id(2).to(tl.int64) * n_padded
    square = tl.zeros((B_K,), dtype)
    for d in range(0, D, B_D):
        a = tl.load(
            p_about + i_k[:, None] * D + (d + tl.arange(0, B_D))[None, :],
            mask=m_k[:, None], other=0.0,
        )  # fmt: skip
        square += tl.sum(a * a, axis=1)
    near = square * tl.load(p_factor + o_k, mask=m_k, other=0.0) <= LIMIT * D
    far = m_k & (near == 0)
    t_0 = tl.program_id(2) * per_split
    t_1 = tl.minimum(t_0 + per_split, n_tiles)
    for start in range(t_0, t_1, flush):
        sums = tl.zeros((B_K, B_D), dtype)
        count = tl.zeros((B_K,), dtype)
        trace = tl.zeros((B_K,), tl.float64)
        for t in range(start, tl.minimum(start + flush, t_1)):
            i_t = tl.cast(t, tl.int64)
            alive = True
            if SKIP:
                active = tl.load(p_active + i_t * n_padded + o_k, mask=m_k, other=0)
                alive = any_row(active > 0)
            if alive:
                trace += tl.load(p_spread + i_t * n_padded + o_k, mask=m_k, other=0.0)
                for n in range(0, TILE, B_N):
                    o_n = i_t * TILE + n + tl.arange(0, B_N)  # (B_N,)
                    r = tl.load(
                        p_resp + i_k[:, None] * s_rk + o_n[None, :], mask=m_k[:, None], other=0.0
                    )
                    z = tl.load(p_z + i_d[None, :] * s_z + o_n[:, None])  # (B_N, B_D)
                    sums = tl.dot(r, z, sums, input_precision=PRECISION, out_dtype=dtype)
                    count += tl.sum(r, axis=1)
        p = p_first + (slot + i_k)[:, None] * D + i_d[None, :]
        m = (m_k & (far == 0))[:, None]
        tl.store(p, tl.load(p, mask=m, other=0.0) + sums.to(tl.float64), mask=m)
        if tl.program_id(1) == 0:
            p_n, p_t = p_count + slot + o_k, p_trace + slot + o_k
            tl.store(p_n, tl.load(p_n, mask=m_k, other=0.0) + count.to(tl.float64), mask=m_k)
            tl.store(p_t, tl.load(p_t, mask=m_k, other=0.0) + trace, mask=m_k)
    k = first_of(far, o_k)
    while k < n_padded:
        i_one = tl.cast(k, tl.int64)
        a_k = tl.load(p_about + i_one * D + o_d)
        total = tl.zeros((B_D,), tl.float64)
        count_k = tl.zeros((B_N,), tl.float64)
        for t in range(t_0, t_1):
            i_t = tl.cast(t, tl.int64)
            alive = True
            if SKIP:
                alive = tl.load(p_active + i_t * n_padded + k) != 0
            if alive:
                for n in range(0, TILE, B_N):
                    o_n = i_t * TILE + n + tl.arange(0, B_N)
                    r = tl.load(p_resp + i_one * s_rk + o_n)
                    z = tl.load(p_z + i_d[None, :] * s_z + o_n[:, None]) - a_k[None, :]
                    total += tl.sum(z * r[:, None], axis=0)
                    count_k += r
        p_one = p_first + (slot + k) * D + o_d
        total += tl.sum(count_k, axis=0) * a_k
        tl.store(p_one, tl.load(p_one) + total)
        k = first_of(far & (o_k > k), o_k)


def moments_product(
    z, n_rows, about, factors, totals, *, resp, spread, active, skip, precision, launch
):
    """Add the moments of a chunk to the totals of a call.

    ``z`` (R, D') is feature-major, ``about`` (K', D') and ``factors`` (K') are 1 / (2 sigma_k^2).
    ``resp`` (K', R) has the weights of the rows, ``spread`` (T, K') and ``active`` (T, K') are from
    :func:`respond`. ``totals`` are counts (S, K'), first (S, K', D') and traces (S, K') about the
    means, float64, in S parts of the rows. ``skip`` leaves out tiles that say nothing.
    """
    count, first, trace = totals
    n_splits, n_padded, width = first.shape
    n_tiles = triton.cdiv(n_rows, TILE)
    b_k, b_d = blocks_of(n_padded, width, launch)
    _moments_product[(triton.cdiv(n_padded, b_k), width // b_d, n_splits)](
        z, resp, spread, active, about, factors, count, first, trace,
        n_padded, n_tiles, triton.cdiv(n_tiles, n_splits), launch.flush, z.stride(1),
        resp.stride(0),
        skip, precision, LIMIT, width, TILE, launch.rows, b_k, b_d,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip
