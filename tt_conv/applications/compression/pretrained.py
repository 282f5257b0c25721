"""The trained network that comes with the package, to try compression on."""

from pathlib import Path
from typing import Any

from tt_conv.applications import gate
from tt_conv.applications.compression.files import load_compressed
from tt_conv.layers import FramePredictor

PRETRAINED = "pretrained"
PRETRAINED_FOLDER = Path(__file__).with_name("moving_mnist_conv_lstm")
TRAINING = "training.json"
"""Beside a compressed network: what a checkpoint would tell of its training."""


def load_pretrained() -> FramePredictor:
    """Return a small ConvLSTM predictor that was trained on Moving-MNIST, two digits, ten frames to ten.

    Two layers of 32 hidden channels with kernels of 5 x 5, on patches of 4 x 4 pixels; a sigmoid at the end.
    ``tools/train_pretrained.py`` made it.

    Returns
    -------
    FramePredictor
        In evaluation mode, on the CPU.

    Raises
    ------
    ModuleNotFoundError
        If safetensors is not installed.

    Examples
    --------
    >>> import torch
    >>> from tt_conv.applications.compression import load_pretrained
    >>> load_pretrained()(torch.rand(1, 10, 1, 64, 64), future=10).shape
    torch.Size([1, 19, 1, 64, 64])
    """
    model = load_compressed(None, PRETRAINED_FOLDER)
    assert isinstance(model, FramePredictor)
    return model


def pretrained_training() -> dict[str, Any]:
    """Return how :func:`load_pretrained`'s network was trained: settings, seed, steps, losses, figures."""
    contents: dict[str, Any] = gate.read_json(PRETRAINED_FOLDER / TRAINING)
    return contents
