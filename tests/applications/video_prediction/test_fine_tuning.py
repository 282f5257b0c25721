"""Fine-tuning of compressed networks."""

import pytest
import torch
from torch import Tensor, nn

from tt_conv.applications.compression import compress
from tt_conv.applications.video_prediction import fine_tune
from tt_conv.applications.video_prediction.fine_tuning import Recovery, batches
from tt_conv.applications.video_prediction.moving_mnist import MovingMNIST
from tt_conv.layers import FramePredictor

GIVEN, FUTURE = 2, 2


def sequences(split: str, length: int) -> MovingMNIST:
    return MovingMNIST(split, length, frames=GIVEN + FUTURE, size=16, digit_size=12, digits=1, seed=1)


@pytest.fixture
def original() -> FramePredictor:
    torch.manual_seed(0)
    return FramePredictor(1, (6,), (1,), cell="conv_lstm", kernel_size=3, sigmoid=True, patch_size=4).eval()


def loss_of(model: nn.Module, split: str, length: int) -> float:
    data = torch.stack([sequences(split, length)[number] for number in range(length)])
    with torch.no_grad():
        predicted = model(data[:, :GIVEN], FUTURE)
    return float(nn.functional.binary_cross_entropy(predicted, data[:, 1:]))


def test_the_best_weights_on_the_way_are_kept(original: FramePredictor) -> None:
    smaller, _ = compress(original, budget=0.5)
    before = {name: value.clone() for name, value in smaller.state_dict().items()}
    tuned = fine_tune(
        smaller, batches(sequences("train", 24), 8, 10), batches(sequences("validation", 8), 4), given=GIVEN, checks=5
    )
    assert [steps for steps, _ in tuned.validation] == [0, 2, 4, 6, 8, 10]
    losses = dict(tuned.validation)
    assert tuned.steps > 0
    assert losses[tuned.steps] == min(losses.values())
    assert loss_of(smaller, "validation", 8) == pytest.approx(losses[0], rel=1e-5)
    assert loss_of(tuned.model, "validation", 8) == pytest.approx(losses[tuned.steps], rel=1e-5)
    for name, value in smaller.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None and parameter.requires_grad for parameter in tuned.model.parameters())
    assert tuned.model.training == smaller.training


def test_a_tuning_that_does_harm_is_undone(original: FramePredictor) -> None:
    tuned = fine_tune(
        original,
        batches(sequences("train", 8), 4, 2),
        batches(sequences("validation", 4), 4),
        given=GIVEN,
        learning_rate=1e3,
        checks=1,
    )
    assert tuned.steps == 0
    for name, value in tuned.model.state_dict().items():
        assert torch.equal(value, original.state_dict()[name])


def test_distillation_is_the_loss_against_the_original(original: FramePredictor) -> None:
    smaller, _ = compress(original, budget=0.5)
    batch = torch.stack([sequences("train", 3)[number] for number in range(3)])

    def loss(distill: float) -> Tensor:
        options = {"given": GIVEN, "steps": 1, "loss": "l1_mse"}
        return Recovery(smaller, teacher=original, distill=distill, **options).loss(batch)

    with torch.no_grad():
        predicted, taught = smaller(batch[:, :GIVEN], FUTURE), original(batch[:, :GIVEN], FUTURE)
        truth = (predicted - batch[:, 1:]).abs().mean() + (predicted - batch[:, 1:]).square().mean()
        teacher = (predicted - taught).abs().mean() + (predicted - taught).square().mean()
    torch.testing.assert_close(loss(0.0), truth)
    torch.testing.assert_close(loss(1.0), teacher)
    torch.testing.assert_close(loss(0.25), 0.75 * truth + 0.25 * teacher)
    gradients = torch.autograd.grad(loss(1.0), list(smaller.parameters()))
    assert any(gradient.abs().max() > 0 for gradient in gradients)
    task = Recovery(smaller, teacher=original, distill=1.0, given=GIVEN, steps=1)
    assert {id(p) for p in task.parameters()} == {id(p) for p in smaller.parameters()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3}, "number of batches, 2, got 3"),
        ({"checks": 0}, "checks must be at least 1"),
        ({"distill": 1.5}, "from 0 to 1"),
        ({"distill": 0.5}, "needs the original"),
    ],
)
def test_bad_arguments(original: FramePredictor, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fine_tune(
            original, batches(sequences("train", 8), 4), batches(sequences("validation", 4), 4), given=GIVEN, **options
        )


def test_batches_are_drawn_over_and_over() -> None:
    data = sequences("train", 3)
    drawn = torch.cat(list(batches(data, 2, 3)))
    whole = {tuple(data[number].flatten().tolist()) for number in range(3)}
    for epoch in (drawn[:3], drawn[3:]):
        assert {tuple(sequence.flatten().tolist()) for sequence in epoch} == whole
    assert torch.equal(torch.cat(list(batches(data, 2))), torch.stack([data[number] for number in range(3)]))
