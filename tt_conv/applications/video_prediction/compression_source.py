"""What ``tt-conv compress`` starts from: a network and the data that it is for."""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tt_conv.applications.data.sequences import SequenceDataset
from tt_conv.applications.data.splits import Split
from tt_conv.applications.training.settings import with_changes
from tt_conv.applications.video_prediction.checkpoint import load_predictor, weights_of
from tt_conv.applications.video_prediction.open_data import open_data
from tt_conv.applications.video_prediction.settings import DataSettings, Settings
from tt_conv.layers import FramePredictor
from tt_conv.layers.wrapped import unwrapped


@dataclass(frozen=True)
class Source:
    """A trained network.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode, on the CPU.
    settings : Settings, optional
        Of its training; ``None`` for a network that is not ours.
    data : DataSettings, optional
        Sequences for it; it is called as ``model(frames [B, T, C, *S], future)``.
    inputs : Tensor, optional
        Other inputs for it, ``[N, ...]``.
    sequences_seen, epochs_done : int, optional
        Of its training.
    """

    model: nn.Module
    settings: Settings | None = None
    data: DataSettings | None = None
    inputs: Tensor | None = None
    sequences_seen: int | None = None
    epochs_done: int | None = None

    def sequences(self, split: Split) -> SequenceDataset:
        """Open a part of the data."""
        assert self.data is not None
        opened = open_data(self.data, split)
        channels = opened[0].shape[1]
        if isinstance(self.model, FramePredictor) and channels != self.model.in_channels:
            raise ValueError(
                f"the network takes frames of {self.model.in_channels} channels, the data have {channels}: "
                f"bring them to as many with --data.channels {self.model.in_channels}"
            )
        return opened


def open_source(
    checkpoint: Path | str,
    *,
    recipe: str | None = None,
    channels: int | None = None,
    model: str | None = None,
    data: Mapping[str, Any] | None = None,
    inputs: Path | str | None = None,
) -> Source:
    """Load a network, and find the data for it.

    Parameters
    ----------
    checkpoint : path
        See :func:`~tt_conv.applications.training.load_trained`; with ``model`` a state dict, of
        ``torch.save`` or safetensors.
    recipe, channels
        See :func:`~tt_conv.applications.training.load_trained`.
    model : str, optional
        ``module:factory``: a network that is not ours is what this function of an importable module, called without
        arguments, returns, with the weights of ``checkpoint``.
    data : mapping, optional
        Data settings that differ from those of the training.
    inputs : path, optional
        Array ``[N, ...]`` of inputs: ``.npy``, or tensors of ``torch.save``.

    Returns
    -------
    Source

    Raises
    ------
    ValueError, OSError, ImportError
        If a file, the factory or a setting cannot be used.
    """
    given = None if inputs is None else read_inputs(inputs)
    if model is not None:
        if recipe is not None:
            raise ValueError("--recipe describes our networks, --model others: leave one of them out")
        network = built(model)
        fill(network, checkpoint, model)
        wanted = None if not data else with_changes(DataSettings(), dict(data))
        return Source(network.eval(), None, wanted, given)
    trained = load_predictor(checkpoint, recipe, channels)
    wanted = with_changes(trained.settings.data, dict(data or {}))
    return Source(trained.model, trained.settings, wanted, given, trained.sequences_seen, trained.epochs_done)


def built(factory: str) -> nn.Module:
    """Call ``module:factory``."""
    module_name, separator, name = factory.partition(":")
    if not separator or not module_name or not name:
        raise ValueError(f"--model must be module:factory, such as my_package.models:build, got {factory!r}")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.partition(".")[0] and error.name != module_name:
            raise
        raise ValueError(f"--model: there is no module {module_name!r}, here or on the Python path") from error
    finally:
        if here in sys.path:
            sys.path.remove(here)
    make = getattr(module, name, None)
    if not callable(make):
        raise ValueError(f"--model: {module_name} has no function {name!r}")
    network = make()
    if not isinstance(network, nn.Module):
        raise ValueError(f"--model: {factory} returned a {type(network).__name__}, expected a torch.nn.Module")
    return network


def fill(network: nn.Module, checkpoint: Path | str, factory: str) -> None:
    """Load the weights of a file, which runs no code, into a network."""
    weights = unwrapped(weights_of(Path(checkpoint)), network.state_dict())
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise ValueError(f"{checkpoint} does not fit what {factory} returns: {reason}") from error


def read_inputs(path: Path | str) -> Tensor:
    """Read a tensor ``[N, ...]`` without running code."""
    path = Path(path)
    try:
        if path.suffix == ".npy":
            values: Any = torch.from_numpy(np.load(path, allow_pickle=False))
        else:
            values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} holds no array ({' '.join(str(error).split())[:200]}): give a .npy file") from error
    if not isinstance(values, Tensor) or values.ndim < 1 or not len(values):
        raise ValueError(f"{path} must hold one array of inputs [N, ...]")
    return values.float() if values.is_floating_point() else values
