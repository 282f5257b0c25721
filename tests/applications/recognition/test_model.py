"""Networks that name the action after every frame."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tt_conv.applications.recognition.model import ConvolutionalRecognizer, Recognizer, RecurrentRecognizer
from tt_conv.applications.recognition.open_data import build_model
from tt_conv.applications.recognition.settings import ModelSettings

KINDS = ["conv_lstm", "conv_tt_lstm", "conv_3d"]


def tiny(kind: str, **options: Any) -> Recognizer:
    hidden = [8, 4] if kind != "conv_tt_lstm" else [8]
    settings = ModelSettings(kind=kind, encoder_channels=[4, 8], hidden_channels=hidden, **options)
    return build_model(settings, 2, 5).double().eval()


def clips(frames: int = 6) -> Tensor:
    return torch.rand(3, frames, 2, 16, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_steps_give_what_a_pass_gives(kind: str) -> None:
    model, state = tiny(kind), None
    whole = model(clips())
    assert whole.shape == (3, 6, 5)
    for number, frame in enumerate(clips().unbind(1)):
        scores, state = model.step(frame, state)
        torch.testing.assert_close(scores, whole[:, number], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_no_answer_knows_of_later_frames(kind: str) -> None:
    model = tiny(kind, ahead=2)
    scores, future = model.with_future(clips())
    changed = clips()
    changed[:, 4:] = 0
    other_scores, other_future = model.with_future(changed)
    torch.testing.assert_close(other_scores[:, :4], scores[:, :4], rtol=0, atol=1e-12)
    torch.testing.assert_close(other_future[:, :4], future[:, :4], rtol=0, atol=1e-12)
    assert not torch.allclose(other_scores[:, 4:], scores[:, 4:])
    assert future.shape == (3, 6, 2, 2, 16, 12)


def test_a_step_of_the_network_by_hand() -> None:
    model = tiny("conv_lstm")
    assert isinstance(model, RecurrentRecognizer)
    frame = clips()[:, 0]
    x = frame
    for layer in model.encoder:
        x = layer(x)
    for cell in model.cells:
        x, _ = cell(x)
    pooled = torch.cat([x.flatten(2).mean(2), x.flatten(2).max(2).values], dim=1)
    expected = pooled @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model.step(frame)[0], expected, rtol=0, atol=1e-12)


def test_the_3d_network_by_hand() -> None:
    model = tiny("conv_3d")
    assert isinstance(model, ConvolutionalRecognizer)
    x = clips().transpose(1, 2)
    for layer in model.layers:
        conv = layer.conv
        padded = torch.cat([torch.zeros_like(x[:, :, :2]), x], dim=2)
        x = torch.nn.functional.conv3d(padded, conv.weight, conv.bias, stride=conv.stride, padding=(0, 1, 1)).relu()
    for frames in (1, 4):
        seen = x[:, :, :frames]
        pooled = torch.cat([seen.mean((2, 3, 4)), seen.amax((3, 4)).mean(2)], dim=1)
        expected = pooled @ model.classifier.weight.T + model.classifier.bias
        torch.testing.assert_close(model(clips()[:, :frames])[:, -1], expected, rtol=0, atol=1e-12)


def test_macs_are_those_of_the_convolutions() -> None:
    # Encoder: 2*25*4 weights at 8 x 6, 4*9*8 at 4 x 3. Cells: (8 + 8)*9*32 and (8 + 4)*9*16 at 4 x 3.
    assert tiny("conv_lstm").macs((16, 12)) == 200 * 48 + 288 * 12 + 4608 * 12 + 1728 * 12
    # 2*27*4 at 8 x 6; 4*27*8, 8*27*8 and 8*27*4 at 4 x 3.
    assert tiny("conv_3d").macs((16, 12)) == 216 * 48 + (864 + 1728 + 864) * 12


def test_weights_are_a_function_of_the_seed() -> None:
    settings = ModelSettings(encoder_channels=[4], hidden_channels=[4], rank=2)
    first, again, other = (build_model(settings, 1, 3, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "conv_lstm", "rank": 3}, "conv_lstm cells have no option 'rank'"),
        ({"kind": "conv_3d", "order": 3}, "conv_3d: .*order"),
        ({"kind": "conv_3d", "kernel_size": 5}, "conv_3d has kernels of 3 x 3 x 3, got kernel_size=5"),
        ({"encoder_channels": []}, "encoder_channels must name at least one"),
        ({"hidden_channels": []}, "hidden_channels must name at least one"),
        ({"ahead": -1}, "ahead must not be negative"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(ModelSettings(**settings), 1, 3)


def test_bad_inputs() -> None:
    model = tiny("conv_lstm")
    with pytest.raises(ValueError, match=r"sides of \(16, 14\) don't allow"):
        model(torch.zeros(1, 2, 2, 16, 14))
    with pytest.raises(ValueError, match="at least one frame"):
        model(torch.zeros(1, 0, 2, 16, 16))
    with pytest.raises(ValueError, match="predicts no frames"):
        model.with_future(clips())
    with pytest.raises(ValueError, match="state must hold 4 tensors"):
        model.step(clips()[:, 0], (torch.zeros(1),))


def test_an_unknown_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="cell must be one of 'conv_lstm', 'conv_tt_lstm', got 'gru'"):
        RecurrentRecognizer(1, 3, cell="gru")
