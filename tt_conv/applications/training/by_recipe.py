"""The part of a training by a recipe that no task changes: steps, validation, optimizer, checkpoint."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tt_conv._version import __version__
from tt_conv.applications.training.checkpoint import CHECKPOINT_KEY
from tt_conv.applications.training.module import TrainingModule, one_cycle
from tt_conv.applications.training.plateau import PlateauSchedule
from tt_conv.applications.training.settings import AnySettings, settings_to_dict


class TrainedByRecipe(TrainingModule):
    """Trains a model by the settings of a recipe; batches are (numbers of the samples, samples).

    A base class beside another subclass of :class:`~tt_conv.applications.training.TrainingModule`, whose ``loss`` it
    uses. Subclasses may define :meth:`step_loss`, :meth:`measures`, :meth:`history` and :meth:`facts`.

    Parameters
    ----------
    settings : AnySettings
        The whole training.
    **options
        Of the other base class.
    """

    def __init__(self, settings: AnySettings, **options: Any) -> None:
        recipe = settings.training
        super().__init__(learning_rate=recipe.learning_rate, clip_norm=recipe.clip_norm or float("inf"), **options)
        self.settings = settings
        self.plateau = PlateauSchedule(0.0, 0.0, recipe.patience, recipe.lr_decay, recipe.lr_decay_every)
        self.validated_epoch = -1
        self.validation_loss = float("nan")
        self.validated: dict[str, float] = {}
        self.training_loss = float("nan")
        self.sequences_seen = 0

    def step_loss(self, numbers: Tensor, samples: Any) -> Tensor:
        """Loss of a step of training; the numbers are those of the samples in the data set."""
        return self.loss(samples, self.global_step / self.steps)

    def measures(self, samples: Any) -> dict[str, Tensor]:
        """Means over validation samples; ``loss`` is the one that decides which epoch was best."""
        return {"loss": self.loss(samples, 1.0)}

    def history(self) -> Mapping[str, float]:
        """Further columns of the history, after an epoch."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """What a checkpoint must tell beside settings and weights for the model to be built again."""
        return {}

    def training_step(self, batch: tuple[Tensor, Any]) -> Tensor:
        numbers, samples = batch
        loss = self.step_loss(numbers, samples)
        self.log("loss", loss.detach(), prog_bar=True)
        self._losses += loss.detach().double() * len(numbers)
        self._seen += len(numbers)
        self._steps += 1
        return loss

    def on_train_epoch_start(self) -> None:
        self._losses = torch.zeros((), dtype=torch.float64, device=self.device)
        self._seen = 0
        self._steps = 0

    def on_validation_epoch_start(self) -> None:
        self._validation: dict[str, Tensor] = {}

    def validation_step(self, batch: tuple[Tensor, Any]) -> None:
        numbers, samples = batch
        measures = {**self.measures(samples), "": torch.ones((), device=self.device)}
        for name, value in measures.items():
            self._validation[name] = self._validation.get(name, 0) + value.double() * len(numbers)

    def on_validation_epoch_end(self) -> None:
        if self._steps < self.trainer.num_training_batches:
            return  # Ctrl-C: Lightning validates what there is of the epoch
        names = [*self._validation]
        total = self._summed(torch.stack([*self._validation.values()]))
        trained = self._summed(torch.stack([self._losses, torch.full_like(self._losses, self._seen)]))
        self.validated = {name: float(value / total[names.index("")]) for name, value in zip(names, total, strict=True)}
        self.validation_loss = self.validated["loss"]
        if not math.isfinite(self.validation_loss):
            raise ValueError(
                f"the training diverged in epoch {self.current_epoch + 1}, its validation loss is "
                f"{self.validation_loss}: lower training.learning_rate or training.clip_norm; the epochs before it are "
                "kept"
            )
        self.training_loss = float(trained[0] / trained[1])
        self.sequences_seen += int(trained[1])
        self.log_dict({"validation_loss": self.validation_loss, **self.history()})
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
        return [optimizer], [{"scheduler": one_cycle(optimizer, self.learning_rate, self.steps), "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CHECKPOINT_KEY] = {
            "version": __version__,
            "task": self.settings.task,
            "settings": settings_to_dict(self.settings),
            **self.facts(),
            "plateau": self.plateau.state_dict(),
            "epochs_done": self.current_epoch + 1,
            "sequences_seen": self.sequences_seen,
            "validation_loss": self.validation_loss,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint[CHECKPOINT_KEY]
        self.plateau = PlateauSchedule(**kept["plateau"])
        self.sequences_seen = kept["sequences_seen"]
