"""Sequences of frames from files: Moving-MNIST, KTH actions, and anybody's own videos, frames and arrays."""

from importlib import import_module
from typing import TYPE_CHECKING

from tt_conv.applications.extras import naming_the_extra

if TYPE_CHECKING:
    from tt_conv.applications.video_prediction.data.fixed_moving_mnist import FixedMovingMNIST, write_fixed_moving_mnist
    from tt_conv.applications.video_prediction.data.idx import idx_digits, read_idx
    from tt_conv.applications.video_prediction.data.kth import KTH
    from tt_conv.applications.video_prediction.data.own_videos import OwnVideos
    from tt_conv.applications.video_prediction.data.sequences import SequenceDataset
    from tt_conv.applications.video_prediction.data.video_file import read_video, write_video

__all__ = [
    "SequenceDataset",
    "OwnVideos",
    "KTH",
    "FixedMovingMNIST",
    "write_fixed_moving_mnist",
    "idx_digits",
    "read_idx",
    "read_video",
    "write_video",
]

# Public name -> the module that defines it, imported at first use: arrays need no PyAV.
_DEFINED_IN = {
    "SequenceDataset": "sequences",
    "OwnVideos": "own_videos",
    "KTH": "kth",
    "FixedMovingMNIST": "fixed_moving_mnist",
    "write_fixed_moving_mnist": "fixed_moving_mnist",
    "idx_digits": "idx",
    "read_idx": "idx",
    "read_video": "video_file",
    "write_video": "video_file",
}


def __getattr__(name: str) -> object:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with naming_the_extra():
        value = getattr(import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
    globals()[name] = value
    return value
