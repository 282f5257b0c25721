"""The register form against the naive evaluation of the windows."""

import pytest
import torch

from tests.conv_tt.test_layer import CASES, SIZES, make
from tests.oracle.conv_tt import conv_tt
from tests.oracle.parameters import conv_tt_parameters
from tt_conv import ConvTT
from tt_conv.conv_tt.registers import Registers, StagewiseLevels


def outputs(layer: ConvTT, sequence: torch.Tensor, past: list[torch.Tensor] | None) -> torch.Tensor:
    """Walk through a sequence with registers, from given frames before it or from zero frames."""
    form = Registers(layer)
    frames = [form.place(frame) for frame in sequence.unbind(1)]
    if past is None:
        registers = form.start_from_zero(frames[0])
        seen = [torch.zeros_like(frames[0])] * (layer.lags - 1)
    else:
        placed = [form.place(frame) for frame in past]
        registers = form.start(placed)
        seen = placed[-(layer.lags - 1) :] if layer.lags > 1 else []
    result = []
    for frame in frames:
        seen.append(frame)
        registers = form.advance(seen[-layer.lags :], registers)
        level = form.newest_level(registers)
        result.append(form.output_convolution(level, layer.cores[-1], layer.bias))
    return torch.stack(result, dim=1)


@pytest.mark.parametrize("from_zero", [True, False])
@pytest.mark.parametrize("boundary", ["zeros", "circular", "stagewise"])
@pytest.mark.parametrize("core_bias", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_equal_the_oracle(case: dict, core_bias: bool, boundary: str, from_zero: bool) -> None:
    layer = make(case, core_bias=core_bias, boundary=boundary)
    shape = (2, 5, 2, *SIZES[layer.dim])
    sequence = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    past = [torch.randn_like(sequence[:, 0]) for _ in range(layer.steps)]
    frames = [torch.zeros_like(past[0])] * layer.steps if from_zero else past
    frames = frames + list(sequence.unbind(1))
    expected = torch.stack(
        [
            conv_tt(
                frames[t + 1 : t + 1 + layer.steps],
                conv_tt_parameters(layer),
                window="sliding",
                boundary=boundary,
            )
            for t in range(5)
        ],
        dim=1,
    )
    output = outputs(layer, sequence, None if from_zero else past)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)
    weights = torch.randn_like(output)
    sources = [sequence, *layer.parameters()]
    gradients = torch.autograd.grad((output * weights).sum(), sources)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), sources)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-8)


def test_a_fixed_window_has_no_registers() -> None:
    with pytest.raises(ValueError, match="every level sees the newest frame"):
        Registers(ConvTT(1, 1, 3, window="fixed"))


@pytest.mark.parametrize("boundary", ["zeros", "circular", "stagewise"])
@pytest.mark.parametrize("core_bias", [True, False])
def test_the_start_from_zero_is_what_zero_frames_give_on_frames_larger_than_its_reach(
    core_bias: bool, boundary: str
) -> None:
    layer = ConvTT(2, 3, (3, 5), order=3, rank=(2, 1, 3), core_bias=core_bias, boundary=boundary, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    form, zero = Registers(layer), torch.zeros(2, 2, 12, 17, dtype=torch.float64)
    placed = form.place(zero)
    started, expected = form.start_from_zero(placed), form.start([placed] * 3)
    torch.testing.assert_close(started, expected, rtol=0, atol=1e-12)
    if core_bias:
        weights = [torch.randn_like(value) for value in expected]
        parameters = [*layer.projection_biases, *layer.core_biases, *layer.cores[:-1]]
        gradients, expected_gradients = (
            torch.autograd.grad(sum((v * w).sum() for v, w in zip(values, weights, strict=True)), parameters)
            for values in (started, expected)
        )
        torch.testing.assert_close(gradients, expected_gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("boundary", ["zeros", "circular"])
def test_levels_one_by_one_need_borders_of_their_own(boundary: str) -> None:
    with pytest.raises(ValueError, match=f"boundary=\"stagewise\", got '{boundary}'"):
        StagewiseLevels(ConvTT(2, 3, 3, boundary=boundary))
