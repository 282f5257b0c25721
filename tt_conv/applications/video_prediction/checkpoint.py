"""Trained networks from files: checkpoints of ``tt-conv train``, and published weights."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tt_conv.applications import gate
from tt_conv.applications.compression.files import CONFIG, load_compressed, read_weights
from tt_conv.applications.compression.pretrained import PRETRAINED, PRETRAINED_FOLDER, TRAINING
from tt_conv.applications.training.checkpoint import (
    CHECKPOINT_KEY,
    UNCOUNTED,
    Account,
    Trained,
    account_of,
    load_network,
    named,
    read_checkpoint,
    settings_of_recipe,
    weights_in,
)
from tt_conv.applications.training.settings import FIRST_TASK
from tt_conv.applications.video_prediction.open_data import build_model
from tt_conv.layers import FramePredictor, load_published_state_dict


def load_predictor(path: Path | str, recipe: str | None = None, channels: int | None = None) -> Trained:
    """Load a frame predictor; see :func:`~tt_conv.applications.training.load_trained`."""
    path = Path(path)
    if str(path) == PRETRAINED and not path.exists():
        path = PRETRAINED_FOLDER
    if (path / CONFIG).exists():
        return _compressed_predictor(path, recipe)
    contents = read_weights(path) if path.suffix == ".safetensors" else read_checkpoint(path)
    if CHECKPOINT_KEY in contents:
        if recipe is not None:
            raise ValueError(f"{path} tells its architecture itself: leave the recipe out")
        return load_network(path, contents, FIRST_TASK, _predictor)
    weights = weights_in(path, contents)
    if recipe is None:
        raise ValueError(
            f"{path} does not tell its architecture: name it with --recipe, such as moving_mnist_conv_tt_lstm_published"
        )
    settings = settings_of_recipe(recipe)
    channels = 1 if channels is None else channels
    with torch.device("meta"):
        sizes = [value.numel() for value in build_model(settings.model, channels).state_dict().values()]
    gate.check_memory(path, 4 * sum(sizes), "the network that it is for")
    model = build_model(settings.model, channels)
    try:
        load_published_state_dict(model, weights)
    except ValueError as error:
        raise ValueError(
            f"{path} and the architecture of {recipe}: {error}: name the recipe that it was trained in"
        ) from error
    return Trained(settings, channels, (), None, None, model.eval())


def _predictor(account: Account) -> FramePredictor:
    return build_model(account.settings.model, account.channels)


def weights_of(path: Path) -> Mapping[str, Tensor]:
    """Read the weights in a file of ``torch.save`` or safetensors; no code of it runs."""
    return weights_in(path, read_weights(path) if path.suffix == ".safetensors" else read_checkpoint(path))


def _compressed_predictor(folder: Path, recipe: str | None) -> Trained:
    """Load a folder that ``tt-conv compress`` or ``save_compressed`` wrote."""
    model = load_compressed(None, folder)
    if not isinstance(model, FramePredictor):
        raise ValueError(f"{folder} holds a {type(model).__name__}, expected a FramePredictor")
    file = folder / TRAINING
    if not file.exists():
        if recipe is None:
            raise ValueError(f"{folder} has no {TRAINING}: name the data it was trained on with --recipe")
        return Trained(settings_of_recipe(recipe), model.in_channels, (), None, None, model)
    with named(file, "give another folder"):
        # The channels are those of the network, which is described beside it.
        kept = {**UNCOUNTED, **gate.read_json(file, "give another folder"), "channels": model.in_channels}
        account = account_of(kept, FIRST_TASK)
    if recipe is not None:
        account = replace(account, settings=settings_of_recipe(recipe))
    return Trained.of(model, account)
