"""Standard normal rows turned into rows of the components of mixtures."""

from __future__ import annotations

import triton
import triton.language as tl

from .jit import kernel
from .tile import block_of


@kernel
def _colour_rows(
    p_noise, p_label, p_mean, p_factor, p_out,
    n_rows, n_draws, n_components, n_features, s_fb, s_fk, s_fi,
    FULL: tl.constexpr, B_N: tl.constexpr, B_D: tl.constexpr,
):  # fmt: skip
    o_n = tl.program_id(0).to(tl.int64) * B_N + tl.arange(0, B_N)  # (B_N,)
    o_d = tl.program_id(1) * B_D + tl.arange(0, B_D)  # (B_D,)
    m_n = o_n < n_rows
    m = m_n[:, None] & (o_d < n_features)[None, :]
    b = o_n // n_draws
    k = tl.load(p_label + o_n, mask=m_n, other=0)
    out = tl.load(
        p_mean + ((b * n_components + k) * n_features)[:, None] + o_d[None, :], mask=m, other=0.0
    )
    p_own = p_factor + (b * s_fb + k * s_fk)[:, None] + o_d[None, :]  # (B_N, B_D)
    if FULL:
        # Lower triangular: what comes after the block does not matter.
        for i in range(tl.minimum((tl.program_id(1) + 1) * B_D, n_features)):
            z = tl.load(p_noise + o_n * n_features + i, mask=m_n, other=0.0)
            f = tl.load(p_own + i * s_fi, mask=m & (o_d >= i)[None, :], other=0.0)
            out += f * z[:, None]
    else:
        p_z = p_noise + o_n[:, None] * n_features + o_d[None, :]
        out += tl.load(p_own, mask=m, other=0.0) * tl.load(p_z, mask=m, other=0.0)
    tl.store(p_out + o_n[:, None] * n_features + o_d[None, :], out, mask=m)


def colour_rows(noise, labels, means, factors, out, *, launch):
    """out[b, s] = means[b, k] + factors[b, k] noise[b, s], with k = labels[b, s].

    noise, out (B, S, D), labels (B, S) int64 and means (B, K, D) are contiguous. Factors are lower
    triangles (B, K, D, D) with contiguous columns, or diagonals (B, K, D) with contiguous entries;
    a shared one has 1 in place of K.
    """
    n_mixtures, n_draws, n_features = noise.shape
    n_rows, full = n_mixtures * n_draws, factors.ndim == 4
    s_fk = factors.stride(1) if factors.shape[1] > 1 else 0
    b_d = block_of(triton.next_power_of_2(n_features), launch.features)
    _colour_rows[(triton.cdiv(n_rows, launch.rows), triton.cdiv(n_features, b_d))](
        noise, labels, means, factors, out,
        n_rows, n_draws, means.shape[1], n_features,
        factors.stride(0), s_fk, factors.stride(3) if full else 0,
        full, launch.rows, b_d,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip
