"""Many mixtures at once on the compiled CPU kernels, forward and backward.

Mixtures b < B come as ``constants`` (B, K), ``means`` (B, K, D) and ``factors``: full lower
triangles P (B, K, D, D), diagonals (B, K, D) or numbers (B, K), with

    lp_k(x) = constants_k - 1/2 |P_k (x - mu_k)|^2.

One triangle or diagonal that all components share has 1 in place of K.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastgmm.backends import sizes
from fastgmm.backends.finite import settled, usable
from fastgmm.backends.parameters import columns, pad, padded, panels, widen
from fastgmm.threads import threads
from fastgmm_kernels import cpu as kernels

Array = np.ndarray

_ROOT_HALF = np.sqrt(0.5)
# Below this a responsibility is 0 in the precision of the rows.
_UNDERFLOW = {np.dtype(np.float32): 104.0, np.dtype(np.float64): 746.0}


@dataclass(frozen=True, eq=False)
class Mixtures:
    """Parameters as the kernels take them, with a leading dimension of B mixtures.

    Where all components share a factor the rows are whitened by it, relative to ``centre``; else
    the rows are taken as they are, so that x - mu is rounded once.
    """

    shared: bool
    centre: Array
    whiten: Array
    means: Array
    factors: Array
    constants: Array
    raw_means: Array

    def arguments(self, part: slice) -> tuple[Array, ...]:
        """The arguments that all passes share, of some of the mixtures."""
        arrays = (self.centre, self.whiten, self.means, self.factors, self.constants)
        return tuple(array[part] for array in arrays)


def _pack(x: Array, constants: Array, means: Array, factors: Array) -> Mixtures:
    dtype, n_features = x.dtype, x.shape[2]
    n_mixtures, n_components = constants.shape
    shared = factors.ndim > 2 and factors.shape[1] < n_components
    centre = np.zeros((n_mixtures, 1, n_features), dtype)
    raw = means
    if shared or factors.ndim == 3:
        centre = means.mean(axis=1, keepdims=True).astype(dtype)
        raw = means.astype(np.float64) - centre
    whiten = np.empty((n_mixtures, 0, 0, 0), dtype)
    if shared:
        half = _ROOT_HALF * factors.astype(np.float64)
        if factors.ndim == 4:
            whiten = panels(half[:, 0], dtype)[:, None]
            inner = raw @ np.swapaxes(half[:, 0], 1, 2)
        else:
            whiten = pad(half[:, None], (3,), dtype)
            inner = raw * half
        packed = np.ones((n_mixtures, n_components), dtype)
    else:
        inner = means
        if factors.ndim == 4:
            flat = panels(_ROOT_HALF * factors.reshape(-1, n_features, n_features), dtype)
            packed = flat.reshape(n_mixtures, n_components, *flat.shape[1:])
        elif factors.ndim == 3:
            packed = pad(_ROOT_HALF * factors, (2,), dtype)
            # As in ``parameters.pack``: by the factor as it was rounded.
            inner = -raw * packed[..., :n_features].astype(np.float64)
        else:
            packed = np.ascontiguousarray(0.5 * factors**2, dtype)
    return Mixtures(
        shared,
        widen(centre, columns(n_features, dtype), dtype),
        whiten,
        pad(inner, (2,), dtype),
        packed,
        np.ascontiguousarray(constants, dtype),
        raw,
    )


def _tile(x: Array, n_components: int) -> int:
    """Rows per tile: no more than a mixture has, in whole strips."""
    needed = -(-x.shape[1] // 64) * 64
    return max(min(sizes.tile(x.shape[2], n_components, x.itemsize), needed), 64)


def _flops(x: Array, mixtures: Mixtures) -> float:
    cost = x.shape[2] ** 2 if mixtures.factors.ndim == 4 else 4 * x.shape[2]
    # However few its rows, a mixture takes a strip of them.
    rows = x.shape[0] * max(x.shape[1], 16)
    return float(rows) * mixtures.means.shape[1] * (cost + 30)


def score(x: Array, constants: Array, means: Array, factors: Array) -> Array:
    """log sum_k exp(lp_k(x)) of every row, (B, N).

    Parameters
    ----------
    x : ndarray of shape (B, N, D)
        float32 or float64, any strides.
    constants, means, factors : ndarray
        As the module says, of the dtype of ``x``.

    Returns
    -------
    log_likelihood : ndarray of shape (B, N)
    """
    return settled(_score, x, constants, means, factors)


def _score(x: Array, constants: Array, means: Array, factors: Array) -> Array:
    mixtures = _pack(x, constants, means, factors)
    n_components = means.shape[1]
    many = n_components > 2 * kernels.strip_rows(x.itemsize)
    early = sizes.EARLY if many and mixtures.factors.ndim == 4 else x.shape[2] + 4
    # All that is left out of a row's sum together is below rounding.
    half_ulp = np.finfo(x.dtype).eps / 2
    reach = mixtures.constants - np.log(half_ulp / n_components).astype(x.dtype)
    out = np.empty(x.shape[:2], x.dtype)
    kernels.batched_score(
        x,
        *mixtures.arguments(slice(None)),
        reach,
        early,
        _tile(x, 1),
        out,
        threads=threads(_flops(x, mixtures)),
    )
    return out


def per_component(x: Array, constants: Array, means: Array, factors: Array) -> Array:
    """lp_k(x) of every row and component, (B, N, K); arguments as for :func:`score`.

    Returns
    -------
    log_prob : ndarray of shape (B, N, K)
    """
    return settled(_per_component, x, constants, means, factors)


def _per_component(x: Array, constants: Array, means: Array, factors: Array) -> Array:
    mixtures = _pack(x, constants, means, factors)
    out = np.empty((*x.shape[:2], means.shape[1]), x.dtype)
    kernels.batched_per_component(
        x,
        *mixtures.arguments(slice(None)),
        np.full_like(mixtures.constants, np.inf),
        _tile(x, means.shape[1]),
        out,
        threads=threads(_flops(x, mixtures)),
    )
    return out


@dataclass(frozen=True, eq=False)
class Gradients:
    """Derivatives by each argument, of its shape and dtype; ``x`` is empty unless asked for."""

    x: Array
    constants: Array
    means: Array
    factors: Array


def backward(
    upstream: Array,
    x: Array,
    constants: Array,
    means: Array,
    factors: Array,
    *,
    with_x: bool = True,
    with_moments: bool = True,
) -> Gradients:
    """Gradients of sum_bn g_bn score_bn, or of sum_bnk G_bnk lp_k(x_bn).

    Responsibilities are computed again, tile by tile; one that underflows adds nothing.

    Parameters
    ----------
    upstream : ndarray of shape (B, N) or (B, N, K)
        g or G. A row with upstream 0 takes no part, whatever it holds.
    x, constants, means, factors : ndarray
        As for :func:`score`.
    with_x, with_moments : bool
        Whether the derivatives by x, and those by means and factors, are wanted; else they are
        empty and zero.

    Returns
    -------
    gradients : Gradients
    """
    keep, (x, constants, means, factors) = usable(upstream, x, constants, means, factors)
    mixtures = _pack(x, constants, means, factors)
    n_mixtures, n_rows, n_features = x.shape
    n_components, width = means.shape[1], padded(n_features)
    square = {4: (width, width), 3: (width,), 2: (width,)}[factors.ndim]
    lines = (0, 1) if mixtures.shared else (n_components, 0)
    wanted = min(max(n_rows // 4096, 1), -(-sizes.BLOCKS // max(n_mixtures, 1)))
    line_bytes = 8 * (n_components * (width + 1) + sum(lines) * int(np.prod(square)))
    splits = max(min(wanted, sizes.TOTAL_BYTES // line_bytes), 1)
    step = max(sizes.TOTAL_BYTES // (line_bytes * splits), 1)
    dx = np.empty(x.shape if with_x else (n_mixtures, 0, 0), x.dtype)
    others = (np.empty(a.shape, x.dtype) for a in (constants, means, factors))
    result = Gradients(dx, *others)
    given = upstream.ndim == 3
    reach = mixtures.constants + np.asarray(_UNDERFLOW[x.dtype], x.dtype)
    for start in range(0, n_mixtures, step):
        part = slice(start, min(start + step, n_mixtures))
        sets = (part.stop - start) * splits
        count = np.zeros((sets, n_components))
        first = np.zeros((sets, n_components, width))
        cross = np.zeros((sets, lines[0], *square))
        shared_cross = np.zeros((sets, lines[1], *square))
        weights = np.ascontiguousarray(upstream[part], x.dtype)
        kernels.batched_backward(
            x[part],
            np.empty((0, 0), x.dtype) if given else weights,
            weights if given else np.empty((0, 0, 0), x.dtype),
            *mixtures.arguments(part),
            reach[part],
            splits,
            _tile(x, n_components),
            with_x,
            with_moments,
            count,
            first,
            cross,
            shared_cross,
            dx[part],
            threads=threads(4 * _flops(x[part], mixtures)),
        )
        count, first, cross = (
            a.reshape(-1, splits, *a.shape[1:]).sum(axis=1)
            for a in (count, first, shared_cross if mixtures.shared else cross)
        )
        _derive(mixtures, part, factors[part], count, first, cross, result)
    for array in (result.x, result.constants, result.means, result.factors):
        array[~keep] = np.nan
    return result


def _derive(
    mixtures: Mixtures,
    part: slice,
    factors: Array,
    count: Array,
    first: Array,
    cross: Array,
    result: Gradients,
) -> None:
    """Turn sums into derivatives of some of the mixtures."""
    n_features = result.means.shape[2]
    sums = first[..., :n_features]
    result.constants[part] = count
    if factors.ndim == 2:
        result.means[part] = factors[..., None] ** 2 * sums
        result.factors[part] = -factors * cross[..., :n_features].sum(axis=2)
        return
    moments = cross[..., :n_features]
    if factors.ndim == 4:
        moments = moments[..., :n_features, :]
        result.means[part] = np.sqrt(2) * (sums[..., None, :] @ factors)[..., 0, :]
    else:
        result.means[part] = np.sqrt(2) * factors * sums
        if not mixtures.shared:
            # Zeros stand for what is not finite; NaN takes their place in the end.
            with np.errstate(invalid="ignore"):
                moments = moments / (_ROOT_HALF * factors)
    if mixtures.shared:
        # sum_k w y (x - mu_k)' = pull x' - sum_k (sum w y) mu_k'.
        raw = mixtures.raw_means[part]
        spec = "bki,bkj->bij" if factors.ndim == 4 else "bki,bki->bi"
        moments = moments - np.einsum(spec, sums, raw)[:, None]
    result.factors[part] = -np.sqrt(2) * (np.tril(moments) if factors.ndim == 4 else moments)


def colour(labels: Array, noise: Array, means: Array, factors: Array) -> Array:
    """means[b, k] + factors[b, k] noise[b, s] with k = labels[b, s], (B, S, D).

    Parameters
    ----------
    labels : ndarray of shape (B, S)
        int64.
    noise : ndarray of shape (B, S, D)
    means : ndarray of shape (B, K, D)
    factors : ndarray of shape (B, K, D, D) or (B, K, D)
        Lower triangular Cholesky factors of the covariances, or standard deviations; 1 in place
        of K where they are shared.

    Returns
    -------
    x : ndarray of shape (B, S, D)
    """
    out = np.empty(noise.shape, noise.dtype)
    cost = noise.shape[2] if factors.ndim == 4 else 2
    kernels.colour_rows(
        noise,
        np.ascontiguousarray(labels),
        np.ascontiguousarray(means),
        np.ascontiguousarray(factors),
        out,
        threads=threads(float(noise.size) * (cost + 4)),
    )
    return out
