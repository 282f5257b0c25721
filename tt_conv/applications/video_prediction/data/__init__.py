"""Sequences of frames from files: Moving-MNIST, KTH actions, and anybody's own videos, frames and arrays."""

from typing import TYPE_CHECKING

from tt_conv.applications.extras import naming_the_extra
from tt_conv.lazy import exports

if TYPE_CHECKING:
    from tt_conv.applications.data.frames import read_video
    from tt_conv.applications.data.idx import idx_digits, read_idx
    from tt_conv.applications.data.own_videos import OwnVideos
    from tt_conv.applications.data.sequences import SequenceDataset
    from tt_conv.applications.data.video_file import write_video
    from tt_conv.applications.video_prediction.data.fixed_moving_mnist import FixedMovingMNIST, write_fixed_moving_mnist
    from tt_conv.applications.video_prediction.data.kth import KTH

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
    "SequenceDataset": "tt_conv.applications.data.sequences",
    "OwnVideos": "tt_conv.applications.data.own_videos",
    "KTH": ".kth",
    "FixedMovingMNIST": ".fixed_moving_mnist",
    "write_fixed_moving_mnist": ".fixed_moving_mnist",
    "idx_digits": "tt_conv.applications.data.idx",
    "read_idx": "tt_conv.applications.data.idx",
    "read_video": "tt_conv.applications.data.frames",
    "write_video": "tt_conv.applications.data.video_file",
}

__getattr__ = exports(__name__, _DEFINED_IN, naming_the_extra)
