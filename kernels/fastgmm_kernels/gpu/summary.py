"""Range, sum and squares of each feature in one read of the rows."""

from __future__ import annotations

import triton
import triton.language as tl

from .jit import kernel


@kernel
def _summarise(
    p_x, p_origin, p_out, n_rows, n_features, per_split, s_xn, s_xd, s_out,
    B_N: tl.constexpr, B_D: tl.constexpr,
):  # fmt: skip
    o_d = (tl.program_id(0) * B_D + tl.arange(0, B_D)).to(tl.int64)  # (B_D,)
    m_d = o_d < n_features
    origin = tl.load(p_origin + o_d, mask=m_d, other=0.0)
    total = tl.zeros((B_N, B_D), tl.float64)
    square = tl.zeros((B_N, B_D), tl.float64)
    low = tl.full((B_N, B_D), float("inf"), tl.float64)
    high = tl.full((B_N, B_D), float("-inf"), tl.float64)
    n_0 = tl.program_id(1).to(tl.int64) * per_split
    n_1 = tl.minimum(n_0 + per_split, n_rows)
    for n in range(n_0, n_1, B_N):
        o_n = n + tl.arange(0, B_N)
        m = (o_n < n_1)[:, None] & m_d[None, :]
        x = tl.load(p_x + o_n[:, None] * s_xn + o_d[None, :] * s_xd, mask=m, other=0.0)
        x = x.to(tl.float64)
        difference = tl.where(m, x - origin[None, :], 0.0)
        total += difference
        square += difference * difference
        low = tl.where(m, tl.minimum(low, x), low)
        high = tl.where(m, tl.maximum(high, x), high)
    p = p_out + tl.program_id(1) * n_features + o_d
    tl.store(p, tl.sum(total, axis=0), mask=m_d)
    tl.store(p + s_out, tl.sum(square, axis=0), mask=m_d)
    tl.store(p + 2 * s_out, tl.min(low, axis=0), mask=m_d)
    tl.store(p + 3 * s_out, tl.max(high, axis=0), mask=m_d)


def summarise(x, origin, out, *, launch):
    """out (4, S, D) float64: per part of the rows the sums of x - origin and of its squares, range.

    ``x`` (n, D) has any floating dtype and strides; ``origin`` (D,) is float64.
    """
    n_rows, n_features = x.shape
    n_splits = out.shape[1]
    _summarise[(triton.cdiv(n_features, launch.features), n_splits)](
        x, origin, out, n_rows, n_features, triton.cdiv(n_rows, n_splits), *x.stride(),
        out.stride(0), launch.rows, launch.features,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip
