"""Single calls with weights that stay: prepared once, noticed when they change."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.layers.test_cells import CASES, make, oracle, sequences
from tt_conv.layers import ConvTTLSTM, ConvTTLSTMCell, FramePredictor
from tt_conv.layers.cell import RecurrentCell
from tt_conv.runtime import formats, kept


def streamed(cell: RecurrentCell, sequence: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    state, outputs = None, []
    for frame in sequence.unbind(1):
        hidden, state = cell(frame, state)
        outputs.append(hidden)
    return torch.stack(outputs, dim=1), state


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_frames_one_by_one_equal_the_oracle(case: dict, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if padded:
        monkeypatch.setattr(formats, "padded_width", lambda channels, like: -(-channels // 8) * 8)
    layer = make(case).eval()
    sequence = sequences(layer, 5).detach()
    zero = torch.zeros(2, 3, *sequence.shape[3:], dtype=torch.float64)
    expected, expected_state = oracle(layer, sequence, (zero,) * (layer.cell.steps + 1))
    with torch.no_grad():
        outputs, state = streamed(layer.cell, sequence)
    torch.testing.assert_close(outputs, expected.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(list(state), [value.detach() for value in expected_state], rtol=0, atol=1e-10)


def counted(cell: RecurrentCell, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    prepare = cell.prepare
    monkeypatch.setattr(cell, "prepare", lambda *frames: calls.append(1) or prepare(*frames))
    return calls


@pytest.mark.parametrize("case", [CASES[1], CASES[4], CASES[5], CASES[10]], ids=str)
def test_weights_are_prepared_once_for_all_frames(case: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make(case).eval().cell
    calls = counted(cell, monkeypatch)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            streamed(cell, torch.randn(1, 4, 2, 5, 4, dtype=torch.float64))
            streamed(cell, torch.randn(2, 3, 2, 6, 6, dtype=torch.float64))
    assert len(calls) == 1


def _by_an_optimizer(cell: ConvTTLSTMCell) -> None:
    optimizer = torch.optim.Adam(cell.parameters(), lr=0.1)
    with torch.enable_grad():
        cell(torch.ones(1, 2, 4, 4))[0].sum().backward()
    optimizer.step()


CHANGES: dict[str, Callable[[ConvTTLSTMCell], object]] = {
    "in place": lambda cell: cell.recurrent.cores[0].mul_(2),
    "through data": lambda cell: cell.recurrent.cores[0].data.mul_(2),
    "through NumPy": lambda cell: cell.input_conv.weight.detach().numpy().__imul__(2),
    "replaced": lambda cell: setattr(cell.recurrent, "bias", nn.Parameter(torch.ones(12))),
    "loaded": lambda cell: cell.load_state_dict({k: v * 2 for k, v in cell.state_dict().items()}),
    "optimizer": _by_an_optimizer,
    "dtype and back": lambda cell: cell.to(torch.bfloat16).to(torch.float32),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_noticed(change: str) -> None:
    cell, sequence = ConvTTLSTMCell(2, 3, 3, order=2, rank=2).eval(), torch.randn(1, 3, 2, 4, 4)
    with torch.no_grad():
        before, _ = streamed(cell, sequence)
        CHANGES[change](cell)
        outputs, _ = streamed(cell, sequence)
        fresh = ConvTTLSTMCell(2, 3, 3, order=2, rank=2)
        fresh.load_state_dict(cell.state_dict())
        torch.testing.assert_close(outputs, streamed(fresh.train(), sequence)[0])
        assert not torch.equal(outputs, before)


@pytest.mark.parametrize("trained", ["in training mode", "in eval mode, a sequence", "in eval mode, a frame"])
@pytest.mark.parametrize("boundary", ["stagewise", "zeros"])
def test_fused_optimizers_are_noticed_where_values_cannot_be_compared(
    boundary: str, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a GPU: version counters alone, which fused optimizers leave as they are.
    monkeypatch.setattr(kept._Weight, "is_as_it_was", _by_version)
    layer = ConvTTLSTM(2, 3, 3, order=2, rank=2, boundary=boundary).eval()
    sequence = torch.randn(1, 3, 2, 4, 4)
    with torch.no_grad():
        before, _ = streamed(layer.cell, sequence)
    layer.train(trained == "in training mode")
    outputs = layer.cell(sequence[:, 0])[0] if trained.endswith("frame") else layer(sequence)[0]
    outputs.sum().backward()
    torch.optim.Adam(layer.parameters(), lr=0.1, fused=True).step()
    if layer.training:
        layer.eval()
    with torch.no_grad():
        outputs, _ = streamed(layer.cell, sequence)
        torch.testing.assert_close(outputs, layer(sequence)[0])
    assert not torch.equal(outputs, before)


def _by_version(witness: kept._Weight) -> bool:
    weight = witness.weight
    return (weight.data_ptr(), weight._version, weight.dtype, weight.stride()) == witness.layout


def test_in_low_precision_and_back() -> None:
    cell, sequence = ConvTTLSTMCell(2, 8, 3, order=2, rank=4).eval(), torch.randn(1, 4, 2, 8, 8)
    with torch.no_grad():
        exact, _ = streamed(cell, sequence)
        with torch.autocast("cpu", torch.bfloat16):
            outputs, state = streamed(cell, sequence)
        assert outputs.dtype == torch.bfloat16
        assert state[-1].dtype == torch.float32
        torch.testing.assert_close(outputs.float(), exact, rtol=0, atol=0.03)
        assert torch.equal(streamed(cell, sequence)[0], exact)


def test_gradients_and_functional_weights_are_not_of_what_is_kept() -> None:
    cell, frame = ConvTTLSTMCell(2, 3, 3, order=2, rank=2).eval(), torch.randn(1, 2, 4, 4)
    with torch.no_grad():
        cell(frame)
    cell(frame)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in cell.parameters())
    with torch.no_grad():
        doubled = {name: 2 * value for name, value in cell.named_parameters()}
        hidden, _ = torch.func.functional_call(cell, doubled, (frame,))
        cell.load_state_dict(doubled)
        torch.testing.assert_close(hidden, cell(frame)[0])


def test_hooks_are_called() -> None:
    cell, calls = ConvTTLSTMCell(2, 3, 3, order=2, rank=2).eval(), []
    cell.input_conv.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        streamed(cell, torch.randn(1, 3, 2, 4, 4))
    assert len(calls) == 3


def test_copies_and_pickles_prepare_for_themselves() -> None:
    model, frame = FramePredictor(1, (3,), (2,), kernel_size=3, rank=2, skip_stride=None).eval(), torch.rand(1, 1, 4, 4)
    with torch.no_grad():
        expected, states = model.step(frame)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(other.step(frame), (expected, states))
