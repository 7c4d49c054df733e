"""Mixtures of few rows each: triangular solves in place of tiles, and no factor is prepared.

As on the CPU (``fastgmm_kernels/cpu/few.py``): y = L^-1 (x - mu) and u = L^-T y are solved for each
(component, row), and with the weight w of the pair

    d/d mu = w u,   d/dx = -w u,   d/d L = w (tril u y' - diag 1 / L).

A program has one mixture, all its rows, and a group of its components. A block holds *lines*, which
are (component, row) pairs, by features; both solves go down the rows of the factor, which lie
contiguous in memory.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .jit import kernel


@triton.jit
def _solve(p_own, m_c, v, o_d, n_features, FULL: tl.constexpr):
    """y = L^-1 v (C, B_D) and -log|L| (C,)."""
    if FULL:
        height = tl.zeros((v.shape[0],), v.dtype)
        y = v  # the entries from j on still are those of v
        for j in range(n_features):
            p, m = p_own + j * n_features, m_c[:, None] & (o_d < j)[None, :]
            left = tl.load(p[:, None] + o_d[None, :], mask=m, other=0.0)  # of the diagonal
            pivot = tl.load(p + j, mask=m_c, other=1.0)
            here = (o_d == j)[None, :]
            y_j = tl.sum(tl.where(here, y, -left * y), axis=1) / pivot
            y = tl.where(here, y_j[:, None], y)
            height -= tl.log(pivot)
    else:
        m = m_c[:, None] & (o_d < n_features)[None, :]
        pivot = tl.load(p_own[:, None] + o_d[None, :], mask=m, other=1.0)
        y = v / pivot
        height = -tl.sum(tl.log(pivot), axis=1)
    return y, height


@triton.jit
def _log_prob(
    p_x, p_constant, p_mean, p_own, o_k, o_n, m_c, o_d, n_features, s_xn, s_xd, FULL: tl.constexpr
):
    """log w_k N(x; mu_k, L_k L_k') of lines (C,), and y (C, B_D)."""
    m = m_c[:, None] & (o_d < n_features)[None, :]
    # Rows of many mixtures may lie far apart.
    o_xn, o_xd = o_n.to(tl.int64) * s_xn, o_d.to(tl.int64) * s_xd
    x = tl.load(p_x + o_xn[:, None] + o_xd[None, :], mask=m, other=0.0)
    mean = tl.load(p_mean + (o_k * n_features)[:, None] + o_d[None, :], mask=m, other=0.0)
    y, height = _solve(p_own, m_c, x - mean, o_d, n_features, FULL)
    constant = tl.load(p_constant + o_k, mask=m_c, other=float("-inf"))
    lp = constant + height - 0.5 * tl.sum(y * y, axis=1)
    # Squares beyond the range of the precision may meet as inf - inf.
    return tl.where(lp == lp, lp, float("-inf")), y


@kernel
def _few_score(
    p_x, p_constant, p_mean, p_scale, p_out,
    n_rows, n_features, n_components, per_group, s_xb, s_xn, s_xd, s_sb, s_sk, s_out,
    FULL: tl.constexpr, B_K: tl.constexpr, B_N: tl.constexpr, B_D: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = p_x.dtype.element_ty
    b = tl.program_id(0).to(tl.int64)
    i_g = tl.program_id(1).to(tl.int64)
    o_c, o_d = tl.arange(0, B_K * B_N), tl.arange(0, B_D)
    o_n = o_c % B_N
    p_x += b * s_xb
    p_scale += b * s_sb
    p_mean += b * n_components * n_features
    p_constant += b * n_components
    top = tl.full((B_N,), float("-inf"), dtype)
    total = tl.zeros((B_N,), dtype)
    k_0 = i_g * per_group
    k_1 = tl.minimum(k_0 + per_group, n_components)
    for k in range(k_0, k_1, B_K):
        o_k = (k + o_c // B_N).to(tl.int64)
        m_c = (o_k < k_1) & (o_n < n_rows)
        p_own = p_scale + o_k * s_sk
        lp, _ = _log_prob(
            p_x, p_constant, p_mean, p_own, o_k, o_n, m_c, o_d, n_features, s_xn, s_xd, FULL
        )
        lp = tl.reshape(lp, (B_K, B_N))
        new = tl.maximum(top, tl.max(lp, axis=0))
        safe = tl.where(new > float("-inf"), new, 0.0)
        total = total * tl.exp(top - safe) + tl.sum(tl.exp(lp - safe[None, :]), axis=0)
        top = new
    norm = tl.where(total > 0, top + tl.log(total), top)
    o_n = tl.arange(0, B_N)
    tl.store(p_out + i_g * s_out + b * n_rows + o_n, norm, mask=o_n < n_rows)


@kernel
def _few_backward(
    p_x, p_upstream, p_norm, p_constant, p_mean, p_scale, p_dx, p_dweight, p_dmean, p_dscale,
    n_rows, n_features, n_components, per_group, s_xb, s_xn, s_xd, s_sb, s_sk, s_dx, s_ds,
    FULL: tl.constexpr, SHARED: tl.constexpr, B_K: tl.constexpr, B_N: tl.constexpr,
    B_D: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = p_x.dtype.element_ty
    b = tl.program_id(0).to(tl.int64)
    i_g = tl.program_id(1).to(tl.int64)
    o_c, o_d = tl.arange(0, B_K * B_N), tl.arange(0, B_D)
    o_n = o_c % B_N
    m_d = o_d < n_features
    p_x += b * s_xb
    p_scale += b * s_sb
    p_mean += b * n_components * n_features
    p_constant += b * n_components
    norm = tl.load(p_norm + b * n_rows + o_n, mask=o_n < n_rows, other=0.0)
    norm = tl.where(norm > float("-inf"), norm, 0.0)
    g = tl.load(p_upstream + b * n_rows + o_n, mask=o_n < n_rows, other=0.0)
    dx = tl.zeros((B_N, B_D), dtype)
    size = n_features * n_features if FULL else n_features
    if SHARED:
        # A set of sums for each program, which it alone adds to.
        p_dscale += i_g * s_ds + b * size
    else:
        p_dscale += b * n_components * size
    k_0 = i_g * per_group
    k_1 = tl.minimum(k_0 + per_group, n_components)
    for k in range(k_0, k_1, B_K):
        o_k = (k + o_c // B_N).to(tl.int64)
        m_c = (o_k < k_1) & (o_n < n_rows)
        p_own = p_scale + o_k * s_sk
        lp, y = _log_prob(
            p_x, p_constant, p_mean, p_own, o_k, o_n, m_c, o_d, n_features, s_xn, s_xd, FULL
        )
        w = g * tl.exp(lp - norm)  # (C,)
        y = tl.where((w != 0)[:, None], y, 0.0)
        u = w[:, None] * y
        o_b = (k + tl.arange(0, B_K)).to(tl.int64)  # (B_K,)
        m_b = o_b < k_1
        if FULL:
            for i in range(n_features):
                j = n_features - 1 - i
                p, m = p_own + j * n_features, m_c[:, None] & (o_d < j)[None, :]
                left = tl.load(p[:, None] + o_d[None, :], mask=m, other=0.0)
                pivot = tl.load(p + j, mask=m_c, other=1.0)
                here = (o_d == j)[None, :]
                u_j = tl.sum(tl.where(here, u, 0.0), axis=1) / pivot
                u = tl.where(here, u_j[:, None], u - left * u_j[:, None])
                ds = tl.where((o_d <= j)[None, :], u_j[:, None] * y, 0.0)
                ds -= tl.where(here, (w / pivot)[:, None], 0.0)
                _add_scale(
                    p_dscale + j * n_features, ds, o_b, m_b, o_d, m_d, size, k > k_0,
                    SHARED, B_K, B_N, B_D,
                )  # fmt: skip
        else:
            m = m_c[:, None] & m_d[None, :]
            pivot = tl.load(p_own[:, None] + o_d[None, :], mask=m, other=1.0)
            u /= pivot
            _add_scale(
                p_dscale, u * y - w[:, None] / pivot, o_b, m_b, o_d, m_d, size, k > k_0,
                SHARED, B_K, B_N, B_D,
            )  # fmt: skip
        lines = tl.reshape(u, (B_K, B_N, B_D))
        dx -= tl.sum(lines, axis=0)
        p = p_dmean + ((b * n_components + o_b) * n_features)[:, None] + o_d[None, :]
        tl.store(p, tl.sum(lines, axis=1), mask=m_b[:, None] & m_d[None, :])
        dweight = tl.sum(tl.reshape(w, (B_K, B_N)), axis=1)
        tl.store(p_dweight + b * n_components + o_b, dweight, mask=m_b)
    o_n = tl.arange(0, B_N)
    p = p_dx + i_g * s_dx + ((b * n_rows + o_n) * n_features)[:, None] + o_d[None, :]
    tl.store(p, dx, mask=(o_n < n_rows)[:, None] & m_d[None, :])


@triton.jit
def _add_scale(
    p, ds, o_b, m_b, o_d, m_d, size, again,
    SHARED: tl.constexpr, B_K: tl.constexpr, B_N: tl.constexpr, B_D: tl.constexpr,
):  # fmt: skip
    """Write what lines (C, B_D) say of a row of the factors; add it where components share one."""
    if SHARED:
        old = tl.load(p + o_d, mask=m_d & again, other=0.0)
        tl.store(p + o_d, old + tl.sum(ds, axis=0), mask=m_d)
    else:
        ds = tl.sum(tl.reshape(ds, (B_K, B_N, B_D)), axis=1)
        p_own = p + (o_b * size)[:, None] + o_d[None, :]
        tl.store(p_own, ds, mask=m_b[:, None] & m_d[None, :])


def _sizes(x, per_group, launch):
    """Components, rows and features of a block, and its warps."""
    b_n, b_d = (triton.next_power_of_2(n) for n in x.shape[1:])
    room = max(launch.rows * launch.features // (b_n * b_d), 1)
    b_k = min(room, triton.next_power_of_2(per_group))
    warps = b_k * b_n * b_d * x.element_size() // 1024
    return (b_k, b_n, b_d), min(max(warps, 1), launch.warps)


def _scale_strides(scale):
    return scale.stride(0), scale.stride(1) if scale.shape[1] > 1 else 0


def few_score(x, constants, means, scale, out, *, launch):
    """out[g, b, n] = log sum_k exp(constants_bk) |L_bk|^-1 exp(-|y|^2 / 2) over a group of k.

    ``x`` (B, N, D) has any strides, all others are contiguous: constants (B, K), means (B, K, D),
    ``scale`` lower triangles (B, K, D, D) or diagonals (B, K, D), with 1 in place of K where
    components share one; ``out`` (G, B, N).
    """
    n_mixtures, n_rows, n_features = x.shape
    n_groups, n_components = len(out), means.shape[1]
    per_group = triton.cdiv(n_components, n_groups)
    sizes, warps = _sizes(x, per_group, launch)
    _few_score[(n_mixtures, n_groups)](
        x, constants, means, scale, out, n_rows, n_features, n_components, per_group,
        *x.stride(), *_scale_strides(scale), out.stride(0), scale.ndim == 4, *sizes,
        num_warps=warps,
    )  # fmt: skip


def few_backward(x, upstream, norm, constants, means, scale, gradients, *, launch):
    """Gradients of sum_bn upstream_bn log p(x_bn), with ``norm`` (B, N) = log p(x).

    ``gradients`` are written: by x (G, B, N, D), by constants (B, K), by means (B, K, D), and by
    the scale: of its shape, or (G, B, 1, ...) where components share it. What has a dimension of G
    groups is to be summed over it.
    """
    n_mixtures, n_rows, n_features = x.shape
    dx, dweights, dmeans, dscale = gradients
    n_groups, n_components = len(dx), means.shape[1]
    per_group = triton.cdiv(n_components, n_groups)
    sizes, warps = _sizes(x, per_group, launch)
    _few_backward[(n_mixtures, n_groups)](
        x, upstream, norm, constants, means, scale, dx, dweights, dmeans, dscale,
        n_rows, n_features, n_components, per_group,
        *x.stride(), *_scale_strides(scale), dx.stride(0), dscale.stride(0),
        scale.ndim == 4, dscale.ndim > scale.ndim, *sizes,
        num_warps=warps,
    )  # fmt: skip
