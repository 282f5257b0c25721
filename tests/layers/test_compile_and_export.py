"""Whole graphs: torch.compile without breaks, torch.export, ONNX. Eager backends, so no C++ compiler is needed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tt_conv.layers import ConvLSTM, ConvTTLSTM, FramePredictor

LAYERS = {
    "conv_lstm": lambda: ConvLSTM(2, 4, 3),
    "sliding": lambda: ConvTTLSTM(2, 4, 3, order=2, steps=3, rank=2),
    "fixed": lambda: ConvTTLSTM(2, 4, 3, order=2, rank=2, window="fixed"),
    "zeros": lambda: ConvTTLSTM(2, 4, 3, order=2, rank=2, boundary="zeros"),
    "input_rank": lambda: ConvTTLSTM(2, 4, 3, order=2, steps=3, rank=2, input_rank=2),
    "circular": lambda: ConvTTLSTM(2, 4, 3, order=2, rank=2, boundary="circular"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_sequence_compiles_whole_with_its_gradients(name: str) -> None:
    layer, sequence = LAYERS[name](), torch.randn(2, 4, 2, 6, 6)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    outputs, state = compiled(sequence)
    expected, expected_state = layer(sequence)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(state, expected_state)
    parameters = list(layer.parameters())
    gradients = torch.autograd.grad(outputs.square().sum(), parameters)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), parameters))


@pytest.mark.parametrize("name", LAYERS)
def test_a_step_compiles_once_for_all_frames(name: str) -> None:
    layer, sequence = LAYERS[name](), torch.randn(2, 5, 2, 6, 6)
    counter = torch._dynamo.testing.CompileCounter()
    step = torch.compile(layer.cell, fullgraph=True, backend=counter)
    with torch.no_grad():
        _, state = layer.cell(sequence[:, 0])
        for t in range(1, 5):
            hidden, state = step(sequence[:, t], state)
        expected, _ = layer(sequence)
    torch.testing.assert_close(hidden, expected[:, -1])
    assert counter.frame_count == 1


class Step(torch.nn.Module):
    """One frame of a predictor, with its states as flat inputs and outputs."""

    def __init__(self, model: FramePredictor) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame: torch.Tensor, *flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
        states, given = [], iter(flat)
        for cell in self.model.cells():
            states.append(tuple(next(given) for _ in range(cell.steps + 1)))
        prediction, states = self.model.step(frame, states)
        return prediction, *(value for state in states for value in state)


CELLS = {
    "conv_lstm": {"cell": "conv_lstm"},
    "conv_tt_lstm": {"rank": 2, "order": 2, "steps": 3},
    "input_rank": {"rank": 2, "order": 2, "steps": 3, "input_rank": 2},
}


def predictor(cell: str) -> tuple[FramePredictor, Step, torch.Tensor, list[torch.Tensor]]:
    model = FramePredictor(
        1, (4, 6), (1, 1), kernel_size=3, skip_stride=1, sigmoid=True, patch_size=2, **CELLS[cell]
    ).eval()
    frame = torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        _, states = model.step(frame)
    return model, Step(model).eval(), frame, [value for state in states for value in state]


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_with_its_state_exports(cell: str) -> None:
    _, step, frame, flat = predictor(cell)
    exported = torch.export.export(step, (frame, *flat)).module()
    flat = [torch.randn_like(value) for value in flat]
    for output, expected in zip(exported(frame, *flat), step(frame, *flat), strict=True):
        torch.testing.assert_close(output, expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("cell", CELLS)
def test_onnxruntime_gives_the_same_numbers_frame_by_frame(cell: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, step, frame, flat = predictor(cell)
    path = tmp_path / "step.onnx"
    with torch.no_grad():
        torch.onnx.export(step, (frame, *flat), path, dynamo=True, verbose=False)
        sequence = torch.rand(1, 4, 1, 8, 8)
        expected = model(sequence, 1)
        zero = [torch.zeros_like(value) for value in flat]
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        state: list[np.ndarray] = [value.numpy() for value in zero]
        for t in range(4):
            inputs = dict(zip(names, [sequence[:, t].numpy(), *state], strict=True))
            prediction, *state = session.run(None, inputs)
            np.testing.assert_allclose(prediction, expected[:, t].numpy(), atol=1e-5)
