"""Low precision: what is converted, what stays, and that it stays close."""

from types import SimpleNamespace

import pytest
import torch

from tests.layers.test_cells import CASES, make, oracle, sequences
from tt_conv.layers import ConvLSTM, ConvTTLSTM, FramePredictor
from tt_conv.layers.walk import Walk
from tt_conv.runtime import formats

LAYERS = [
    lambda: ConvLSTM(2, 8, 3),
    lambda: ConvTTLSTM(2, 8, 3, order=2, steps=3, rank=4),
    lambda: ConvTTLSTM(2, 8, 3, order=2, steps=3, rank=4, window="fixed"),
    lambda: ConvTTLSTM(2, 8, 3, order=2, rank=4, boundary="zeros"),
    lambda: ConvTTLSTM(2, 8, 3, order=2, rank=4, input_rank=2),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", LAYERS)
def test_under_autocast_the_cell_state_stays_in_full_precision(make: object, dtype: torch.dtype) -> None:
    layer, sequence = make(), torch.randn(2, 5, 2, 8, 8)
    outputs, state = layer(sequence)
    with torch.autocast("cpu", dtype):
        mixed, mixed_state = layer(sequence)
        mixed, mixed_state = layer(sequence, mixed_state)
    outputs, state = layer(sequence, state)
    assert mixed.dtype == dtype
    assert mixed_state[-1].dtype == torch.float32
    torch.testing.assert_close(mixed.float(), outputs, rtol=0, atol=0.03)
    torch.testing.assert_close(mixed_state[-1], state[-1], rtol=0, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("make", LAYERS)
def test_what_autocast_does_not_convert_is_refused(make: object, dtype: torch.dtype) -> None:
    layer, sequence = make(), torch.randn(1, 3, 2, 8, 8)
    state = [value.to(dtype) for value in layer(sequence)[1]]
    with torch.autocast("cpu", torch.bfloat16):
        for call in (layer, lambda x, *state: layer.cell(x[:, 0], *state)):
            with pytest.raises(ValueError, match=r"has dtype .*; use x\.to"):
                call(sequence.to(dtype))
            with pytest.raises(ValueError, match=r"state\[0\] must have the dtype .*; use state\[0\]\.to"):
                call(sequence, state)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cell", ["conv_tt_lstm", "conv_lstm"])
def test_so_it_does_in_layers_that_take_the_low_precision_of_others(
    cell: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FramePredictor(1, (3, 4), (2, 2), cell=cell, kernel_size=3, skip_stride=1).train(training)
    frames, memories, step = torch.rand(2, 4, 1, 6, 6), [], Walk.step

    def watched_step(walk: Walk, x: torch.Tensor) -> torch.Tensor:
        newest = step(walk, x)
        memories.append(walk.state()[-1])
        return newest

    monkeypatch.setattr(Walk, "step", watched_step)
    with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16):
        model(frames, future=2)
        _, states = model.step(frames[:, 0])
        _, states = model.step(frames[:, 1], states)
    assert len(memories) == 4 * (5 + 2)
    assert {memory.dtype for memory in (*memories, *(state[-1] for state in states))} == {torch.float32}


@pytest.mark.parametrize("make", LAYERS)
def test_gradients_under_autocast_are_close(make: object) -> None:
    layer, sequence = make(), torch.randn(2, 5, 2, 8, 8)
    parameters = list(layer.parameters())
    exact = torch.autograd.grad(layer(sequence)[0].square().mean(), parameters)
    with torch.autocast("cpu", torch.bfloat16):
        loss = layer(sequence)[0].float().square().mean()
    for gradient, reference in zip(torch.autograd.grad(loss, parameters), exact, strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - reference).norm() < 0.05 * reference.norm() + 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_module_in_one_dtype_stays_in_it(dtype: torch.dtype) -> None:
    model = FramePredictor(1, (4, 4), (1, 1), kernel_size=3, rank=2, sigmoid=True, dtype=dtype)
    assert model(torch.rand(1, 3, 1, 8, 8, dtype=dtype), 2).dtype == dtype


def test_widths_are_padded_on_cuda_in_half_precision_only() -> None:
    cuda = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16)
    widths = {n: formats.padded_width(n, cuda) for n in (1, 3, 4, 8, 9, 24, 57)}
    assert widths == {1: 1, 3: 3, 4: 8, 8: 8, 9: 16, 24: 24, 57: 64}
    for device, dtype in (("cuda", torch.float32), ("cuda", torch.float64), ("cpu", torch.bfloat16)):
        assert formats.padded_width(9, SimpleNamespace(device=torch.device(device), dtype=dtype)) == 9


@pytest.mark.parametrize("case", CASES, ids=str)
def test_padded_widths_give_the_numbers_of_the_oracle(case: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "padded_width", lambda channels, like: -(-channels // 8) * 8)
    layer = make(case)
    first, second = sequences(layer, 3), sequences(layer, 2)
    zero = torch.zeros(2, 3, *first.shape[3:], dtype=torch.float64)
    outputs, state = layer(first)
    later, _ = layer(second, state)
    expected, expected_state = oracle(layer, first, (zero,) * (layer.cell.steps + 1))
    expected_later, _ = oracle(layer, second, tuple(expected_state))
    torch.testing.assert_close((outputs, later), (expected, expected_later), rtol=0, atol=1e-10)
    sources = [first, second, *layer.parameters()]
    gradients, expected_gradients = (
        torch.autograd.grad(a.sin().sum() + b.square().sum(), sources)
        for a, b in ((outputs, later), (expected, expected_later))
    )
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-8)
