"""Train the model of any task: ``tt-conv train``."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch.utils.data import DataLoader

from tt_conv.applications import gate
from tt_conv.applications.output import OutputFolder
from tt_conv.applications.training.by_recipe import TrainedByRecipe
from tt_conv.applications.training.callbacks import BEST, LAST, Checkpoints, History, RunBar
from tt_conv.applications.training.checkpoint import CHECKPOINT_KEY, account_of, named, read_checkpoint
from tt_conv.applications.training.dense_start import calibration_batches
from tt_conv.applications.training.epochs import EpochBatches, EpochOfSamples, Samples
from tt_conv.applications.training.one_pass import Outcome, quiet_lightning, stops_in_good_order
from tt_conv.applications.training.plateau import PlateauSchedule
from tt_conv.applications.training.settings import (
    AnySettings,
    TrainingSettings,
    conv_lstm_settings,
    name_of_cell,
    read_settings,
    settings_to_dict,
)
from tt_conv.applications.training.trainable import Trainable, trainable_of

SETTINGS_FILE = "settings.yaml"
_PRECISIONS: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed", "64": "64-true"}
# What may differ when a training goes on: where data are and on what it runs, not what is computed.
_MAY_CHANGE = {
    "data": {"path", "cache", "workers"},
    "model": set[str](),
    "training": {"accelerator", "devices", "strategy", "nodes", "checkpoint_minutes", "pictures_every"},
}


def run_training(settings: AnySettings, out: Path | str | None = None) -> bool:
    """Train a model and leave a folder of checkpoints, logs and pictures.

    Parameters
    ----------
    settings : AnySettings
        Data, model and recipe of a task.
    out : path, optional
        Folder to write to, new or empty; by default ``tt-conv-training``, or the first free name after it.

    Returns
    -------
    bool
        Whether the training is complete: ``False`` after Ctrl-C.

    Raises
    ------
    FileExistsError
        If the folder exists and is not empty.
    ValueError, OSError
        If the data or the settings cannot be used.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from tt_conv.applications.video_prediction.settings import DataSettings, ModelSettings, Settings
    >>> from tt_conv.applications.video_prediction.settings import TrainingSettings
    >>> settings = Settings(
    ...     DataSettings(size=16, digit_size=8, sequences=4, validation_sequences=2, given=3, future=2),
    ...     ModelSettings(cell="conv_lstm", hidden_channels=[4], layers_per_block=[1], kernel_size=3),
    ...     TrainingSettings(epochs=1, batch_size=2, pictures_every=0),
    ... )
    >>> with TemporaryDirectory() as folder:
    ...     complete = run_training(settings, folder + "/run")
    4 training and 2 validation sequences...
    >>> complete
    True
    """
    folder = OutputFolder.with_free_name("tt-conv-training") if out is None else OutputFolder(out)
    prepared = _Prepared(settings)
    prepared.make_trainer(folder.path)
    if prepared.is_other_process:  # of several: the first one has claimed the folder, or does so now
        return prepared.run(folder.path, None)
    with folder:
        with folder.new_file(SETTINGS_FILE) as file:
            file.write_text(yaml.safe_dump(settings_to_dict(prepared.settings), sort_keys=False))
        return prepared.run(folder.path, None)


def resume_training(folder: Path | str) -> bool:
    """Go on with a training that was stopped, from its ``last.ckpt``, as if it had not been.

    Parameters
    ----------
    folder : path
        The folder of the training. Its settings stay as they were.

    Returns
    -------
    bool
        Whether the training is complete now.

    Raises
    ------
    FileNotFoundError
        If the folder holds no training.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from tt_conv.applications.video_prediction.settings import DataSettings, ModelSettings, Settings
    >>> from tt_conv.applications.video_prediction.settings import TrainingSettings
    >>> settings = Settings(
    ...     DataSettings(size=16, digit_size=8, sequences=4, validation_sequences=2, given=3, future=2),
    ...     ModelSettings(cell="conv_lstm", hidden_channels=[4], layers_per_block=[1], kernel_size=3),
    ...     TrainingSettings(epochs=1, batch_size=2, pictures_every=0),
    ... )
    >>> with TemporaryDirectory() as folder:
    ...     complete = run_training(settings, folder + "/run")
    ...     again = resume_training(folder + "/run")
    4 training and 2 validation sequences...
    >>> complete, again
    (True, True)
    """
    folder = Path(folder)
    file = folder / SETTINGS_FILE
    if not file.exists():
        raise FileNotFoundError(f"{folder} holds no {SETTINGS_FILE}: give the folder of a training")
    settings = read_settings(file)
    checkpoint = folder / LAST
    if checkpoint.exists():
        _check_unchanged(settings, checkpoint, file)
    prepared = _Prepared(settings)
    prepared.make_trainer(folder)
    return prepared.run(folder, checkpoint if checkpoint.exists() else None)


def _check_unchanged(settings: AnySettings, checkpoint: Path, file: Path) -> None:
    """Refuse to go on from a checkpoint that is damaged, or by other settings than those it was trained by."""
    try:
        contents = read_checkpoint(checkpoint)
    except ValueError as error:
        raise ValueError(f"{error}; to go on from the best epoch, put a copy of {BEST} in its place") from error
    with named(checkpoint):
        kept = settings_to_dict(account_of(contents[CHECKPOINT_KEY], settings.task).settings)
        PlateauSchedule(**contents[CHECKPOINT_KEY]["plateau"])
        gate.check_weights(checkpoint, contents["state_dict"])
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step"):
            contents[part]
    now, longer = settings_to_dict(settings), settings.training.schedule == "plateau"
    changed = [
        f"{part}.{name} ({kept[part].get(name)} in the checkpoint, {value} now)"
        for part, allowed in _MAY_CHANGE.items()
        for name, value in now[part].items()
        if name not in allowed and not (longer and name == "epochs") and kept[part].get(name) != value
    ]
    if changed:
        raise ValueError(
            f"{file} was changed since {checkpoint} was written: {', '.join(changed)}: put that back, or start anew "
            "with tt-conv train --config; only training.schedule=plateau can be given more epochs"
        )


class _Prepared:
    """A training whose data are open and whose model is built."""

    def __init__(self, settings: AnySettings) -> None:
        recipe, self.application = settings.training, trainable_of(settings)
        check_recipe(recipe)
        check_dense_start(settings)
        if settings.data.workers < 0:
            raise ValueError(f"data.workers must not be negative, got {settings.data.workers}")
        self.application.check(settings)
        self.train = self.application.open_data(settings.data, "train")
        settings = self.settings = self.application.decided(settings, self.train)
        self.validation = self.application.open_data(settings.data, "validation")
        self.batch = min(recipe.batch_size, len(self.train))
        self.steps = recipe.epochs * (len(self.train) // self.batch)
        self.task = self.application.training(settings, self.train, self.steps)
        if recipe.dense_start:
            if self.steps < 2:
                raise ValueError(
                    f"training.dense_start needs a training of at least 2 steps, got {self.steps}; "
                    "training.dense_start=0 begins with the ConvTT-LSTM"
                )
            dense = self.application.training(conv_lstm_settings(settings), self.train, self.steps)
            share = min(max(round(recipe.dense_start * self.steps), 1), self.steps - 1)
            self.task.begin_dense(dense.model, share, self._calibration)

    def _calibration(self) -> list[Any]:
        """Batches of training samples, as the network is called with them; the same in every process."""
        inputs = partial(self.application.inputs, self.settings)
        return calibration_batches(self.train, inputs, self.settings.training.seed)

    @property
    def is_other_process(self) -> bool:
        """Whether this is not the first one of several processes, as torchrun or Lightning start them."""
        return any(int(os.environ.get(name, 0)) > 0 for name in ("RANK", "LOCAL_RANK"))

    def run(self, folder: Path, checkpoint: Path | None) -> bool:
        outcome = self._fit(folder, checkpoint)
        if not self.is_other_process:
            print(_closing_words(folder, outcome, self.settings, self.application), flush=True)
        return not outcome.interrupted

    def make_trainer(self, folder: Path) -> None:
        """Make what trains; devices and strategies that are not there are refused before anything is written."""
        recipe = self.settings.training
        with quiet_lightning(), _refused_devices(recipe):
            self.trainer = pl.Trainer(
                accelerator=recipe.accelerator,
                devices=recipe.devices if recipe.devices == "auto" else int(recipe.devices),
                num_nodes=recipe.nodes,
                strategy=recipe.strategy,
                **_precision(recipe),
                max_epochs=recipe.epochs,
                logger=TensorBoardLogger(folder, name="", version="tensorboard"),
                callbacks=[
                    RunBar(self.steps, recipe.epochs),
                    History(folder),
                    *self.application.callbacks(self.settings, folder, self.validation),
                    Checkpoints(folder, recipe.checkpoint_minutes),
                ],
                enable_checkpointing=True,
                enable_model_summary=False,
                enable_progress_bar=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                reload_dataloaders_every_n_epochs=1,
                log_every_n_steps=max(1, min(50, self.steps // recipe.epochs)),
            )
        one_model = (
            isinstance(self.trainer.strategy, SingleDeviceStrategy) or type(self.trainer.strategy) is DDPStrategy
        )
        if recipe.dense_start and not one_model:
            raise ValueError(
                f"training.dense_start trains on one device or with training.strategy=ddp, got {recipe.strategy}"
            )

    def _fit(self, folder: Path, checkpoint: Path | None) -> Outcome:
        recipe = self.settings.training
        if not self.is_other_process:
            print(self._introduction(folder, checkpoint), flush=True)
        with quiet_lightning():
            data = _Batches(self.train, self.validation, self.settings)
            with stops_in_good_order(self.trainer) as stopped:
                try:
                    # Only plain values and tensors are in it; nothing else would be loaded.
                    self.trainer.fit(self.task, data, ckpt_path=checkpoint, weights_only=True)
                except SystemExit as end:
                    raise KeyboardInterrupt from end
        done = self.task.validated_epoch + 1
        return Outcome(done, bool(stopped) and done < recipe.epochs)

    def _introduction(self, folder: Path, checkpoint: Path | None) -> str:
        recipe, about = self.settings.training, self.application
        lines = [about.introduction(self.settings, self.train, self.validation)]
        lines += [f"  {note}" for note in dict.fromkeys([*self.train.notes, *self.validation.notes])]
        start = self.task.dense_start
        model = self.task.model if start is None else start.target
        begun = "" if start is None else f", begun as conv_lstm of {start.dense_parameters:,} for {start.steps:,} steps"
        parameters = sum(parameter.numel() for parameter in model.parameters())
        lines += [
            f"{about.model_name(self.settings)}: {parameters:,} parameters{begun}; "
            f"{recipe.epochs} epochs, {self.steps:,} steps of {self.batch} {about.samples}. Writing to {folder}."
        ]
        if checkpoint is not None:
            lines += [f"Going on from {checkpoint}."]
        return "\n".join(lines)


class _Batches(pl.LightningDataModule):
    """The batches of one process, new for every epoch."""

    def __init__(self, train: Samples, validation: Samples, settings: AnySettings) -> None:
        super().__init__()
        self.train, self.validation, self.settings = train, validation, settings

    def train_dataloader(self) -> DataLoader:
        trainer, recipe = self._trainer(), self.settings.training
        task = trainer.lightning_module
        assert isinstance(task, TrainedByRecipe)
        batches = EpochBatches(
            len(self.train),
            recipe.batch_size,
            seed=recipe.seed,
            epoch=trainer.current_epoch,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            done=task.batches_done(trainer.current_epoch),
        )
        return self._loader(EpochOfSamples(self.train, trainer.current_epoch), batch_sampler=batches)

    def val_dataloader(self) -> DataLoader:
        trainer, recipe = self._trainer(), self.settings.training
        share = list(range(trainer.global_rank, len(self.validation), trainer.world_size))
        batch = max(1, recipe.batch_size // trainer.world_size)
        return self._loader(EpochOfSamples(self.validation, None), sampler=share, batch_size=batch)

    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None
        return self.trainer

    def _loader(self, samples: EpochOfSamples, **options: Any) -> DataLoader:
        # A generator of its own: the loader draws a seed for its workers, from the global one otherwise.
        workers = self.settings.data.workers
        return DataLoader(
            samples, num_workers=workers, generator=torch.Generator(), worker_init_fn=_use_one_thread, **options
        )


def _use_one_thread(_: int) -> None:
    torch.set_num_threads(1)


def check_recipe(recipe: TrainingSettings) -> None:
    """Refuse settings of a training that are out of their range, before any data are read."""
    for name in ("epochs", "batch_size", "nodes"):
        if getattr(recipe, name) < 1:
            raise ValueError(f"training.{name} must be at least 1, got {getattr(recipe, name)}")
    if recipe.devices != "auto" and not (recipe.devices.isdigit() and int(recipe.devices) > 0):
        raise ValueError(f"training.devices must be a number of devices, or auto, got {recipe.devices!r}")
    if not 0 <= recipe.checkpoint_minutes < math.inf:
        raise ValueError(
            "training.checkpoint_minutes must be a number of minutes, or 0 for checkpoints at the end of epochs only, "
            f"got {recipe.checkpoint_minutes}"
        )
    if recipe.seed < 0:
        raise ValueError(f"training.seed must not be negative, got {recipe.seed}")
    if not 0 < recipe.learning_rate < math.inf:
        raise ValueError(f"training.learning_rate must be positive and finite, got {recipe.learning_rate}")
    if recipe.clip_norm is not None and not 0 < recipe.clip_norm < math.inf:
        raise ValueError(f"training.clip_norm must be positive and finite, or null for none, got {recipe.clip_norm}")
    if not 0 <= recipe.weight_decay < math.inf:
        raise ValueError(f"training.weight_decay must not be negative or infinite, got {recipe.weight_decay}")
    if not 0 < recipe.lr_decay <= 1:
        raise ValueError(f"training.lr_decay is a factor from 0 (excluded) to 1, got {recipe.lr_decay}")


def check_dense_start(settings: AnySettings) -> None:
    """Refuse to begin dense what is no ConvTT-LSTM, or one that a ConvLSTM cannot become."""
    share, model = settings.training.dense_start, settings.model
    if not 0 <= share < 1:
        raise ValueError(f"training.dense_start is a share of the steps, from 0 to below 1, got {share}")
    cell = name_of_cell(model)
    if share and getattr(model, cell) != "conv_tt_lstm":
        raise ValueError(
            f"training.dense_start={share} begins a conv_tt_lstm as a conv_lstm: leave it at 0 for "
            f"model.{cell}={getattr(model, cell)}"
        )
    if share and model.boundary == "circular":
        raise ValueError(
            f"training.dense_start={share} begins as a conv_lstm, which has zeros beyond the border: "
            "take model.boundary=zeros or stagewise, or leave it at 0"
        )


def _precision(recipe: TrainingSettings) -> dict[str, Any]:
    if recipe.precision == "fp16" and not (recipe.accelerator != "cpu" and torch.cuda.is_available()):
        # Lightning would train in bfloat16 instead, with a warning.
        raise ValueError("training.precision=fp16 needs a GPU: take bf16 or 32")
    return {"precision": _PRECISIONS[recipe.precision]}


@contextmanager
def _refused_devices(recipe: TrainingSettings) -> Iterator[None]:
    try:
        yield
    except (MisconfigurationException, ModuleNotFoundError) as error:
        raise ValueError(
            f"cannot train with accelerator={recipe.accelerator}, devices={recipe.devices}, "
            f"strategy={recipe.strategy}: {error}"
        ) from error


def _closing_words(folder: Path, outcome: Outcome, settings: AnySettings, about: Trainable) -> str:
    epochs = settings.training.epochs
    if outcome.interrupted:
        return (
            f"Stopped: {outcome.steps_done} of {epochs} epochs are complete and kept. "
            f"Go on with: tt-conv train --resume {folder}"
        )
    return f"{about.leaves} are in {folder}"
