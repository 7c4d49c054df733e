"""The constructor's parameters: what they may be, alone, together and with the rows."""

from __future__ import annotations

import os
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import (
    Interval,
    InvalidParameterError,
    StrOptions,
    validate_parameter_constraints,
)

from fastgmm import covariance, initialise
from fastgmm.arrays import is_tensor, to_numpy
from fastgmm.checkpoint import Checkpoint, data_facts, digest
from fastgmm.convert import MixtureConversion
from fastgmm.errors import InputError
from fastgmm.initialise import Start
from fastgmm.model import MixtureModel
from fastgmm.parameters import check_matrices, check_means, check_weights
from fastgmm.rows import Opened
from fastgmm.survey import projected


class MixtureSettings(MixtureConversion):
    """Checks of the parameters that :class:`fastgmm.GaussianMixture` is made with."""

    n_components: int
    weights_init: Any
    means_init: Any
    precisions_init: Any
    warm_start: bool

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions(set(initialise.METHODS))],
        "random_state": ["random_state", np.random.Generator],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", Real, np.ndarray, None],
        "empty": [StrOptions({"keep", "reseed", "error"})],
        "device": [str],
        "batch_size": [Interval(Integral, 1, None, closed="left"), str, None],
        "precision": [StrOptions({"highest", "high", "medium"})],
    }

    def _check_settings(self) -> None:
        names = set(covariance.names())
        constraints = {**self._parameter_constraints, "covariance_type": [StrOptions(names)]}
        if isinstance(self.n_components, bool | np.bool_):
            raise InvalidParameterError(
                "The 'n_components' parameter of GaussianMixture must be an int in the range "
                f"[1, inf). Got {self.n_components!r} instead."
            )
        given = self.get_params(deep=False)
        plain = {name: to_numpy(v) if is_tensor(v) else v for name, v in given.items()}
        validate_parameter_constraints(constraints, plain, caller_name=type(self).__name__)

    def _check_size(self, n_rows: int) -> None:
        starts = (self.weights_init, self.means_init, self.precisions_init)
        if n_rows < 2:
            raise InputError(
                f"Found array with {n_rows} sample(s) that have weight while a minimum of 2 is "
                "required by GaussianMixture."
            )
        if n_rows < self.n_components and any(start is None for start in starts):
            raise InputError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, "
                f"n_samples = {n_rows}"
            )

    def _check_warm(self, model: MixtureModel, n_features: int, what: str) -> None:
        """Compare the previous fit with the one that shall go on from it."""
        if model.means.shape != (self.n_components, n_features):
            raise InputError(
                f"{what}: the previous fit has means of shape {tuple(model.means.shape)}, this "
                f"one would have {(self.n_components, n_features)}. Begin with a new estimator."
            )
        if model.structure.name != self.covariance_type:
            raise InputError(
                f"{what}: the previous fit has covariance_type={model.structure.name!r}, this "
                f"one {self.covariance_type!r}. Begin with a new estimator."
            )

    def _start(self, n_features: int) -> Start:
        structure, n_components = covariance.get(self.covariance_type), self.n_components
        weights, means, precisions = self.weights_init, self.means_init, self.precisions_init
        if weights is not None:
            weights = check_weights(weights, n_components).astype(np.float64)
        if means is not None:
            means = check_means(means, n_components, n_features).astype(np.float64)
        if precisions is not None:
            precisions = check_matrices(precisions, structure, n_components, n_features)
        return Start(weights, means, precisions)

    def _plain_settings(self) -> dict[str, Any]:
        """Settings that tell one fit from another, arrays by a digest of their numbers."""
        given = self.get_params(deep=False)
        starts = ("weights_init", "means_init", "precisions_init")
        left = ("device", "batch_size", "verbose", "verbose_interval", "warm_start", "random_state")
        settings = {k: v for k, v in given.items() if k not in (*starts, *left)}
        settings = {k: v.item() if isinstance(v, np.generic) else v for k, v in settings.items()}
        return {**settings, **{name: digest(given[name]) for name in starts}}

    def _checkpoint(
        self, path: str | os.PathLike[str], every: int, warm_up: int, opened: Opened
    ) -> Checkpoint:
        if self.warm_start:
            raise InputError("checkpoint: a fit with warm_start=True cannot be continued from one.")
        seed = self.random_state
        settings = self._plain_settings() | {
            "warm_up": warm_up,
            "seed": int(seed) if isinstance(seed, Integral) else None,
        }
        source, found = opened.source, opened.survey
        facts = data_facts(found, projected(source, found), opened.dtype)
        structure, leader = covariance.get(self.covariance_type), source.leader
        return Checkpoint(path, every, settings, facts, structure, leader)
