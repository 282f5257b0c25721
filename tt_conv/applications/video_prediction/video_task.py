"""The Lightning module that trains a frame predictor by the settings of a recipe."""

from typing import Any

import torch
from torch import Tensor, nn

from tt_conv._version import __version__
from tt_conv.applications.video_prediction.epochs import fed_with_truth
from tt_conv.applications.video_prediction.open_data import settings_to_dict
from tt_conv.applications.video_prediction.plateau import PlateauSchedule
from tt_conv.applications.video_prediction.settings import Settings
from tt_conv.applications.video_prediction.task import FramePrediction

CHECKPOINT_KEY = "tt_conv"


class VideoPrediction(FramePrediction):
    """Trains a model by the settings of a recipe; batches are (numbers of the samples, sequences).

    Parameters
    ----------
    model : nn.Module
        Called as ``model(frames, future, truth, use_truth)``, see
        :class:`~tt_conv.layers.FramePredictor`.
    settings : Settings
        Everything else.
    steps : int
        Optimizer steps of the whole training.
    """

    def __init__(self, model: nn.Module, settings: Settings, steps: int) -> None:
        recipe = settings.training
        super().__init__(
            model,
            given=settings.data.given,
            steps=steps,
            loss=recipe.loss,
            growth=recipe.growth,
            learning_rate=recipe.learning_rate,
            clip_norm=recipe.clip_norm or float("inf"),
        )
        self.settings = settings
        self.plateau = PlateauSchedule(
            recipe.sampling_ratio, recipe.sampling_decay, recipe.patience, recipe.lr_decay, recipe.lr_decay_every
        )
        self.validated_epoch = -1
        self.validation_loss = float("nan")
        self.training_loss = float("nan")
        self.sequences_seen = 0

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
        numbers, sequences = batch
        future = self.future(sequences.shape[1], self.global_step / self.steps)
        truth = use_truth = None
        if self.plateau.ratio > 0 and future > 1:
            truth = sequences[:, self.given : self.given + future - 1]
            use_truth = fed_with_truth(
                numbers, future - 1, self.plateau.ratio, seed=self.settings.training.seed, epoch=self.current_epoch
            )
        predicted = self.model(sequences[:, : self.given], future, truth, use_truth)
        loss = self.loss_of(predicted, sequences[:, 1 : self.given + future])
        self.log("loss", loss.detach(), prog_bar=True)
        self._losses += loss.detach().double() * len(sequences)
        self._seen += len(sequences)
        self._steps += 1
        return loss

    def on_train_epoch_start(self) -> None:
        self._losses = torch.zeros((), dtype=torch.float64, device=self.device)
        self._seen = 0
        self._steps = 0

    def on_validation_epoch_start(self) -> None:
        self._validation = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        _, sequences = batch
        self._validation[0] += self.loss(sequences).double() * len(sequences)
        self._validation[1] += len(sequences)

    def on_validation_epoch_end(self) -> None:
        if self._steps < self.trainer.num_training_batches:
            return  # Ctrl-C: Lightning validates what there is of the epoch
        total = self._summed(self._validation)
        trained = self._summed(torch.stack([self._losses, torch.full_like(self._losses, self._seen)]))
        self.validation_loss = float(total[0] / total[1])
        self.training_loss = float(trained[0] / trained[1])
        self.sequences_seen += int(trained[1])
        self.log_dict({"validation_loss": self.validation_loss, "sampling_ratio": self.plateau.ratio})
        self.validated_epoch = self.current_epoch
        self.plateau.update(self.validation_loss)
        if self.settings.training.schedule == "plateau":
            for group in self.trainer.optimizers[0].param_groups:
                group["lr"] = self.learning_rate * self.plateau.lr_factor

    def _summed(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        gathered = self.all_gather(values)
        return gathered.reshape(-1, *values.shape).sum(dim=0) if isinstance(gathered, Tensor) else values

    def configure_optimizers(self) -> Any:
        recipe = self.settings.training
        make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        options = {"weight_decay": recipe.weight_decay} if recipe.optimizer == "adamw" else {}
        optimizer = make(self.parameters(), lr=self.learning_rate, **options)
        if recipe.schedule == "plateau":
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=max(self.steps, 2), pct_start=0.1
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CHECKPOINT_KEY] = {
            "version": __version__,
            "settings": settings_to_dict(self.settings),
            "channels": self.model.get_submodule("output").get_parameter("bias").numel()
            // self.settings.model.patch_size**2,
            "plateau": self.plateau.state_dict(),
            "epochs_done": self.current_epoch + 1,
            "sequences_seen": self.sequences_seen,
            "validation_loss": self.validation_loss,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint[CHECKPOINT_KEY]
        self.plateau = PlateauSchedule(**kept["plateau"])
        self.sequences_seen = kept["sequences_seen"]
