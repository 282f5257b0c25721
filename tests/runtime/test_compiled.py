"""``.compile()``: the same numbers, one compilation per kind of frames, none behind the user's back.

Eager backends, so no C++ compiler is needed, except where the name of the test says so.
"""

import copy
import pickle
import shutil

import pytest
import torch
import torch._dynamo.testing

from tests.layers.test_compile_and_export import CELLS, LAYERS
from tt_conv.layers import ConvTTLSTM, FramePredictor
from tt_conv.runtime.compiled import MOST_COMPILED

# PyTorch's own tracer looks at the gradients of what it is given, intermediate values included.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


def counting() -> torch._dynamo.testing.CompileCounter:
    torch._dynamo.reset()
    return torch._dynamo.testing.CompileCounter()


def predictor(**options: object) -> FramePredictor:
    return FramePredictor(1, (4, 6), (2, 1), **{"kernel_size": 3, "skip_stride": 1, **options})


@pytest.mark.parametrize("name", LAYERS)
def test_a_compiled_layer_gives_the_same_numbers_and_compiles_once_per_grad_mode(name: str) -> None:
    layer, sequence, counter = LAYERS[name](), torch.randn(2, 7, 2, 6, 6), counting()
    parameters = list(layer.parameters())
    expected, expected_state = layer(sequence)
    expected_gradients = torch.autograd.grad(expected.square().sum(), parameters)
    layer.compile(backend=counter)
    assert counter.frame_count == 0
    for _ in range(2):
        outputs, state = layer(sequence)
        torch.testing.assert_close((outputs, state), (expected, expected_state))
        gradients = torch.autograd.grad(outputs.square().sum(), parameters)
        torch.testing.assert_close(gradients, expected_gradients)
        assert counter.frame_count == 1
    with torch.no_grad():
        torch.testing.assert_close(layer(sequence)[0], expected)
        layer(sequence)
    assert counter.frame_count == 2


@pytest.mark.parametrize("options", CELLS.values(), ids=CELLS)
def test_a_compiled_predictor_compiles_a_step_of_every_cell(options: dict) -> None:
    model, frames, counter = predictor(**options), torch.rand(2, 6, 1, 8, 8), counting()
    with torch.no_grad():
        expected = model(frames, 3)
        model.compile(backend=counter)
        for _ in range(2):
            torch.testing.assert_close(model(frames, 3), expected)
            assert counter.frame_count == len(model.cells())
        streamed, states = [], None
        for t in range(6):
            prediction, states = model.step(frames[:, t], states)
            streamed.append(prediction)
    torch.testing.assert_close(torch.stack(streamed, dim=1), expected[:, :6])
    # A ConvLSTM takes a frame of a sequence and a frame by itself in the same way.
    ways = 1 if options.get("cell") == "conv_lstm" else 2
    assert counter.frame_count == ways * len(model.cells())


def test_every_layer_of_a_deep_stack_has_compilations_of_its_own() -> None:
    model, counter = FramePredictor(1, range(1, 13), (1,) * 12, kernel_size=1, rank=1, skip_stride=None), counting()
    model.compile(backend=counter)
    with torch.no_grad():
        model(torch.rand(1, 4, 1, 2, 2), 1)
    assert counter.frame_count == 12


@pytest.mark.parametrize("batch", [1, 2])
def test_sequences_of_other_lengths_compile_nothing_anew(batch: int) -> None:
    layer, counter = ConvTTLSTM(1, 2, 3, order=2, rank=1), counting()
    layer.compile(backend=counter)
    with torch.no_grad():
        _, state = layer(torch.rand(batch, 3, 1, 4, 4))
        for time in range(4, 16):
            sequence = torch.rand(batch, time, 1, 4, 4)
            torch.testing.assert_close(layer(sequence)[0], copy.deepcopy(layer)(sequence)[0])
            layer.cell(sequence[:, 0], state)
    assert counter.frame_count == 2  # a step of a sequence, and a call


def test_more_kinds_of_frames_than_are_kept_run_uncompiled() -> None:
    layer, counter = ConvTTLSTM(1, 2, 3, order=2, rank=1), counting()
    layer.compile(backend=counter)
    with torch.no_grad():
        for side in range(2, 2 + MOST_COMPILED + 2):
            sequence = torch.rand(1, 4, 1, side, side)
            outputs, _ = layer(sequence)
            torch.testing.assert_close(outputs, copy.deepcopy(layer)(sequence)[0])
    assert counter.frame_count == MOST_COMPILED


def test_under_autocast_the_compiled_step_keeps_the_cell_state_in_full_precision() -> None:
    layer, sequence = ConvTTLSTM(2, 8, 3, order=2, rank=4), torch.randn(2, 6, 2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        expected, expected_state = layer(sequence)
        layer.compile(backend=counting())
        outputs, state = layer(sequence)
    assert outputs.dtype == torch.bfloat16
    assert state[-1].dtype == torch.float32
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(state, expected_state)


def test_copies_and_pickles_are_not_compiled() -> None:
    layer, counter = ConvTTLSTM(1, 2, 3, order=2, rank=1), counting()
    layer.compile(backend=counter)
    sequence = torch.rand(1, 4, 1, 4, 4)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(sequence), layer(sequence))
        assert other.cell.compiled_step is None
    assert list(layer.state_dict()) == list(ConvTTLSTM(1, 2, 3, order=2, rank=1).state_dict())


@pytest.mark.skipif(shutil.which("g++") is None, reason="the default backend of torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_default_backend_gives_the_same_numbers_with_a_cpp_compiler() -> None:
    torch._dynamo.reset()
    layer, sequence = ConvTTLSTM(2, 4, 3, order=2, rank=2), torch.randn(2, 5, 2, 6, 6)
    parameters = list(layer.parameters())
    expected, _ = layer(sequence)
    expected_gradients = torch.autograd.grad(expected.square().sum(), parameters)
    layer.compile()
    outputs, _ = layer(sequence)
    torch.testing.assert_close(outputs, expected)
    gradients = torch.autograd.grad(outputs.square().sum(), parameters)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-5)
