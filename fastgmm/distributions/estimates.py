"""Entropies and divergences of mixtures, which have no closed form: estimates, and bounds."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from fastgmm.distributions.gaussians import Gaussians
from fastgmm.errors import InputError


class EntropyEstimates(Distribution):
    """What a mixture has in place of ``entropy()``."""

    def entropy(self) -> Tensor:
        """Not there: a mixture's entropy has no closed form.

        Raises
        ------
        NotImplementedError
            Naming what there is.
        """
        raise NotImplementedError(
            f"the entropy of a {type(self).__name__} has no closed form: use "
            "entropy_monte_carlo(n_samples), or entropy_bounds() where there is one."
        )

    def entropy_monte_carlo(self, n_samples: int = 4096) -> Tensor:
        """Estimate -E log p(x) by the mean over samples.

        Parameters
        ----------
        n_samples : int
            The standard error falls with its root.

        Returns
        -------
        entropy : Tensor of the batch shape
            In nats; unbiased. Differentiable where the distribution has ``rsample``.
        """
        shape = torch.Size([_positive(n_samples)])
        drawn = self.rsample(shape) if self.has_rsample else self.sample(shape)
        return -self.log_prob(drawn).mean(0)


def _positive(n_samples: int) -> int:
    if n_samples < 1:
        raise InputError(f"n_samples must be at least 1; got {n_samples}.")
    return n_samples


def entropy_bounds(mixture: Gaussians) -> tuple[Tensor, Tensor]:
    """Lower and upper bound of the entropy of Gaussian mixtures.

    -sum_k w_k log sum_j w_j N(mu_k; mu_j, Sigma_k + Sigma_j) <= H
    <= sum_k w_k (-log w_k + 1/2 log|2 pi e Sigma_k|).

    Parameters
    ----------
    mixture : Gaussians

    Returns
    -------
    lower, upper : Tensor of the batch shape
        In nats; float32 for half precisions. The upper one is exact where components do not
        overlap.

    Notes
    -----
    Huber, Bailey, Durrant-Whyte and Hanebeck (2008), On entropy approximation for Gaussian mixture
    random vectors. All pairs of components are formed: K^2 D^2 numbers.
    """
    mixture = mixture.widened()
    weights, n_features = mixture.logits.exp(), mixture.n_features
    scales = mixture.scales()
    diagonal = scales.diagonal(dim1=-2, dim2=-1) if mixture.full else scales
    heights = diagonal.log().sum(-1) + 0.5 * n_features * (1 + math.log(2 * math.pi))
    # Not by xlogy: its derivative at a weight that underflows is NaN.
    logs = mixture.logits.masked_fill(mixture.logits == -torch.inf, 0)
    upper = (weights * (heights - logs)).sum(-1)
    covariances = mixture.component_covariances()
    pairs = covariances[..., :, None, :, :] + covariances[..., None, :, :, :]
    factor = torch.linalg.cholesky(pairs)
    shift = mixture.means[..., :, None, :] - mixture.means[..., None, :, :]
    y = torch.linalg.solve_triangular(factor, shift[..., None], upper=False)[..., 0]
    log_density = -0.5 * (y**2).sum(-1) - 0.5 * n_features * math.log(2 * math.pi)
    log_density = log_density - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    inner = (mixture.logits[..., None, :] + log_density).logsumexp(-1)
    return -(weights * inner).sum(-1), upper


def kl_monte_carlo(p: Distribution, q: Distribution, n_samples: int = 4096) -> Tensor:
    """Estimate KL(p | q) = E_p [log p(x) - log q(x)] by the mean over samples of p.

    Parameters
    ----------
    p, q : Distribution
        With the same event shape, and batch shapes that broadcast.
    n_samples : int
        The standard error falls with its root.

    Returns
    -------
    divergence : Tensor of the batch shape
        In nats; unbiased, so that it may be a little below 0. Differentiable by the parameters of
        ``q``, and by those of ``p`` where it has ``rsample``.

    Raises
    ------
    InputError
        If shapes do not fit, or ``n_samples`` is below 1.
    """
    if p.event_shape != q.event_shape:
        raise InputError(
            f"p and q must have the same event_shape; got {p.event_shape} and {q.event_shape}."
        )
    try:
        batch = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    except RuntimeError:
        raise InputError(
            f"the batch shapes of p {tuple(p.batch_shape)} and q {tuple(q.batch_shape)} must "
            "broadcast."
        ) from None
    p, q = (d if d.batch_shape == batch else d.expand(batch) for d in (p, q))
    shape = torch.Size([_positive(n_samples)])
    drawn = p.rsample(shape) if p.has_rsample else p.sample(shape)
    return (p.log_prob(drawn) - q.log_prob(drawn)).mean(0)
