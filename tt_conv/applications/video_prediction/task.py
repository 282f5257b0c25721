"""Training of frame predictors with Lightning."""

from collections.abc import Mapping

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FramePrediction(pl.LightningModule):
    """Trains one frame predictor, or several on the same batches.

    The loss is L1 + MSE, means over all outputs of the model: from the second frame on, each predicted from
    the true frames before it while there are given ones, then from the model's own predictions. Several
    models share the batches and nothing else: the gradients of each are clipped by their own norm, and Adam
    treats every parameter on its own.

    Parameters
    ----------
    models : mapping of str to nn.Module
        Models by name, called as ``model(frames [B, T, C, *S], future) -> [B, T + future - 1, C, *S]``.
    given : int
        Number of frames that the models are shown; they predict the rest of the sequence.
    learning_rate : float
        Adam's learning rate. It rises over the first tenth of the steps and falls to zero at the end.
    clip_norm : float
        Largest norm of the gradient of one model.

    References
    ----------
    J. Su, W. Byeon, J. Kossaifi, F. Huang, J. Kautz, A. Anandkumar: Convolutional tensor-train LSTM for
    spatio-temporal learning. NeurIPS 2020, arXiv 2002.09131 (the loss).
    """

    def __init__(
        self, models: Mapping[str, nn.Module], *, given: int, learning_rate: float = 1e-3, clip_norm: float = 1.0
    ) -> None:
        super().__init__()
        if not models:
            raise ValueError("expected at least one model to train, got none")
        if given < 1:
            raise ValueError(f"given must be at least 1 frame, got {given}")
        self.models = nn.ModuleDict(models)
        self.given = given
        self.learning_rate = learning_rate
        self.clip_norm = clip_norm

    def losses(self, sequences: Tensor) -> dict[str, Tensor]:
        """Loss of each model on sequences [B, T, C, *S]."""
        given, target = sequences[:, : self.given], sequences[:, 1:]
        future = sequences.shape[1] - self.given
        outputs = {name: model(given, future) for name, model in self.models.items()}
        return {name: F.l1_loss(out, target) + F.mse_loss(out, target) for name, out in outputs.items()}

    def training_step(self, sequences: Tensor) -> Tensor:
        losses = self.losses(sequences)
        self.log_dict(losses, prog_bar=True)
        return torch.stack(list(losses.values())).sum()

    def configure_gradient_clipping(self, *_: object, **__: object) -> None:
        for model in self.models.values():
            nn.utils.clip_grad_norm_(model.parameters(), self.clip_norm)

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
