"""Gaussian mixtures as torch distributions, given by their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Categorical, Distribution, MultivariateNormal, constraints
from torch.distributions.kl import kl_divergence, register_kl

from fastgmm.arrays import to_numpy
from fastgmm.autograd.arguments import check_mixture, check_structure, check_tensors
from fastgmm.autograd.weighted import log_weights
from fastgmm.distributions import estimates
from fastgmm.distributions.gaussians import Gaussians
from fastgmm.distributions.scales import scale_from
from fastgmm.errors import InputError

if TYPE_CHECKING:
    from fastgmm.mixture import GaussianMixture as Estimator


class GaussianMixture(estimates.EntropyEstimates):
    """Gaussian mixture, p(x) = sum_k w_k N(x; mu_k, Sigma_k), on compiled kernels.

    Log-probabilities keep no array of rows times components, also for their gradients; samples are
    drawn of one component each. Leading dimensions of the parameters are the batch shape.

    Parameters
    ----------
    weights : Tensor of shape (..., K), optional
        Not negative; normalised here.
    means : Tensor of shape (..., K, D)
    covariances, precisions, scale_tril, variances : Tensor, optional
        Exactly one. ``covariances`` and ``precisions`` have the structure's shape: (..., K, D, D)
        if full, (..., D, D) if tied, (..., K, D) if diag, (..., D) if tied_diag, (..., K) if
        spherical, (...) if tied_spherical. ``scale_tril`` are lower Cholesky factors of full or
        tied covariances, ``variances`` those of the other structures.
    logits : Tensor of shape (..., K), optional
        Unnormalised log-weights, in place of ``weights``.
    covariance_type : str, optional
        "full" by default, and "diag" with ``variances``.
    validate_args : bool, optional
        Whether to check values, here and in :meth:`log_prob`; as for all torch distributions.
        Shapes are always checked.

    Attributes
    ----------
    logits : Tensor of shape (*batch_shape, K)
        Normalised.
    means : Tensor of shape (*batch_shape, K, D)
    scale : Tensor
        Cholesky factors or standard deviations, of the structure's shape.
    covariance_type : str

    Raises
    ------
    InputError
        A ValueError; it names the argument and its shape.
    SingularCovarianceError
        If a covariance is not positive definite; it names the component.

    Examples
    --------
    >>> import torch
    >>> from fastgmm.distributions import GaussianMixture
    >>> mixture = GaussianMixture(
    ...     torch.tensor([0.25, 0.75]), torch.tensor([[0.0], [4.0]]), variances=torch.ones(2, 1)
    ... )
    >>> round(mixture.mean.item(), 4), round(mixture.variance.item(), 4)
    (3.0, 4.0)
    >>> mixture.posterior(torch.tensor([2.0])).probs
    tensor([0.2500, 0.7500])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "logits": constraints.real_vector,
        "means": constraints.independent(constraints.real, 2),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        weights: Tensor | None = None,
        means: Tensor | None = None,
        covariances: Tensor | None = None,
        *,
        precisions: Tensor | None = None,
        scale_tril: Tensor | None = None,
        variances: Tensor | None = None,
        logits: Tensor | None = None,
        covariance_type: str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        validate = self._validate_args if validate_args is None else validate_args
        # Values cannot be looked at while a graph is traced.
        validate = bool(validate) and not torch.compiler.is_compiling()
        if means is None:
            raise InputError("means must be given.")
        if (weights is None) == (logits is None):
            raise InputError("give exactly one of weights and logits.")
        if weights is not None:
            check_tensors(weights=weights, means=means)
            if validate:
                _check_weights(weights)
            logits = log_weights(weights)
        check_tensors(logits=logits, means=means)
        given = {
            "covariances": covariances,
            "precisions": precisions,
            "scale_tril": scale_tril,
            "variances": variances,
        }
        scale, structure = scale_from(given, covariance_type, validate)
        check_tensors(means=means, scale=scale)
        self._set(_combined(logits, means, scale, structure, validate), validate)

    def _set(self, gaussians: Gaussians, validate: bool) -> None:
        self._gaussians = gaussians
        self.logits, self.means = gaussians.logits, gaussians.means
        self.scale, self.covariance_type = gaussians.scale, gaussians.covariance_type
        Distribution.__init__(
            self,
            gaussians.batch_shape,
            Size([gaussians.n_features]),
            # torch cannot check a batch of none.
            validate_args=validate and gaussians.logits.numel() > 0,
        )
        self._validate_args = validate

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(n_components={self.logits.shape[-1]}, "
            f"n_features={self.means.shape[-1]}, covariance_type={self.covariance_type!r}, "
            f"batch_shape={tuple(self.batch_shape)})"
        )

    def _like(self, gaussians: Gaussians, instance: Any = None) -> GaussianMixture:
        new = self._get_checked_instance(GaussianMixture, instance)
        new._set(gaussians, False)
        new._validate_args = self._validate_args
        return new

    def expand(self, batch_shape: Any, _instance: Any = None) -> GaussianMixture:
        """Return the distribution with another batch shape that this one broadcasts to."""
        return self._like(self._gaussians.expand(Size(batch_shape)), _instance)

    def to(self, *args: Any, **kwargs: Any) -> GaussianMixture:
        """Return the distribution on another device or in another dtype, as ``Tensor.to``."""
        return self._like(self._gaussians.to(*args, **kwargs))

    @property
    def weights(self) -> Tensor:
        """w (*batch_shape, K), with sum 1."""
        return self.logits.exp()

    @property
    def mixture_distribution(self) -> Categorical:
        """The distribution of the components."""
        return Categorical(logits=self.logits, validate_args=False)

    @property
    def component_distribution(self) -> MultivariateNormal:
        """The components, with K in the last batch dimension."""
        factor = self._gaussians.scales()
        if not self._gaussians.full:
            factor = torch.diag_embed(factor)
        return MultivariateNormal(self.means, scale_tril=factor, validate_args=False)

    @property
    def covariances(self) -> Tensor:
        """Covariances of the components as matrices, (*batch_shape, K, D, D)."""
        return self._gaussians.component_covariances()

    @property
    def mean(self) -> Tensor:
        """sum_k w_k mu_k, (*batch_shape, D)."""
        return (self.weights[..., None] * self.means).sum(-2)

    @property
    def variance(self) -> Tensor:
        """Variance of each feature, (*batch_shape, D), by the law of total variance."""
        spread = (self.means - self.mean[..., None, :]) ** 2
        inner = self._gaussians.component_variances()
        return (self.weights[..., None] * (inner + spread)).sum(-2)

    @property
    def covariance(self) -> Tensor:
        """Covariance of the mixture, (*batch_shape, D, D)."""
        shift = self.means - self.mean[..., None, :]
        between = shift[..., :, None] * shift[..., None, :]
        return (self.weights[..., None, None] * (self.covariances + between)).sum(-3)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of values (*S, *batch_shape, D), in nats.

        Parameters
        ----------
        value : Tensor

        Returns
        -------
        log_prob : Tensor of shape (*S, *batch_shape)
        """
        self._check(value)
        return self._gaussians.log_prob(value)

    def _check(self, value: Tensor) -> None:
        if not isinstance(value, Tensor) or value.shape[-1:] != self.event_shape:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"value must have shape (..., {self.event_shape[0]}); got {shape}.")
        if self._validate_args and value.numel() > 0:
            self._validate_sample(value)

    def posterior(self, value: Tensor) -> Categorical:
        """The distribution of the component given a value.

        Parameters
        ----------
        value : Tensor of shape (*S, *batch_shape, D)

        Returns
        -------
        posterior : Categorical
            With batch shape (*S, *batch_shape); ``probs`` are the responsibilities.
        """
        self._check(value)
        found = self._gaussians.log_responsibilities(value)
        return Categorical(logits=found, validate_args=False)

    def responsibilities(self, value: Tensor) -> Tensor:
        """Posterior probabilities of the components, (*S, *batch_shape, K)."""
        self._check(value)
        return self._gaussians.log_responsibilities(value).exp()

    def cdf(self, value: Tensor) -> Tensor:
        """P(X_1 <= x_1, ..., X_D <= x_D), where no covariances are in the way.

        Parameters
        ----------
        value : Tensor of shape (*S, *batch_shape, D)

        Returns
        -------
        probability : Tensor of shape (*S, *batch_shape)

        Raises
        ------
        NotImplementedError
            For full and tied covariances in more than one dimension.
        """
        self._check(value)
        if self._gaussians.full and self.event_shape[0] > 1:
            raise NotImplementedError(
                f"the distribution function of covariance_type={self.covariance_type!r} has no "
                "closed form in more than one dimension."
            )
        scales = self._gaussians.scales()
        scales = scales[..., 0] if self._gaussians.full else scales
        below = torch.special.ndtr((value[..., None, :] - self.means) / scales).prod(-1)
        return (self.weights * below).sum(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw values: a component each, then that component alone.

        Parameters
        ----------
        sample_shape : Size

        Returns
        -------
        value : Tensor of shape (*sample_shape, *batch_shape, D)
            Without gradients.
        """
        return self._gaussians.sample(Size(sample_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw values with gradients by weights, means and covariances.

        The gradients are implicit: each value keeps its conditional distribution functions while
        the parameters change (:mod:`fastgmm.distributions.implicit`).

        Parameters
        ----------
        sample_shape : Size

        Returns
        -------
        value : Tensor of shape (*sample_shape, *batch_shape, D)
        """
        return self._gaussians.rsample(Size(sample_shape))

    def entropy_bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bound of the entropy, each of the batch shape, in nats.

        :func:`fastgmm.distributions.estimates.entropy_bounds` has the formulas.
        """
        return estimates.entropy_bounds(self._gaussians)

    def to_estimator(self, **params: Any) -> Estimator:
        """Return a fitted :class:`fastgmm.GaussianMixture` with these parameters.

        Parameters
        ----------
        **params
            Further arguments of its constructor.

        Returns
        -------
        estimator : fastgmm.GaussianMixture

        Raises
        ------
        InputError
            If there are batch dimensions: an estimator is one mixture.
        """
        from fastgmm.mixture import GaussianMixture as Estimator

        if len(self.batch_shape):
            raise InputError(
                "an estimator is one mixture; this distribution has batch_shape "
                f"{tuple(self.batch_shape)}. Index its parameters first."
            )
        scale = self.scale.detach().cpu().double()
        full = self._gaussians.full
        factors = torch.linalg.inv(scale.tril()).mT.triu() if full else 1 / scale
        weights = self.logits.detach().cpu().double().softmax(-1)
        return Estimator.from_parameters(
            weights.numpy(),
            to_numpy(self.means),
            precisions_cholesky=factors.numpy(),
            covariance_type=self.covariance_type,
            **params,
        )


def _combined(
    logits: Any, means: Tensor, scale: Tensor, structure: str, validate: bool
) -> Gaussians:
    """Check shapes, bring batch shapes and dtypes together, normalise the weights."""
    check_mixture(logits, means, scale, structure)
    if validate:
        _check_logits(logits)
    leading = scale.shape[: scale.ndim - len(check_structure(structure)[0])]
    try:
        batch_shape = torch.broadcast_shapes(logits.shape[:-1], means.shape[:-2], leading)
    except RuntimeError:
        raise InputError(
            f"the batch shapes of weights {tuple(logits.shape)}, means {tuple(means.shape)} and "
            f"covariances {tuple(leading)} + {tuple(scale.shape[len(leading) :])} must broadcast."
        ) from None
    dtype = torch.promote_types(torch.promote_types(logits.dtype, means.dtype), scale.dtype)
    normal = logits.to(dtype).log_softmax(-1)
    plain = Gaussians(normal, means.to(dtype), scale.to(dtype), structure)
    return plain.expand(batch_shape)


def _check_weights(weights: Tensor) -> None:
    bad = ~(torch.isfinite(weights) & (weights >= 0))
    if bool(bad.any()):
        raise InputError(
            f"weights of shape {tuple(weights.shape)} must be finite and not negative; got "
            f"{float(weights[bad][0]):g}."
        )
    if weights.ndim and bool((weights.sum(-1) <= 0).any()):
        raise InputError(f"weights of shape {tuple(weights.shape)} are all zero in a mixture.")


def _check_logits(logits: Tensor) -> None:
    if bool(torch.isnan(logits).any()) or bool((logits == torch.inf).any()):
        raise InputError(f"logits of shape {tuple(logits.shape)} must not be NaN or infinite.")
    if bool(torch.isneginf(logits).all(-1).any()):
        raise InputError(f"logits of shape {tuple(logits.shape)} are all -inf in a mixture.")


@register_kl(GaussianMixture, GaussianMixture)
def _kl(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    if p.logits.shape[-1] == q.logits.shape[-1] == 1:
        # LAPACK knows no half precision.
        p, q = (m._like(m._gaussians.widened()) for m in (p, q))
        return kl_divergence(p.component_distribution, q.component_distribution)[..., 0]
    raise NotImplementedError(
        "the divergence of Gaussian mixtures has no closed form: use "
        "fastgmm.distributions.kl_monte_carlo(p, q, n_samples)."
    )
