from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tt_conv.applications.pictures import draw_animation, draw_curves, draw_strips


def one_pixel_clip(frames: int, channels: int = 1) -> torch.Tensor:
    """Frame t has a white pixel at row 0, column t."""
    clip = torch.zeros(frames, channels, 4, 6)
    for time in range(frames):
        clip[time, :, 0, time] = 1
    return clip


def examples(channels: int = 1) -> list[dict[str, torch.Tensor]]:
    truth = one_pixel_clip(5, channels)
    return [{"truth": truth, "model": torch.ones(2, channels, 4, 6)}] * 2


def test_the_animation_shows_the_given_frames_then_the_predictions(tmp_path: Path) -> None:
    draw_animation(tmp_path / "a.gif", examples(), given=3, scale=2)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 5
        assert gif.info["loop"] == 0
        for time in range(5):
            gif.seek(time)
            pixels = np.asarray(gif.convert("L"))
            # Panels of 12 x 8 screen pixels begin 8 from the left and 26 from the top, with gaps of 8.
            truth, model = pixels[26:34, 8:20], pixels[26:34, 28:40]
            expected = np.zeros((8, 12))
            expected[0:2, 2 * time : 2 * time + 2] = 255
            np.testing.assert_array_equal(truth, expected)
            np.testing.assert_array_equal(model, expected if time < 3 else np.full((8, 12), 255))


def test_the_edges_of_the_animation_tell_given_from_predicted(tmp_path: Path) -> None:
    draw_animation(tmp_path / "a.gif", examples(), given=3, scale=2)
    with Image.open(tmp_path / "a.gif") as gif:
        for time in range(5):
            gif.seek(time)
            pixels = np.asarray(gif.convert("RGB")).astype(int)
            expected = (0x8A, 0x8A, 0x8A) if time < 3 else (0x00, 0x72, 0xB2)
            for left in (8, 28):  # the truth, and the model
                np.testing.assert_allclose(pixels[30, left - 1], expected, atol=12)


@pytest.mark.parametrize("channels", [1, 3])
def test_strips_of_gray_and_coloured_frames(tmp_path: Path, channels: int) -> None:
    draw_strips(tmp_path / "s.png", examples(channels), given=3, title="title")
    with Image.open(tmp_path / "s.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] > pixels.shape[0] / 2
    assert (pixels < 20).mean() > 0.1  # ten black frames


def test_frames_of_two_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 or 3 channels, got \[2, 4, 6\]"):
        draw_animation(tmp_path / "a.gif", examples(2), given=3)


def test_curves_take_infinite_values(tmp_path: Path) -> None:
    panels = {"PSNR": {"copy": [float("inf"), 20.0], "model": [25.0, 24.0]}, "MSE": {"copy": [0.0, 0.1]}}
    draw_curves(tmp_path / "c.png", panels, ["copy"], x_label="frame", title="title")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size[0] > 500
