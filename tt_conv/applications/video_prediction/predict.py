"""Predict the future of a video: ``tt-conv predict``."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tt_conv.applications.output_folder import OutputFolder
from tt_conv.applications.pictures import draw_strips
from tt_conv.applications.video_prediction.checkpoint import Trained, load_trained
from tt_conv.applications.video_prediction.data.own_videos import OwnVideos, pair
from tt_conv.applications.video_prediction.data.video_file import write_video

_SCREEN = 256  # frames are enlarged by a whole number until their shorter side is about this, in pixels
_STRIP = 12  # frames of either kind in the strip, at most


def run_prediction(
    checkpoint: Path | str,
    video: Path | str,
    out: Path | str | None = None,
    *,
    future: int = 10,
    given: int | None = None,
    start: int | None = None,
    size: int | tuple[int, int] | None = None,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    array_name: str | None = None,
    rate: float = 10.0,
    device: str = "cpu",
    recipe: str | None = None,
    channels: int = 1,
) -> Tensor:
    """Predict what follows some frames of a video, and write it as MP4, GIF, PNG strip and NumPy array.

    Parameters
    ----------
    checkpoint : path
        See :func:`~tt_conv.applications.video_prediction.checkpoint.load_trained`.
    video : path
        A video file, a folder of images, or an array of one sequence (of several, the first one is taken).
    out : path, optional
        Folder to write to, new or empty; by default ``tt-conv-prediction``, or the first free name after it.
    future : int
        Number of frames to predict.
    given : int, optional
        Number of frames that are shown to the network; by default as many as in its training.
    start : int, optional
        The first of them, counted from 0; by default such that they are the last ones of the video.
    size : int or (int, int), optional
        Height and width to which the video is brought; by default those of the training, if they were stated, or
        those of the video.
    layout, value_range, array_name
        Of arrays, see :class:`~tt_conv.applications.video_prediction.data.OwnVideos`.
    rate : float
        Frames per second of what is written.
    device : str
        Such as cpu or cuda.
    recipe, channels
        See :func:`~tt_conv.applications.video_prediction.checkpoint.load_trained`.

    Returns
    -------
    Tensor [future, C, H, W]
        Values from 0 to 1; ``prediction.npy`` holds the same.

    Raises
    ------
    ValueError, OSError
        If the checkpoint or the video cannot be used, with the file, the reason and the remedy.
    """
    trained = load_trained(checkpoint, recipe, channels)
    data = trained.settings.data
    given = data.given if given is None else given
    if future < 1 or given < 1:
        raise ValueError(f"given and future must be at least 1 frame, got {given} and {future}")
    if size is None:
        size = data.size or {"moving_mnist": 64, "kth": 120}.get(data.kind)
    # A video that is looked at once needs no place in the cache.
    with TemporaryDirectory() as decoded:
        frames = OwnVideos(
            video,
            given,
            "all",
            stride=1,
            size=pair(size),
            channels=trained.channels,
            layout=layout,
            value_range=value_range,
            array_name=array_name,
            cache=decoded,
        )
        for note in frames.notes:
            print(f"  {note}")
        places = frames.clips[0].length - given + 1  # of the first clip, whose windows come first
        start = places - 1 if start is None else start
        if not 0 <= start < places:
            raise ValueError(f"{video}: start must be from 0 to {places - 1} for {given} frames given, got {start}")
        shown = frames[start]
    folder = OutputFolder.with_free_name("tt-conv-prediction") if out is None else OutputFolder(out)
    with folder:
        predicted = _predicted(trained, shown, future, device)
        _write(folder, shown, predicted, rate)
    print(
        f"Shown: frames {start + 1} to {start + given} of {video}, at {shown.shape[2]} x {shown.shape[3]}. Predicted: "
        f"{future} frames. prediction.mp4, .gif, .png and .npy are in {folder.path}"
    )
    return predicted


@torch.inference_mode()
def _predicted(trained: Trained, shown: Tensor, future: int, device: str) -> Tensor:
    model = trained.model.to(device)
    predicted = model(shown.unsqueeze(0).to(device), future)[0, -future:].clamp(0, 1).cpu()
    if not predicted.isfinite().all():
        raise ValueError("the prediction holds values that are not finite: the training of this checkpoint diverged")
    return predicted


def _write(folder: OutputFolder, shown: Tensor, predicted: Tensor, rate: float) -> None:
    with folder.new_file("prediction.npy") as file, file.open("wb") as opened:
        np.save(opened, predicted.numpy())
    pixels = _enlarged(torch.cat([shown, predicted]))
    write_video(folder.path / "prediction.mp4", pixels, rate=rate)
    pictures = [Image.fromarray(frame.squeeze(-1) if frame.shape[-1] == 1 else frame) for frame in pixels]
    with folder.new_file("prediction.gif") as file:
        pictures[0].save(file, save_all=True, append_images=pictures[1:], duration=round(1e3 / rate), loop=0)
    with folder.new_file("prediction.png") as file:
        first, last = shown[-_STRIP:], predicted[:_STRIP]
        draw_strips(file, [{"": torch.cat([first, last])}], len(first), "given, then predicted")


def _enlarged(frames: Tensor) -> NDArray[np.uint8]:
    """Frames [T, C, H, W] as bytes [T, H, W, C], each pixel repeated; both sides even, as H.264 wants them."""
    factor = max(1, round(_SCREEN / min(frames.shape[-2:])))
    factor += factor % 2 * any(side % 2 for side in frames.shape[-2:])
    pixels = (255 * frames).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)
