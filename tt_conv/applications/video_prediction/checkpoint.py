"""Trained networks from files: checkpoints of ``tt-conv train``, and published weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from tt_conv.applications.training.checkpoint import CHECKPOINT_KEY, load_weights, read_checkpoint, task_of
from tt_conv.applications.training.recipes import recipe_file
from tt_conv.applications.training.settings import FIRST_TASK, settings_from_dict
from tt_conv.applications.video_prediction.open_data import build_model
from tt_conv.applications.video_prediction.settings import Settings
from tt_conv.layers import FramePredictor, load_published_state_dict

# Where training programs keep the weights inside what they save.
_NESTED = ("state_dict", "model_state_dict", "model")


@dataclass
class Trained:
    """A network with its weights, and what is known about its training.

    Parameters
    ----------
    model : FramePredictor
        In evaluation mode, on the CPU.
    settings : Settings
        Of the training, or of the recipe that stands for it.
    channels : int
        Of a frame.
    sequences_seen : int, optional
        In training; ``None`` if the file does not tell.
    epochs_done : int, optional
    """

    model: FramePredictor
    settings: Settings
    channels: int
    sequences_seen: int | None = None
    epochs_done: int | None = None


def load_trained(path: Path | str, recipe: str | None = None, channels: int = 1) -> Trained:
    """Load a network.

    Parameters
    ----------
    path : path
        A checkpoint of ``tt-conv train``, or a state dict under the published names, by itself or as
        ``state_dict``, ``model_state_dict`` or ``model`` of what was saved. Only tensors and plain values are read.
    recipe : str, optional
        Name of a recipe or a YAML file: the architecture and the data of weights that do not tell them.
    channels : int
        Of a frame, for such weights.

    Returns
    -------
    Trained

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no checkpoint, is damaged, or was made by another architecture.
    """
    path = Path(path)
    contents = read_checkpoint(path)
    if CHECKPOINT_KEY in contents:
        if recipe is not None:
            raise ValueError(f"{path} tells its architecture itself: leave the recipe out")
        return _from_training(path, contents)
    weights = next((contents[key] for key in _NESTED if isinstance(contents.get(key), Mapping)), contents)
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path} holds no weights: give a checkpoint of tt-conv train, or a state dict")
    if recipe is None:
        raise ValueError(
            f"{path} does not tell its architecture: name it with --recipe, such as moving_mnist_conv_tt_lstm_published"
        )
    file = Path(recipe) if Path(recipe).exists() else recipe_file(recipe)
    settings = settings_from_dict(yaml.safe_load(file.read_text()))
    model = build_model(settings.model, channels)
    try:
        load_published_state_dict(model, weights)
    except ValueError as error:
        raise ValueError(
            f"{path} and the architecture of {recipe}: {error}: name the recipe that it was trained in"
        ) from error
    return Trained(model.eval(), settings, channels)


def _from_training(path: Path, contents: Mapping[str, Any]) -> Trained:
    kept = contents[CHECKPOINT_KEY]
    if (task := task_of(contents)) != FIRST_TASK:
        raise ValueError(f"{path} is a checkpoint of the task {task}: give one of {FIRST_TASK}")
    settings = settings_from_dict(kept["settings"])
    model = build_model(settings.model, kept["channels"])
    load_weights(model, contents, path)
    return Trained(model.eval(), settings, kept["channels"], kept["sequences_seen"], kept["epochs_done"])
