"""Predict the future of a video: ``tt-conv predict``."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tt_conv.applications.data.clips import fitted, pair
from tt_conv.applications.data.errors import UnusableFile
from tt_conv.applications.data.own_videos import OwnVideos
from tt_conv.applications.data.video_file import write_video
from tt_conv.applications.output import OutputFolder
from tt_conv.applications.pictures import draw_strips
from tt_conv.applications.training.checkpoint import Trained
from tt_conv.applications.training.devices import checked_device
from tt_conv.applications.video_prediction.checkpoint import load_predictor
from tt_conv.applications.video_prediction.settings import PredictionSettings

_SCREEN = 256  # frames are enlarged by a whole number until their shorter side is about this, in pixels
_STRIP = 12  # frames of either kind in the strip, at most


def run_prediction(
    checkpoint: Path | str,
    video: Path | str,
    out: Path | str | None = None,
    settings: PredictionSettings | None = None,
    *,
    recipe: str | None = None,
    channels: int | None = None,
) -> Tensor:
    """Predict what follows some frames of a video, and write it as MP4, GIF, PNG strip and NumPy array.

    Parameters
    ----------
    checkpoint : path
        See :func:`~tt_conv.applications.training.load_trained`.
    video : path
        A video file, a folder of images, or an array; of an array of several sequences the first one is taken.
    out : path, optional
        Folder to write to, new or empty; by default ``tt-conv-prediction``, or the first free name after it.
    settings : PredictionSettings, optional
    recipe, channels
        See :func:`~tt_conv.applications.training.load_trained`.

    Returns
    -------
    Tensor [future, C, H, W]
        Values from 0 to 1; ``prediction.npy`` holds the same.

    Raises
    ------
    ValueError, OSError
        If the checkpoint or the video cannot be used, with the file, the reason and the remedy.

    Examples
    --------
    >>> import contextlib, io, tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    ...     np.save(folder + "/frames.npy", np.zeros((10, 64, 64), dtype=np.uint8))
    ...     settings = PredictionSettings(future=5)
    ...     predicted = run_prediction("pretrained", folder + "/frames.npy", folder + "/future", settings)
    >>> predicted.shape
    torch.Size([5, 1, 64, 64])
    """
    settings = settings or PredictionSettings()
    if not 0.1 <= settings.rate <= 100:
        raise ValueError(f"rate must be from 0.1 to 100 frames per second, got {settings.rate:g}")
    device = checked_device(settings.device)
    trained = load_predictor(checkpoint, recipe, channels)
    data, future, start = trained.settings.data, settings.future, settings.start
    given = data.given if settings.given is None else settings.given
    step = (data.step if data.kind == "own" else 1) if settings.step is None else settings.step
    if future < 1 or given < 1 or step < 1:
        raise ValueError(f"given, future and step must be at least 1, got {given}, {future} and {step}")
    size = settings.size or data.size or {"moving_mnist": 64, "kth": 120}.get(data.kind)
    # A video that is looked at once needs no place in the cache.
    with TemporaryDirectory() as decoded:
        frames = _opened(
            video,
            size=pair(size),
            channels=trained.channels,
            layout=settings.layout,
            value_range=settings.value_range,
            array_name=settings.array_name,
            assumed_range=data.value_range if data.kind == "own" else None,
            cache=decoded,
        )
        clip = frames.clips[0]
        places = clip.length - (given - 1) * step
        if places < 1:
            every = f", every {step}. one" if step > 1 else ""
            raise ValueError(
                f"{video} has {clip.length} frames, {given} are to be shown{every}: give a longer video, or show fewer "
                "with --given"
            )
        start = places - 1 if start is None else start
        if not 0 <= start < places:
            raise ValueError(f"{video}: start must be from 0 to {places - 1} for {given} frames given, got {start}")
        shown = fitted(clip.read(start, given, step), frames.size, frames.channels)
    _check_sides(trained, shown, str(checkpoint))
    folder = (
        OutputFolder.with_free_name("tt-conv-prediction", all_or_nothing=True)
        if out is None
        else OutputFolder(out, all_or_nothing=True)
    )
    with folder:
        predicted = _predicted(trained, shown, future, device, str(checkpoint))
        _write_prediction(folder, shown, predicted, settings.rate)
    every = f", every {step}. one" if step > 1 else ""
    print(
        f"Shown: frames {start + 1} to {start + (given - 1) * step + 1}{every}, of {clip.name}, at {shown.shape[2]} x "
        f"{shown.shape[3]}. Predicted: {future} frames. prediction.mp4, .gif, .png and .npy are in {folder.path}"
    )
    return predicted


def _opened(video: Path | str, **options: Any) -> OwnVideos:
    """The video, as a data set of single frames; what is a folder of several is refused."""
    try:
        frames = OwnVideos(video, 1, "all", stride=1, **options)
    except UnusableFile as error:
        remedy = error.remedy.replace("replace it, or leave it out with broken=skip", "give another one")
        raise UnusableFile(error.name, error.problem, remedy) from error
    sources = [*{id(clip.stored): clip.name for clip in reversed(frames.clips)}.values()]
    if len(sources) > 1:
        raise ValueError(f"{video} holds {len(sources)} videos, such as {sources[-1]}: name one of them")
    for note in frames.notes:
        print(f"  {note}")
    if len(frames.clips) > 1:
        print(f"  the first of its {len(frames.clips)} sequences is taken")
    return frames


def _check_sides(trained: Trained, shown: Tensor, checkpoint: str) -> None:
    patch, sides = trained.model.patch_size, tuple(shown.shape[2:])
    if any(side % patch for side in sides):
        raise ValueError(
            f"{checkpoint} needs frames whose sides {patch} divides, got {sides[0]} x {sides[1]}: choose others with "
            f"--size, such as [{max(1, round(sides[0] / patch)) * patch},{max(1, round(sides[1] / patch)) * patch}]"
        )


@torch.inference_mode()
def _predicted(trained: Trained, shown: Tensor, future: int, device: torch.device, checkpoint: str) -> Tensor:
    model = trained.model.to(device)
    predicted = model(shown.unsqueeze(0).to(device), future)[0, -future:].clamp(0, 1).cpu()
    if not predicted.isfinite().all():
        raise ValueError(f"{checkpoint}: the prediction holds values that are not finite: its training diverged")
    return predicted


def _write_prediction(folder: OutputFolder, shown: Tensor, predicted: Tensor, rate: float) -> None:
    with folder.new_file("prediction.npy") as file, file.open("wb") as opened:
        np.save(opened, predicted.numpy())
    pixels = _enlarged(torch.cat([shown, predicted]))
    with folder.new_file("prediction.mp4") as file:
        write_video(file, pixels, rate=rate)
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
