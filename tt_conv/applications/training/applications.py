"""A task as a whole, and the one that a name or a file is of."""

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tt_conv.applications import gate
from tt_conv.applications.training.checkpoint import Trained, named, read_checkpoint, settings_of_recipe, task_of
from tt_conv.applications.training.settings import (
    FIRST_TASK,
    AnySettings,
    CompressionSettings,
    check_task,
    part_of_task,
)
from tt_conv.applications.training.trainable import Trainable

if TYPE_CHECKING:
    from tt_conv.applications.training.compression import Compressed, CompressionSource


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
    def load_trained(self, path: Path | str, recipe: str | None = None, channels: int | None = None) -> Trained:
        """See :func:`~tt_conv.applications.training.load_trained`."""

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
    def compression_source(self, checkpoint: Path | str, **source: Any) -> "CompressionSource":
        """Load a network that is to be compressed, and find the data for it."""

    def compress(
        self, checkpoint: Path | str, out: Path | str | None, settings: CompressionSettings, **source: Any
    ) -> "list[Compressed]":
        """Make a network smaller, print what that cost, and write a folder."""
        from tt_conv.applications.training.compression import check_compression, run_compression

        check_compression(settings)
        return run_compression(self.compression_source(checkpoint, **source), checkpoint, out, settings)

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
        return str(gate.read_json(folder / "training.json")["settings"].get("task", FIRST_TASK))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def load_trained(path: Path | str, recipe: str | None = None, channels: int | None = None) -> Trained:
    """Load a trained network of any task.

    Parameters
    ----------
    path : path
        A checkpoint of ``tt-conv train``; a folder of ``tt-conv compress``; ``pretrained``, for the network that
        comes with the package; or a state dict under the published names, by itself or as ``state_dict``,
        ``model_state_dict`` or ``model`` of what was saved, or safetensors. Only tensors and plain values are read.
    recipe : str, optional
        Name of a recipe or a YAML file: the architecture and the data of weights that do not tell them.
    channels : int, optional
        Of a frame, for such weights; by default 1.

    Returns
    -------
    Trained
        ``model``, in evaluation mode and on the CPU; ``settings`` of its training; ``channels`` of a frame;
        ``classes``, if the task has some; ``sequences_seen`` and ``epochs_done``, ``None`` if the file does not tell.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no checkpoint, is damaged, or was made by another architecture.

    Examples
    --------
    >>> trained = load_trained("pretrained")
    >>> trained.settings.data.given
    10
    """
    return application_of_file(path, recipe).load_trained(path, recipe, channels)
