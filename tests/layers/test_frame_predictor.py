"""The stacked predictor: its roll-out, skips, patches and costs."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tt_conv.layers import FramePredictor
from tt_conv.layers.patches import fold_patches, unfold_patches


def small(**options: object) -> FramePredictor:
    arguments = {"cell": "conv_lstm", "kernel_size": 3, "skip_stride": 1, **options}
    return FramePredictor(1, (2, 3, 2), (1, 2, 1), **arguments)


def test_after_the_given_frames_it_feeds_on_its_own_predictions_after_the_sigmoid() -> None:
    model = small(sigmoid=True).double()
    frames = torch.rand(2, 3, 1, 6, 5, dtype=torch.float64)
    outputs = model(frames, future=3)
    assert outputs.shape == (2, 5, 1, 6, 5)
    fed = torch.cat([frames, outputs[:, 2:4]], dim=1)
    torch.testing.assert_close(model(fed, future=1), outputs)
    assert outputs.min() > 0
    assert outputs.max() < 1


@pytest.mark.parametrize("skip_stride", [1, 2, 3, 7, None])
def test_skips_concatenate_the_own_output_of_an_earlier_block(skip_stride: int | None) -> None:
    model = small(skip_stride=skip_stride).double()
    frame = torch.rand(1, 1, 4, 4, dtype=torch.float64)
    blocks, x = [], frame
    for b, block in enumerate(model.blocks):
        for cell in block:
            x, _ = cell(x)
        blocks.append(x)
        if skip_stride is not None and b >= skip_stride:
            x = torch.cat([blocks[b], blocks[b - skip_stride]], dim=1)
    expected = F.conv2d(x, model.output.weight, model.output.bias)
    torch.testing.assert_close(model.step(frame)[0], expected)


def test_patches_are_folded_in_the_order_of_pixel_unshuffle() -> None:
    x = torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(fold_patches(x, 4, dim=2), F.pixel_unshuffle(x, 4), rtol=0, atol=0)
    torch.testing.assert_close(unfold_patches(F.pixel_unshuffle(x, 4), 4, dim=2), x, rtol=0, atol=0)


@pytest.mark.parametrize(("dim", "size"), [(1, (8,)), (2, (4, 6)), (3, (4, 2, 6))])
def test_unfolding_undoes_folding(dim: int, size: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *size)
    folded = fold_patches(x, 2, dim)
    assert folded.shape == (2, 3 * 2**dim, *(s // 2 for s in size))
    assert torch.equal(unfold_patches(folded, 2, dim), x)


def test_a_patch_model_sees_and_gives_whole_frames() -> None:
    model = small(patch_size=2, cell="conv_tt_lstm", rank=2)
    assert model(torch.rand(1, 4, 1, 6, 4), future=2).shape == (1, 5, 1, 6, 4)


@pytest.mark.parametrize(
    "options", [{}, {"patch_size": 2}, {"cell": "conv_tt_lstm", "rank": 3, "input_rank": 1}], ids=str
)
def test_macs_are_half_of_what_the_flop_counter_counts(options: dict) -> None:
    model = small(**options)
    with FlopCounterMode(display=False) as counter:
        model.step(torch.rand(1, 1, 6, 8))
    assert model.macs((6, 8)) * 2 == counter.get_total_flops()


def test_macs_of_the_published_networks() -> None:
    assert FramePredictor(1, cell="conv_tt_lstm").macs((64, 64)) == 10_997_268_480
    dense = FramePredictor(1, cell="conv_lstm").macs((64, 64))
    assert dense == 16_266_362_880
    for input_rank, share in ((8, 0.30), (12, 0.36)):
        assert round(FramePredictor(1, input_rank=input_rank).macs((64, 64)) / dense, 2) == share


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: small(skip_stride=0), ValueError, "skip_stride must be at least 1, got 0"),
        (lambda: small(cell="gru"), ValueError, "cell must be one of 'conv_lstm', 'conv_tt_lstm', got 'gru'"),
        (lambda: small(rank=3), TypeError, "conv_lstm cells have no option 'rank'"),
        (lambda: FramePredictor(1, (2, 3), (1,)), ValueError, "got \\(2, 3\\) and \\(1,\\)"),
        (lambda: small(patch_size=4)(torch.rand(1, 2, 1, 6, 8), 1), ValueError, "patch_size=4 must divide"),
        (lambda: small()(torch.rand(1, 2, 3, 6, 8), 1), ValueError, "with 1 channels, got 3 channels"),
        (lambda: small()(torch.rand(2, 1, 6, 8), 1), ValueError, "so 5 axes, got 4 axes"),
        (lambda: small()(torch.rand(1, 2, 1, 6, 8), 0), ValueError, "future must be at least 1, got 0"),
        (lambda: small().step(torch.rand(1, 1, 6, 8), ()), ValueError, "4 in all, got 0"),
        (lambda: small().step(torch.rand(1, 1, 6, 8), 5), TypeError, "one state per cell, got int"),
        (lambda: small().macs((6,)), ValueError, "spatial_size must have 2 sizes"),
    ],
)
def test_bad_input_is_refused(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_scheduled_sampling_feeds_the_truth_where_it_is_told_to() -> None:
    torch.manual_seed(0)
    model = FramePredictor(1, (3,), (1,), kernel_size=3, rank=2).double()
    sequence = torch.rand(2, 6, 1, 5, 6, dtype=torch.float64)
    frames, truth = sequence[:, :3], sequence[:, 3:5]
    never, always = torch.zeros(2, 2, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool)
    torch.testing.assert_close(model(frames, 3, truth, never), model(frames, 3), rtol=0, atol=0)
    torch.testing.assert_close(model(frames, 3, truth, always), model(sequence[:, :5], 1), rtol=0, atol=1e-12)
    mixed = torch.tensor([[True, False], [False, True]])
    states, frame, predictions = None, frames[:, 0], []
    for t in range(5):
        prediction, states = model.step(frame, states)
        predictions.append(prediction)
        if t < 2:
            frame = frames[:, t + 1]
        elif t < 4:
            frame = torch.stack([truth[b, t - 2] if mixed[b, t - 2] else prediction[b] for b in range(2)])
    torch.testing.assert_close(model(frames, 3, truth, mixed), torch.stack(predictions, 1), rtol=0, atol=1e-12)


def test_scheduled_sampling_refuses_what_does_not_fit() -> None:
    model, frames = FramePredictor(1, (3,), (1,), kernel_size=3, rank=2), torch.rand(2, 3, 1, 5, 6)
    truth, use = torch.rand(2, 2, 1, 5, 6), torch.ones(2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="go together"):
        model(frames, 3, truth)
    with pytest.raises(ValueError, match=r"truth must be the 1 frames between, shape \(2, 1, 1, 5, 6\)"):
        model(frames, 2, truth, use)
    with pytest.raises(ValueError, match=r"use_truth must be bool of shape \(2, 2\), got torch.float32"):
        model(frames, 3, truth, use.float())
