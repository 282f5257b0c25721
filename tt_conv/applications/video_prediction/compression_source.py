"""What ``tt-conv compress`` starts from: a network and the data that it is for."""

import importlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tt_conv.applications import gate
from tt_conv.applications.compression.step_export import STEP, export_step
from tt_conv.applications.data.sequences import SequenceDataset
from tt_conv.applications.data.splits import Split
from tt_conv.applications.training.compression import CompressionSource, Tuned
from tt_conv.applications.training.settings import settings_to_dict, with_changes
from tt_conv.applications.video_prediction.checkpoint import load_predictor, weights_of
from tt_conv.applications.video_prediction.evaluation import milliseconds_per_frame
from tt_conv.applications.video_prediction.fine_tuning import batches, fine_tune
from tt_conv.applications.video_prediction.open_data import FirstSequences, open_data
from tt_conv.applications.video_prediction.settings import CompressionSettings, DataSettings, Settings
from tt_conv.layers import FramePredictor
from tt_conv.layers.wrapped import unwrapped


@dataclass
class PredictorSource(CompressionSource):
    """A trained frame predictor, or another network.

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

    quality_name = "MSE x 1e-3"

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

    def check(self, settings: CompressionSettings) -> None:
        check_settings(settings)
        if settings.finetune and self.data is None:
            raise ValueError("--finetune trains on sequences: say which with --data, such as --data.kind moving_mnist")
        if settings.budget_of == "macs" and self.data is None and self.inputs is None:
            raise ValueError("--budget_of macs needs data: --data settings for frame predictors, --inputs for others")
        if settings.onnx and self.data is None:
            raise ValueError(
                "--onnx is for frame predictors, whose frames the data tell: export others with torch.onnx"
            )

    def calibration(self, settings: CompressionSettings) -> list[Any] | None:
        size = settings.batch_size
        if self.inputs is not None:
            return list(self.inputs[: settings.calibration].split(size))
        if self.data is None:
            return None
        sequences = FirstSequences(self.sequences("train"), settings.calibration)
        return [(batch[:, : self.data.given], self.data.future) for batch in DataLoader(sequences, size)]

    def quality(self, settings: CompressionSettings) -> Callable[[nn.Module], float] | None:
        """What measures the mean squared error of the predicted frames, x 1e-3."""
        if self.data is None:
            return None
        sequences = FirstSequences(self.sequences("test"), quality_sequences(settings))
        stored: list[Tensor] = list(DataLoader(sequences, settings.batch_size))
        given, future = self.data.given, self.data.future

        def mse(model: nn.Module) -> float:
            total = 0.0
            with torch.inference_mode():
                for batch in stored:
                    predicted = model(batch[:, :given], future)[:, -future:].clamp(0, 1)
                    total += float((predicted - batch[:, given:]).double().square().flatten(1).mean(1).sum())
            return 1e3 * total / len(sequences)

        return mse

    def tuned(self, smaller: nn.Module, settings: CompressionSettings) -> Tuned | None:
        if not settings.finetune:
            return None
        assert self.data is not None
        recipe = None if self.settings is None else self.settings.training
        validation = FirstSequences(self.sequences("validation"), quality_sequences(settings))
        return fine_tune(
            smaller,
            batches(self.sequences("train"), settings.batch_size, settings.finetune),
            batches(validation, settings.batch_size),
            given=self.data.given,
            original=self.model,
            distill=settings.distill,
            loss="l1_mse" if recipe is None else recipe.loss,
            learning_rate=settings.learning_rate,
            clip_norm=(recipe.clip_norm if recipe is not None else 1.0) or math.inf,
        )

    def milliseconds(self, smaller: nn.Module) -> tuple[float, float] | None:
        if self.data is None:
            return None
        frames = self.sequences("test")[0].unsqueeze(0)[:, : self.data.given]
        networks = {"before": self.model, "after": smaller.eval()}
        taken = milliseconds_per_frame(networks, frames, self.data.future, repeats=9)
        return taken["before"], taken["after"]

    def facts(self) -> Mapping[str, Any]:
        if self.data is None:
            return {"data": None, "quality": None}
        told = f"{self.quality_name}, mean over the predicted frames of test sequences"
        return {"data": asdict(self.data), "quality": told}

    def training(self) -> Mapping[str, Any] | None:
        if self.settings is None or self.data is None:
            return None
        return {
            "settings": settings_to_dict(replace(self.settings, data=self.data)),
            "sequences_seen": self.sequences_seen,
            "epochs_done": self.epochs_done,
        }

    def write_more(self, folder: Path, model: nn.Module, settings: CompressionSettings) -> None:
        if settings.onnx:
            export_step(model, self.sequences("test")[0].shape[1:], folder / STEP)


def check_settings(settings: CompressionSettings) -> None:
    """Refuse values that are out of their range."""
    if settings.finetune < 0:
        raise ValueError(f"finetune must not be negative, got {settings.finetune}")
    if quality_sequences(settings) < 1:
        raise ValueError(f"quality_sequences must be at least 1, got {quality_sequences(settings)}")
    if not 0 <= settings.distill <= 1:
        raise ValueError(f"distill is a share of the loss, from 0 to 1, got {settings.distill}")
    if settings.distill and not settings.finetune:
        raise ValueError("distill belongs to fine-tuning: say for how many steps with --finetune")


def quality_sequences(settings: CompressionSettings) -> int:
    """Number of test sequences for the quality, and of validation sequences for fine-tuning."""
    return 64 if settings.quality_sequences is None else settings.quality_sequences


def open_source(
    checkpoint: Path | str,
    *,
    recipe: str | None = None,
    channels: int | None = None,
    model: str | None = None,
    data: Mapping[str, Any] | None = None,
    inputs: Path | str | None = None,
) -> PredictorSource:
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
    PredictorSource

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
        return PredictorSource(network.eval(), None, wanted, given)
    trained = load_predictor(checkpoint, recipe, channels)
    wanted = with_changes(trained.settings.data, dict(data or {}))
    return PredictorSource(trained.model, trained.settings, wanted, given, trained.sequences_seen, trained.epochs_done)


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
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise ValueError(
            f"--model: {factory} is called without arguments, and it takes some ({error}): name a function without, "
            "such as def build(): return Network(3)"
        ) from error
    except ValueError:  # without a signature, as some of C
        pass
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
            values: Any = torch.from_numpy(gate.read_npy(path))
        else:
            values = gate.read_torch(path)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} holds no array ({' '.join(str(error).split())[:200]}): give a .npy file") from error
    if not isinstance(values, Tensor) or values.ndim < 1 or not len(values):
        raise ValueError(f"{path} must hold one array of inputs [N, ...]")
    return values.float() if values.is_floating_point() else values
