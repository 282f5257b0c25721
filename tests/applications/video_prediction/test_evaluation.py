import pytest
import torch

from tt_conv.applications.video_prediction import copy_last, evaluate, milliseconds_per_frame

SEQUENCES = torch.rand(4, 5, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_the_frames_after_the_given_ones_are_judged() -> None:
    def truth_from_the_second_frame_on(frames: torch.Tensor, future: int) -> torch.Tensor:
        assert torch.equal(frames, SEQUENCES[:, :3])
        assert future == 2
        return SEQUENCES[:, 1:]

    result = evaluate({"exact": truth_from_the_second_frame_on, "copy": copy_last}, [SEQUENCES], given=3)
    assert result["exact"]["mse"] == [0, 0]
    expected = [float((SEQUENCES[:, 2] - SEQUENCES[:, time]).square().mean()) for time in (3, 4)]
    assert result["copy"]["mse"] == pytest.approx(expected)


def test_predictions_are_clamped() -> None:
    black, white = torch.zeros(1, 2, 1, 16, 16), torch.ones(1, 2, 1, 16, 16)
    sequence = torch.cat([black[:, :1], black, white], dim=1)
    overshooting = torch.cat([black - 3, white + 3], dim=1)
    assert evaluate({"model": lambda *_: overshooting}, [sequence], given=1)["model"]["mse"] == [0] * 4


@pytest.mark.parametrize("given", [0, 5, 6])
def test_nothing_to_predict(given: int) -> None:
    with pytest.raises(ValueError, match=f"sequences of 5 frames with {given} given leave nothing to predict"):
        evaluate({"copy": copy_last}, [SEQUENCES], given)


def test_no_sequences() -> None:
    with pytest.raises(ValueError, match="no predictors or no sequences"):
        evaluate({"copy": copy_last}, [], 3)


def test_time_is_per_frame_and_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock by which every call takes 2 s: 4 sequences x (3 + 2 - 1) frames make 125 ms each.
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert milliseconds_per_frame({"copy": copy_last}, SEQUENCES[:, :3], 2) == {"copy": 125.0}
