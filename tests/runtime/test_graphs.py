"""Replayed calls: the same numbers and gradients, on memory of their own, safe when anything changes.

No CUDA here: a stand-in replays by running the recorded function again into the memory of its first results.
"""

import copy
import pickle
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.layers.test_compile_and_export import LAYERS
from tt_conv.layers import ConvTTLSTM, ConvTTLSTMCell, FramePredictor
from tt_conv.runtime.graphs import MOST_RECORDED, Graphs
from tt_conv.runtime.kept import without_keeping


class StandIn:
    """Counts recordings and replays; results hold nothing of use until they are replayed."""

    device_type = "cpu"
    recorded = replayed = 0

    def warm_up(self, function: Callable[[], object]) -> None:
        function()

    def record(self, function: Callable[[], Sequence[Any]]) -> Callable[[], Sequence[Any]]:
        kept = [None if value is None else torch.full_like(value.detach(), torch.nan) for value in function()]
        StandIn.recorded += 1

        def replay() -> Sequence[Any]:
            StandIn.replayed += 1
            with without_keeping():
                results = function()
            for target, value in zip(kept, results, strict=True):
                if target is not None:
                    target.copy_(value.detach())
            return kept

        return replay


@pytest.fixture(autouse=True)
def _counters() -> None:
    StandIn.recorded = StandIn.replayed = 0


def replaying(module: nn.Module) -> nn.Module:
    """Return a copy that replays."""
    module = copy.deepcopy(module)
    module._graphs = Graphs(module, StandIn)
    return module


def gradients(outputs: Tensor, module: nn.Module) -> list[Tensor]:
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).reshape(outputs.shape)
    return list(torch.autograd.grad((outputs * weights).sum(), list(module.parameters())))


@pytest.mark.parametrize("name", LAYERS)
def test_a_sequence_without_gradients(name: str) -> None:
    layer = LAYERS[name]().eval()
    replayed = replaying(layer)
    state = layer(torch.randn(2, 3, 2, 6, 6))[1]
    sequences = [torch.randn(2, 4, 2, 6, 6) for _ in range(4)]
    with torch.no_grad():
        results = [replayed(sequence, state) for sequence in sequences]
        for sequence, result in zip(sequences, results, strict=True):
            torch.testing.assert_close(result, layer(sequence, state))
    assert (StandIn.recorded, StandIn.replayed) == (1, 3)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_weights_frames_and_state_over_optimizer_steps(name: str) -> None:
    layer = LAYERS[name]().double()
    replayed = replaying(layer)
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1) for module in (layer, replayed)]
    for _ in range(4):
        given = [torch.randn(2, 4, 2, 6, 6, dtype=torch.float64)]
        given += [torch.randn(2, 4, 6, 6, dtype=torch.float64) for _ in range(layer.cell.steps + 1)]
        found = []
        for module, optimizer in zip((layer, replayed), optimizers, strict=True):
            sequence, *state = (value.clone().requires_grad_() for value in given)
            optimizer.zero_grad()
            outputs, last = module(sequence, state)
            (outputs.square().sum() + last[-1].sin().sum()).backward()
            found.append([outputs, *last, *(v.grad for v in (sequence, *state, *module.parameters()))])
            found[-1] = [value.detach().clone() for value in found[-1]]
            optimizer.step()
        torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)
    assert (StandIn.recorded, StandIn.replayed) == (2, 6)


def test_gradients_accumulate() -> None:
    layer, sequence = ConvTTLSTM(1, 3, 3, order=2, rank=2), torch.randn(1, 3, 1, 5, 5)
    replayed = replaying(layer)
    for module in (layer, replayed):
        for _ in range(4):
            module(sequence)[0].square().sum().backward()
    torch.testing.assert_close(
        [parameter.grad for parameter in replayed.parameters()], [parameter.grad for parameter in layer.parameters()]
    )


def test_two_calls_before_a_backward_pass_keep_their_gradients() -> None:
    layer, sequence = ConvTTLSTM(1, 3, 3, order=2, rank=2), torch.randn(1, 3, 1, 5, 5)
    replayed = replaying(layer)
    expected, state = layer(sequence)
    expected, _ = layer(sequence, state)
    for _ in range(3):
        _, state = replayed(sequence)
        state = [value * 1 for value in state]
        outputs, last = replayed(sequence, state)
        again, _ = replayed(sequence, state)
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(
            gradients(outputs, replayed), gradients(layer(sequence, layer(sequence)[1])[0], layer)
        )
        del again, outputs, last, state


def test_a_second_backward_pass_is_refused() -> None:
    replayed, sequence = replaying(ConvTTLSTM(1, 3, 3, order=2, rank=2)), torch.randn(1, 3, 1, 5, 5)
    for _ in range(2):
        outputs = replayed(sequence)[0].sum()
        outputs.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="has one backward pass"):
        outputs.backward()


@pytest.mark.parametrize("cell", ["conv_tt_lstm", "conv_lstm"])
def test_a_predictor_and_its_stream(cell: str) -> None:
    model = FramePredictor(1, (3, 4), (1, 2), cell=cell, kernel_size=3, skip_stride=1)
    replayed = replaying(model)
    for _ in range(3):
        frames, truth, use = torch.rand(2, 3, 1, 6, 6), torch.rand(2, 2, 1, 6, 6), torch.rand(2, 2) < 0.5
        expected = model(frames, 3, truth, use)
        predicted = replayed(frames, 3, truth, use)
        torch.testing.assert_close(predicted, expected)
        torch.testing.assert_close(gradients(predicted, replayed), gradients(expected, model))
    model.eval(), replayed.eval()
    with torch.inference_mode():
        streamed, states = [], None
        for frame in frames.unbind(1):
            prediction, states = replayed.step(frame, states)
            streamed.append(prediction)
        torch.testing.assert_close(torch.stack(streamed, dim=1), model(frames, 1))
    assert StandIn.recorded == 3  # the roll-out with its backward pass, and a step with states


def test_a_cell_frame_by_frame() -> None:
    cell = ConvTTLSTMCell(2, 3, 3, order=2, rank=2, window="fixed").eval()
    replayed, frames = replaying(cell), torch.randn(5, 1, 2, 4, 4)
    with torch.no_grad():
        state = expected_state = None
        for frame in frames:
            hidden, state = replayed(frame, state)
            expected, expected_state = cell(frame, expected_state)
            torch.testing.assert_close((hidden, state), (expected, expected_state))
            cell.recurrent.bias += 0.1  # a recording sees changed weights
            replayed.recurrent.bias += 0.1
    assert StandIn.replayed == 4  # the zero state is no kind of its own


def test_shapes_that_change_run_as_usual_until_they_come_again() -> None:
    layer = ConvTTLSTM(1, 2, 3, order=2, rank=1)
    replayed = replaying(layer)
    with torch.no_grad():
        for turn in range(3):
            for side in range(2, 2 + MOST_RECORDED + 2):
                sequence = torch.rand(1, 2, 1, side, side)
                torch.testing.assert_close(replayed(sequence)[0], layer(sequence)[0])
            assert StandIn.recorded == (MOST_RECORDED if turn else 0)
        assert replayed(torch.rand(0, 2, 1, 3, 3))[0].shape == (0, 2, 2, 3, 3)


def test_weights_that_moved_are_recorded_anew() -> None:
    layer, sequence = ConvTTLSTM(1, 2, 3, order=2, rank=1), torch.rand(1, 2, 1, 4, 4)
    replayed = replaying(layer)
    with torch.no_grad():
        for _ in range(2):
            replayed(sequence)
        for module in (layer, replayed):
            module.cell.recurrent.bias = nn.Parameter(torch.full((8,), 2.0))
        for _ in range(2):
            torch.testing.assert_close(replayed(sequence)[0], layer(sequence)[0])
    assert StandIn.recorded == 2


def test_parameters_in_the_memory_of_others_get_gradients_of_their_own() -> None:
    layer, sequence = ConvTTLSTM(1, 2, 3, order=2, rank=1), torch.rand(1, 2, 1, 4, 4)
    replayed = replaying(layer)
    for _ in range(3):
        replayed(sequence)[0].sum().backward()
    fresh = nn.Parameter(replayed.cell.recurrent.bias.data)
    replayed.cell.recurrent.bias = fresh
    for _ in range(3):
        fresh.grad = None
        replayed(sequence)[0].sum().backward()
        layer.zero_grad()
        layer(sequence)[0].sum().backward()
        torch.testing.assert_close(fresh.grad, layer.cell.recurrent.bias.grad)


def test_precision_is_part_of_the_kind() -> None:
    layer, sequence = ConvTTLSTM(2, 8, 3, order=2, rank=4), torch.randn(2, 3, 2, 8, 8)
    replayed = replaying(layer)
    for _ in range(3):
        for dtype in (torch.bfloat16, torch.float32):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                outputs, state = replayed(sequence)
                expected, expected_state = layer(sequence)
            assert outputs.dtype == dtype
            torch.testing.assert_close((outputs, state), (expected, expected_state))
            torch.testing.assert_close(
                gradients(outputs.float(), replayed), gradients(expected.float(), layer), rtol=1e-2, atol=1e-2
            )


def test_hooks_are_called_every_time() -> None:
    replayed, calls = replaying(ConvTTLSTM(1, 2, 3, order=2, rank=1)), []
    replayed.cell.recurrent.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        replayed(torch.rand(1, 2, 1, 4, 4))
    assert StandIn.recorded == 0


def test_copies_and_pickles_have_no_recordings() -> None:
    replayed = replaying(ConvTTLSTM(1, 2, 3, order=2, rank=1))
    for other in (copy.deepcopy(replayed), pickle.loads(pickle.dumps(replayed))):
        assert other._graphs is None


def test_without_cuda_they_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = ConvTTLSTM(1, 2, 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="PyTorch sees none here"):
        layer.use_cuda_graphs()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeError, match="it is on cpu; move it first"):
        layer.use_cuda_graphs()
    layer.use_cuda_graphs(False)
    layer(torch.rand(1, 2, 1, 4, 4))


def test_threads_take_turns() -> None:
    layer = ConvTTLSTM(1, 3, 3, order=2, rank=2).eval()
    replayed = replaying(layer)
    sequences = [torch.randn(1, 3, 1, 5, 5) for _ in range(4)]
    failures: list[BaseException] = []

    def run(sequence: Tensor, expected: Tensor) -> None:
        try:
            with torch.no_grad():
                for _ in range(20):
                    torch.testing.assert_close(replayed(sequence)[0], expected)
        except BaseException as error:
            failures.append(error)

    with torch.no_grad():
        expected = [layer(sequence)[0] for sequence in sequences]
    threads = [Thread(target=run, args=given) for given in zip(sequences, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert StandIn.recorded == 1
