"""Trained networks from files: checkpoints of ``tt-conv train``, and published weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tt_conv.applications.compression.files import CONFIG, load_compressed, read_weights
from tt_conv.applications.compression.pretrained import PRETRAINED, PRETRAINED_FOLDER, TRAINING
from tt_conv.applications.training.checkpoint import (
    CHECKPOINT_KEY,
    UNCOUNTED,
    Account,
    account_of,
    load_network,
    named,
    read_checkpoint,
    settings_of_recipe,
)
from tt_conv.applications.training.settings import FIRST_TASK
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


def load_trained(path: Path | str, recipe: str | None = None, channels: int | None = None) -> Trained:
    """Load a network.

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
    path = Path(path)
    if str(path) == PRETRAINED and not path.exists():
        path = PRETRAINED_FOLDER
    if (path / CONFIG).exists():
        return _from_compressed(path, recipe)
    contents = read_weights(path) if path.suffix == ".safetensors" else read_checkpoint(path)
    if CHECKPOINT_KEY in contents:
        if recipe is not None:
            raise ValueError(f"{path} tells its architecture itself: leave the recipe out")
        network, account = load_network(path, contents, FIRST_TASK, _build)
        return Trained(network, account.settings, account.channels, account.sequences_seen, account.epochs_done)
    weights = _weights(path, contents)
    if recipe is None:
        raise ValueError(
            f"{path} does not tell its architecture: name it with --recipe, such as moving_mnist_conv_tt_lstm_published"
        )
    settings = settings_of_recipe(recipe)
    channels = 1 if channels is None else channels
    model = build_model(settings.model, channels)
    try:
        load_published_state_dict(model, weights)
    except ValueError as error:
        raise ValueError(
            f"{path} and the architecture of {recipe}: {error}: name the recipe that it was trained in"
        ) from error
    return Trained(model.eval(), settings, channels)


def _build(account: Account) -> FramePredictor:
    return build_model(account.settings.model, account.channels)


def weights_of(path: Path) -> Mapping[str, Tensor]:
    """Read the weights in a file of ``torch.save`` or safetensors; no code of it runs."""
    return _weights(path, read_weights(path) if path.suffix == ".safetensors" else read_checkpoint(path))


def _weights(path: Path, contents: Mapping[str, Any]) -> Mapping[str, Tensor]:
    weights = next((contents[key] for key in _NESTED if isinstance(contents.get(key), Mapping)), contents)
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path} holds no weights: give a checkpoint of tt-conv train, or a state dict")
    return weights


def _from_compressed(folder: Path, recipe: str | None) -> Trained:
    """Load a folder that ``tt-conv compress`` or ``save_compressed`` wrote."""
    model = load_compressed(None, folder)
    if not isinstance(model, FramePredictor):
        raise ValueError(f"{folder} holds a {type(model).__name__}, expected a FramePredictor")
    file = folder / TRAINING
    if not file.exists():
        if recipe is None:
            raise ValueError(f"{folder} has no {TRAINING}: name the data it was trained on with --recipe")
        return Trained(model, settings_of_recipe(recipe), model.in_channels)
    with named(file, "give another folder"):
        # The channels are those of the network, which is described beside it.
        kept = {**UNCOUNTED, **json.loads(file.read_text()), "channels": model.in_channels}
        account = account_of(kept, FIRST_TASK)
    settings = account.settings if recipe is None else settings_of_recipe(recipe)
    return Trained(model, settings, model.in_channels, account.sequences_seen, account.epochs_done)
