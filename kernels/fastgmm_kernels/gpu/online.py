"""The running log-sum-exp of a tile of rows, and the bound below which components are skipped.

As on the CPU (``fastgmm_kernels/cpu/skip.py``) a pair may be left out where

    q > reach_k - cut,   cut = top - log(B v),   B = 81 + 2 (tallest - top)

with q a part of the exponent, top the largest log-probability of the row so far and v its weight.
"""

from __future__ import annotations

import triton
import triton.language as tl

_LOG_BASE = tl.constexpr(4.394449154672439)  # log 81
_TANGENT = tl.constexpr(2 / 81)
# A weight below it would put its row beyond the reach of every component.
_LEAST_WEIGHT = tl.constexpr(1e-30)


@triton.jit
def zeros(n: tl.constexpr, b: tl.constexpr, dtype: tl.constexpr):
    """Tuple of n vectors (b,)."""
    result = ()
    for _ in tl.static_range(n):
        result = result + (tl.zeros((b,), dtype),)
    return result


@triton.jit
def fold(lp, k, top, total, label):
    """Take log-probabilities (B,) of component k into the largest, the sum and the best label."""
    # Components may be visited in any order; the first wins a tie.
    first = (lp > top) | ((lp == top) & (k < label))
    label = tl.where(first, k, label)
    higher = lp > top
    new = tl.where(higher, lp, top)
    low = tl.where(higher, top, lp)
    # A row that no component has reached: any finite reference will do.
    e = tl.exp(low - tl.where(new > float("-inf"), new, 0.0))
    total = tl.where(higher, total * e + 1.0, total + e)
    return new, total, label


@triton.jit
def fold_block(lp, k, top, total, label):
    """As :func:`fold` for a block (B_N, B_K) of components from k on."""
    best = tl.max(lp, axis=1)
    o_k = k + tl.arange(0, lp.shape[1])
    first = tl.min(tl.where(lp == best[:, None], o_k[None, :], 2147483647), axis=1)
    label = tl.where((best > top) | ((best == top) & (first < label)), first, label)
    new = tl.maximum(top, best)
    safe = tl.where(new > float("-inf"), new, 0.0)
    total = total * tl.exp(top - safe) + tl.sum(tl.exp(lp - safe[:, None]), axis=1)
    return new, total, label


@triton.jit
def start_of(likely, k_0, k_1):
    """The component or block to begin with: the likely one, where this group k_0 to k_1 has it."""
    return tl.where((likely >= k_0) & (likely < k_1), likely, k_0)


@triton.jit
def slack_of(p_weight, o_n, m_n, p_tallest, dtype: tl.constexpr):
    """What lies between the top and the cut of rows (B,), less the part that grows with the top."""
    slack = tl.zeros(o_n.shape, dtype) + _LOG_BASE + _TANGENT * tl.load(p_tallest)
    if p_weight is not None:
        v = tl.load(p_weight + o_n, mask=m_n, other=1.0).to(dtype)
        slack += tl.log(tl.maximum(v, _LEAST_WEIGHT))
    return slack


@triton.jit
def within_reach(q, reach, top, slack):
    """Rows (B,) that may still matter to a component, given a part of their exponents.

    Rows without a top have met no component: -inf for their cut lets all pass.
    """
    return q + (top * (1 + _TANGENT) - slack) <= reach


@triton.jit
def any_row(m):
    """Whether the mask (B,) holds for any row, as a scalar."""
    # Any order will do; to say so parts the layout of the mask from that of a product, whose
    # reduction to a number Triton 3.7 fails to compile for capability 100.
    return tl.max(tl.reshape(m.to(tl.int32), m.shape, can_reorder=True), axis=0) > 0


@triton.jit
def first_of(m, o_k):
    """The first of o_k (B_K,) for which the mask holds, as a number; a large one if there is none.

    See :func:`any_row` for the change of layout.
    """
    k = tl.where(m, o_k, 2147483647)
    return tl.min(tl.reshape(k, k.shape, can_reorder=True), axis=0)
