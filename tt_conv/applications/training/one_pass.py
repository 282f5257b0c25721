"""A quiet trainer for one pass over the batches, which Ctrl-C ends in good order."""

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor
from torch.utils.data import DataLoader


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    steps_done: int
    interrupted: bool


def fit(module: pl.LightningModule, batches: DataLoader[Tensor], *, description: str = "Training") -> Outcome:
    """Train for one pass over the batches with a progress bar and nothing else on the screen.

    Ctrl-C ends the training after the step in hand, in good order; a second one ends it at once.

    Parameters
    ----------
    module : LightningModule
        A :class:`TrainingModule` or :class:`SideBySide`; it is left on the CPU, in training mode.
    batches : DataLoader
        One batch per step.
    description : str
        Stands in front of the progress bar.

    Returns
    -------
    Outcome

    Raises
    ------
    KeyboardInterrupt
        At a second Ctrl-C.

    Examples
    --------
    >>> from tt_conv.applications.training import TrainingModule
    >>> class Mean(TrainingModule):
    ...     def loss(self, batch, progress=1.0):
    ...         return self.model(batch).square().mean()
    >>> import contextlib, io
    >>> import torch
    >>> from torch import nn
    >>> with contextlib.redirect_stdout(io.StringIO()):  # the progress bar
    ...     outcome = fit(Mean(nn.Linear(2, 1), steps=2), DataLoader(torch.rand(4, 2), batch_size=2))
    >>> outcome.steps_done
    2
    """
    bar = ProgressBar(description, len(batches))
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            callbacks=[bar],
        )
        with stops_in_good_order(trainer) as stopped:
            try:
                trainer.fit(module, batches)
            except SystemExit as end:
                # Lightning turns a KeyboardInterrupt into this.
                raise KeyboardInterrupt from end
    return Outcome(bar.steps_done, bool(stopped))


class ProgressBar(TQDMProgressBar):
    BAR_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} steps [{elapsed}<{remaining}{postfix}]"

    def __init__(self, description: str, steps: int) -> None:
        # A terminal is redrawn ten times a second at most by tqdm itself; a log file gets twenty lines.
        super().__init__(refresh_rate=1 if sys.stdout.isatty() else max(1, steps // 20))
        self.description = description
        self.steps_done = 0

    @property
    def train_description(self) -> str:
        return self.description

    def on_train_epoch_start(self, *_: Any) -> None:
        # Not the inherited one: there is one pass only, and its number would stand in for the description.
        self.train_progress_bar.reset(int(self.total_train_batches))

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.steps_done += 1
        super().on_train_batch_end(*args, **kwargs)

    def on_exception(self, *_: Any) -> None:
        self.train_progress_bar.close()

    def get_metrics(self, *args: Any) -> dict[str, int | str | float | dict[str, float]]:
        return {name: value for name, value in super().get_metrics(*args).items() if name != "v_num"}


@contextmanager
def stops_in_good_order(trainer: pl.Trainer) -> Iterator[list[int]]:
    """Let the first Ctrl-C end the training after its step; yields a list that is filled if it came."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # Python gives no other thread the signal.
        yield received
        return

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        trainer.should_stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's remarks off the screen."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # "The dataloader does not have many workers": sequences are made faster than workers start.
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning 2.6 walks trees in a way that PyTorch 2.13 calls deprecated.
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
