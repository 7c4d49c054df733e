"""Full covariances: the triangle of each factor, four features of a strip of rows at a time.

With A_k = U_k' / sqrt(2) (lower triangular) and y = A_k (z - m_k), log p_k = c_k - y'y. Factors
come in panels of four lines: panel p has 4 p + 4 columns of four entries, first those of column 0,
so that a pass reads them in order. The panels before it have 2 p (p + 1) columns.
"""

from __future__ import annotations

from .jit import inlined, kernel
from .simd import at, fma, in_panel, load_strip, store, strip_lanes, subtract, zero_strip
from .skip import settle, within_reach


@inlined
def four_features(z, means, factors, k, j, t):
    """Features j to j + 3 of factors[k] (z - means[k]) for the strip of rows at ``t``.

    The sums stay in registers over the inner product. The upper entries of the block on the
    diagonal are zero, and left out.
    """
    a = zero_strip(z)
    b, c, d = a, a, a
    p = j * (j + 4) // 8
    for i in range(j):
        x = subtract(load_strip(z, i, t), at(means, k, i))
        a, b = fma(x, in_panel(factors, k, p, 0), a), fma(x, in_panel(factors, k, p, 1), b)
        c, d = fma(x, in_panel(factors, k, p, 2), c), fma(x, in_panel(factors, k, p, 3), d)
        p += 1
    x = subtract(load_strip(z, j, t), at(means, k, j))
    a, b = fma(x, in_panel(factors, k, p, 0), a), fma(x, in_panel(factors, k, p, 1), b)
    c, d = fma(x, in_panel(factors, k, p, 2), c), fma(x, in_panel(factors, k, p, 3), d)
    x = subtract(load_strip(z, j + 1, t), at(means, k, j + 1))
    b = fma(x, in_panel(factors, k, p + 1, 1), b)
    c, d = fma(x, in_panel(factors, k, p + 1, 2), c), fma(x, in_panel(factors, k, p + 1, 3), d)
    x = subtract(load_strip(z, j + 2, t), at(means, k, j + 2))
    c, d = fma(x, in_panel(factors, k, p + 2, 2), c), fma(x, in_panel(factors, k, p + 2, 3), d)
    x = subtract(load_strip(z, j + 3, t), at(means, k, j + 3))
    return a, b, c, fma(x, in_panel(factors, k, p + 3, 3), d)


@kernel
def transform(z, means, factors, out, n):
    """out = factors[0] (z - means[0]), in whole strips of columns."""
    for t in range(0, n, strip_lanes(z)):
        for j in range(0, z.shape[0], 4):
            a, b, c, d = four_features(z, means, factors, 0, j, t)
            store(out, j, t, a)
            store(out, j + 1, t, b)
            store(out, j + 2, t, c)
            store(out, j + 3, t, d)


@kernel
def visit_full(
    z, means, factors, constants, reach, early, first, last, base, begin, end, state, out, masks
):
    """Log-probabilities of rows under components first <= k < last, where they may matter.

    In those strips of rows from ``begin`` to ``end`` of which component k may matter,
    out[k - base, t] = log(w_k p_k(row t)), and the bits of masks[k - base] are set; the others are
    left as they are. From feature ``early`` on it is tried whether the exponent so far settles a
    strip.
    """
    for k in range(first, last):
        mask, bit = masks[k - base], 1 << (begin // strip_lanes(z))
        for t in range(begin, end, strip_lanes(z)):
            q = zero_strip(z)
            alive = True
            for j in range(0, z.shape[0], 4):
                a, b, c, d = four_features(z, means, factors, k, j, t)
                q = fma(d, d, fma(c, c, fma(b, b, fma(a, a, q))))
                if j >= early or j + 4 == z.shape[0]:
                    alive = within_reach(state, t, q, reach[k])
                    if not alive:
                        break
            if alive:
                settle(q, constants, k, t, state, out, k - base)
                mask |= bit
            bit <<= 1
        masks[k - base] = mask
