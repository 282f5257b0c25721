"""The joint loss, and accuracy over time."""

import math

import pytest
import torch
import torch.nn.functional as F

from tt_conv.applications.recognition.data import ACTIONS
from tt_conv.applications.recognition.evaluation import ceiling
from tt_conv.applications.recognition.model import RecurrentRecognizer
from tt_conv.applications.recognition.module import EarlyRecognition, prediction_loss
from tt_conv.applications.recognition.scores import AccuracyOverTime, ranked
from tt_conv.applications.recognition.settings import DataSettings


def model(ahead: int = 0) -> RecurrentRecognizer:
    torch.manual_seed(0)
    return RecurrentRecognizer(1, 3, (4,), (4,), cell="conv_lstm", ahead=ahead)


def test_the_loss_by_hand() -> None:
    network = model(ahead=2)
    task = EarlyRecognition(network, steps=1, prediction_weight=0.5, weight_power=2.0)
    clips, labels = torch.rand(2, 4, 1, 8, 8), torch.tensor([2, 0])
    scores, future = network.with_future(clips)
    weights = [t**2 / (1 + 4 + 9 + 16) for t in (1, 2, 3, 4)]
    expected = sum(weight * F.cross_entropy(scores[:, t], labels) for t, weight in enumerate(weights))
    guesses = [(future[:, t, n], clips[:, t + 1 + n]) for t in range(4) for n in range(2) if t + 1 + n < 4]
    assert len(guesses) == 5
    expected += 0.5 * sum(F.binary_cross_entropy_with_logits(*guess) for guess in guesses) / 5
    torch.testing.assert_close(task.loss((clips, labels)), expected)


def test_the_weights_of_the_frames() -> None:
    task = EarlyRecognition(model(), steps=1, weight_power=0.0)
    scores = torch.zeros(2, 4, 3)
    assert float(task.cross_entropy(scores, torch.tensor([0, 1]))) == pytest.approx(math.log(3))


def test_more_frames_ahead_than_there_are() -> None:
    clips = torch.rand(1, 3, 1, 4, 4)
    future = torch.zeros(1, 3, 7, 1, 4, 4)
    assert float(prediction_loss(future, clips)) == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="leave nothing to predict"):
        prediction_loss(future, clips[:, :1])


def test_a_weight_needs_a_decoder() -> None:
    with pytest.raises(ValueError, match="to at least 1, or prediction_weight to 0"):
        EarlyRecognition(model(), steps=1, prediction_weight=1.0)


def test_the_weight_may_be_0() -> None:
    network = model(ahead=1)
    clips, labels = torch.rand(2, 4, 1, 8, 8), torch.tensor([2, 0])
    losses = EarlyRecognition(network, steps=1, prediction_weight=0.0).losses((clips, labels))
    assert torch.equal(losses["loss"], losses["cross_entropy"])
    losses["loss"].backward()
    # Every weight has a gradient, as training on several devices demands.
    assert network.decoder is not None
    assert all(weight.grad is not None and not weight.grad.any() for weight in network.decoder.parameters())
    assert all(weight.grad is not None and weight.grad.any() for weight in network.classifier.parameters())


def test_accuracy_by_hand() -> None:
    gathered = AccuracyOverTime(frames=4, classes=6, fractions=[0.5, 1.0])
    scores = torch.zeros(3, 4, 6)
    labels = torch.tensor([0, 1, 5])
    scores += torch.tensor([6.0, 5, 4, 3, 2, 1])  # class 0 first, class 5 last
    scores[1, 2:, 1] = 9.0  # right from the third frame on
    gathered.update(scores[:2], labels[:2])
    gathered.update(scores[2:], labels[2:])
    accuracy = gathered.compute()
    assert accuracy.top1 == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert accuracy.top5 == pytest.approx([2 / 3] * 4)
    assert accuracy.at(0.25) == pytest.approx((1 / 3, 2 / 3))
    matrix = torch.tensor(accuracy.confusion[1.0])
    assert matrix[0, 0] == matrix[1, 1] == matrix[5, 0] == 1
    assert int(matrix.sum()) == 3
    assert accuracy.confusion[0.5][1][0] == 1


def test_ranked_labels() -> None:
    (first, probability), *others = ranked(torch.tensor([0.0, math.log(3.0)]), ["a", "b"])
    assert (first, len(others)) == ("b", 1)
    assert probability == pytest.approx(0.75)


def test_the_ceiling_belongs_to_all_made_classes() -> None:
    best = ceiling(DataSettings(), 16)
    assert best is not None
    assert [round(best[frame - 1], 4) for frame in (4, 8, 16)] == [0.7143, 0.8571, 1.0]
    assert ceiling(DataSettings(classes="some.txt"), 16) is None
    assert ceiling(DataSettings(kind="class_folders"), 16) is None


@pytest.mark.parametrize("frames", [2, 4, 8, 12, 16, 20, 32, 48])
@pytest.mark.parametrize("top", [1, 2])
def test_the_ceiling_of_clips_of_other_lengths(frames: int, top: int) -> None:
    """Whoever has seen the same steps can only guess; every frame of the video that was shown counts, no other."""
    best = ceiling(DataSettings(), frames, top)
    shown = [math.floor((number + 0.5) * 16 / frames) for number in range(frames)]
    expected = []
    for number in range(frames):
        seen = sorted(set(shown[: number + 1]))
        groups: dict[object, int] = {}
        for action in ACTIONS:
            key = (action.coordinate, action.sign, *(action.steps()[frame] for frame in seen))
            groups[key] = groups.get(key, 0) + 1
        right = sum(min(top, size) for size in groups.values()) if len(seen) > 1 else 2.5 * top
        expected.append(right / 14)
    assert best == pytest.approx(expected)
