"""One step of a recurrent network as ONNX, its states as inputs and outputs."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from tt_conv.layers import ConvLSTM, ConvTTLSTM, FramePredictor
from tt_conv.layers.cell import RecurrentCell

STEP = "step.onnx"
_TOLERANCE = 1e-3


class Step(nn.Module):
    """One frame through a network: (frame, states ...) -> (prediction, new states ...).

    Parameters
    ----------
    model : FramePredictor, ConvLSTM or ConvTTLSTM
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def cells(self) -> list[RecurrentCell]:
        """Return the cells whose states are passed, in this order."""
        model = self.model
        return model.cells() if isinstance(model, FramePredictor) else [cast(RecurrentCell, model.cell)]

    def forward(self, frame: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        """Take one frame; ``flat`` are the states of all cells, one tensor after the other."""
        given = iter(flat)
        states = [tuple(next(given) for _ in range(cell.steps + 1)) for cell in self.cells()]
        if isinstance(self.model, FramePredictor):
            prediction, new = self.model.step(frame, states)
        else:
            prediction, state = self.cells()[0](frame, states[0])
            new = (state,)
        return prediction, *(value for state in new for value in state)


def export_step(model: nn.Module, frame_shape: Sequence[int], path: Path | str) -> None:
    """Write one step of a network as ONNX, and compare it with PyTorch where onnxruntime is installed.

    Inputs are ``frame`` ``[1, C, *S]`` and ``state_0``, ``state_1``, ... (all zero at the start of a sequence); outputs
    are ``prediction`` and ``new_state_0``, ..., which are the states of the next step.

    Parameters
    ----------
    model : FramePredictor, ConvLSTM or ConvTTLSTM
        Compressed or not.
    frame_shape : sequence of int
        ``[C, *S]``.
    path : path
        The file to write.

    Raises
    ------
    ValueError
        If the network is none of these, or ONNX gives other numbers than PyTorch.
    ModuleNotFoundError
        If onnx or onnxscript is not installed.
    """
    if not isinstance(model, FramePredictor | ConvLSTM | ConvTTLSTM):
        raise ValueError(
            f"the step of a {type(model).__name__} is not known: ONNX is written for ConvLSTM, ConvTTLSTM and "
            "FramePredictor; export another network with torch.onnx.export"
        )
    try:
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("ONNX needs more packages: pip install 'tt-conv[onnx]'", name="onnx") from error
    step = Step(model).eval()
    generator = torch.Generator().manual_seed(0)
    frame = torch.rand((1, *frame_shape), generator=generator).to(next(model.parameters()).dtype)
    with torch.no_grad(), warnings.catch_warnings(), _quiet("torch.onnx"):
        warnings.simplefilter("ignore")  # of the exporter about itself
        if isinstance(model, FramePredictor):
            states = model.step(frame)[1]
        else:
            states = (step.cells()[0](frame)[1],)
        flat = [value for state in states for value in state]
        names = [f"state_{number}" for number in range(len(flat))]
        torch.onnx.export(
            step,
            (frame, *flat),
            path,
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=["frame", *names],
            output_names=["prediction", *(f"new_{name}" for name in names)],
        )
        _compare(path, dict(zip(["frame", *names], [frame, *flat], strict=True)), step(frame, *flat))


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a logger's remarks about packages that nothing here needs off the screen."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _compare(path: Path | str, inputs: dict[str, Tensor], expected: Sequence[Tensor]) -> None:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got: list[Any] = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    for value, wanted in zip(got, expected, strict=True):
        off = float((torch.from_numpy(value) - wanted).abs().max())
        if not off <= _TOLERANCE * max(1.0, float(wanted.abs().max())):
            raise ValueError(f"the ONNX step differs from PyTorch's by {off:.2g}")
