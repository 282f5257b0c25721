import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tt_conv.applications.video_prediction import MovingMNIST, embedded_digits
from tt_conv.applications.video_prediction.moving_mnist import bouncing_path


def test_shape_type_and_range() -> None:
    sequence = MovingMNIST(length=1, frames=7, size=(40, 60), digits=3)[0]
    assert sequence.shape == (7, 1, 40, 60)
    assert sequence.dtype == torch.float32
    assert sequence.min() == 0
    assert 0.9 < sequence.max() <= 1


def test_the_published_protocol_is_the_default() -> None:
    dataset = MovingMNIST()
    assert (dataset.digits, dataset.size, dataset.speed, dataset.digit_size, dataset.frames) == (
        2,
        (64, 64),
        0.1,
        28,
        20,
    )


def test_a_sequence_depends_on_split_seed_and_index_alone() -> None:
    dataset, again = MovingMNIST(length=5, frames=3, seed=7), MovingMNIST(length=50, frames=3, seed=7)
    expected = [dataset[index] for index in range(5)]
    torch.manual_seed(3)
    np.random.default_rng().random()
    for index in (4, 0, 2, 2, 1, 3):
        assert torch.equal(again[index], expected[index])
    different = [*expected, MovingMNIST(frames=3, seed=8)[0], MovingMNIST("test", frames=3, seed=7)[0]]
    assert len({sequence.numpy().tobytes() for sequence in different}) == 7


@pytest.mark.parametrize("options", [{}, {"size": (40, 60), "digits": 3, "digit_size": 13, "speed": 0.3}])
def test_sequences_drawn_together_are_those_drawn_one_by_one(options: dict[str, Any]) -> None:
    dataset = MovingMNIST("test", frames=11, seed=2, **options)
    numbers = [7, 0, 12345, *range(100, 140)]
    assert torch.equal(dataset.sequences(numbers), torch.stack([dataset.sequence(number) for number in numbers]))


def test_workers_give_the_same_sequences() -> None:
    dataset = MovingMNIST(length=6, frames=3)
    loader = DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context="fork")
    assert torch.equal(torch.cat([*loader]), torch.stack([dataset[index] for index in range(6)]))
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[5], dataset[5])


def test_longer_sequences_begin_like_shorter_ones() -> None:
    assert torch.equal(MovingMNIST(frames=9)[4][:5], MovingMNIST(frames=5)[4])


def bounds(frame: torch.Tensor) -> tuple[int, int]:
    """Top and left of the bounding box of what is not black."""
    rows, columns = torch.nonzero(frame[0], as_tuple=True)
    return int(rows.min()), int(columns.min())


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_one_digit_of_the_split_is_carried_along_unchanged(split: Any) -> None:
    known = {image.tobytes() for image in embedded_digits(split)[0]}
    sequence = MovingMNIST(split, frames=4, digits=1, seed=2)[3]
    for frame in sequence:
        bytes_of_frame = (255 * frame[0]).round().byte().numpy()
        windows = np.lib.stride_tricks.sliding_window_view(bytes_of_frame, (28, 28)).reshape(-1, 28, 28)
        total = bytes_of_frame.sum(dtype=int)
        whole = [window.tobytes() for window in windows if window.sum(dtype=int) == total]
        assert known.intersection(whole)


def test_the_step_is_a_tenth_of_the_free_range() -> None:
    # Far from a wall, over five steps of 3.6 pixels, rounding moves either end by less than a pixel.
    found = 0
    for index in range(40):
        sequence = MovingMNIST(frames=6, digits=1, length=40)[index]
        places = np.array([bounds(frame) for frame in sequence], dtype=float)
        steps = np.diff(places, axis=0)
        if np.ptp(steps, axis=0).max() <= 1:
            found += 1
            assert math.hypot(*(places[-1] - places[0])) == pytest.approx(5 * 3.6, abs=math.sqrt(2))
    assert found > 3


def test_no_speed_no_motion() -> None:
    sequence = MovingMNIST(frames=4, speed=0)[0]
    assert torch.equal(sequence, sequence[:1].expand_as(sequence))


def test_overlapping_digits_are_composed_by_maximum() -> None:
    # In frames of the size of a digit all digits lie on top of each other.
    sequence = MovingMNIST(frames=2, size=28, digits=3)[0]
    images = {image.tobytes(): image for image in embedded_digits("train")[0]}
    shown = (255 * sequence[0, 0]).round().byte().numpy()
    covered = [image for image in images.values() if (image <= shown).all()]
    assert np.array_equal(np.max(covered, axis=0), shown)


def test_a_path_by_hand() -> None:
    # Rows: 0.5, 0.8, then 1.1 is beyond the wall: 1.0, and back. Columns: 0.1, then the wall at 0, and back.
    path = bouncing_path(np.array([0.5, 0.1]), np.array([0.3, -0.2]), 6)
    expected = [[0.5, 0.1], [0.8, 0.0], [1.0, 0.2], [0.7, 0.4], [0.4, 0.6], [0.1, 0.8]]
    np.testing.assert_allclose(path, expected, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.floats(0, 1)] * 2), st.floats(0, 1), st.floats(0, 2 * math.pi))
def test_a_path_stays_within_the_walls_and_never_outruns_its_speed(
    start: tuple[float, float], speed: float, angle: float
) -> None:
    velocity = speed * np.array([math.sin(angle), math.cos(angle)])
    path = bouncing_path(np.array(start), velocity, 30)
    assert path.min() >= 0
    assert path.max() <= 1
    assert (np.abs(np.diff(path, axis=0)) <= np.abs(velocity) + 1e-12).all()


def test_resized_digits_keep_their_share_of_the_frame() -> None:
    whole = MovingMNIST(frames=1, size=28, digits=1, length=20)
    half = MovingMNIST(frames=1, size=14, digits=1, length=20, digit_size=14)
    for index in range(20):
        assert float(half[index].mean()) == pytest.approx(float(whole[index].mean()), rel=0.05)


def test_a_loop_over_it_ends() -> None:
    assert len([*MovingMNIST(length=3, frames=1)]) == 3


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_beyond_the_end(index: int) -> None:
    with pytest.raises(IndexError, match=f"sequence {index} of a data set of 3 sequences"):
        MovingMNIST(length=3)[index]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 27}, "frames of 27 x 27 pixels cannot hold digits of 28 x 28"),
        ({"size": (64, 20)}, "frames of 64 x 20 pixels cannot hold"),
        ({"size": (64, 64, 1)}, r"size must be one number or \(height, width\), got \(64, 64, 1\)"),
        ({"digits": 0}, "digits must be at least 1, got 0"),
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"digit_size": 0}, "digit_size must be at least 1, got 0"),
        ({"speed": 1.5}, "from 0 to 1, got 1.5"),
        ({"speed": math.nan}, "from 0 to 1, got nan"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"split": "eval"}, "split must be one of"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MovingMNIST(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 2.5}, "frames must be an int, got 2.5"),
        ({"digits": 1.5}, "digits must be an int, got 1.5"),
        ({"size": "64"}, "size must be an int, got '64'"),
        ({"size": None}, "size must be an int, got None"),
        ({"size": (64, 64.0)}, "size must be an int, got 64.0"),
        ({"speed": "fast"}, "speed must be a number from 0 to 1, got 'fast'"),
        ({"length": "3"}, "length must be an int, got '3'"),
        ({"seed": None}, "seed must be an int, got None"),
    ],
)
def test_arguments_of_another_type(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        MovingMNIST(**options)


def test_a_slice_is_refused() -> None:
    with pytest.raises(TypeError, match=r"one at a time, by their number, got slice\(0, 2, None\)"):
        MovingMNIST(length=3)[0:2]


@pytest.mark.parametrize("digit_size", [5, 9, 12, 17])
def test_resized_digits_stay_between_black_and_white(digit_size: int) -> None:
    data = MovingMNIST("train", 40, frames=1, size=32, digits=1, digit_size=digit_size)
    frames = torch.stack([data[number] for number in range(40)])
    assert frames.min() == 0
    assert frames.max() <= 1
