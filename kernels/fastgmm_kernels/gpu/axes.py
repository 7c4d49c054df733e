"""Log-probabilities of components that do not mix features: diagonal, and one variance each.

Rows lie in the lanes; a few components share each load of a feature.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .jit import kernel
from .online import any_row, fold, slack_of, start_of, within_reach, zeros
from .statistics import UNROLL
from .tile import lines_of, mixture_strides


@triton.jit
def _squares(q, z, p_mean, p_factor, DIAG: tl.constexpr, C: tl.constexpr):
    """Add a feature's squares for C components to the exponents."""
    result = ()
    for c in tl.static_range(C):
        y = z - tl.load(p_mean + c)
        if DIAG:
            y *= tl.load(p_factor + c)
        result = result + (q[c] + y * y,)
    return result


@triton.jit
def _exponent(q, p_factor, DIAG: tl.constexpr):
    """The exponent, given the sum of squares."""
    if not DIAG:
        q *= tl.load(p_factor)
    return q


@triton.jit
def _expect(
    p_z, p_mean, p_factor, p_constant, p_reach, p_begin, p_weight, p_top, p_total, p_label, p_lp,
    n_rows, n_components, n_padded, n_features, early, per_group, p_tallest,
    s_z, s_out, n_lines, s_ln, s_lk, s_zb, s_mb, s_fb, s_cb, s_ob, s_lb,
    SKIP: tl.constexpr, C: tl.constexpr, B_N: tl.constexpr,
    DIAG: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = p_z.dtype.element_ty
    i_group = tl.program_id(1)
    if s_zb is not None:  # many mixtures
        i_b = tl.program_id(2).to(tl.int64)
        p_z += i_b * s_zb
        p_mean += i_b * s_mb
        p_factor += i_b * s_fb
        p_constant += i_b * s_cb
        if p_lp is not None:
            p_lp += i_b * s_lb
    o_n = tl.program_id(0).to(tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
    m_n, m_l = o_n < n_rows, o_n < n_lines
    top = tl.full((B_N,), float("-inf"), dtype)
    total = tl.zeros((B_N,), dtype)
    label = tl.full((B_N,), 2147483647, tl.int32)
    if SKIP:
        slack = slack_of(p_weight, o_n, m_n, p_tallest, dtype)
    b_0 = i_group * per_group
    b_1 = tl.minimum(b_0 + per_group, n_padded // C)
    begin = b_0
    if p_begin is not None:
        begin = start_of(tl.load(p_begin + tl.program_id(0)) // C, b_0, b_1)
    for i in range(b_0, b_1):
        # Likely components first: what is skipped depends on the top so far.
        b = begin + i - b_0
        k = tl.where(b < b_1, b, b - (b_1 - b_0)) * C
        q = zeros(C, B_N, dtype)
        for d in range(early):
            z = tl.load(p_z + tl.cast(d, tl.int64) * s_z + o_n)  # (B_N,)
            q = _squares(q, z, p_mean + d * n_padded + k, p_factor + d * n_padded + k, DIAG, C)
        alive = True
        if SKIP:
            near = o_n < 0
            for c in tl.static_range(C):
                e = _exponent(q[c], p_factor + k + c, DIAG)
                near |= within_reach(e, tl.load(p_reach + k + c), top, slack)
            alive = any_row(m_n & near)
        if alive:
            for d in range(early, n_features):
                z = tl.load(p_z + tl.cast(d, tl.int64) * s_z + o_n)
                q = _squares(q, z, p_mean + d * n_padded + k, p_factor + d * n_padded + k, DIAG, C)
            for c in tl.static_range(C):
                lp = tl.load(p_constant + k + c) - _exponent(q[c], p_factor + k + c, DIAG)
                top, total, label = fold(lp, k + c, top, total, label)
                if p_lp is not None:
                    m_lp = m_l & (k + c < n_components)
                    tl.store(p_lp + tl.cast(k + c, tl.int64) * s_lk + o_n * s_ln, lp, mask=m_lp)
        elif p_lp is not None:
            nothing = tl.full((B_N,), float("-inf"), dtype)
            for c in tl.static_range(C):
                m_lp = m_l & (k + c < n_components)
                tl.store(p_lp + tl.cast(k + c, tl.int64) * s_lk + o_n * s_ln, nothing, mask=m_lp)
    o_out = i_group.to(tl.int64) * s_out + o_n
    if s_zb is not None:
        o_out += i_b * s_ob
    tl.store(p_top + o_out, top)
    tl.store(p_total + o_out, total)
    tl.store(p_label + o_out, label)


@kernel
def _expect_diag(
    p_z, p_mean, p_factor, p_constant, p_reach, p_begin, p_weight, p_top, p_total, p_label, p_lp,
    n_rows, n_components, n_padded, n_features, early, per_group, p_tallest,
    s_z, s_out, n_lines, s_ln, s_lk, s_zb, s_mb, s_fb, s_cb, s_ob, s_lb,
    SKIP: tl.constexpr, C: tl.constexpr, B_N: tl.constexpr,
):  # fmt: skip
    _expect(
        p_z, p_mean, p_factor, p_constant, p_reach, p_begin, p_weight, p_top, p_total, p_label,
        p_lp, n_rows, n_components, n_padded, n_features, early, per_group, p_tallest,
        s_z, s_out, n_lines, s_ln, s_lk, s_zb, s_mb, s_fb, s_cb, s_ob, s_lb, SKIP, C, B_N, True,
    )  # fmt: skip


@kernel
def _expect_spherical(
    p_z, p_mean, p_factor, p_constant, p_reach, p_begin, p_weight, p_top, p_total, p_label, p_lp,
    n_rows, n_components, n_padded, n_features, early, per_group, p_tallest,
    s_z, s_out, n_lines, s_ln, s_lk, s_zb, s_mb, s_fb, s_cb, s_ob, s_lb,
    SKIP: tl.constexpr, C: tl.constexpr, B_N: tl.constexpr,
):  # fmt: skip
    _expect(
        p_z, p_mean, p_factor, p_constant, p_reach, p_begin, p_weight, p_top, p_total, p_label,
        p_lp, n_rows, n_components, n_padded, n_features, early, per_group, p_tallest,
        s_z, s_out, n_lines, s_ln, s_lk, s_zb, s_mb, s_fb, s_cb, s_ob, s_lb, SKIP, C, B_N, False,
    )  # fmt: skip


def _launch(kernel, z, n_rows, n_features, parameters, top, total, label, lp, skip, launch):
    means, factors, constants = parameters.means, parameters.factors, parameters.constants
    n_padded, many = means.shape[-1], z.ndim == 3
    n_groups, n_rows_padded = top.shape[0], top.shape[-1]
    per_group = triton.cdiv(n_padded // UNROLL, n_groups)
    lp_strides = (0, 0) if lp is None else lp.stride()[-2:]
    begin, weight = (None, None) if skip is None else skip
    kernel[(n_rows_padded // launch.rows, n_groups, len(z) if many else 1)](
        z, means, factors, constants, parameters.reach, begin, weight, top, total, label, lp,
        n_rows, parameters.n_components, n_padded, n_features,
        n_features if skip is None else min(launch.early, n_features), per_group,
        parameters.tallest, z.stride(-1), top.stride(0), lines_of(lp), *lp_strides,
        *mixture_strides(many, z, means, factors, constants, top[0], lp),
        skip is not None, UNROLL, launch.rows,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip


def expect_diag(z, n_rows, n_features, parameters, top, total, label, lp, *, skip, launch):
    """As :func:`expect_full` for diagonal covariances.

    ``z`` (..., R, D') is feature-major, ``means`` are (..., D', K') and ``factors`` too.
    """
    _launch(_expect_diag, z, n_rows, n_features, parameters, top, total, label, lp, skip, launch)


def expect_spherical(z, n_rows, n_features, parameters, top, total, label, lp, *, skip, launch):
    """As :func:`expect_full` for one variance each.

    ``z`` (..., R, D') is feature-major, ``means`` are (..., D', K') and ``factors`` (..., K').
    """
    _launch(
        _expect_spherical, z, n_rows, n_features, parameters, top, total, label, lp, skip, launch
    )
