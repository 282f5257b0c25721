"""From settings to data sets and models."""

from dataclasses import asdict
from typing import Any

import torch

from tt_conv.applications.data.splits import Split
from tt_conv.applications.recognition.data import ClassFolders, LabelledClips, SomethingSomething, digit_actions_folder
from tt_conv.applications.recognition.data.digit_action_files import CLIPS
from tt_conv.applications.recognition.model import ConvolutionalRecognizer, Recognizer, RecurrentRecognizer
from tt_conv.applications.recognition.settings import DataSettings, ModelSettings
from tt_conv.applications.training.module import xavier_start


def open_data(settings: DataSettings, split: Split) -> LabelledClips:
    """Open the data that settings name.

    Parameters
    ----------
    settings : DataSettings
        What to open.
    split : {"train", "validation", "test"}
        Which part.

    Returns
    -------
    LabelledClips

    Raises
    ------
    ValueError, OSError
        If the data cannot be used as asked, with the file, the reason and the remedy.
    """
    common: dict[str, Any] = {
        "classes": settings.classes,
        "size": settings.size,
        "short_side": settings.short_side,
        "channels": settings.channels,
        "random": settings.fresh,
        "flip": settings.flip,
        "seed": settings.seed,
        "broken": settings.broken,
        "keep_decoded": settings.keep_decoded,
        "cache": settings.cache,
    }
    asked: dict[Any, int | None] = {
        "train": settings.clips,
        "validation": settings.validation_clips,
        "test": settings.test_clips,
    }
    if settings.kind == "digit_actions":
        if settings.path is not None:
            raise ValueError("digit_actions are made, not read: leave data.path out, or choose another data.kind")
        clips: Any = {part: CLIPS[part] if count is None else count for part, count in asked.items()}
        folder: Any = digit_actions_folder(clips=clips, seed=settings.seed, cache=settings.cache)
        return SomethingSomething(folder, settings.frames, split, **common)
    if any(count is not None for count in asked.values()):
        raise ValueError(f"the number of clips can be chosen for digit_actions only, not for {settings.kind}")
    if settings.path is None:
        raise ValueError(f"data of kind {settings.kind} come from files: say where they are with --data.path")
    if settings.kind == "class_folders":
        return ClassFolders(settings.path, settings.frames, split, **common)
    return SomethingSomething(settings.path, settings.frames, split, **common)


def build_model(
    settings: ModelSettings, channels: int, classes: int, seed: int = 0, start: str = "default"
) -> Recognizer:
    """Build an untrained network, its weights a function of the settings and the seed alone.

    Parameters
    ----------
    settings : ModelSettings
        The architecture.
    channels : int
        Channels of a frame.
    classes : int
        Number of classes.
    seed : int
        Of the initial weights.
    start : {"xavier", "default"}
        Xavier-uniform weights and zero biases, or PyTorch's.

    Returns
    -------
    Recognizer

    Raises
    ------
    ValueError
        If the settings contradict each other.
    """
    values = {name: value for name, value in asdict(settings).items() if value is not None}
    kind = values.pop("kind")
    if kind == "conv_3d":
        if settings.kernel_size != 3:
            raise ValueError(f"conv_3d has kernels of 3 x 3 x 3, got kernel_size={settings.kernel_size}")
        del values["kernel_size"]
    else:
        values["cell"] = kind
    make = ConvolutionalRecognizer if kind == "conv_3d" else RecurrentRecognizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: Recognizer = make(channels, classes, **values)
        except TypeError as error:
            raise ValueError(f"model.kind={kind}: {error}") from error
        if start == "xavier":
            xavier_start(model)
    return model
