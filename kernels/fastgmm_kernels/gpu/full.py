"""Log-probabilities of components with full covariances.

q = |A_k (z - m_k)|^2 with A_k lower triangular. z - m_k is formed before the product, block by
block of the features; blocks above the diagonal are left out.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .jit import kernel
from .online import any_row, fold, slack_of, start_of, within_reach
from .tile import block_of, lines_of, mixture_strides


@triton.jit
def _difference(p_z, p_mean, o_n, o_d, s_zn, s_zd):
    """z - m_k, (B_N, B_D)."""
    z = tl.load(p_z + o_n[:, None] * s_zn + o_d[None, :] * s_zd)
    return z - tl.load(p_mean + o_d)[None, :]


@triton.jit
def _factor(p_factor, o_j, o_i, width):
    """Lines o_j and columns o_i of A_k, transposed: columns are contiguous in memory."""
    return tl.load(p_factor + o_j[None, :] * width + o_i[:, None])


@kernel
def _expect_full(
    p_z, p_mean, p_factor, p_constant, p_reach, p_begin, p_weight, p_top, p_total, p_label, p_lp,
    n_rows, n_lines, n_components, per_group, p_tallest, s_zn, s_zd, s_out, s_ln, s_lk,
    s_zb, s_kb, s_ob, s_lb,
    SKIP: tl.constexpr, EARLY: tl.constexpr, PRECISION: tl.constexpr,
    D: tl.constexpr, B_N: tl.constexpr, B_D: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = p_z.dtype.element_ty
    i_group = tl.program_id(1)
    if s_zb is not None:  # many mixtures
        i_b = tl.program_id(2).to(tl.int64)
        first = i_b * s_kb
        p_mean += first * D
        p_factor += first * D * D
        p_constant += first
        p_z += i_b * s_zb
        if p_lp is not None:
            p_lp += i_b * s_lb
    o_n = tl.program_id(0).to(tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
    m_n, m_l = o_n < n_rows, o_n < n_lines
    o_d = tl.arange(0, B_D)
    top = tl.full((B_N,), float("-inf"), dtype)
    total = tl.zeros((B_N,), dtype)
    label = tl.full((B_N,), 2147483647, tl.int32)
    if D == B_D:
        z = tl.load(p_z + o_n[:, None] * s_zn + o_d[None, :] * s_zd)  # (B_N, D), held
    if SKIP:
        slack = slack_of(p_weight, o_n, m_n, p_tallest, dtype)
        o_e = tl.arange(0, EARLY)
        z_e = tl.load(p_z + o_n[:, None] * s_zn + o_e[None, :] * s_zd)
    k_0 = i_group * per_group
    k_1 = tl.minimum(k_0 + per_group, n_components)
    begin = k_0
    if p_begin is not None:
        begin = start_of(tl.load(p_begin + tl.program_id(0)), k_0, k_1)
    for i in range(k_0, k_1):
        # Likely components first: what is skipped depends on the top so far.
        k = begin + i - k_0
        k = tl.where(k < k_1, k, k - (k_1 - k_0))
        p_m = p_mean + tl.cast(k, tl.int64) * D
        p_a = p_factor + tl.cast(k, tl.int64) * D * D
        alive = True
        if SKIP:
            d_e = z_e - tl.load(p_m + o_e)[None, :]
            a_e = _factor(p_a, o_e, o_e, D)
            y_e = tl.dot(d_e, a_e, input_precision=PRECISION, out_dtype=dtype)
            q_e = tl.sum(y_e * y_e, axis=1)
            alive = any_row(m_n & within_reach(q_e, tl.load(p_reach + k), top, slack))
        if alive:
            if D == B_D:
                d = z - tl.load(p_m + o_d)[None, :]
                a = _factor(p_a, o_d, o_d, D)
                y = tl.dot(d, a, input_precision=PRECISION, out_dtype=dtype)  # (B_N, D)
                q = tl.sum(y * y, axis=1)
            else:
                q = tl.zeros((B_N,), dtype)
                for j in range(0, D, B_D):
                    y = tl.zeros((B_N, B_D), dtype)
                    for c in range(0, j + B_D, B_D):
                        d = _difference(p_z, p_m, o_n, c + o_d, s_zn, s_zd)
                        a = _factor(p_a, j + o_d, c + o_d, D)
                        y = tl.dot(d, a, y, input_precision=PRECISION, out_dtype=dtype)
                    q += tl.sum(y * y, axis=1)
            lp = tl.load(p_constant + k) - q
            # Products beyond the range of the precision may meet as inf - inf.
            lp = tl.where(lp == lp, lp, float("-inf"))
            top, total, label = fold(lp, k, top, total, label)
            if p_lp is not None:
                tl.store(p_lp + tl.cast(k, tl.int64) * s_lk + o_n * s_ln, lp, mask=m_l)
        elif p_lp is not None:
            nothing = tl.full((B_N,), float("-inf"), dtype)
            tl.store(p_lp + tl.cast(k, tl.int64) * s_lk + o_n * s_ln, nothing, mask=m_l)
    o_out = i_group.to(tl.int64) * s_out + o_n
    if s_zb is not None:
        o_out += i_b * s_ob
    tl.store(p_top + o_out, top)
    tl.store(p_total + o_out, total)
    tl.store(p_label + o_out, label)


@kernel
def _expect_small(
    p_z, p_mean, p_factor, p_constant, p_top, p_total, p_label, p_lp,
    n_lines, n_components, per_group, width, s_z, s_out, s_ln, s_lk,
    s_zb, s_kb, s_ob, s_lb,
    D: tl.constexpr, B_N: tl.constexpr,
):  # fmt: skip
    """As _expect_full for D <= 8: rows in lanes, no matrix unit."""
    dtype: tl.constexpr = p_z.dtype.element_ty
    i_group = tl.program_id(1)
    if s_zb is not None:  # many mixtures
        i_b = tl.program_id(2).to(tl.int64)
        first = i_b * s_kb
        p_mean += first * width
        p_factor += first * width * width
        p_constant += first
        p_z += i_b * s_zb
        if p_lp is not None:
            p_lp += i_b * s_lb
    o_n = tl.program_id(0).to(tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
    m_l = o_n < n_lines
    top = tl.full((B_N,), float("-inf"), dtype)
    total = tl.zeros((B_N,), dtype)
    label = tl.full((B_N,), 2147483647, tl.int32)
    z = ()
    for d in tl.static_range(D):
        z = z + (tl.load(p_z + d * s_z + o_n),)
    k_0 = i_group * per_group
    for k in range(k_0, tl.minimum(k_0 + per_group, n_components)):
        p_m = p_mean + tl.cast(k, tl.int64) * width
        p_a = p_factor + tl.cast(k, tl.int64) * width * width
        difference = ()
        for d in tl.static_range(D):
            difference = difference + (z[d] - tl.load(p_m + d),)
        q = tl.zeros((B_N,), dtype)
        for j in tl.static_range(D):
            y = tl.load(p_a + j * width) * difference[0]
            for i in tl.static_range(1, j + 1):
                y += tl.load(p_a + j * width + i) * difference[i]
            q += y * y
        lp = tl.load(p_constant + k) - q
        lp = tl.where(lp == lp, lp, float("-inf"))
        top, total, label = fold(lp, k, top, total, label)
        if p_lp is not None:
            tl.store(p_lp + tl.cast(k, tl.int64) * s_lk + o_n * s_ln, lp, mask=m_l)
    o_out = i_group.to(tl.int64) * s_out + o_n
    if s_zb is not None:
        o_out += i_b * s_ob
    tl.store(p_top + o_out, top)
    tl.store(p_total + o_out, total)
    tl.store(p_label + o_out, label)


def expect_full(
    z, n_rows, n_features, parameters, top, total, label, lp, *, skip, precision, launch
):
    """Per (group of components, row): largest log-probability, sum of exponentials, best label.

    ``z`` (R, D') is row-major, or feature-major for D <= 8. ``top``, ``total`` and ``label``
    (int32) are (G, R). ``lp`` (n, K), any strides, takes the log-probabilities, or is None.
    ``skip`` is None or (begin, weight): per tile the component to begin with (None: the first) and
    the rows' weights or None; it needs a D' above the launch's early features.
    For many mixtures at once arrays have a leading dimension of them, which is the second of the
    groups' arrays (G, B, R); then nothing is skipped.
    """
    means, factors, constants = parameters.means, parameters.factors, parameters.constants
    n_components, width = parameters.n_components, means.shape[-1]
    n_groups, n_padded, many = top.shape[0], top.shape[-1], z.ndim == 3
    per_group = triton.cdiv(n_components, n_groups)
    lp_strides = (0, 0) if lp is None else lp.stride()[-2:]
    own = mixture_strides(many, z, constants, top[0], lp)
    grid = (n_padded // launch.rows, n_groups, len(z) if many else 1)
    if z.stride(-2) == 1 and n_features <= 8:
        _expect_small[grid](
            z, means, factors, constants, top, total, label, lp,
            lines_of(lp), n_components, per_group, width, z.stride(-1), top.stride(0), *lp_strides,
            *own,
            n_features, launch.rows,
            num_warps=launch.warps,
        )  # fmt: skip
        return
    begin, weight = (None, None) if skip is None else skip
    _expect_full[grid](
        z, means, factors, constants, parameters.reach, begin, weight, top, total, label, lp,
        n_rows, lines_of(lp), n_components, per_group, parameters.tallest,
        *z.stride()[-2:], top.stride(0), *lp_strides, *own,
        skip is not None, launch.early, precision,
        width, launch.rows, block_of(width, launch.features),
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip
