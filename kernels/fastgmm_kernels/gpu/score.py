"""What a row says at last: log-likelihood and label, responsibilities."""

from __future__ import annotations

import triton
import triton.language as tl

from .jit import kernel
from .statistics import TILE
from .tile import mixture_strides

_BASE = tl.constexpr(81.0)


@kernel
def _combine(p_top, p_total, p_label, n_groups, s_out, B_N: tl.constexpr):
    o_n = tl.program_id(0).to(tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
    top, total, label = tl.load(p_top + o_n), tl.load(p_total + o_n), tl.load(p_label + o_n)
    for g in range(1, n_groups):
        o_g = tl.cast(g, tl.int64) * s_out + o_n
        top_g, total_g = tl.load(p_top + o_g), tl.load(p_total + o_g)
        # Groups are in the order of their components: the first wins a tie.
        label = tl.where(top_g > top, tl.load(p_label + o_g), label)
        new = tl.maximum(top, top_g)
        safe = tl.where(new > float("-inf"), new, 0.0)
        total = total * tl.exp(top - safe) + total_g * tl.exp(top_g - safe)
        top = new
    tl.store(p_top + o_n, top)
    tl.store(p_total + o_n, total)
    tl.store(p_label + o_n, label)


def combine(top, total, label, *, launch):
    """Join the groups of components, (G, R) each; the first line takes the result."""
    n_groups, n_padded = top.shape
    if n_groups > 1:
        _combine[(n_padded // launch.rows,)](
            top, total, label, n_groups, top.stride(0), launch.rows, num_warps=launch.warps
        )


@kernel
def _finish(p_top, p_total, p_label, p_norm, p_best, n_rows, s_norm, B_N: tl.constexpr):
    o_n = tl.program_id(0).to(tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
    m_n = o_n < n_rows
    if p_norm is not None:
        top, total = tl.load(p_top + o_n), tl.load(p_total + o_n)
        norm = tl.where(total > 0, top + tl.log(total), top)
        tl.store(p_norm + o_n * s_norm, norm.to(p_norm.dtype.element_ty), mask=m_n)
    if p_best is not None:
        # A row that no component reaches has no label.
        label = tl.load(p_label + o_n)
        found = tl.load(p_top + o_n) > float("-inf")
        tl.store(p_best + o_n, tl.where(found, label, -1).to(tl.int64), mask=m_n)


def finish(top, total, label, norm, best, *, launch):
    """norm (n,) = log p(x); best (n,) int64 = the label, -1 where all densities are 0."""
    n_rows = len(norm if norm is not None else best)
    _finish[(triton.cdiv(n_rows, launch.rows),)](
        top, total, label, norm, best, n_rows, 1 if norm is None else norm.stride(0), launch.rows,
        num_warps=launch.warps,
    )  # fmt: skip


@kernel
def _respond(
    p_lp, p_top, p_total, p_weight, p_threshold, p_active, p_spread, p_constant, p_factor,
    n_rows, n_components, n_padded, p_tallest, s_ln, s_lk, s_lb, s_ob, s_vb,
    LOG: tl.constexpr, WHOLE: tl.constexpr, B_N: tl.constexpr, B_K: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = p_top.dtype.element_ty
    if s_lb is not None:  # many mixtures
        b = tl.program_id(2).to(tl.int64)
        p_lp += b * s_lb
        p_top += b * s_ob
        p_total += b * s_ob
        p_weight += b * s_vb
    o_n = tl.program_id(0).to(tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
    o_k = tl.program_id(1).to(tl.int64) * B_K + tl.arange(0, B_K)  # (B_K,)
    top, total = tl.load(p_top + o_n), tl.load(p_total + o_n)
    safe = tl.where(top > float("-inf"), top, 0.0)
    m = (o_n < n_rows)[:, None] & (o_k < n_components)[None, :]  # (B_N, B_K)
    m_line = (o_k < n_components)[None, :] if WHOLE else m
    p = p_lp + o_n[:, None] * s_ln + o_k[None, :] * s_lk
    # Less the largest first: their sum may be too large to hold the differences.
    line = tl.where(m, tl.load(p, mask=m_line, other=0.0), float("-inf"))
    lp = line - safe[:, None]
    if LOG:
        shift = tl.where(total > 0, tl.log(total), 0.0)
        tl.store(p, lp - shift[:, None], mask=m)
    else:
        scale = tl.where(total > 0, 1.0 / total, 0.0)
        if not WHOLE:
            tl.store(p, tl.exp(lp) * scale[:, None], mask=m)
        else:
            if p_weight is not None:
                scale *= tl.load(p_weight + o_n, mask=o_n < n_rows, other=0.0)
            r = tl.exp(lp) * scale[:, None]
            if p_threshold is not None:
                bound = _BASE + 2 * (tl.load(p_tallest) - safe)
                threshold = tl.load(p_threshold + o_k, mask=o_k < n_padded, other=0.0)
                r = tl.where(r * bound[:, None] >= threshold[None, :], r, 0.0)
            # Beyond the last row and component too: the moments read whole tiles.
            tl.store(p, r.to(dtype), mask=(o_k < n_padded)[None, :])
            if p_spread is not None:
                m_k = o_k < n_padded
                height = tl.load(p_constant + o_k, mask=m_k, other=0.0)
                factor = tl.load(p_factor + o_k, mask=m_k, other=1.0)
                spread = tl.sum(tl.where(r > 0, r * (height[None, :] - line), 0.0), axis=0)
                p_s = p_spread + tl.program_id(0).to(tl.int64) * n_padded + o_k
                tl.store(p_s, tl.where(factor > 0, spread / factor, 0.0), mask=m_k)
            if p_active is not None:
                some = tl.max((r > 0).to(tl.int32), axis=0)
                p_a = p_active + tl.program_id(0).to(tl.int64) * n_padded + o_k
                tl.store(p_a, some, mask=o_k < n_padded)


def respond(lp, top, total, n_rows, n_components, *, log=False, moments=None, spread=None, launch):
    """Turn log-probabilities into responsibilities or their logarithms, in place.

    ``lp`` (n, K) has any strides. For moments it is (R, K') instead, and ``moments`` is (active,
    weight, thresholds, tallest): then responsibilities are multiplied by the rows' weights, what
    is below the thresholds (K') becomes 0, and active (T, K') int32 says which tile has any left.
    Of these all but the weights may be None, and then all may have a leading dimension of mixtures.
    ``spread`` is (sums, constants, factors) of components with one variance each, or None: then
    sums (T, K') take sum r |z - m_k|^2 over each tile, from the exponents.
    """
    active, weight, thresholds, tallest = (None,) * 4 if moments is None else moments
    n_padded = n_components if moments is None else lp.shape[-1]
    many = lp.ndim == 3
    grid = (triton.cdiv(n_rows, TILE), triton.cdiv(n_padded, launch.components))
    _respond[(*grid, len(lp) if many else 1)](
        lp, top, total, weight, thresholds, active, *(spread or (None, None, None)),
        n_rows, n_components, n_padded, tallest,
        *lp.stride()[-2:], *mixture_strides(many, lp, top, weight),
        log, moments is not None, TILE, launch.components,
        num_warps=launch.warps,
    )  # fmt: skip
