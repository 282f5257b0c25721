"""Outputs of the published model on a device, against the golden arrays."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.guarded import guarded
from tt_conv.layers import ConvLSTM, ConvTTLSTM, FramePredictor, load_published_state_dict

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


def build(config: dict) -> nn.Module:
    """Build the module that a golden file describes."""
    if config["kind"] == "conv_lstm_cell":
        return ConvLSTM(config["in_channels"], config["hidden_channels"], config["kernel_size"])
    options = {key: config[key] for key in ("order", "steps", "rank")}
    if config["kind"] == "conv_tt_lstm_cell":
        return ConvTTLSTM(config["in_channels"], config["hidden_channels"], config["kernel_size"], **options)
    tensor_train = config["cell"] == "convttlstm"
    return FramePredictor(
        config["in_channels"],
        config["hidden_channels"],
        config["layers_per_block"],
        cell="conv_tt_lstm" if tensor_train else "conv_lstm",
        kernel_size=config["kernel_size"],
        skip_stride=config["skip_stride"],
        sigmoid=config["sigmoid"],
        **(options if tensor_train else {}),
    )


def largest_difference(path: Path, device: torch.device | str) -> float:
    """Return the largest difference between the outputs of a golden file and ours, in float64."""
    with np.load(path) as arrays:
        config = json.loads(arrays["config"].tobytes())
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "config"}
    weights = {name.removeprefix("weight/"): v for name, v in tensors.items() if name.startswith("weight/")}
    module = build(config).to(device=device, dtype=torch.float64)
    load_published_state_dict(module, weights)
    x = tensors["array/x"].to(device)
    with torch.no_grad():
        if isinstance(module, FramePredictor):
            outputs, expected = module(x, config["future_frames"]), tensors["array/y"]
        else:
            outputs, expected = module(x)[0], tensors["array/h"]
    return (outputs.cpu() - expected).abs().max().item()


def cases(device: torch.device, wanted: Callable[[str], bool] = lambda case: True) -> Iterator[dict]:
    """Yield one result per golden file."""
    for path in sorted(GOLDEN.glob("*.npz")):
        if wanted(path.stem):
            yield guarded(path.stem, partial(_measure, path, device))


def _measure(path: Path, device: torch.device) -> dict:
    difference = largest_difference(path, device)
    return {"largest_difference": difference, "ok": difference < 1e-10}
