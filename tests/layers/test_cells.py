"""Recurrent cells and layers against the naive evaluation of their formulas."""

import copy

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.oracle.conv_tt import conv_lstm_sequence, conv_tt_lstm_sequence
from tests.oracle.parameters import conv_tt_parameters
from tt_conv.layers import ConvLSTM, ConvLSTMCell, ConvTTLSTM, ConvTTLSTMCell

SIZES = {1: (7,), 2: (5, 4), 3: (3, 4, 3)}
CASES = [
    {"kind": "conv_lstm", "dim": 1, "kernel_size": 3},
    {"kind": "conv_lstm", "dim": 2, "kernel_size": (3, 5), "bias": False},
    {"kind": "conv_lstm", "dim": 3, "kernel_size": 3},
    {"kind": "conv_tt_lstm", "dim": 1, "kernel_size": 5, "order": 2, "steps": 4, "rank": 2},
    {"kind": "conv_tt_lstm", "dim": 2, "kernel_size": 3, "order": 3, "steps": 3, "rank": (1, 3, 2)},
    {"kind": "conv_tt_lstm", "dim": 2, "kernel_size": (3, 5), "order": 2, "steps": 3, "window": "fixed"},
    {"kind": "conv_tt_lstm", "dim": 2, "kernel_size": 3, "order": 2, "boundary": "zeros", "rank": 3},
    {"kind": "conv_tt_lstm", "dim": 2, "kernel_size": 3, "order": 2, "boundary": "circular", "rank": 3},
    {"kind": "conv_tt_lstm", "dim": 2, "kernel_size": 3, "order": 1, "steps": 2, "bias": False},
    {"kind": "conv_tt_lstm", "dim": 3, "kernel_size": (1, 3, 3), "order": 2, "rank": 2},
    {"kind": "conv_tt_lstm", "dim": 2, "kernel_size": (3, 5), "order": 2, "steps": 3, "rank": 2, "input_rank": 1},
    {"kind": "conv_tt_lstm", "dim": 2, "kernel_size": 3, "boundary": "zeros", "rank": 2, "input_rank": 3},
    {"kind": "conv_tt_lstm", "dim": 1, "kernel_size": 3, "boundary": "circular", "rank": 2, "input_rank": 2},
    {"kind": "conv_tt_lstm", "dim": 2, "kernel_size": 3, "order": 2, "window": "fixed", "rank": 2, "input_rank": 1},
    {"kind": "conv_tt_lstm", "dim": 2, "kernel_size": 3, "order": 2, "rank": 2, "input_rank": 1, "bias": False},
    {"kind": "conv_tt_lstm", "dim": 2, "kernel_size": 3, "boundary": "zeros", "rank": 2, "input_kernel_size": 5},
    {"kind": "conv_tt_lstm", "dim": 1, "kernel_size": 5, "rank": 2, "input_rank": 2, "input_kernel_size": 3},
    {"kind": "conv_tt_lstm", "dim": 1, "kernel_size": 3, "boundary": "circular", "rank": 1, "input_kernel_size": 5},
]
KINDS = {"conv_lstm": ConvLSTM, "conv_tt_lstm": ConvTTLSTM}


def make(case: dict) -> ConvLSTM | ConvTTLSTM:
    options = dict(case)
    layer = KINDS[options.pop("kind")](2, 3, options.pop("kernel_size"), **options, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.3)
    return layer


def oracle(layer: ConvLSTM | ConvTTLSTM, sequence: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, list]:
    cell = layer.cell
    if isinstance(cell, ConvLSTMCell):
        hidden = [state[0]]
        outputs, last = conv_lstm_sequence(sequence, cell.conv.weight, cell.conv.bias, state[0], state[1])
    else:
        hidden = list(state[:-1])
        outputs, last = conv_tt_lstm_sequence(
            sequence,
            conv_tt_parameters(cell.input_conv) if cell.input_rank else cell.input_conv.weight,
            conv_tt_parameters(cell.recurrent),
            hidden,
            state[-1],
            window=cell.recurrent.window,
            boundary=cell.recurrent.boundary,
        )
    final = [*(hidden + outputs)[-len(hidden) :], last]
    return torch.stack(outputs, dim=1), final


def sequences(layer: ConvLSTM | ConvTTLSTM, time: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, time, 2, *SIZES[layer.cell.dim], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("time", "batch"), [(1, 1), (5, 2)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_states_and_gradients_equal_the_oracle_over_two_segments(case: dict, time: int, batch: int) -> None:
    layer = make(case)
    first, second = sequences(layer, time, batch), sequences(layer, 3, batch)
    zero = torch.zeros(batch, 3, *SIZES[layer.cell.dim], dtype=torch.float64)
    outputs, state = layer(first)
    later, final = layer(second, state)
    expected, expected_state = oracle(layer, first, (zero,) * (layer.cell.steps + 1))
    expected_later, expected_final = oracle(layer, second, tuple(expected_state))
    ours, theirs = [outputs, later, *state, *final], [expected, expected_later, *expected_state, *expected_final]
    for value, expected_value in zip(ours, theirs, strict=True):
        torch.testing.assert_close(value, expected_value, rtol=0, atol=1e-10)
    sources = [first, second, *layer.parameters()]
    weights = [torch.randn_like(value) for value in ours]
    gradients = torch.autograd.grad(sum((v * w).sum() for v, w in zip(ours, weights, strict=True)), sources)
    expected_gradients = torch.autograd.grad(sum((v * w).sum() for v, w in zip(theirs, weights, strict=True)), sources)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=str)
def test_gradcheck(case: dict) -> None:
    layer = make(case)
    sequence = torch.randn(1, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], (sequence,))
    for parameter in layer.parameters():
        assert torch.autograd.gradcheck(lambda _: layer(sequence.detach())[0], (parameter,))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_layer_is_the_cell_applied_to_every_frame(case: dict) -> None:
    layer = make(case)
    sequence, state, outputs = sequences(layer, 4), None, []
    for x in sequence.unbind(1):
        hidden, state = layer.cell(x, state)
        outputs.append(hidden)
    torch.testing.assert_close(layer(sequence)[0], torch.stack(outputs, dim=1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_macs_are_half_of_what_the_flop_counter_counts(case: dict) -> None:
    layer = make(case)
    x = sequences(layer, 1)[:1, 0].detach()
    with FlopCounterMode(display=False) as counter:
        layer.cell(x)
    assert layer.cell.macs(SIZES[layer.cell.dim]) * 2 == counter.get_total_flops()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_empty_batch_gives_an_empty_batch(case: dict, training: bool) -> None:
    layer = make(case).train(training)
    size = SIZES[layer.cell.dim]
    outputs, _ = layer(torch.zeros(0, 2, 2, *size, dtype=torch.float64))
    assert outputs.shape == (0, 2, 3, *size)
    hidden, state = layer.cell(torch.zeros(0, 2, *size, dtype=torch.float64))
    assert {value.shape for value in (hidden, *state)} == {(0, 3, *size)}
    hidden.sum().backward()


def test_deepcopy_gives_the_same_outputs() -> None:
    layer = make(CASES[3])
    sequence = sequences(layer, 2)
    assert torch.equal(copy.deepcopy(layer)(sequence)[0], layer(sequence)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ConvLSTMCell(1, 2, 4), "kernel_size must be odd on every axis, got 4"),
        (lambda: ConvTTLSTMCell(1, 2, 3, order=3, steps=2), "got steps=2, order=3"),
        (lambda: ConvTTLSTMCell(1, 2, 3, rank=0), "rank must be at least 1, got 0"),
        (lambda: ConvTTLSTMCell(1, 2, 3, input_rank=0), "input_rank must be at least 1, got 0"),
        (lambda: ConvLSTM(1, 2, 3)(torch.zeros(1, 1, 4, 4)), "so 5 axes, got 4 axes of shape"),
        (lambda: ConvLSTM(1, 2, 3)(torch.zeros(1, 0, 1, 4, 4)), "at least one frame"),
        (lambda: ConvLSTMCell(1, 2, 3)(torch.zeros(1, 3, 4, 4)), "with 1 channels, got 3 channels"),
        (
            lambda: ConvLSTMCell(1, 2, 3)(torch.zeros(1, 1, 4, 4), (torch.zeros(1, 2, 4, 4),)),
            "1 hidden states and the cell state, 2 tensors in all, got 1",
        ),
        (
            lambda: ConvTTLSTMCell(1, 2, 3)(torch.zeros(1, 1, 4, 4), (torch.zeros(1, 2, 4, 5),) * 4),
            "state\\[0\\] must have shape \\(1, 2, 4, 4\\), got \\(1, 2, 4, 5\\)",
        ),
    ],
)
def test_bad_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("steps", [2, 4])
@pytest.mark.parametrize("boundary", ["zeros", "stagewise", "circular"])
def test_a_walk_for_its_outputs_alone_gives_the_same_and_holds_no_hidden_state(steps: int, boundary: str) -> None:
    torch.manual_seed(0)
    cell = ConvTTLSTMCell(2, 3, 3, order=2, steps=steps, rank=2, boundary=boundary, dtype=torch.float64)
    frames = torch.randn(5, 1, 2, 6, 6, dtype=torch.float64)
    whole, lean = cell.begin(frames[0]), cell.begin(frames[0])
    lean.only_outputs(len(frames))
    for frame in frames:
        assert torch.equal(lean.step(frame), whole.step(frame))
        assert not lean.hidden
