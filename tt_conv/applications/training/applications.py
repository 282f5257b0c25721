"""A task as a whole, and the one that a name or a file is of."""

import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, Protocol

from tt_conv.applications.training.checkpoint import named, read_checkpoint, settings_of_recipe, task_of
from tt_conv.applications.training.settings import FIRST_TASK, AnySettings, check_task, part_of_task
from tt_conv.applications.training.trainable import Trainable


class Trained(Protocol):
    """A network with its weights, from a file, and the settings of its training."""

    model: Any
    settings: Any


class Application(Trainable):
    """A task: its data, its model, how one is trained on the other, and what is done with a trained one.

    Tasks are found by :func:`application`; their names are those of
    :data:`~tt_conv.applications.training.settings.TASKS`.

    Examples
    --------
    >>> application("video_prediction").samples
    'sequences'
    """

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
    found: Application = part_of_task(task, "application", "APPLICATION")
    return found


def application_of_file(path: Path | str, recipe: str | None = None) -> Application:
    """The application that a trained network is of: by what its file tells, or else by a recipe."""
    path = Path(path)
    task = _task_of_folder(path) if path.is_dir() else None
    if path.is_file() and path.suffix != ".safetensors":
        task = task_of(read_checkpoint(path))
    if task is None and recipe is not None:
        task = settings_of_recipe(recipe).task
    task = FIRST_TASK if task is None else task
    with named(path):
        check_task(task)
    return application(task)


def _task_of_folder(folder: Path) -> str | None:
    """Of a folder of ``tt-conv compress``; whatever else is wrong with it, loading will say."""
    try:
        return str(json.loads((folder / "training.json").read_text())["settings"].get("task", FIRST_TASK))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def load_any_trained(path: Path | str) -> Trained:
    """A trained network of any task, from a checkpoint of ``tt-conv train``.

    Parameters
    ----------
    path : path

    Returns
    -------
    Trained

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no checkpoint, or is damaged.

    Examples
    --------
    >>> load_any_trained("pretrained").settings.data.kind  # the network that comes with the package
    'moving_mnist'
    """
    return application_of_file(path).load_trained(path)
