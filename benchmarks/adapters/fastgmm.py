"""fastgmm through its public estimator, on arrays and on tensors."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from ..workloads import Array
from .base import Adapter, Fitted, to_host


class FastGMM(Adapter):
    name = "fastgmm"
    package = "fastgmm"
    tasks = frozenset({"score", "predict", "fit", "kmeans"})
    structures = frozenset({"full", "tied", "diag", "spherical"})
    modes = ("highest", "high", "medium")
    compiles_shapes = True
    #: the backend on a host: "cpu" for Numba, "interpreter" for Triton's
    host_backend: ClassVar[str] = "cpu"
    #: arguments of the estimator that no other implementation has
    settings: ClassVar[dict[str, Any]] = {}

    @classmethod
    def version(cls) -> str | None:
        # A checkout that is on the path without being installed is as good.
        try:
            import fastgmm
        except ModuleNotFoundError:
            return None
        return getattr(fastgmm, "__version__", None)

    def prepare(self) -> None:
        from fastgmm import GaussianMixture

        p = self.parameters
        settings = {"device": self._where(), "precision": self.mode, **self.settings}
        self._arguments: dict[str, Any] = {
            "n_components": p.n_components,
            "covariance_type": p.structure,
            "tol": 0.0,
            "reg_covar": self.reg_covar,
            "weights_init": p.weights,
            "means_init": p.means,
            "precisions_init": p.precisions,
            **settings,
        }
        self._class = GaussianMixture
        self._scorer = GaussianMixture.from_parameters(
            p.weights, p.means, p.covariances, covariance_type=p.structure, **settings
        )

    def _where(self) -> str:
        return "cuda" if getattr(self.device, "type", "cpu") == "cuda" else self.host_backend

    def score(self, x: Any) -> Any:
        return self._scorer.score_samples(x)

    def predict(self, x: Any) -> Any:
        return self._scorer.predict(x)

    def fit(self, x: Any, n_iter: int) -> Fitted:
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            # tol = 0 never converges, by intention
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = self._class(max_iter=n_iter, **self._arguments).fit(x)
        return self.fitted(model.weights_, model.means_, model.covariances_, int(model.n_iter_))

    def kmeans(self, x: Any, n_iter: int) -> Array:
        from fastgmm.backends import choose
        from fastgmm.kmeans import kmeans
        from fastgmm.sources import ArraySource

        class CountedPasses(ArraySource):
            """Rows that know how often they were read: k-means ends where no label changes."""

            passes = 0

            def __iter__(self) -> Any:
                self.passes += 1
                return super().__iter__()

        home = None if self.device is None else str(x.device)
        backend, _ = choose(self._where(), home, self.mode)
        source = CountedPasses(backend.rows(x))
        start = backend.own(self.parameters.means)
        # variance scales the tolerance only, which is 0
        centres, _ = kmeans(source, start, backend, 1.0, max_iter=n_iter, tol=0.0)
        if source.passes != n_iter:
            raise RuntimeError(f"no label changed after {source.passes} of {n_iter} iterations")
        return to_host(centres)


class Reference(FastGMM):
    """The backend that the kernels are tested against."""

    name = "fastgmm reference"
    modes = ("highest",)
    note = "device='reference': plain float64 NumPy, or torch on tensors, whatever the rows are"

    def _where(self) -> str:
        return "reference"


class VisitingAll(FastGMM):
    """The same loop on a CPU backend that leaves nothing out, which no argument asks for."""

    name = "fastgmm, nothing skipped"

    def fit(self, x: Array, n_iter: int) -> Fitted:
        from fastgmm import covariance
        from fastgmm.backends.cpu import CPUBackend
        from fastgmm.em import fit
        from fastgmm.model import MixtureModel
        from fastgmm.sources import ArraySource

        p = self.parameters
        start = MixtureModel.from_covariances(
            p.weights, p.means, p.covariances, covariance.get(p.structure)
        )
        result = fit(
            ArraySource(x),
            start,
            tol=0.0,
            max_iter=n_iter,
            reg_covar=self.reg_covar,
            backend=CPUBackend(skip=False),
        )
        m = result.model
        return self.fitted(m.weights, m.means, m.covariances, result.n_iter)
