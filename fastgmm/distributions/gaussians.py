"""What all distributions of Gaussian components do, on batches of any shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastgmm import autograd
from fastgmm.autograd import ops
from fastgmm.autograd.arguments import check_structure, check_tensors, from_scale
from fastgmm.distributions.implicit import attach


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Mixtures of Gaussians.

    Parameters
    ----------
    logits : Tensor of shape (*batch, K)
        Logarithms of normalised weights.
    means : Tensor of shape (*batch, K, D)
    scale : Tensor
        (*batch, ...) with the dimensions of the structure: lower Cholesky factors of the
        covariances, or standard deviations.
    covariance_type : str
    """

    logits: Tensor
    means: Tensor
    scale: Tensor
    covariance_type: str

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the batch of mixtures."""
        return self.logits.shape[:-1]

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.means.shape[-1]

    @property
    def full(self) -> bool:
        """Whether the scale is triangles."""
        return check_structure(self.covariance_type)[0].endswith("DD")

    def widened(self) -> Gaussians:
        """The same in the dtype to compute in: float32 for halves."""
        dtype = check_tensors(logits=self.logits, means=self.means, scale=self.scale)
        return self.to(dtype)

    def to(self, *args: Any, **kwargs: Any) -> Gaussians:
        """The same on another device or in another dtype, as ``Tensor.to``."""
        tensors = (self.logits, self.means, self.scale)
        logits, means, scale = (tensor.to(*args, **kwargs) for tensor in tensors)
        return replace(self, logits=logits, means=means, scale=scale)

    def expand(self, batch_shape: torch.Size) -> Gaussians:
        """The same with leading dimensions expanded."""
        trailing = len(check_structure(self.covariance_type)[0])
        own = self.scale.shape[self.scale.ndim - trailing :]
        return replace(
            self,
            logits=self.logits.expand(*batch_shape, self.logits.shape[-1]),
            means=self.means.expand(*batch_shape, *self.means.shape[-2:]),
            scale=self.scale.expand((*batch_shape, *own)),
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value), (*S, *batch)."""
        return self._by_rows(autograd.mixture_log_prob, value)

    def log_responsibilities(self, value: Tensor) -> Tensor:
        """log p(k | value), (*S, *batch, K)."""
        return self._by_rows(autograd.log_responsibilities, value)

    def _by_rows(self, function: Callable[..., Tensor], value: Tensor) -> Tensor:
        """What a function gives for values (*S, *batch, D) as rows of each mixture."""
        batch = self.batch_shape
        shape = torch.broadcast_shapes(value.shape[:-1], batch)
        n_sample = len(shape) - len(batch)
        # Where the batch has 1 and the values have more, they are rows of one mixture as well.
        own = [i for i in range(n_sample, len(shape)) if shape[i] == batch[i - n_sample]]
        places = list(range(len(shape)))
        order = own + [i for i in places if i not in own]
        sizes = [shape[i] for i in order]
        rows = value.expand(*shape, -1).movedim(order, places)
        found = function(
            rows.reshape(*batch, math.prod(sizes[len(own) :]), self.n_features),
            self.logits,
            self.means,
            self.scale,
            self.covariance_type,
            validate=False,
        )
        found = found.reshape((*sizes, *found.shape[len(batch) + 1 :]))
        return found.movedim(places, order)

    def scales(self) -> Tensor:
        """The scale with a dimension of components: triangles, or (*batch, K or 1, D)."""
        scale = self.scale
        if self.covariance_type == "tied_spherical":
            scale = scale[..., None]
        elif self.covariance_type.startswith("tied"):
            scale = scale.unsqueeze(-3 if self.full else -2)
        if self.covariance_type.endswith("spherical"):
            scale = scale[..., None].expand(*scale.shape, self.n_features)
        return scale

    def component_covariances(self) -> Tensor:
        """Sigma_k as matrices, (*batch, K, D, D)."""
        scales = self.scales()
        if self.full:
            scales = scales.tril()
            matrices = scales @ scales.mT
        else:
            matrices = torch.diag_embed(scales**2)
        return matrices.expand(*self.means.shape, self.n_features)

    def component_variances(self) -> Tensor:
        """The diagonals of the covariances, (*batch, K, D)."""
        scales = self.scales()
        squares = scales.tril().square().sum(-1) if self.full else scales**2
        return squares.expand(self.means.shape)

    def sample(self, sample_shape: torch.Size) -> Tensor:
        """Values (*S, *batch, D): the component of each is drawn first, and that alone."""
        with torch.no_grad():
            flat = self._flat()
            n_rows = math.prod(sample_shape)
            drawn = flat._draw(n_rows)
            return self._shaped(drawn, sample_shape)

    def rsample(self, sample_shape: torch.Size) -> Tensor:
        """The same with gradients by all parameters."""
        flat = self._flat()
        with torch.no_grad():
            drawn = flat._draw(math.prod(sample_shape))
        if torch.is_grad_enabled():
            kind = "full" if self.full else "diag"
            scales = flat.scales()
            factors = from_scale(scales, kind, scales.shape[-2])
            drawn = attach(drawn, flat.logits, flat.means, factors.values)
        return self._shaped(drawn, sample_shape)

    def _flat(self) -> Gaussians:
        """All batch dimensions merged into one, in the dtype to draw in: float32 for halves."""
        size = math.prod(self.batch_shape)
        flat = replace(
            self,
            logits=self.logits.reshape(size, self.logits.shape[-1]),
            means=self.means.reshape(size, *self.means.shape[-2:]),
            scale=self.scale.reshape(size, *self.scale.shape[len(self.batch_shape) :]),
        )
        return flat.widened()

    def _draw(self, n_rows: int) -> Tensor:
        """Samples (B, N, D) of flat mixtures."""
        shape = (self.logits.shape[0], n_rows, self.n_features)
        noise = torch.randn(shape, dtype=self.means.dtype, device=self.means.device)
        if noise.numel() == 0:
            return noise
        labels = torch.multinomial(self.logits.exp(), n_rows, replacement=True)
        return ops.colour(labels, noise, self.means, self.scales())

    def _shaped(self, drawn: Tensor, sample_shape: torch.Size) -> Tensor:
        shaped = drawn.reshape(*self.batch_shape, drawn.shape[-2], self.n_features)
        rows = shaped.to(self.means.dtype).movedim(-2, 0)
        return rows.reshape((*sample_shape, *rows.shape[1:]))
