"""Low precision: what is converted, what stays, and that it stays close."""

import pytest
import torch

from tt_conv.layers import ConvLSTM, ConvTTLSTM, FramePredictor

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
