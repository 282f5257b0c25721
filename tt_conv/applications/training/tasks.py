"""A model, its loss and its optimizer; several of them side by side; a quiet trainer for one pass."""

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader


def one_cycle(
    optimizer: torch.optim.Optimizer, learning_rate: float | list[float], steps: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    """Return the schedule whose rate rises over the first tenth of the steps, then falls to zero along a cosine.

    Parameters
    ----------
    optimizer : Optimizer
    learning_rate : float or list of float
        The largest one; a list has one per parameter group.
    steps : int
        Optimizer steps of the training, at least 1.

    Returns
    -------
    OneCycleLR
        Its ``step`` is called after every step of the optimizer.

    Examples
    --------
    >>> optimizer = torch.optim.Adam(nn.Linear(2, 1).parameters())
    >>> schedule = one_cycle(optimizer, 0.1, steps=10)
    >>> [round(rate, 6) for rate in schedule.get_last_lr()]
    [0.004]
    """
    # OneCycleLR (PyTorch 2.13) divides by the steps of the rise less one: a tenth of 10 steps is a single one. It also
    # counts the rate after the last step, so that it needs two steps.
    rise = 0.2 if steps == 10 else 0.1
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=max(steps, 2), pct_start=rise)


def xavier_start(model: nn.Module) -> None:
    """Give a model the start of the published training: Xavier-uniform weights, zero biases."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.zeros_(parameter)


class Task(pl.LightningModule):
    """A model, its loss and the recipe by which it is trained: Adam, one-cycle, clipped gradients.

    Subclasses define :meth:`loss`.

    Parameters
    ----------
    model : nn.Module
        What is trained.
    steps : int
        Optimizer steps of the training.
    learning_rate : float
        The largest one: it rises over the first tenth of the steps, then falls to zero along a cosine.
    clip_norm : float
        Largest norm of the gradient.

    Examples
    --------
    >>> class Mean(Task):
    ...     def loss(self, batch, progress=1.0):
    ...         return self.model(batch).square().mean()
    >>> Mean(nn.Linear(2, 1), steps=5).loss(torch.ones(3, 2)).shape
    torch.Size([])
    """

    def __init__(self, model: nn.Module, *, steps: int, learning_rate: float = 1e-3, clip_norm: float = 1.0) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if not learning_rate > 0 or not clip_norm > 0:
            raise ValueError(f"learning_rate and clip_norm must be positive, got {learning_rate} and {clip_norm}")
        self.model = model
        self.steps = steps
        self.learning_rate = learning_rate
        self.clip_norm = clip_norm

    def loss(self, batch: Any, progress: float = 1.0) -> Tensor:
        """Loss of the model on a batch; ``progress`` is the share of the training that is done, 0 to 1."""
        raise NotImplementedError

    def training_step(self, batch: Any) -> Tensor:
        loss = self.loss(batch, self.global_step / self.steps)
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        return [optimizer], [{"scheduler": one_cycle(optimizer, self.learning_rate, self.steps), "interval": "step"}]

    def configure_gradient_clipping(self, *_: object, **__: object) -> None:
        nn.utils.clip_grad_norm_(self.parameters(), self.clip_norm)


class SideBySide(pl.LightningModule):
    """Trains several tasks on the same batches, each as if it were alone, in a thread of its own.

    Small models keep one core busy, not several: two of them side by side use two. Unlike the threads of one
    operation, theirs meet once per step only, so another program on a core costs its share and no more.

    Parameters
    ----------
    tasks : mapping of str to Task
        Tasks by name.

    Examples
    --------
    >>> class Mean(Task):
    ...     def loss(self, batch, progress=1.0):
    ...         return self.model(batch).square().mean()
    >>> both = SideBySide({"one": Mean(nn.Linear(2, 1), steps=5), "other": Mean(nn.Linear(2, 1), steps=5)})
    >>> list(both.tasks)
    ['one', 'other']
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        if not tasks:
            raise ValueError("expected at least one task to train, got none")
        self.automatic_optimization = False
        self.tasks = nn.ModuleDict(tasks)

    def configure_optimizers(self) -> Any:
        recipes = [task.configure_optimizers() for task in self._tasks().values()]
        return [recipe[0][0] for recipe in recipes], [recipe[1][0] for recipe in recipes]

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        def backward(task: Task) -> Tensor:
            loss = task.loss(batch, batch_idx / task.steps)
            self.manual_backward(loss)
            task.configure_gradient_clipping()
            return loss.detach()

        tasks = self._tasks()
        with ThreadPoolExecutor(len(tasks)) as threads:
            losses = list(threads.map(backward, tasks.values()))
        for optimizer, schedule in zip(
            self._listed(self.optimizers()), self._listed(self.lr_schedulers()), strict=True
        ):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        self.log_dict(dict(zip(tasks, losses, strict=True)), prog_bar=True)

    def _tasks(self) -> dict[str, Task]:
        return {name: task for name, task in self.tasks.items() if isinstance(task, Task)}

    @staticmethod
    def _listed(one_or_several: Any) -> list[Any]:
        return one_or_several if isinstance(one_or_several, list) else [one_or_several]


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
        A :class:`Task` or :class:`SideBySide`; it is left on the CPU, in training mode.
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
    >>> class Mean(Task):
    ...     def loss(self, batch, progress=1.0):
    ...         return self.model(batch).square().mean()
    >>> import contextlib, io
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
