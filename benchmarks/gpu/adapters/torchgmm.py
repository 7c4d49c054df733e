"""torchgmm (the successor of pycave), by its Lightning module from the given start."""

from __future__ import annotations

import logging
import warnings

import torch

from ...adapters import Fitted
from ...workloads import Parameters
from .base import Tensor, TensorAdapter


class TorchGMM(TensorAdapter):
    name = "torchgmm"
    package = "torchgmm"
    tasks = frozenset({"score", "fit"})
    structures = frozenset({"full", "tied", "diag", "spherical"})
    precisions = frozenset({"float32"})  # its aggregators are float32
    passes_per_iteration = 2
    note = (
        "unbatched, as its estimator runs it: the flag for batches is inverted, so that one batch"
        " takes two passes per iteration"
    )

    def __init__(
        self,
        parameters: Parameters,
        precision: str,
        device: torch.device,
        mode: str = "highest",
        reg_covar: float = 0.0,
    ) -> None:
        super().__init__(parameters, precision, device, mode, reg_covar)
        from torchgmm.bayes.gmm.model import GaussianMixtureModel, GaussianMixtureModelConfig

        for name in ("lightning.pytorch", "pytorch_lightning"):
            logging.getLogger(name).setLevel(logging.ERROR)
        p = parameters
        self._config = GaussianMixtureModelConfig(p.n_components, p.n_features, p.structure)
        self._class = GaussianMixtureModel
        self._scorer = self._model()

    def _model(self):
        model = self._class(self._config).to(self.device)
        p = self.parameters
        model.component_probs.copy_(self.tensor(p.weights))
        model.means.copy_(self.tensor(p.means))
        model.precisions_cholesky.copy_(self.tensor(p.precisions_cholesky))
        return model

    def score(self, x: Tensor) -> Tensor:
        return self._scorer(x)[1]

    def fit(self, x: Tensor, n_iter: int) -> Fitted:
        from pytorch_lightning import Trainer
        from torch.utils.data import DataLoader
        from torchgmm.bayes.gmm.lightning_module import GaussianMixtureLightningModule

        model = self._model()
        module = GaussianMixtureLightningModule(
            model,
            convergence_tolerance=0.0,
            covariance_regularization=self.reg_covar,
            is_batch_training=True,
        )
        with warnings.catch_warnings():
            # Lightning's advice about loaders, loggers and optimizers
            warnings.simplefilter("ignore")
            trainer = Trainer(
                max_epochs=2 * n_iter,
                accelerator="gpu" if self.device.type == "cuda" else "cpu",
                devices=[self.device.index or 0] if self.device.type == "cuda" else 1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            # one batch that is on the device already
            trainer.fit(module, DataLoader([x], batch_size=None))
        epochs = int(trainer.current_epoch)
        return self.fitted(model.component_probs, model.means, model.covariances, epochs // 2)
