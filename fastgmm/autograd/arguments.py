"""Checks of shapes and dtypes, and mixtures of any batch shape as the operators take them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastgmm.errors import InputError

#: For each structure: the trailing dimensions of its factors, and whether components share them.
STRUCTURES: dict[str, tuple[str, bool]] = {
    "full": ("KDD", False),
    "tied": ("DD", True),
    "diag": ("KD", False),
    "tied_diag": ("D", True),
    "spherical": ("K", False),
    "tied_spherical": ("", True),
}


class Factors(NamedTuple):
    """Triangles (..., K, D, D), diagonals (..., K, D) or numbers (..., K) P with |P| of each.

    A triangle or diagonal that components share has 1 in place of K.
    """

    values: Tensor
    log_determinants: Tensor
    n_trailing: int


class Mixtures(NamedTuple):
    """Arguments of the operators, and the shape that the leading dimension stands for."""

    x: Tensor
    constants: Tensor
    means: Tensor
    factors: Tensor
    batch_shape: torch.Size


def check_structure(covariance_type: str) -> tuple[str, bool]:
    """Return trailing dimensions and sharing of a structure; InputError where there is none."""
    try:
        return STRUCTURES[covariance_type]
    except (KeyError, TypeError):
        raise InputError(
            f"covariance_type must be one of {', '.join(map(repr, STRUCTURES))}; "
            f"got {covariance_type!r}."
        ) from None


def check_tensors(**tensors: object) -> torch.dtype:
    """Return the dtype to compute in; half precisions become float32.

    Raises
    ------
    InputError
        If one is no tensor, not real, or on another device than the first.
    """
    dtype = torch.float32
    first: tuple[str, torch.device] | None = None
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise InputError(f"{name} must be a torch.Tensor; got {type(tensor).__name__}.")
        if not tensor.dtype.is_floating_point:
            raise InputError(f"{name} must have a floating-point dtype; got {tensor.dtype}.")
        if first is None:
            first = name, tensor.device
        elif tensor.device != first[1]:
            raise InputError(
                f"{name} is on {tensor.device} and {first[0]} on {first[1]}; they must agree."
            )
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def check_mixture(log_weights: Tensor, means: Tensor, scale: Tensor, covariance_type: str) -> None:
    """Check K, D and the trailing dimensions of what is given.

    Raises
    ------
    InputError
        Naming the argument, its shape and the expected one.
    """
    trailing, _ = check_structure(covariance_type)
    if means.ndim < 2 or 0 in means.shape[-2:]:
        raise InputError(f"means must have shape (..., K, D); got {tuple(means.shape)}.")
    sizes = dict(zip("KD", means.shape[-2:], strict=True))
    if log_weights.ndim < 1 or log_weights.shape[-1] != sizes["K"]:
        raise InputError(
            f"the weights must have shape (..., {sizes['K']}), as means of shape "
            f"{tuple(means.shape)} say; got {tuple(log_weights.shape)}."
        )
    expected = tuple(sizes[letter] for letter in trailing)
    if scale.ndim < len(expected) or tuple(scale.shape[scale.ndim - len(expected) :]) != expected:
        wanted = ", ".join(["...", *map(str, expected)])
        raise InputError(
            f"for covariance_type={covariance_type!r} and means of shape {tuple(means.shape)} the "
            f"factors must have shape ({wanted}); got {tuple(scale.shape)}."
        )


def from_scale(scale: Tensor, covariance_type: str, n_components: int) -> Factors:
    """Factors of the precisions from those of the covariances.

    Parameters
    ----------
    scale : Tensor
        Lower Cholesky factors L of the covariances for "full" and "tied", else standard
        deviations, of the structure's shape.
    covariance_type : str
    n_components : int

    Returns
    -------
    factors : Factors
        P = L^-1.
    """
    trailing, _ = check_structure(covariance_type)
    if trailing.endswith("DD"):
        eye = torch.eye(scale.shape[-1], dtype=scale.dtype, device=scale.device)
        inverse = torch.linalg.solve_triangular(scale.tril(), eye, upper=False)
        heights = -scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return _shared(inverse, heights, covariance_type, n_components)
    return from_diagonal(1 / scale, covariance_type, n_components)


def from_precisions_cholesky(factors: Tensor, covariance_type: str, n_components: int) -> Factors:
    """The same from upper triangular U with precision U U', or reciprocal standard deviations."""
    trailing, _ = check_structure(covariance_type)
    if trailing.endswith("DD"):
        heights = factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return _shared(factors.triu().mT, heights, covariance_type, n_components)
    return from_diagonal(factors, covariance_type, n_components)


def from_diagonal(values: Tensor, covariance_type: str, n_components: int) -> Factors:
    """Diagonals or numbers P; log |P| of a number waits for D."""
    if covariance_type == "tied_spherical":
        values = values[..., None].expand(*values.shape, n_components)
    if covariance_type.endswith("spherical"):
        return Factors(values, values.log(), 1)
    return _shared(values, values.log().sum(-1), covariance_type, n_components)


def _shared(values: Tensor, heights: Tensor, covariance_type: str, n_components: int) -> Factors:
    trailing, tied = check_structure(covariance_type)
    n_trailing = len(trailing)
    if tied:
        values = values.unsqueeze(-n_trailing - 1)
        heights = heights.unsqueeze(-1).expand(*heights.shape, n_components)
        n_trailing += 1
    return Factors(values, heights, n_trailing)


def as_scale(scale: Tensor, covariance_type: str, n_features: int) -> Factors:
    """The scale itself as triangles (..., K or 1, D, D) or diagonals (..., K or 1, D)."""
    trailing, tied = check_structure(covariance_type)
    n_trailing = len(trailing)
    if covariance_type.endswith("spherical"):
        scale = scale[..., None].expand(*scale.shape, n_features)
        n_trailing += 1
    if tied:
        scale = scale.unsqueeze(-n_trailing - 1)
        n_trailing += 1
    # Its log-determinant is left to the kernel.
    return Factors(scale, scale.new_zeros(()), n_trailing)


def flatten(
    x: Tensor, log_weights: Tensor, means: Tensor, factors: Factors, *, normalised: bool = True
) -> Mixtures:
    """Broadcast leading dimensions, x (..., N, D) included, and merge them into one.

    Unless ``normalised``, the constants are the log-weights alone.

    Raises
    ------
    InputError
        If ``x`` has another number of features, or shapes do not broadcast.
    """
    n_features = means.shape[-1]
    if x.ndim < 2 or x.shape[-1] != n_features:
        raise InputError(f"x must have shape (..., N, {n_features}); got {tuple(x.shape)}.")
    heights = factors.log_determinants
    if factors.n_trailing == 1:
        heights = heights * n_features
    values = factors.values
    leading = values.shape[: values.ndim - factors.n_trailing]
    try:
        batch = torch.broadcast_shapes(
            x.shape[:-2], log_weights.shape[:-1], means.shape[:-2], leading
        )
    except RuntimeError:
        raise InputError(
            f"the leading dimensions of x {tuple(x.shape)}, weights {tuple(log_weights.shape)}, "
            f"means {tuple(means.shape)} and factors {tuple(leading)} + "
            f"{tuple(values.shape[len(leading) :])} must broadcast."
        ) from None
    constants = log_weights
    if normalised:
        constants = constants + heights - 0.5 * n_features * math.log(2 * math.pi)

    def merged(tensor: Tensor, n_trailing: int) -> Tensor:
        own = tensor.shape[tensor.ndim - n_trailing :]
        return tensor.expand(*batch, *own).reshape(math.prod(batch), *own)

    return Mixtures(
        merged(x, 2),
        merged(constants, 1),
        merged(means, 2),
        merged(values, factors.n_trailing),
        batch,
    )
