"""Mixtures of components of any one family."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.distributions as td
from torch import Size, Tensor
from torch.distributions import Categorical, Distribution

from fastgmm.distributions.estimates import EntropyEstimates
from fastgmm.distributions.families import gaussian_parameters, select
from fastgmm.distributions.gaussians import Gaussians
from fastgmm.errors import InputError


class MixtureSameFamily(EntropyEstimates, td.MixtureSameFamily):
    """Mixture of components of one family, p(x) = sum_k w_k p_k(x).

    Takes the place of ``torch.distributions.MixtureSameFamily``. Normal, Independent Normal and
    MultivariateNormal components run on compiled kernels, which keep no array of rows times
    components, and have ``rsample``. Batch shapes of weights and components broadcast.

    Parameters
    ----------
    mixture_distribution : Categorical
        Weights of the components, with batch shape (...).
    component_distribution : Distribution
        With the K components in the rightmost batch dimension.
    validate_args : bool, optional

    Raises
    ------
    InputError
        A ValueError, if one is of the wrong kind, K differs, or batch shapes do not broadcast.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Categorical, Normal
    >>> from fastgmm.distributions import MixtureSameFamily
    >>> components = Normal(torch.tensor([-2.0, 2.0]), torch.tensor([0.5, 1.0]))
    >>> mixture = MixtureSameFamily(Categorical(torch.tensor([0.3, 0.7])), components)
    >>> mixture.sample((200,)).shape
    torch.Size([200])
    >>> mixture.log_prob(torch.tensor(2.0))
    tensor(-1.2756)
    """

    def __init__(
        self,
        mixture_distribution: Categorical,
        component_distribution: Distribution,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(mixture_distribution, Categorical):
            raise InputError(
                "mixture_distribution must be a Categorical; got "
                f"{type(mixture_distribution).__name__}."
            )
        if not isinstance(component_distribution, Distribution):
            raise InputError(
                "component_distribution must be a Distribution; got "
                f"{type(component_distribution).__name__}."
            )
        mass, parts = mixture_distribution.batch_shape, component_distribution.batch_shape
        n_components = mixture_distribution.param_shape[-1]
        if len(parts) == 0 or parts[-1] != n_components:
            raise InputError(
                f"component_distribution must have batch_shape (..., {n_components}), one entry "
                f"per category of mixture_distribution; got {tuple(parts)}."
            )
        try:
            batch = torch.broadcast_shapes(mass, parts[:-1])
        except RuntimeError:
            raise InputError(
                f"the batch_shape {tuple(mass)} of mixture_distribution and {tuple(parts[:-1])}, "
                "the leading one of component_distribution, must broadcast."
            ) from None
        if mass != batch:
            mixture_distribution = mixture_distribution.expand(batch)
        if parts[:-1] != batch:
            component_distribution = component_distribution.expand(Size([*batch, n_components]))
        super().__init__(mixture_distribution, component_distribution, validate_args)

    def _gaussians(self) -> Gaussians | None:
        """The mixture for the kernels, where its family is Gaussian."""
        found = gaussian_parameters(self.component_distribution)
        if found is None:
            return None
        return Gaussians(self.mixture_distribution.logits, *found)

    def _to_draw(self) -> Gaussians | None:
        """The same without components of probability 0, which torch's logits raise above it."""
        gaussians = self._gaussians()
        probabilities = vars(self.mixture_distribution).get("probs")
        if gaussians is None or probabilities is None:
            return gaussians
        logits = gaussians.logits.masked_fill(probabilities == 0, -torch.inf)
        return replace(gaussians, logits=logits)

    def _merged(self, value: Tensor) -> Tensor:
        """Values with one dimension of features."""
        n_event = len(self.event_shape)
        return value[..., None] if n_event == 0 else value.flatten(-n_event)

    @property
    def has_rsample(self) -> bool:
        """Whether gradients pass through samples: for Gaussian components."""
        return gaussian_parameters(self.component_distribution) is not None

    def expand(self, batch_shape: Any, _instance: Any = None) -> MixtureSameFamily:
        """Return the distribution with another batch shape that this one broadcasts to."""
        new = self._get_checked_instance(MixtureSameFamily, _instance)
        batch_shape = Size(batch_shape)
        n_components = self.mixture_distribution.param_shape[-1]
        td.MixtureSameFamily.__init__(
            new,
            self.mixture_distribution.expand(batch_shape),
            self.component_distribution.expand(Size([*batch_shape, n_components])),
            validate_args=False,
        )
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of values (*S, *batch_shape, *event_shape), in nats.

        Parameters
        ----------
        value : Tensor

        Returns
        -------
        log_prob : Tensor of shape (*S, *batch_shape)
        """
        self._check(value)
        gaussians = self._gaussians()
        if gaussians is not None:
            return gaussians.log_prob(self._merged(value))
        joint = self._joint(value)
        return joint.logsumexp(-1)

    def _check(self, value: Tensor) -> None:
        n_event = len(self.event_shape)
        if not isinstance(value, Tensor) or value.shape[value.ndim - n_event :] != self.event_shape:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            wanted = ", ".join(["...", *map(str, self.event_shape)])
            raise InputError(f"value must have shape ({wanted}); got {shape}.")
        if self._validate_args and value.numel() > 0:
            self._validate_sample(value)

    def _joint(self, value: Tensor) -> Tensor:
        """log w_k p_k(value), (*S, *batch_shape, K)."""
        padded = self._pad(value)
        return self.component_distribution.log_prob(padded) + self.mixture_distribution.logits

    def posterior(self, value: Tensor) -> Categorical:
        """The distribution of the component given a value.

        Parameters
        ----------
        value : Tensor of shape (*S, *batch_shape, *event_shape)

        Returns
        -------
        posterior : Categorical
            With batch shape (*S, *batch_shape); ``probs`` are the responsibilities.
        """
        return Categorical(logits=self._log_responsibilities(value), validate_args=False)

    def responsibilities(self, value: Tensor) -> Tensor:
        """Posterior probabilities of the components, (*S, *batch_shape, K)."""
        return self._log_responsibilities(value).exp()

    def _log_responsibilities(self, value: Tensor) -> Tensor:
        self._check(value)
        gaussians = self._gaussians()
        if gaussians is not None:
            return gaussians.log_responsibilities(self._merged(value))
        return self._joint(value).log_softmax(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw values: a component each, then that component alone.

        A family that cannot be built again from the parameters it names in ``arg_constraints``,
        and attributes named like its other arguments, draws all its components, as torch does.

        Parameters
        ----------
        sample_shape : Size

        Returns
        -------
        value : Tensor of shape (*sample_shape, *batch_shape, *event_shape)
            Without gradients.
        """
        sample_shape = Size(sample_shape)
        gaussians = self._to_draw()
        with torch.no_grad():
            if gaussians is not None:
                drawn = gaussians.sample(sample_shape)
                return drawn.reshape((*drawn.shape[:-1], *self.event_shape))
            if math.prod(sample_shape) == 0:
                # Not drawn as such: some families cannot draw nothing.
                one = super().sample()
                return one.new_empty((*sample_shape, *one.shape))
            labels = self.mixture_distribution.sample(sample_shape)
            chosen = select(self.component_distribution, labels)
            return super().sample(sample_shape) if chosen is None else chosen.sample()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw values with gradients by weights, means and scales of Gaussian components.

        They are implicit (:mod:`fastgmm.distributions.implicit`).

        Parameters
        ----------
        sample_shape : Size

        Returns
        -------
        value : Tensor of shape (*sample_shape, *batch_shape, *event_shape)

        Raises
        ------
        NotImplementedError
            For other families: the choice of the component has no gradient.
        """
        gaussians = self._to_draw()
        if gaussians is None:
            raise NotImplementedError(
                "rsample is there for Normal, Independent Normal and MultivariateNormal "
                f"components; got {type(self.component_distribution).__name__}."
            )
        drawn = gaussians.rsample(Size(sample_shape))
        return drawn.reshape((*drawn.shape[:-1], *self.event_shape))
