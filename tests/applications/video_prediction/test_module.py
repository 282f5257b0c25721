from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tt_conv.applications.training.module import xavier_start
from tt_conv.applications.video_prediction import FramePrediction
from tt_conv.applications.video_prediction.module import start_at_mean
from tt_conv.layers import FramePredictor

SEQUENCES = torch.rand(2, 6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Constant(nn.Module):
    """Predicts one value everywhere and remembers what it was asked for."""

    def forward(self, frames: Tensor, future: int) -> Tensor:
        self.asked = (frames, future)
        return torch.full((len(frames), frames.shape[1] + future - 1, *frames.shape[2:]), 0.25)


def test_the_published_loss_over_all_outputs() -> None:
    model = Constant()
    loss = FramePrediction(model, given=4, steps=1).loss(SEQUENCES)
    assert torch.equal(model.asked[0], SEQUENCES[:, :4])
    assert model.asked[1] == 2
    difference = SEQUENCES[:, 1:] - 0.25
    torch.testing.assert_close(loss, difference.abs().mean() + difference.square().mean())


def test_cross_entropy() -> None:
    loss = FramePrediction(Constant(), given=4, steps=1, loss="cross_entropy").loss(SEQUENCES)
    target = SEQUENCES[:, 1:]
    expected = -(target * torch.tensor(0.25).log() + (1 - target) * torch.tensor(0.75).log()).mean()
    torch.testing.assert_close(loss, expected)


def test_the_future_grows() -> None:
    task = FramePrediction(Constant(), given=2, steps=100, growth=0.8)
    # Four frames to predict, each length for a fifth of the training, then all of them.
    assert [task.future(6, progress) for progress in (0, 0.19, 0.21, 0.41, 0.61, 0.79, 0.81, 1)] == [
        1,
        1,
        2,
        3,
        4,
        4,
        4,
        4,
    ]
    task.loss(SEQUENCES, progress=0.3)
    assert task.model.asked[1] == 2


def test_without_growth_all_frames_count_from_the_start() -> None:
    assert FramePrediction(Constant(), given=2, steps=1).future(6, 0.0) == 4


def test_the_starting_weights() -> None:
    model = FramePredictor(1, (8,), (1,), kernel_size=3, rank=2, sigmoid=True)
    torch.manual_seed(0)
    xavier_start(model)
    weight = model.output.weight.detach()
    bound = (6 / (8 + 1)) ** 0.5  # Xavier-uniform: sqrt(6 / (fan_in + fan_out))
    assert weight.abs().max() <= bound
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.5)
    assert all(not bias.any() for name, bias in model.named_parameters() if "bias" in name)
    start_at_mean(model, torch.full((2, 3, 1, 4, 4), 0.05))
    assert torch.sigmoid(model.output.bias.detach()).tolist() == pytest.approx([0.05])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"given": 0}, "given must be at least 1 frame, got 0"),
        ({"loss": "l2"}, "loss must be one of 'l1_mse', 'cross_entropy', got 'l2'"),
        ({"growth": 1.5}, "from 0 to 1, got 1.5"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FramePrediction(Constant(), **{"given": 2, "steps": 1, **options})


def test_sequences_that_are_too_short() -> None:
    with pytest.raises(ValueError, match="sequences of 6 frames with 6 given leave nothing to predict"):
        FramePrediction(Constant(), given=6, steps=1).loss(SEQUENCES)


def test_frames_beyond_white_are_told_from_a_training_that_diverged() -> None:
    module = FramePrediction(FramePredictor(1, (2,), (1,), kernel_size=3, rank=1, sigmoid=True), given=1, steps=1)
    module.loss_name = "cross_entropy"
    frames = torch.rand(1, 2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"the frames must be numbers from 0 to 1, got 0.* to 1.5"):
        module.loss_of(frames, torch.cat([frames[:, :1], torch.full_like(frames[:, :1], 1.5)], dim=1))
    with pytest.raises(ValueError, match="the training diverged"):
        module.loss_of(frames * float("nan"), frames)
