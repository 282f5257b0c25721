"""From settings to data sets and models."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from tt_conv.applications.data.own_videos import OwnVideos
from tt_conv.applications.data.sequences import SequenceDataset
from tt_conv.applications.data.splits import Split
from tt_conv.applications.training.module import xavier_start
from tt_conv.applications.video_prediction.data.fixed_moving_mnist import PUBLISHED_SEQUENCES, FixedMovingMNIST
from tt_conv.applications.video_prediction.data.kth import KTH
from tt_conv.applications.video_prediction.moving_mnist import MovingMNIST
from tt_conv.applications.video_prediction.settings import DataSettings, ModelSettings
from tt_conv.layers import FramePredictor


class FirstSequences(SequenceDataset):
    """The first sequences of another data set."""

    def __init__(self, whole: SequenceDataset, length: int) -> None:
        self.whole = whole
        self.length = min(length, len(whole))
        self.notes = whole.notes
        self.value_range = getattr(whole, "value_range", None)

    def __len__(self) -> int:
        return self.length

    def sequence(self, number: int) -> Tensor:
        return self.whole[number]

    def draw(self, index: Any, epoch: int) -> Tensor:
        return self.whole.draw(self.checked_index(index), epoch)


def open_data(settings: DataSettings, split: Split, *, future: int | None = None) -> SequenceDataset:
    """Open the data that settings name.

    Parameters
    ----------
    settings : DataSettings
        What to open.
    split : {"train", "validation", "test"}
        Which part.
    future : int, optional
        Another number of frames to predict.

    Returns
    -------
    SequenceDataset
        Its sequences have ``given + future`` frames.

    Raises
    ------
    ValueError, OSError
        If the data cannot be used as asked, with the file, the reason and the remedy.
    """
    if settings.given < 1 or (future or settings.future) < 1:
        raise ValueError(f"given and future must be at least 1 frame, got {settings.given} and {settings.future}")
    frames = settings.given + (settings.future if future is None else future)
    limit = {"train": settings.sequences, "validation": settings.validation_sequences}.get(
        split, settings.test_sequences
    )
    if limit is not None and limit < 1:
        raise ValueError(f"the number of {split} sequences must be at least 1, got {limit}")
    if settings.kind == "moving_mnist":
        return _moving_mnist(settings, split, frames, limit)
    if settings.path is None:
        raise ValueError(f"data of kind {settings.kind} come from files: say where they are with --data.path")
    opened = _from_files(settings, settings.path, split, frames)
    if not len(opened):
        raise ValueError(f"{settings.path}: there is no {split} sequence of {frames} frames: ask for fewer frames")
    return opened if limit is None else FirstSequences(opened, limit)


def _moving_mnist(settings: DataSettings, split: Split, frames: int, limit: int | None) -> MovingMNIST:
    if settings.channels not in (None, 1):
        raise ValueError(f"moving_mnist is gray, got channels={settings.channels}")
    return MovingMNIST(
        split,
        limit or PUBLISHED_SEQUENCES[split],
        frames=frames,
        size=settings.size or 64,
        digits=settings.digits,
        speed=settings.speed,
        seed=settings.seed,
        digit_size=settings.digit_size,
        idx_folder=settings.path,
        fresh=settings.fresh,
    )


def _from_files(settings: DataSettings, path: str, split: Split, frames: int) -> SequenceDataset:
    if settings.kind == "fixed_moving_mnist":
        return FixedMovingMNIST(path, frames, split, array_name=settings.array_name, layout=settings.layout)
    common: dict[str, Any] = {
        "stride": settings.stride,
        "random": settings.fresh,
        "seed": settings.seed,
        "broken": settings.broken,
        "cache": settings.cache,
    }
    if settings.kind == "kth":
        persons = settings.validation_persons
        return KTH(path, frames, split, size=settings.size or 120, validation_persons=persons, **common)
    return OwnVideos(
        path,
        frames,
        split,
        size=settings.size,
        channels=settings.channels,
        step=settings.step,
        layout=settings.layout,
        value_range=settings.value_range,
        array_name=settings.array_name,
        **common,
    )


def build_model(settings: ModelSettings, channels: int, seed: int = 0, start: str = "xavier") -> FramePredictor:
    """Build an untrained network, its weights a function of the settings and the seed alone.

    Parameters
    ----------
    settings : ModelSettings
        The architecture.
    channels : int
        Channels of a frame.
    seed : int
        Of the initial weights.
    start : {"xavier", "default"}
        Xavier-uniform weights and zero biases, or PyTorch's.

    Returns
    -------
    FramePredictor

    Raises
    ------
    ValueError
        If the settings contradict each other.
    """
    values = {name: value for name, value in asdict(settings).items() if value is not None}
    values["skip_stride"] = settings.skip_stride
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = FramePredictor(channels, **values)
            if start == "xavier":
                xavier_start(model)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return model
