"""torchgmm (the successor of pycave), by its Lightning modules from the given start."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from ..workloads import Array
from .base import Fitted, TensorAdapter, to_host


class TorchGMM(TensorAdapter):
    name = "torchgmm"
    package = "torchgmm"
    tasks = frozenset({"score", "predict", "fit", "kmeans"})
    structures = frozenset({"full", "tied", "diag", "spherical"})
    precisions = frozenset({"float32"})  # its aggregators are float32
    note = (
        "its modules with one batch and one pass per iteration; its estimator inverts the flag for"
        " batches, and takes two"
    )

    def prepare(self) -> None:
        from torchgmm.bayes.gmm.model import GaussianMixtureModel, GaussianMixtureModelConfig

        for name in ("lightning.pytorch", "pytorch_lightning"):
            logging.getLogger(name).setLevel(logging.ERROR)
        p = self.parameters
        self._config = GaussianMixtureModelConfig(p.n_components, p.n_features, p.structure)
        self._class = GaussianMixtureModel
        self._scorer = self._model()

    def _model(self) -> Any:
        model = self._class(self._config).to(self.device)
        p = self.parameters
        model.component_probs.copy_(self.own(p.weights))
        model.means.copy_(self.own(p.means))
        model.precisions_cholesky.copy_(self.own(p.precisions_cholesky))
        return model

    def score(self, x: Any) -> Any:
        return self._scorer(self.rows(x))[1]

    def predict(self, x: Any) -> Any:
        return self._scorer(self.rows(x))[0].argmax(dim=1)

    def fit(self, x: Any, n_iter: int) -> Fitted:
        from torchgmm.bayes.gmm.lightning_module import GaussianMixtureLightningModule

        model = self._model()
        module = GaussianMixtureLightningModule(
            model,
            convergence_tolerance=0.0,
            covariance_regularization=self.reg_covar,
            is_batch_training=False,
        )
        epochs = self._train(module, x, n_iter)
        return self.fitted(model.component_probs, model.means, model.covariances, epochs)

    def kmeans(self, x: Any, n_iter: int) -> Array:
        from torchgmm.clustering.kmeans.lightning_module import KMeansLightningModule
        from torchgmm.clustering.kmeans.model import KMeansModel, KMeansModelConfig

        p = self.parameters
        model = KMeansModel(KMeansModelConfig(p.n_components, p.n_features)).to(self.device)
        model.centroids.copy_(self.own(p.means))
        self._train(KMeansLightningModule(model, convergence_tolerance=0.0), x, n_iter)
        return to_host(model.centroids)

    def _train(self, module: Any, x: Any, epochs: int) -> int:
        from pytorch_lightning import Trainer
        from torch.utils.data import DataLoader

        with warnings.catch_warnings():
            # Lightning's advice about loaders, loggers and optimizers
            warnings.simplefilter("ignore")
            trainer = Trainer(
                max_epochs=epochs,
                accelerator="gpu" if self.device.type == "cuda" else "cpu",
                devices=[self.device.index or 0] if self.device.type == "cuda" else 1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            # one batch that is on the device already
            trainer.fit(module, DataLoader([self.rows(x)], batch_size=None))
        return int(trainer.current_epoch)
