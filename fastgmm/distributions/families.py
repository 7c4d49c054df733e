"""Families of components: which are Gaussian, and how one of K components is picked out."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

# Of arguments that say the same, those that are kept: the first that a class takes.
_ALTERNATIVES = (("logits", "probs"), ("scale_tril", "covariance_matrix", "precision_matrix"))


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
        if name not in known or not isinstance(value, Tensor):
            chosen[name] = value
            continue
        n_event = known[name].event_dim
        own = value.shape[value.ndim - n_event :]
        full = value.expand(*components.batch_shape, *own)
        chosen[name] = _take(full, labels, n_inner + n_event)
    return type(components)(**chosen, validate_args=False)


def _arguments(components: Distribution, known: dict[str, Any]) -> dict[str, Any] | None:
    """What the constructor of a distribution would be given; None where that cannot be known."""
    names = list(inspect.signature(type(components).__init__).parameters.values())[1:]
    dropped = {name for group in _ALTERNATIVES for name in [g for g in group if g in known][1:]}
    arguments = {}
    for parameter in names:
        name = parameter.name
        if name in dropped or name == "validate_args":
            continue
        if name in known:
            arguments[name] = getattr(components, name)
        else:
            # It may have been given all the same; of a tensor the components' part is not known.
            value = getattr(components, name, None)
            if value is None or isinstance(value, Tensor):
                return None
            arguments[name] = value
    return arguments if arguments else None


def _take(value: Tensor, labels: Tensor, n_behind: int) -> Tensor:
    """Entries of the dimension of components, which has ``n_behind`` dimensions behind it."""
    place = value.ndim - n_behind - 1
    behind = value.shape[place + 1 :]
    n_sample = labels.ndim - place
    value = value.expand(*labels.shape[:n_sample], *value.shape)
    index = labels.reshape(*labels.shape, 1, *(1,) * n_behind)
    index = index.expand(*labels.shape, 1, *behind)
    return torch.gather(value, labels.ndim, index).squeeze(labels.ndim)
