"""Multi-step video prediction: data, baselines, metrics, training and the demo."""

from typing import TYPE_CHECKING

from tt_conv.applications.extras import naming_the_extra
from tt_conv.lazy import exports

if TYPE_CHECKING:
    from tt_conv.applications.data.mnist import embedded_digits
    from tt_conv.applications.training.compression import Tuned
    from tt_conv.applications.video_prediction.baselines import copy_last, mean_frame
    from tt_conv.applications.video_prediction.evaluation import evaluate, milliseconds_per_frame
    from tt_conv.applications.video_prediction.fine_tuning import fine_tune
    from tt_conv.applications.video_prediction.metrics import FrameMetrics, ssim
    from tt_conv.applications.video_prediction.module import FramePrediction
    from tt_conv.applications.video_prediction.moving_mnist import MovingMNIST

__all__ = [
    "MovingMNIST",
    "embedded_digits",
    "FramePrediction",
    "evaluate",
    "milliseconds_per_frame",
    "FrameMetrics",
    "ssim",
    "copy_last",
    "mean_frame",
    "fine_tune",
    "Tuned",
]

# Public name -> the module that defines it, imported at first use: the data need no Lightning.
_DEFINED_IN = {
    "MovingMNIST": ".moving_mnist",
    "embedded_digits": "tt_conv.applications.data.mnist",
    "FramePrediction": ".module",
    "evaluate": ".evaluation",
    "milliseconds_per_frame": ".evaluation",
    "FrameMetrics": ".metrics",
    "ssim": ".metrics",
    "copy_last": ".baselines",
    "mean_frame": ".baselines",
    "fine_tune": ".fine_tuning",
    "Tuned": "tt_conv.applications.training.compression",
}

__getattr__ = exports(__name__, _DEFINED_IN, naming_the_extra)
