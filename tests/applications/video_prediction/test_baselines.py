import pytest
import torch

from tt_conv.applications.video_prediction import copy_last, mean_frame

FRAMES = torch.arange(24, dtype=torch.float32).reshape(2, 3, 1, 2, 2)


def test_copy_last() -> None:
    predicted = copy_last(FRAMES, 2)
    assert predicted.shape == (2, 2, 1, 2, 2)
    assert predicted[0].flatten().tolist() == [8, 9, 10, 11] * 2
    assert predicted[1].flatten().tolist() == [20, 21, 22, 23] * 2


def test_mean_frame() -> None:
    predicted = mean_frame(FRAMES, 3)
    assert predicted.shape == (2, 3, 1, 2, 2)
    assert predicted[0].flatten().tolist() == [4, 5, 6, 7] * 3


@pytest.mark.parametrize("baseline", [copy_last, mean_frame])
def test_no_future(baseline: object) -> None:
    with pytest.raises(ValueError, match="future must be at least 1, got 0"):
        baseline(FRAMES, 0)
