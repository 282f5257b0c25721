"""What a training, an evaluation and a prediction need to know of a task."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tt_conv.applications.training.settings import TASKS, AnySettings, check_task

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from torch import nn

    from tt_conv.applications.training.by_recipe import TrainedByRecipe


class Samples(Protocol):
    """The data of a training: samples by number, and those that the numbers stand for in an epoch."""

    notes: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def draw(self, index: int, epoch: int, /) -> Any:
        """The sample that number ``index`` stands for in an epoch of training: a function of both alone."""


class Trained(Protocol):
    """A network with its weights, from a file, and the settings of its training."""

    model: Any
    settings: Any


class Application(ABC):
    """A task: its data, its model, how one is trained on the other, and what is done with a trained one.

    Tasks are found by :func:`application`; their names are those of
    :data:`~tt_conv.applications.training.settings.TASKS`.

    Examples
    --------
    >>> application("video_prediction").samples
    'sequences'
    """

    task: ClassVar[str]
    """Its name."""
    samples: ClassVar[str]
    """What the samples are called, in the plural."""
    leaves: ClassVar[str]
    """What a training leaves, in words."""

    @abstractmethod
    def check(self, settings: Any) -> None:
        """Refuse settings that are out of their range, before any data are read."""

    @abstractmethod
    def open_data(self, settings: Any, split: Any) -> Samples:
        """Open one part of the data that data settings name: train, validation or test."""

    def decided(self, settings: Any, train: Samples) -> Any:
        """The settings with what was found when the data were opened, where that must be the same ever after."""
        return settings

    @abstractmethod
    def training(self, settings: Any, train: Samples, steps: int) -> "TrainedByRecipe":
        """The module that Lightning trains for so many steps, with an untrained model in it."""

    @abstractmethod
    def introduction(self, settings: Any, train: Samples, validation: Samples) -> str:
        """What is trained on, in a line."""

    @abstractmethod
    def model_name(self, settings: Any) -> str:
        """What is trained, in a word."""

    def callbacks(self, settings: Any, folder: Path, validation: Samples) -> "list[Callback]":
        """What else a training leaves in its folder."""
        return []

    @abstractmethod
    def load_trained(self, path: Path | str) -> Trained:
        """A trained network from a checkpoint of ``tt-conv train``."""

    def train(self, settings: AnySettings, out: Path | str | None = None) -> bool:
        """See :func:`~tt_conv.applications.training.run_training`."""
        from tt_conv.applications.training.run import run_training

        return run_training(settings, out)

    def resume(self, folder: Path | str) -> bool:
        """See :func:`~tt_conv.applications.training.resume_training`."""
        from tt_conv.applications.training.run import resume_training

        return resume_training(folder)

    @abstractmethod
    def evaluate(self, checkpoint: Path | str, out: Path | str | None, settings: Any, **source: Any) -> dict[str, Any]:
        """Evaluate a network on held-out data, print the table, and write a folder of results."""

    @abstractmethod
    def predict(
        self, checkpoint: Path | str, video: Path | str, out: Path | str | None, settings: Any, **source: Any
    ) -> Any:
        """Apply a network to a video, and write a folder of what it says."""

    @abstractmethod
    def compress(self, checkpoint: Path | str, out: Path | str | None, settings: Any, **source: Any) -> Any:
        """Make a network smaller, print what that cost, and write a folder."""

    @abstractmethod
    def demo(self, settings: Any, out: Path | str | None = None) -> bool:
        """Train small networks side by side, show what they learned, and write a folder; whether it was completed."""


def application(task: str) -> Application:
    """The application of a task.

    Parameters
    ----------
    task : str
        Such as video_prediction or recognition.

    Returns
    -------
    Application

    Raises
    ------
    ValueError
        If there is no task of that name.

    Examples
    --------
    >>> application("recognition").samples
    'clips'
    """
    check_task(task)
    return import_module(f"{TASKS[task]}.application").APPLICATION


def application_of(settings: AnySettings) -> Application:
    """The application that settings are of."""
    return application(settings.task)


def parameters_of(model: "nn.Module") -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
