"""Sums over rows by component, given responsibilities or hard labels.

With responsibilities r and points a_k: n_k = sum r, f_k = sum r (x - a_k) and S_k = sum r
(x - a_k)(x - a_k)' or its diagonal. Each program owns its places in the totals, which are float64
and persist over the chunks of a call: sums over up to ``flush`` tiles are in the precision of the
rows, then they are added to the totals. There are no atomics, so that equal input gives equal bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .jit import kernel
from .tile import block_of, mixture_strides

# Rows of the tiles for which it is known whether they say anything of a component.
TILE = 128
# Components that a program takes together; responsibilities are padded to a multiple of it.
UNROLL = 4


@triton.jit
def _active(
    p_active, p_label, t, k, n_rows, n_components,
    LABELS: tl.constexpr, C: tl.constexpr, B_N: tl.constexpr,
):  # fmt: skip
    """Whether a tile of rows says anything of components k to k + C - 1."""
    if LABELS:
        # Rows are in the order of their labels; those of a chunk are counted in 32 bits.
        least = tl.load(p_label + t * B_N)
        most = tl.load(p_label + tl.minimum((t + 1) * B_N, n_rows) - 1)
        found = (least < k + C) & (most >= k)
    else:
        i_t = tl.cast(t, tl.int64)
        bits = tl.load(p_active + i_t * n_components + k)
        for c in tl.static_range(1, C):
            bits |= tl.load(p_active + i_t * n_components + k + c)
        found = bits != 0
    return found


@triton.jit
def _share(
    p_resp, p_label, p_weight, o_n, k, n_rows, s_rk, LABELS: tl.constexpr, dtype: tl.constexpr
):
    """Responsibility times weight of rows (B_N,) for component k."""
    if LABELS:
        m_n = o_n < n_rows
        r = (tl.load(p_label + o_n, mask=m_n, other=-1) == k).to(dtype)
        if p_weight is not None:
            r *= tl.load(p_weight + o_n, mask=m_n, other=0.0)
    else:
        r = tl.load(p_resp + k * s_rk + o_n)
    return r


@kernel
def _moments_full(
    p_z, p_resp, p_label, p_weight, p_active, p_about, p_count, p_first, p_second,
    n_rows, n_components, n_tiles, per_split, flush, s_zn, s_zd, s_rk, s_zb, n_own, n_idle,
    LABELS: tl.constexpr, SKIP: tl.constexpr, PRECISION: tl.constexpr,
    D: tl.constexpr, TILE: tl.constexpr, B_N: tl.constexpr, B_D: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = p_z.dtype.element_ty
    k = tl.program_id(0).to(tl.int64)
    if s_zb is not None:
        # Mixtures one after the other: n_own components, then n_idle that fill up the group.
        i_b = k // n_own
        p_z += i_b * s_zb
        k += i_b * n_idle
    pair = tl.program_id(1)
    i = 0  # the lower triangle of blocks, line by line: pair = i (i + 1) / 2 + j
    for b in tl.static_range(1, D // B_D):
        i += (pair >= b * (b + 1) // 2).to(tl.int32)
    j = pair - i * (i + 1) // 2
    o_i = i * B_D + tl.arange(0, B_D)
    o_j = j * B_D + tl.arange(0, B_D)
    a_i = tl.load(p_about + k * D + o_i)
    a_j = tl.load(p_about + k * D + o_j)
    slot = tl.program_id(2).to(tl.int64) * n_components + k
    p_out = p_second + slot * D * D + o_i[:, None] * D + o_j[None, :]
    t_0 = tl.program_id(2) * per_split
    t_1 = tl.minimum(t_0 + per_split, n_tiles)
    for start in range(t_0, t_1, flush):
        count = tl.zeros((B_N,), dtype)
        first = tl.zeros((B_N, B_D), dtype)
        sums = tl.zeros((B_D, B_D), dtype)
        for t in range(start, tl.minimum(start + flush, t_1)):
            alive = True
            if SKIP:
                tile = t * B_N // TILE
                alive = _active(p_active, p_label, tile, k, n_rows, n_components, LABELS, 1, TILE)
            if alive:
                o_n = tl.cast(t, tl.int64) * B_N + tl.arange(0, B_N)
                r = _share(p_resp, p_label, p_weight, o_n, k, n_rows, s_rk, LABELS, dtype)
                d_i = tl.load(p_z + o_n[:, None] * s_zn + o_i[None, :] * s_zd) - a_i[None, :]
                d_j = d_i  # (B_N, B_D)
                if D > B_D:
                    d_j = tl.load(p_z + o_n[:, None] * s_zn + o_j[None, :] * s_zd) - a_j[None, :]
                d_i *= r[:, None]
                count += r
                first += d_i
                sums = tl.dot(tl.trans(d_i), d_j, sums, input_precision=PRECISION, out_dtype=dtype)
        tl.store(p_out, tl.load(p_out) + sums.to(tl.float64))
        if j == 0:
            p_f = p_first + slot * D + o_i
            tl.store(p_f, tl.load(p_f) + tl.sum(first.to(tl.float64), axis=0))
            if i == 0:
                p_n = p_count + slot
                tl.store(p_n, tl.load(p_n) + tl.sum(count.to(tl.float64), axis=0))


@kernel
def _moments_diag(
    p_z, p_resp, p_label, p_weight, p_active, p_about, p_count, p_first, p_second,
    n_rows, n_components, n_tiles, per_split, flush, width, s_zn, s_zd, s_rk, s_zb, n_groups,
    SECOND: tl.constexpr, LABELS: tl.constexpr, SKIP: tl.constexpr,
    C: tl.constexpr, B_N: tl.constexpr, B_D: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = p_z.dtype.element_ty
    k_0 = tl.program_id(0).to(tl.int64) * C
    if s_zb is not None:
        p_z += (tl.program_id(0) // n_groups).to(tl.int64) * s_zb
    i_d = tl.program_id(1)
    o_d = i_d * B_D + tl.arange(0, B_D)  # (B_D,)
    slot = tl.program_id(2).to(tl.int64) * n_components + k_0
    a = ()
    for c in tl.static_range(C):
        a = a + (tl.load(p_about + (k_0 + c) * width + o_d)[:, None],)
    t_0 = tl.program_id(2) * per_split
    t_1 = tl.minimum(t_0 + per_split, n_tiles)
    for start in range(t_0, t_1, flush):
        count, first, second = (), (), ()
        for _ in tl.static_range(C):
            count = count + (tl.zeros((B_N,), dtype),)
            first = first + (tl.zeros((B_D, B_N), dtype),)
            second = second + (tl.zeros((B_D, B_N), dtype),)
        for t in range(start, tl.minimum(start + flush, t_1)):
            alive = True
            if SKIP:
                alive = _active(p_active, p_label, t, k_0, n_rows, n_components, LABELS, C, B_N)
            if alive:
                o_n = tl.cast(t, tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
                z = tl.load(p_z + o_n[None, :] * s_zn + o_d[:, None] * s_zd)  # (B_D, B_N)
                n_sum, f_sum, s_sum = (), (), ()
                for c in tl.static_range(C):
                    r = _share(p_resp, p_label, p_weight, o_n, k_0 + c, n_rows, s_rk, LABELS, dtype)
                    d = z - a[c]
                    rd = d * r[None, :]
                    n_sum = n_sum + (count[c] + r,)
                    f_sum = f_sum + (first[c] + rd,)
                    s_sum = s_sum + ((second[c] + rd * d) if SECOND else second[c],)
                count, first, second = n_sum, f_sum, s_sum
        for c in tl.static_range(C):
            if i_d == 0:
                p_n = p_count + slot + c
                tl.store(p_n, tl.load(p_n) + tl.sum(count[c].to(tl.float64), axis=0))
            p_f = p_first + (slot + c) * width + o_d
            tl.store(p_f, tl.load(p_f) + tl.sum(first[c].to(tl.float64), axis=1))
            if SECOND:
                p_s = p_second + (slot + c) * width + o_d
                tl.store(p_s, tl.load(p_s) + tl.sum(second[c].to(tl.float64), axis=1))


def moments(
    z,
    n_rows,
    n_components,
    about,
    totals,
    *,
    resp,
    active,
    labels,
    weight,
    skip,
    precision,
    launches,
):
    """Add the moments of a chunk to the totals of a call.

    ``z`` (R, D') holds the centred rows, any strides; ``about`` (K', D') the points. The shares of
    the rows are given by ``resp`` (K', R), weights included, with ``active`` (T, K') from
    :func:`respond`; or by ``labels`` (n,) int32 in ascending order and ``weight`` (n,) or None.
    ``totals`` are zeroed before the first chunk: counts (S, K'), first (S, K', D') and second
    (S, K', D', D'), lower triangle alone, or (S, K', D'), or None; float64, in S parts of the rows.
    ``skip`` leaves out tiles that say nothing of a component.
    For many mixtures at once ``z`` is (B, R, D'), and K' counts the components of all of them, one
    mixture after the other; ``n_components`` those of one; nothing is skipped.
    """
    count, first, second = totals
    n_splits, n_padded, width = first.shape
    n_tiles = triton.cdiv(n_rows, TILE)
    by_label = labels is not None
    s_rk = 0 if by_label else resp.stride(0)
    shared = (z, resp, labels, weight, active, about)
    per_split = triton.cdiv(n_tiles, n_splits)
    many = z.ndim == 3
    n_mixtures = len(z) if many else 1
    (s_zb,) = mixture_strides(many, z)
    n_own = n_padded // n_mixtures
    full, diag = launches
    if second is not None and second.ndim == 4:
        b_d = block_of(width, full.features)
        n_blocks = width // b_d
        share = TILE // full.rows
        _moments_full[(n_mixtures * n_components, n_blocks * (n_blocks + 1) // 2, n_splits)](
            *shared, count, first, second,
            n_rows, n_padded, n_tiles * share, per_split * share, full.flush * share,
            *z.stride()[-2:], s_rk, s_zb,
            *((n_components, n_own - n_components) if many else (None, None)),
            by_label, skip, precision, width, TILE, full.rows, b_d,
            num_warps=full.warps, num_stages=full.stages,
        )  # fmt: skip
        return
    b_d = block_of(width, diag.features)
    _moments_diag[(n_padded // UNROLL, width // b_d, n_splits)](
        *shared, count, first, second,
        n_rows, n_padded, n_tiles, per_split, diag.flush, width, *z.stride()[-2:], s_rk,
        s_zb, n_own // UNROLL if many else None,
        second is not None, by_label, skip, UNROLL, TILE, b_d,
        num_warps=diag.warps, num_stages=diag.stages,
    )  # fmt: skip
