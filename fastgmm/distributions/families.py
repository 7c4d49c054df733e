"""Families of components: which are Gaussian, and how one of K components is picked out."""

from __future__ import annotations

import contextlib
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

# Arguments that say the same: of matrices the first that a class takes is kept.
_PROBABILITIES = ("probs", "logits")
_MATRICES = ("scale_tril", "covariance_matrix", "precision_matrix")
_UNNAMED = {Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}


def gaussian_parameters(components: Distribution) -> tuple[Tensor, Tensor, str] | None:
    """Means (*batch, K, D), scale and structure of Gaussian components; None for other families.

    Normal has one feature; Independent merges the dimensions of its event.
    """
    if type(components) is Normal:
        return components.loc[..., None], components.scale[..., None], "diag"
    if type(components) is MultivariateNormal:
        return components.loc, components.scale_tril, "full"
    if type(components) is Independent and type(components.base_dist) is Normal:
        base, n_event = components.base_dist, len(components.event_shape)
        if n_event == 0 or len(base.batch_shape) == n_event:
            return None
        return base.loc.flatten(-n_event), base.scale.flatten(-n_event), "diag"
    return None


def select(components: Distribution, labels: Tensor) -> Distribution | None:
    """The components with the given labels, as one distribution.

    Parameters
    ----------
    components : Distribution
        With batch shape (*batch, K).
    labels : Tensor of shape (*S, *batch)
        int64.

    Returns
    -------
    selected : Distribution with batch shape (*S, *batch), or None
        None where a family cannot be built from the parameters in its ``arg_constraints`` and
        attributes named like its other arguments.
    """
    if type(components) is Independent:
        extra = components.reinterpreted_batch_ndims
        base = _select(components.base_dist, labels, extra)
        return None if base is None else Independent(base, extra, validate_args=False)
    return _select(components, labels, 0)


def _select(components: Distribution, labels: Tensor, n_inner: int) -> Distribution | None:
    """As :func:`select`, with ``n_inner`` batch dimensions behind that of the components."""
    known: Any = None
    with contextlib.suppress(NotImplementedError):
        # Of the instance: those of some families depend on other parameters.
        known = components.arg_constraints
    arguments = _arguments(components, known) if isinstance(known, dict) else None
    if arguments is None:
        return None
    chosen: dict[str, Any] = {}
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            chosen[name] = value
            continue
        n_event = known[name].event_dim
        own = value.shape[value.ndim - n_event :]
        full = value.expand(*components.batch_shape, *own)
        chosen[name] = _take(full, labels, n_inner + n_event)
    return type(components)(**chosen)


def _arguments(components: Distribution, known: dict[str, Any]) -> dict[str, Any] | None:
    """What the constructor of a distribution would be given; None where that cannot be known."""
    parameters = list(signature(type(components).__init__).parameters.values())[1:]
    if any(parameter.kind in _UNNAMED for parameter in parameters):
        return None
    names = [parameter.name for parameter in parameters]
    dropped = _said_again(components, [name for name in names if name in known])
    arguments: dict[str, Any] = {}
    for name in names:
        if name in dropped:
            continue
        value = False if name == "validate_args" else getattr(components, name, None)
        # It may have been given all the same; of a tensor, or of what may hold one, the components'
        # part is not known.
        if not (name in known if isinstance(value, Tensor) else _is_plain(value)):
            return None
        arguments[name] = value
    return arguments if any(isinstance(v, Tensor) for v in arguments.values()) else None


def _said_again(components: Distribution, names: list[str]) -> set[str]:
    """Those arguments that say what another one says."""
    # What was given is there first; what is derived from probabilities of 0 and 1 is clamped.
    given = [name for name in vars(components) if name in _PROBABILITIES]
    groups = (dict.fromkeys([*given, *_PROBABILITIES]), _MATRICES)
    return {name for group in groups for name in [g for g in group if g in names][1:]}


def _is_plain(value: object) -> bool:
    """Whether it is the same for all components."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str)


def _take(value: Tensor, labels: Tensor, n_behind: int) -> Tensor:
    """Entries of the dimension of components, which has ``n_behind`` dimensions behind it."""
    place = value.ndim - n_behind - 1
    behind = value.shape[place + 1 :]
    n_sample = labels.ndim - place
    value = value.expand(*labels.shape[:n_sample], *value.shape)
    index = labels.reshape(*labels.shape, 1, *(1,) * n_behind)
    index = index.expand(*labels.shape, 1, *behind)
    return torch.gather(value, labels.ndim, index).squeeze(labels.ndim)
