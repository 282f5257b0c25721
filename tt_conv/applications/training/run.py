"""Train the model of any task: ``tt-conv train``."""

import math
import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from tt_conv.applications.output_folder import OutputFolder
from tt_conv.applications.training.application import Application, Samples, application_of, parameters_of
from tt_conv.applications.training.callbacks import LAST, Checkpoints, History, RunBar
from tt_conv.applications.training.epochs import EpochBatches, EpochOfSamples
from tt_conv.applications.training.settings import Settings, TrainingSettings, settings_from_dict, settings_to_dict
from tt_conv.applications.training.tasks import Outcome, quiet_lightning, stops_in_good_order

SETTINGS_FILE = "settings.yaml"
_PRECISIONS: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "64": "64-true"}


def run_training(settings: Settings, out: Path | str | None = None) -> bool:
    """Train a model and leave a folder of checkpoints, logs and pictures.

    Parameters
    ----------
    settings : Settings
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
    """
    prepared = _Prepared(settings)
    folder = OutputFolder.with_free_name("tt-conv-training") if out is None else OutputFolder(out)
    if prepared.is_other_process:  # of several: the first one has claimed the folder, or does so now
        return prepared.run(folder.path, None)
    with folder:
        with folder.new_file(SETTINGS_FILE) as file:
            file.write_text(yaml.safe_dump(settings_to_dict(settings), sort_keys=False))
        return prepared.run(folder.path, None)


def resume_training(folder: Path | str) -> bool:
    """Go on with a training that was stopped, from the end of its last complete epoch.

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
    """
    folder = Path(folder)
    file = folder / SETTINGS_FILE
    if not file.exists():
        raise FileNotFoundError(f"{folder} holds no {SETTINGS_FILE}: give the folder of a training")
    settings = settings_from_dict(yaml.safe_load(file.read_text()))
    checkpoint = folder / LAST
    return _Prepared(settings).run(folder, checkpoint if checkpoint.exists() else None)


class _Prepared:
    """A training whose data are open and whose model is built."""

    def __init__(self, settings: Settings) -> None:
        recipe, self.application = settings.training, application_of(settings)
        check_recipe(recipe)
        self.application.check(settings)
        self.settings = settings
        self.train = self.application.open_data(settings.data, "train")
        self.validation = self.application.open_data(settings.data, "validation")
        batch = min(recipe.batch_size, len(self.train))
        self.steps = recipe.epochs * (len(self.train) // batch)
        self.task = self.application.training(settings, self.train, self.steps)

    @property
    def is_other_process(self) -> bool:
        """Whether this is not the first one of several processes, as torchrun or Lightning start them."""
        return any(int(os.environ.get(name, 0)) > 0 for name in ("RANK", "LOCAL_RANK"))

    def run(self, folder: Path, checkpoint: Path | None) -> bool:
        outcome = self._fit(folder, checkpoint)
        if not self.is_other_process:
            print(_closing_words(folder, outcome, self.settings, self.application), flush=True)
        return not outcome.interrupted

    def _fit(self, folder: Path, checkpoint: Path | None) -> Outcome:
        recipe = self.settings.training
        if not self.is_other_process:
            print(self._introduction(folder, checkpoint), flush=True)
        with quiet_lightning():
            trainer = pl.Trainer(
                accelerator=recipe.accelerator,
                devices=recipe.devices if recipe.devices == "auto" else int(recipe.devices),
                num_nodes=recipe.nodes,
                strategy=recipe.strategy,
                precision=_PRECISIONS[recipe.precision],
                max_epochs=recipe.epochs,
                logger=TensorBoardLogger(folder, name="", version="tensorboard"),
                callbacks=[
                    RunBar(self.steps, recipe.epochs),
                    History(folder),
                    *self.application.callbacks(self.settings, folder, self.validation),
                    Checkpoints(folder),
                ],
                enable_checkpointing=True,
                enable_model_summary=False,
                enable_progress_bar=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                reload_dataloaders_every_n_epochs=1,
                log_every_n_steps=max(1, min(50, self.steps // recipe.epochs)),
            )
            data = _Batches(self.train, self.validation, self.settings)
            with stops_in_good_order(trainer) as stopped:
                try:
                    # Only plain values and tensors are in it; nothing else would be loaded.
                    trainer.fit(self.task, data, ckpt_path=checkpoint, weights_only=True)
                except SystemExit as end:
                    raise KeyboardInterrupt from end
        done = self.task.validated_epoch + 1
        return Outcome(done, bool(stopped) and done < recipe.epochs)

    def _introduction(self, folder: Path, checkpoint: Path | None) -> str:
        recipe, about = self.settings.training, self.application
        lines = [about.introduction(self.settings, self.train, self.validation)]
        lines += [f"  {note}" for note in {*self.train.notes, *self.validation.notes}]
        lines += [
            f"{about.model_name(self.settings)}: {parameters_of(self.task.model):,} parameters; "
            f"{recipe.epochs} epochs, {self.steps:,} steps of {recipe.batch_size} {about.samples}. Writing to {folder}."
        ]
        if checkpoint is not None:
            lines += [f"Going on from {checkpoint}."]
        return "\n".join(lines)


class _Batches(pl.LightningDataModule):
    """The batches of one process, new for every epoch."""

    def __init__(self, train: Samples, validation: Samples, settings: Settings) -> None:
        super().__init__()
        self.train, self.validation, self.settings = train, validation, settings

    def train_dataloader(self) -> DataLoader:
        trainer, recipe = self._trainer(), self.settings.training
        batches = EpochBatches(
            len(self.train),
            recipe.batch_size,
            seed=recipe.seed,
            epoch=trainer.current_epoch,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
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
            samples, num_workers=workers, generator=torch.Generator(), worker_init_fn=_one_thread, **options
        )


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def check_recipe(recipe: TrainingSettings) -> None:
    """Refuse settings of a training that are out of their range, before any data are read."""
    for name in ("epochs", "batch_size", "nodes"):
        if getattr(recipe, name) < 1:
            raise ValueError(f"training.{name} must be at least 1, got {getattr(recipe, name)}")
    if recipe.devices != "auto" and not (recipe.devices.isdigit() and int(recipe.devices) > 0):
        raise ValueError(f"training.devices must be a number of devices, or auto, got {recipe.devices!r}")
    if recipe.seed < 0:
        raise ValueError(f"training.seed must not be negative, got {recipe.seed}")
    if not math.isfinite(recipe.learning_rate):
        raise ValueError(f"training.learning_rate must be finite, got {recipe.learning_rate}")


def _closing_words(folder: Path, outcome: Outcome, settings: Settings, about: Application) -> str:
    epochs = settings.training.epochs
    if outcome.interrupted:
        return (
            f"Stopped: {outcome.steps_done} of {epochs} epochs are complete and kept. "
            f"Go on with: tt-conv train --resume {folder}"
        )
    return f"{about.leaves} are in {folder}"
