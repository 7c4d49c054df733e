"""Scales of a mixture (Cholesky factors, standard deviations) from whatever is given, checked."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgmm.autograd.arguments import check_structure, check_tensors
from fastgmm.errors import InputError, SingularCovarianceError


def scale_from(
    given: dict[str, Tensor | None], covariance_type: str | None, validate: bool
) -> tuple[Tensor, str]:
    """The one scale that is given, as Cholesky factors or standard deviations.

    Parameters
    ----------
    given : dict
        Of "covariances", "precisions", "scale_tril" and "variances", all but one None.
    covariance_type : str or None
        By default "diag" for variances and "full" for the others.
    validate : bool
        Refuse what is not positive definite; else it becomes NaN.

    Returns
    -------
    scale : Tensor
    covariance_type : str

    Raises
    ------
    InputError
        If none or several are given, or one that the structure does not have.
    SingularCovarianceError
        If a matrix or variance is not positive (definite); the message names its component.
    """
    present = [name for name, value in given.items() if value is not None]
    if len(present) != 1:
        raise InputError(f"give exactly one of {', '.join(given)}; got {present or 'none'}.")
    (name,) = present
    value = given[name]
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
        raise InputError(f"{name} must be a floating-point torch.Tensor; got {_describe(value)}.")
    structure = covariance_type or ("diag" if name == "variances" else "full")
    trailing, _ = check_structure(structure)
    matrices = trailing.endswith("DD")
    if name == ("variances" if matrices else "scale_tril"):
        raise InputError(f"covariance_type={structure!r} has no {name}.")
    if value.ndim < len(trailing):
        raise InputError(
            f"{name} must have the dimensions (..., {', '.join(trailing)}) for "
            f"covariance_type={structure!r}; got shape {tuple(value.shape)}."
        )
    if not matrices:
        return _positive(name, value, structure, validate), structure
    if value.shape[-1] != value.shape[-2]:
        raise InputError(f"{name} must be square matrices; got shape {tuple(value.shape)}.")
    if name == "scale_tril":
        if validate:
            _check_triangles(value, structure)
        return value, structure
    if validate:
        _check_symmetric(name, value)
    # LAPACK knows no half precision.
    wide = value.to(check_tensors(value=value))
    if name == "covariances":
        return _cholesky(name, wide, structure, validate).to(value.dtype), structure
    # Of the precision with rows and columns reversed: its inverse is lower triangular again.
    upper = _cholesky(name, wide.flip(-1, -2), structure, validate).flip(-1, -2)
    eye = torch.eye(value.shape[-1], dtype=wide.dtype, device=value.device)
    scale = torch.linalg.solve_triangular(upper.mT, eye, upper=False)
    return scale.to(value.dtype), structure


def _describe(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def _refuse(name: str, value: Tensor, bad: Tensor, structure: str, what: str) -> None:
    """Raise for the first bad component; ``bad`` has the shape of batch and components."""
    if not bool(bad.any()):
        return
    index = tuple(int(i) for i in bad.nonzero()[0])
    which = "the shared matrix" if structure.startswith("tied") else f"component {index[-1:][0]}"
    batch = index if structure.startswith("tied") else index[:-1]
    where = f" of batch index {batch}" if batch else ""
    raise SingularCovarianceError(
        f"{name} of shape {tuple(value.shape)}: {which}{where} {what}. Increase its diagonal."
    )


def _positive(name: str, value: Tensor, structure: str, validate: bool) -> Tensor:
    if validate:
        fine = torch.isfinite(value) & (value > 0)
        if structure.endswith("diag"):
            fine = fine.all(-1)
        bad = ~fine
        _refuse(name, value, bad, structure, "is not positive and finite")
    return value.rsqrt() if name == "precisions" else value.sqrt()


def _cholesky(name: str, value: Tensor, structure: str, validate: bool) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(value)
    if validate:
        _refuse(name, value, info > 0, structure, "is not positive definite")
        return factor
    return factor.masked_fill((info > 0)[..., None, None], torch.nan)


def _check_symmetric(name: str, value: Tensor) -> None:
    finite = torch.isfinite(value).all()
    if not bool(finite):
        raise InputError(f"{name} of shape {tuple(value.shape)} has NaN or infinity.")
    size = value.abs().amax((-2, -1), keepdim=True)
    tolerance = 1e3 * torch.finfo(value.dtype).eps * size
    if bool(((value - value.mT).abs() > tolerance).any()):
        raise InputError(f"{name} of shape {tuple(value.shape)} must be symmetric.")


def _check_triangles(value: Tensor, structure: str) -> None:
    diagonal = value.diagonal(dim1=-2, dim2=-1)
    bad = ~((diagonal > 0).all(-1) & torch.isfinite(value).all(-1).all(-1))
    _refuse("scale_tril", value, bad, structure, "has no positive diagonal, or is not finite")
    if bool((value.triu(1) != 0).any()):
        raise InputError(f"scale_tril of shape {tuple(value.shape)} must be lower triangular.")
