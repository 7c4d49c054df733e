"""Gaussian mixtures as torch modules, with parameters of their own or predicted from a context."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fastgmm.clusters import STRATEGIES, cluster
from fastgmm.distributions import GaussianMixture
from fastgmm.errors import InputError

if TYPE_CHECKING:
    from fastgmm.mixture import GaussianMixture as Estimator

__all__ = ["GMM", "MLP"]

_STRUCTURES = {"full": "full", "diagonal": "diag", "spherical": "spherical"}
_TIED = {"tied": "full", "tied_diag": "diagonal", "tied_spherical": "spherical"}
# What a GMM passes on to its network.
_NETWORK = {"hidden_features", "activation", "normalize", "bias", "device", "dtype"}


class MLP(nn.Sequential):
    """Fully connected layers with an activation between them.

    Parameters
    ----------
    in_features, out_features : int
    hidden_features : iterable of int
        Widths of the hidden layers.
    activation : callable, optional
        Gives a module, ``nn.ReLU`` by default.
    normalize : bool
        Whether each hidden layer is followed by a normalisation of its features.
    **kwargs
        Passed to ``nn.Linear``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_features: Iterable[int] = (64, 64),
        activation: Callable[[], nn.Module] | None = None,
        normalize: bool = False,
        **kwargs: Any,
    ) -> None:
        layers: list[nn.Module] = []
        width = in_features
        for following in hidden_features:
            layers.append(nn.Linear(width, following, **kwargs))
            if normalize:
                layers.append(nn.LayerNorm(following, elementwise_affine=False))
            layers.append((activation or nn.ReLU)())
            width = following
        layers.append(nn.Linear(width, out_features, **kwargs))
        super().__init__(*layers)


class GMM(nn.Module):
    """Gaussian mixture p(x | c) = sum_k w_k(c) N(x; mu_k(c), Sigma_k(c)).

    Parameters
    ----------
    features : int
        Number of features D.
    context : int
        Number of context features. 0 gives a mixture with parameters of its own; else a network
        predicts them.
    components : int
        Number of components K.
    covariance_type : {"full", "diagonal", "spherical"}
        The estimator's "diag", "tied", "tied_diag" and "tied_spherical" will do as well.
    tied : bool
        Whether all components share one covariance.
    epsilon : float
        Added to the diagonal of the covariances, in units of the variance.
    **kwargs
        ``device`` and ``dtype`` of the parameters; ``hidden_features``, ``activation``,
        ``normalize`` and ``bias`` of the :class:`MLP`, which mean nothing without a context.

    Attributes
    ----------
    shapes : list of tuple
        Of the parameters, with L = 1 if tied else K: logits (K,), means (K, D); full: logarithms
        of the diagonal (L, D) and entries below it (L, D (D - 1) / 2), row by row, of a lower
        triangle T; diagonal: logarithms of standard deviations (L, D); spherical: (L, 1).
        Covariances are T T' + epsilon, and s^2 + epsilon.
    phi : ParameterList
        These parameters, unless there is a context.
    hyper : MLP
        The network that gives them, one after the other, if there is one.

    Raises
    ------
    InputError
        If an argument is out of range or unknown.

    Notes
    -----
    The interface is that of ``zuko.mixtures.GMM``. Bishop (1994), Mixture density networks.

    Examples
    --------
    >>> import torch
    >>> from fastgmm.nn import GMM
    >>> mixture = GMM(features=2, components=3, covariance_type="diagonal")
    >>> mixture().log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    >>> GMM(features=2, context=4, components=3)(torch.zeros(7, 4)).batch_shape
    torch.Size([7])
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        components: int = 2,
        covariance_type: str = "full",
        tied: bool = False,
        epsilon: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("features", features, 1),
            ("context", context, 0),
            ("components", components, 1),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} must be an integer of at least {least}; got {value!r}.")
        if covariance_type in _TIED:
            tied, covariance_type = True, _TIED[covariance_type]
        elif covariance_type == "diag":
            covariance_type = "diagonal"
        if covariance_type not in _STRUCTURES:
            names = ", ".join(map(repr, _STRUCTURES))
            raise InputError(f"covariance_type must be one of {names}; got {covariance_type!r}.")
        if not (math.isfinite(epsilon) and epsilon >= 0):
            raise InputError(f"epsilon must be finite and not negative; got {epsilon!r}.")
        unknown = set(kwargs) - _NETWORK
        if unknown:
            raise InputError(f"unknown arguments {sorted(unknown)}; the others go to MLP.")
        self.features, self.context, self.components = features, context, components
        self.covariance_type, self.tied, self.epsilon = covariance_type, tied, float(epsilon)
        leading = 1 if tied else components
        self.shapes: list[tuple[int, ...]] = [(components,), (components, features)]
        if covariance_type == "spherical":
            self.shapes.append((leading, 1))
        else:
            self.shapes.append((leading, features))
        if covariance_type == "full":
            self.shapes.append((leading, features * (features - 1) // 2))
        self.total = sum(math.prod(shape) for shape in self.shapes)
        if context > 0:
            self.hyper = MLP(context, self.total, **kwargs)
        else:
            place = {name: kwargs[name] for name in ("device", "dtype") if name in kwargs}
            self.phi = nn.ParameterList(torch.randn(shape, **place) for shape in self.shapes)

    def extra_repr(self) -> str:
        """What stands in the brackets of the representation."""
        return (
            f"features={self.features}, context={self.context}, components={self.components}, "
            f"covariance_type={self.covariance_type!r}, tied={self.tied}, epsilon={self.epsilon:g}"
        )

    def __repr__(self) -> str:
        """On one line, where there is no network to show."""
        return super().__repr__() if self.context else f"GMM({self.extra_repr()})"

    def forward(self, c: Tensor | None = None) -> GaussianMixture:
        """Return the mixture, given a context if there is one.

        Parameters
        ----------
        c : Tensor of shape (..., C), optional
            Leading dimensions become the batch shape of the distribution.

        Returns
        -------
        distribution : GaussianMixture

        Raises
        ------
        InputError
            If the context is missing, unexpected, or of another shape.
        """
        if self.context == 0:
            if c is not None:
                raise InputError("this GMM was built with context=0 and takes no context c.")
            return self._mixture(*self.phi)
        if c is None:
            raise InputError(f"this GMM needs a context c of shape (..., {self.context}).")
        if not isinstance(c, Tensor) or c.ndim < 1 or c.shape[-1] != self.context:
            shape = tuple(c.shape) if isinstance(c, Tensor) else type(c).__name__
            raise InputError(f"c must have shape (..., {self.context}); got {shape}.")
        parts = self.hyper(c).split([math.prod(shape) for shape in self.shapes], dim=-1)
        unpacked = zip(parts, self.shapes, strict=True)
        return self._mixture(*(part.unflatten(-1, shape) for part, shape in unpacked))

    def _mixture(self, logits: Tensor, means: Tensor, *shape: Tensor) -> GaussianMixture:
        structure = _STRUCTURES[self.covariance_type]
        if self.covariance_type == "full":
            scale = self._triangles(*shape)
            if self.tied:
                return GaussianMixture(
                    logits=logits,
                    means=means,
                    scale_tril=scale[..., 0, :, :],
                    covariance_type="tied",
                )
            return GaussianMixture(logits=logits, means=means, scale_tril=scale)
        variances = (2 * shape[0]).exp() + self.epsilon
        if self.covariance_type == "spherical":
            variances = variances[..., 0]
        if self.tied:
            structure = f"tied_{structure}"
            place = -1 if self.covariance_type == "spherical" else -2
            variances = variances.select(place, 0)
        return GaussianMixture(
            logits=logits, means=means, variances=variances, covariance_type=structure
        )

    def _triangles(self, diagonal: Tensor, below: Tensor) -> Tensor:
        """Cholesky factors of T T' + epsilon."""
        triangle = torch.diag_embed(diagonal.exp())
        row, column = torch.tril_indices(self.features, self.features, -1, device=below.device)
        triangle[..., row, column] = below.to(triangle.dtype)  # autocast leaves it in half
        if self.epsilon == 0:
            return triangle
        # In float64: products square the condition number.
        wide = triangle.double()
        eye = torch.eye(self.features, dtype=wide.dtype, device=wide.device)
        factor, info = torch.linalg.cholesky_ex(wide @ wide.mT + self.epsilon * eye)
        return factor.masked_fill((info > 0)[..., None, None], torch.nan).to(triangle.dtype)

    @torch.no_grad()
    def initialize(
        self, x: Tensor, strategy: str, *, iterations: int = 7, seed: int | None = None
    ) -> None:
        """Set the parameters to clusters of rows.

        A conditional mixture starts near these for every context: the last layer's weight is
        scaled down by 100 and its bias set.

        Parameters
        ----------
        x : Tensor of shape (N, D)
            More rows than components.
        strategy : {"random", "kmeans", "kmeans++", "k-means++"}
            Centres are random rows, or k-means++ picks them, or Lloyd's algorithm moves those.
        iterations : int
            Of Lloyd's algorithm.
        seed : int, optional
            By default it is drawn from torch's generator.

        Raises
        ------
        InputError
            If ``x`` has another shape, NaN or infinity, too few rows, or the strategy is unknown.

        Notes
        -----
        Weights, means and covariances are those of the clusters around the centres. A component
        with fewer than D + 1 rows gets the covariance within all clusters.
        """
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != self.features:
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"x must have shape (N, {self.features}); got {shape}.")
        if len(x) <= self.components:
            raise InputError(
                f"x must have more rows than there are components; got {len(x)} rows and "
                f"{self.components} components."
            )
        if strategy not in STRATEGIES:
            names = ", ".join(map(repr, STRATEGIES))
            raise InputError(f"strategy must be one of {names}; got {strategy!r}.")
        if not bool(torch.isfinite(x).all()):
            raise InputError(f"x of shape {tuple(x.shape)} has NaN or infinity.")
        if seed is None:
            seed = int(torch.randint(2**31 - 1, ()))
        single = x.detach().cpu()
        rows = single.numpy() if single.dtype == torch.float32 else single.double().numpy()
        found = cluster(rows, self.components, strategy, iterations, np.random.RandomState(seed))
        covariances = found.within[None] if self.tied else found.covariances
        self._assign(np.log(found.weights), found.means, np.linalg.cholesky(covariances))

    @torch.no_grad()
    def _assign(self, logits: np.ndarray, means: np.ndarray, lower: np.ndarray) -> None:
        """Take over parameters; Cholesky factors of covariances to which forward adds epsilon."""
        values = [logits, means]
        if self.covariance_type == "full":
            row, column = np.tril_indices(self.features, -1)
            values += [np.log(np.einsum("kii->ki", lower)), lower[:, row, column]]
        else:
            variances = (lower**2).sum(axis=2)
            if self.covariance_type == "spherical":
                variances = variances.mean(axis=1, keepdims=True)
            values.append(0.5 * np.log(variances))
        tensors = [torch.from_numpy(np.ascontiguousarray(v)) for v in values]
        if self.context == 0:
            for parameter, value in zip(self.phi, tensors, strict=True):
                parameter.copy_(value)
            return
        last = self.hyper[-1]
        if not isinstance(last, nn.Linear) or last.bias is None:
            raise InputError("a conditional GMM without bias has nowhere to put start parameters.")
        last.weight.mul_(1e-2)
        last.bias.copy_(torch.cat([value.flatten() for value in tensors]))

    @classmethod
    def from_distribution(cls, mixture: GaussianMixture, epsilon: float = 1e-6) -> GMM:
        """Take over the parameters of a distribution.

        Parameters
        ----------
        mixture : fastgmm.distributions.GaussianMixture
            Without batch dimensions.
        epsilon : float
            At most half the smallest eigenvalue of the covariances is taken, and 0 where that is
            lost in rounding beside the largest. The parameters make up for it: the module's
            mixture is the one given.

        Returns
        -------
        module : GMM
            Of the dtype and on the device of the distribution.

        Raises
        ------
        InputError
            If there are batch dimensions.
        """
        if len(mixture.batch_shape):
            raise InputError(
                f"a GMM without context holds one mixture; got batch_shape "
                f"{tuple(mixture.batch_shape)}."
            )
        structure = mixture.covariance_type
        tied, full = structure in _TIED, structure in ("full", "tied")
        # Products square the condition number: in float64, and eigenvalues by the factors.
        with torch.no_grad():
            wide = mixture.to("cpu", torch.float64)
            covariances = wide.covariances[: 1 if tied else None].numpy()
            sizes = torch.linalg.svdvals(wide.scale.tril()) if full else wide.scale
        n_components, n_features = mixture.means.shape
        epsilon = min(epsilon, 0.5 * float(sizes.min()) ** 2)
        if full and bool((sizes[..., -1] < 1e-6 * sizes[..., 0]).any()):
            # The difference below would have too few digits left of the smallest eigenvalue.
            epsilon, lower = 0.0, wide.scale.tril().numpy().reshape(-1, n_features, n_features)
        else:
            lower = np.linalg.cholesky(covariances - epsilon * np.eye(n_features))
        module = cls(
            n_features, components=n_components, covariance_type=structure, epsilon=epsilon
        ).to(mixture.means)
        logits, means = (t.detach().numpy() for t in (wide.logits, wide.means))
        module._assign(logits, means, lower)
        return module

    @classmethod
    def from_estimator(cls, estimator: Estimator, epsilon: float = 1e-6) -> GMM:
        """Take over a fitted :class:`fastgmm.GaussianMixture`.

        Parameters
        ----------
        estimator : fastgmm.GaussianMixture
            Fitted.
        epsilon : float
            As for :meth:`from_distribution`.

        Returns
        -------
        module : GMM
            Of the dtype of the fit, on the CPU.
        """
        return cls.from_distribution(estimator.to_distribution(), epsilon)

    def to_estimator(self) -> Estimator:
        """Return a fitted :class:`fastgmm.GaussianMixture` with the parameters as they are now.

        Returns
        -------
        estimator : GaussianMixture

        Raises
        ------
        InputError
            For a conditional mixture: give it a context, and convert what it returns.
        """
        if self.context > 0:
            raise InputError(
                "a conditional GMM has no parameters of its own: convert gmm(c).to_estimator()."
            )
        return self().to_estimator()
