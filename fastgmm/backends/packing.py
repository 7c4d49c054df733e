"""A model as the GPU kernels take it: centred, scaled, padded, on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from fastgmm.arrays import is_tensor, to_tensor
from fastgmm.model import MixtureModel
from fastgmm_kernels import gpu as kernels

Tensor: TypeAlias = torch.Tensor

# Features up to which full covariances are evaluated without the matrix unit, rows in lanes.
SMALL = 8
_BLOCK = 64


def compute_dtype(dtype: Any) -> torch.dtype:
    """What rows of a NumPy or torch dtype are computed in: float64, or float32 for all others."""
    if not isinstance(dtype, torch.dtype):
        dtype = np.dtype(dtype)
    return torch.float64 if dtype.itemsize == 8 else torch.float32


def width_of(n_features: int, family: str) -> int:
    """D': a power of two up to the size of a block, then a multiple of blocks.

    The matrix unit takes blocks of 16 features or more.
    """
    least, block = (16, _BLOCK) if family == "full" else (1, 16)
    if n_features <= block:
        return max(1 << (n_features - 1).bit_length(), least)
    return -(-n_features // block) * block


def whole_components(n_components: int) -> int:
    """K': K rounded up to what a program takes together."""
    return -(-n_components // kernels.UNROLL) * kernels.UNROLL


def padded(array: Tensor, shape: tuple[int, ...], dtype: torch.dtype, fill: float = 0.0) -> Tensor:
    """A contiguous copy with ``fill`` appended to every axis."""
    result = torch.full(shape, fill, dtype=dtype, device=array.device)
    result[tuple(slice(n) for n in array.shape)] = array
    return result


@dataclass(frozen=True, eq=False)
class DeviceParameters:
    """Arguments of the kernels for one model and dtype; padded to K' and D'.

    A row's weighted log-probability is constants_k - |factors_k (whiten (x - centre) - means_k)|^2,
    with ``factors`` the square itself in the spherical case, which has ``squares`` |means_k|^2 too.
    ``means`` is (K', D') for full covariances, else (D', K'). Of many mixtures all arrays have a
    leading dimension, and ``squares`` and what decides on skipping are None.
    """

    model: Any
    family: str
    n_components: int
    n_features: int
    exact_centre: Tensor
    centre: Tensor
    whiten: Tensor | None
    means: Tensor
    factors: Tensor
    constants: Tensor
    reach: Tensor
    thresholds: Tensor
    tallest: Tensor
    squares: Tensor | None

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the pass."""
        return self.means.dtype

    @property
    def width(self) -> int:
        """Features with padding, D'."""
        return self.centre.shape[-1]

    @property
    def row_major(self) -> bool:
        """Whether the kernels read rows line by line, for the matrix unit."""
        return self.family == "full" and self.n_features > SMALL

    def points(self, about: Tensor) -> Tensor:
        """Reference points of moments as the kernels take them, (K', D')."""
        shape = whole_components(len(about)), self.width
        return padded(about - self.exact_centre, shape, self.dtype)

    def exact_points(self, about: Tensor) -> tuple[Tensor, Tensor]:
        """Such points (K, D) in float64, and the means as the kernels know them less these."""
        exact = about - self.exact_centre
        means = self.means.mT[: self.n_components, : self.n_features]
        return exact, means.to(torch.float64) - exact


def _squares_fit(factor: Any, dtype: torch.dtype) -> bool:
    """Whether halved squares of positive numbers are ordinary ones in the precision of the rows.

    Those that lie on a device would have to be waited for: of them it is taken for granted.
    """
    if is_tensor(factor) and factor.device.type != "cpu":
        return True
    squares = 0.5 * np.asarray(factor, np.float64) ** 2
    limits = torch.finfo(dtype)
    return bool((squares >= limits.tiny).all() and (squares <= limits.max).all())


def centre_of(weights: Tensor, means: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean of the mixture, rounded to the precision of the rows, as float64."""
    shares = weights / weights.sum()
    centre = (shares[:, None] * (means - means[0])).sum(dim=0) + means[0]
    return centre.to(dtype).to(torch.float64)


def pack(
    model: MixtureModel, dtype: Any, device: torch.device, *, skip: bool = True
) -> DeviceParameters:
    """Bring a model into the form of the kernels without waiting for the device.

    Means and rows are taken relative to the mean of the mixture, rounded to the precision of the
    rows: data far from 0 keeps its digits. Without ``skip`` nothing is left out.
    """
    structure, dtype = model.structure, compute_dtype(dtype)
    arrays = (model.weights, model.means, model.precisions_cholesky)
    weights, means, factor = (to_tensor(a, str(device)).to(torch.float64) for a in arrays)
    n_components, n_features = means.shape
    centre = centre_of(weights, means, dtype)
    relative = means - centre
    kind = structure.family
    if kind == "spherical" and not _squares_fit(model.precisions_cholesky, dtype):
        # Evaluated feature by feature: then the factors need not be squared.
        kind = "diag"
        factor = factor[..., None].expand(n_features if structure.tied else means.shape)
    family = "spherical" if structure.tied else kind
    width = width_of(n_features, kind)
    shape = whole_components(n_components), width
    whiten = None
    root_half = math.sqrt(0.5)
    if structure.tied and kind == "full":
        whiten = padded(root_half * factor.T, (width, width), dtype)
        relative = relative @ (root_half * factor)
        log_determinants = factor.diagonal().log().sum()
    elif kind == "full":
        factors = padded(root_half * factor.mT, (shape[0], width, width), dtype)
        log_determinants = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    elif structure.tied and kind == "diag":
        whiten = padded(root_half * factor, (width,), dtype)
        relative = relative * (root_half * factor)
        log_determinants = factor.log().sum()
    elif kind == "diag":
        factors = padded(root_half * factor.T, shape[::-1], dtype)
        log_determinants = factor.log().sum(dim=1)
    else:
        log_determinants = n_features * factor.log()
    if family == "spherical":
        square = 0.5 * factor**2 if kind == "spherical" else torch.ones_like(weights)
        factors = padded(square.expand(n_components), shape[:1], dtype)
    heights = log_determinants.expand(n_components) - 0.5 * n_features * math.log(2 * math.pi)
    half_ulp = torch.finfo(dtype).eps / 2
    constants = weights.log() + heights
    # A component without weight matters to no row.
    reach = torch.where(weights > 0, heights - math.log(half_ulp), -math.inf)
    thresholds = half_ulp * weights
    if not skip:
        reach, thresholds = torch.full_like(reach, math.inf), torch.zeros_like(thresholds)
    tallest = constants.max()
    packed_means = padded(relative, shape, dtype)
    return DeviceParameters(
        model,
        family,
        n_components,
        n_features,
        centre,
        padded(centre, (width,), dtype),
        whiten,
        packed_means if family == "full" else packed_means.T.contiguous(),
        factors,
        padded(constants, shape[:1], dtype, -math.inf),
        padded(reach, shape[:1], dtype, -math.inf),
        padded(thresholds, shape[:1], dtype),
        torch.where(tallest > -math.inf, tallest, 0.0).to(dtype),
        packed_means.square().sum(dim=1) if family == "spherical" else None,
    )


def pack_mixtures(constants: Tensor, means: Tensor, factors: Tensor) -> DeviceParameters:
    """Bring many mixtures into the form of the kernels; all arrays get a leading dimension of them.

    Arguments as for :mod:`fastgmm.backends.batched`. Rows are taken as they are, so that x - mu is
    rounded once, unless all components share a factor: then they are whitened by it, relative to
    the mean of the means.
    """
    dtype = means.dtype
    n_mixtures, n_components, n_features = means.shape
    kind = {4: "full", 3: "diag", 2: "spherical"}[factors.ndim]
    shared = shares_factor(factors, n_components)
    family = "spherical" if shared else kind
    width, whole = width_of(n_features, kind), whole_components(n_components)
    half = math.sqrt(0.5) * factors.to(torch.float64)
    if kind == "full":
        half = half.tril()
    centre = torch.zeros_like(means[:, 0])
    relative, whiten = means.to(torch.float64), None
    if shared:
        centre = means.mean(dim=1)
        relative = relative - centre.to(torch.float64)[:, None]
        relative = relative @ half[:, 0].mT if kind == "full" else relative * half
        shape = (width, width) if kind == "full" else (width,)
        whiten = padded(half[:, 0], (n_mixtures, *shape), dtype)
        packed = padded(torch.ones_like(constants), (n_mixtures, whole), dtype)
    elif kind == "full":
        packed = padded(half, (n_mixtures, whole, width, width), dtype)
    elif kind == "diag":
        packed = padded(half.mT, (n_mixtures, width, whole), dtype)
    else:
        packed = padded(half**2, (n_mixtures, whole), dtype)
    points = padded(relative, (n_mixtures, whole, width), dtype)
    return DeviceParameters(
        None,
        family,
        n_components,
        n_features,
        centre.to(torch.float64),
        padded(centre, (n_mixtures, width), dtype),
        whiten,
        points if family == "full" else points.mT.contiguous(),
        packed,
        padded(constants, (n_mixtures, whole), dtype, -math.inf),
        reach=None,
        thresholds=None,
        tallest=None,
        squares=None,
    )


def shares_factor(factors: Tensor, n_components: int) -> bool:
    """Whether one triangle or diagonal stands for those of all components."""
    return factors.ndim > 2 and factors.shape[1] < n_components
