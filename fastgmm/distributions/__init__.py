"""Mixtures as torch distributions, on compiled kernels."""

from fastgmm.distributions.estimates import kl_monte_carlo
from fastgmm.distributions.gaussian_mixture import GaussianMixture
from fastgmm.distributions.mixture_same_family import MixtureSameFamily

__all__ = ["GaussianMixture", "MixtureSameFamily", "kl_monte_carlo"]
