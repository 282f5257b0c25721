"""The part of a training by a recipe that no task changes: steps, validation, optimizer, checkpoint."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from tqdm import tqdm

from tt_conv._version import __version__
from tt_conv.applications.training.checkpoint import CHECKPOINT_KEY
from tt_conv.applications.training.dense_start import DenseStart, carry_over
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
        self.dense_start: DenseStart | None = None
        self.is_dense = False
        self._losses = torch.zeros((), dtype=torch.float64)
        self._seen = self._steps = 0
        self._resumed_epoch = -1

    def begin_dense(self, dense: nn.Module, steps: int, batches: Callable[[], Sequence[Any]]) -> None:
        """Begin with a ConvLSTM and convert it to the model after so many steps.

        Parameters
        ----------
        dense : nn.Module
            The untrained ConvLSTM.
        steps : int
            At least 1, and fewer than those of the training.
        batches : callable
            See :class:`~tt_conv.applications.training.dense_start.DenseStart`.
        """
        self.dense_start = DenseStart(steps, dense, self.model, batches)
        self.model, self.is_dense = dense, True

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

    def on_train_batch_start(self, *_: Any) -> None:
        if self.dense_start is not None and self.is_dense and self.global_step >= self.dense_start.steps:
            self._convert(self.dense_start)

    def _convert(self, start: DenseStart) -> None:
        report = start.convert(self.model)
        carry_over(self.trainer.optimizers[0], self.model, start.target)
        self.model, self.is_dense = start.target, False
        # The validation loss begins anew: a stall is one of the converted network.
        self.plateau.best, self.plateau.stalled = math.inf, 0
        strategy = self.trainer.strategy
        if isinstance(
            strategy, DDPStrategy
        ):  # it wrapped the ConvLSTM; wrapping sends the weights of the first process
            strategy.model = strategy.lightning_module
            strategy.configure_ddp()
        if self.trainer.is_global_zero:
            tqdm.write(
                f"Step {self.global_step:,}: the ConvLSTM goes on as ConvTT-LSTM, {report.parameters_before:,} -> "
                f"{report.parameters_after:,} parameters; its outputs differ by {report.output_error:.1%}."
            )

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        start = None if self.is_dense else self.dense_start
        with nullcontext() if start is None else start.warming_up(optimizer, self.global_step):
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def training_step(self, batch: tuple[Tensor, Any]) -> Tensor:
        numbers, samples = batch
        loss = self.step_loss(numbers, samples)
        self.log("loss", loss.detach(), prog_bar=True)
        self._losses = self._losses.to(self.device) + loss.detach().double() * len(numbers)
        self._seen += len(numbers)
        self._steps += 1
        return loss

    def on_train_epoch_start(self) -> None:
        self._losses = torch.zeros((), dtype=torch.float64, device=self.device)
        self._seen = 0
        self._steps = 0

    @property
    def within_epoch(self) -> bool:
        """Whether there are steps of the epoch both behind and ahead."""
        return 0 < self._steps < self.trainer.num_training_batches

    def batches_done(self, epoch: int) -> int:
        """How many batches of an epoch were trained on before the training was resumed within it."""
        return self._steps if epoch == self._resumed_epoch else 0

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
        parameters: Any = self.parameters()
        if self.dense_start is not None and not self.is_dense:
            parameters = [{"params": group} for group in self.dense_start.groups()]
        optimizer = make(parameters, lr=self.learning_rate, **options)
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
            "epochs_done": self.current_epoch + (not self.within_epoch),
            "sequences_seen": self.sequences_seen,
            "validation_loss": self.validation_loss,
        }
        if self.is_dense:
            checkpoint[CHECKPOINT_KEY]["dense"] = True
        if self.within_epoch:
            trained = self.all_gather(torch.stack([self._losses, torch.full_like(self._losses, self._seen)]))
            checkpoint[CHECKPOINT_KEY]["epoch"] = {
                "steps": self._steps,
                "trained": torch.as_tensor(trained).reshape(-1, 2).cpu(),  # of every process: summed losses, samples
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint[CHECKPOINT_KEY]
        self.plateau = PlateauSchedule(**kept["plateau"])
        self.sequences_seen = kept["sequences_seen"]
        if "epoch" in kept:
            self._resumed_epoch, self._steps = kept["epochs_done"], kept["epoch"]["steps"]
            trained, rank = kept["epoch"]["trained"], self.trainer.global_rank
            if len(trained) != self.trainer.world_size:  # other devices than before: the first process has it all
                trained = torch.cat([trained.sum(0, keepdim=True), torch.zeros(self.trainer.world_size - 1, 2)])
            self._losses, self._seen = trained[rank, 0].to(self.device), int(trained[rank, 1])
        if self.dense_start is not None and not kept.get("dense"):
            self.model, self.is_dense = self.dense_start.target, False
