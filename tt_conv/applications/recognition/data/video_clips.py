"""Labelled clips from video files: sampled in time, resized, cropped, and in training varied."""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import SupportsIndex, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tt_conv.applications import gate
from tt_conv.applications.data.cache import cache_folder, decoded_file
from tt_conv.applications.data.clips import pair
from tt_conv.applications.data.errors import SHOWN, Broken, UnusableFile, check_broken, without_broken
from tt_conv.applications.data.examined import examined, looked_through, with_bar
from tt_conv.applications.data.frames import chosen_frames
from tt_conv.applications.data.windows import by_note
from tt_conv.applications.recognition.data.class_list import speaks_of_sides
from tt_conv.applications.recognition.data.labelled import LabelledClips
from tt_conv.applications.recognition.data.sampling import sampled_frames
from tt_conv.checks import positive_int


class ClipOptions(TypedDict, total=False):
    """How clips are cut from videos: the options of :class:`VideoClips` that data sets pass on."""

    size: int | Sequence[int] | None
    short_side: int | None
    channels: int
    random: bool
    flip: bool
    seed: int
    broken: Broken
    keep_decoded: bool
    cache: Path | str | None


class VideoClips(LabelledClips):
    """Clips of ``frames`` frames from video files, one of each.

    When the data set is opened, every video is decoded once to its end, to know its length and that it is whole; what
    was found is remembered in the cache, so it takes time only once. A worker process then decodes a video whenever
    it is asked for, unless ``keep_decoded``.

    *In time*, the video is cut into ``frames`` equal segments and one frame of each is taken, see
    :func:`~tt_conv.applications.recognition.data.sampling.sampled_frames`: the middle one, or with ``random`` in
    training (:meth:`draw`) one at random. *In space*, frames are resized (area averaging) so that the shorter side is
    ``short_side``, then cropped to ``size``: from the centre, or in training at a random place, the same for all
    frames. With ``flip`` half of them, chosen at random, are mirrored in training, but not those of classes that
    speak of left, right or clockwise.

    Parameters
    ----------
    videos : sequence of Path
        Video files, files of several pictures, or folders of pictures.
    labels : sequence of int
        The class of each.
    classes : sequence of str
        Names of the classes.
    frames : int
        Frames of a clip, T.
    size : int or (int, int), optional
        Height and width of a clip; by default that of the first video.
    short_side : int, optional
        Shorter side of the frames before they are cropped; by default as small as ``size`` allows. A video whose
        frames would then be smaller than ``size`` along the other axis is enlarged until they are not.
    channels : {1, 3}
        Gray or RGB.
    random, flip : bool
        Whether training varies the clips, and mirrors them.
    seed : int
        Of these variations.
    broken : {"refuse", "skip"}
        What happens to videos that cannot be decoded: an error that names them, or they are left out and named in
        ``notes``.
    keep_decoded : bool
        Keep the resized frames in the cache, uncompressed: fast, and for long videos large.
    cache : path, optional
        By default ``tt-conv/videos`` in the user's cache folder.
    notes : sequence of str
        What was found before.

    Raises
    ------
    ValueError
        If there are no videos, videos are broken and not to be skipped, or an argument is out of its range.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from tt_conv.applications.video_prediction.data import write_video
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "1.webm")
    ...     write_video(path, np.zeros((20, 48, 64), np.uint8))
    ...     data = VideoClips([path], [0], ["Holding something"], 8, size=32, short_side=40, cache=folder)
    ...     clip, label = data[0]
    >>> clip.shape, data.classes[label]
    (torch.Size([8, 3, 32, 32]), 'Holding something')
    """

    def __init__(
        self,
        videos: Sequence[Path],
        labels: Sequence[int],
        classes: Sequence[str],
        frames: int,
        *,
        size: int | Sequence[int] | None = None,
        short_side: int | None = None,
        channels: int = 3,
        random: bool = False,
        flip: bool = True,
        seed: int = 0,
        broken: Broken = "skip",
        keep_decoded: bool = False,
        cache: Path | str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.frames = positive_int(frames, "frames")
        check_broken(broken)
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (gray) or 3 (RGB), got {channels}")
        if not videos:
            raise ValueError("there are no videos to take clips from")
        sides = pair(size)
        self.short_side = None if short_side is None else positive_int(short_side, "short_side")
        if sides is not None and self.short_side is not None and self.short_side < min(sides):
            raise ValueError(f"short_side={self.short_side} is less than the shorter side of size={sides}: enlarge it")
        self.channels, self.random, self.flip, self.seed = channels, random, flip, seed
        self.classes = list(classes)
        self.notes = list(notes)
        self.cache = cache_folder(cache)
        self.keep_decoded = keep_decoded
        found = looked_through(videos, self.cache)
        whole = without_broken(
            [
                (video, label, what)
                if what.problem is None
                else UnusableFile(video, what.problem, "fetch it, or leave it out with broken=skip")
                for video, label, what in zip(videos, labels, found, strict=True)
            ],
            broken,
            self.notes,
            what="videos",
            remedies=("fetch them, or leave them out with broken=skip", "give the folder that holds the videos"),
            folder=os.path.commonpath([video.parent for video in videos]) + os.sep,
        )
        self.videos = [video for video, _, _ in whole]
        self.labels = [label for _, label, _ in whole]
        self._found = [what for _, _, what in whole]
        self.notes += by_note([(video.name, note) for video, _, what in whole for note in what.notes])
        self.size = sides or (self._found[0].height, self._found[0].width)
        self.notes += by_note(
            [
                (video.name, note)
                for number, video in enumerate(self.videos)
                if (note := cropped_words(self._resized(number), self.size))
            ]
        )
        self._mirrored = [not speaks_of_sides(name) for name in self.classes]
        missing = [name for number, name in enumerate(self.classes) if number not in set(self.labels)]
        if missing:
            shown = ", ".join(map(repr, missing[:SHOWN])) + (" ..." if len(missing) > SHOWN else "")
            self.notes.append(f"{len(missing)} of {len(self.classes)} classes have no clip here: {shown}")
        if keep_decoded:
            with ThreadPoolExecutor(8) as threads:
                stored = threads.map(self._stored, range(len(self)))
                deque(with_bar(stored, "decoding the videos", len(self)), maxlen=0)

    def clip(self, number: int) -> Tensor:
        return self._read(number, sampled_frames(self._found[number].frames, self.frames), (0.5, 0.5), mirror=False)

    def draw(self, index: SupportsIndex, epoch: int) -> tuple[Tensor, int]:
        """The clip varied in time and space, a function of (seed, epoch, index) alone; and its label."""
        number = self.checked_index(index)
        label = self.labels[number]
        if not self.random:
            return self.clip(number), label
        uniforms = np.random.default_rng([self.seed, epoch, number]).random(self.frames + 3)
        chosen = sampled_frames(self._found[number].frames, self.frames, uniforms[3:])
        mirror = self.flip and self._mirrored[label] and uniforms[0] < 0.5
        return self._read(number, chosen, (uniforms[1], uniforms[2]), mirror=mirror), label

    def name(self, index: SupportsIndex) -> str:
        return str(self.videos[self.checked_index(index)])

    def _read(self, number: int, chosen: NDArray[np.int64], place: tuple[float, float], *, mirror: bool) -> Tensor:
        if self.keep_decoded:
            pixels = gate.read_npy(self._stored(number), mapped=True)[chosen]
        else:
            pixels = chosen_frames(self.videos[number], chosen, self._resized(number), self.channels)
        return cropped(pixels, self.size, place, mirror=mirror)

    def _resized(self, number: int) -> tuple[int, int]:
        found = self._found[number]
        return resized_sides((found.height, found.width), self.size, self.short_side)

    def _stored(self, number: int) -> Path:
        return decoded_file(self.videos[number], self.cache, size=self._resized(number), channels=self.channels)


def read_clip(
    video: Path | str,
    frames: int,
    *,
    size: int | Sequence[int],
    short_side: int | None = None,
    channels: int = 3,
    notes: list[str] | None = None,
) -> Tensor:
    """The clip that stands for a video in evaluation.

    Parameters
    ----------
    video : path
        A video file, a file of several pictures, or a folder of pictures.
    frames : int
        Frames of the clip.
    size, short_side, channels
        As of :class:`VideoClips`.
    notes : list of str, optional
        Gets what was found: frames that were turned or cropped, and the like.

    Returns
    -------
    Tensor [frames, channels, H, W]

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    UnusableFile (a ValueError)
        If it cannot be decoded.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from tt_conv.applications.video_prediction.data import write_video
    >>> with TemporaryDirectory() as folder:
    ...     write_video(Path(folder, "clip.avi"), np.zeros((9, 16, 16), np.uint8))
    ...     read_clip(Path(folder, "clip.avi"), 8, size=16, channels=1).shape
    torch.Size([8, 1, 16, 16])
    """
    video, sides = Path(video).expanduser(), pair(size)
    assert sides is not None
    if not video.exists():
        raise FileNotFoundError(f"{video} is no file: give a video")
    found = examined(video)
    if found.problem is not None:
        raise UnusableFile(video, found.problem, "replace it")
    resized = resized_sides((found.height, found.width), sides, short_side)
    if notes is not None:
        notes += [*found.notes, *filter(None, [cropped_words(resized, sides)])]
    return cropped(chosen_frames(video, sampled_frames(found.frames, frames), resized, channels), sides)


def resized_sides(stored: tuple[int, int], size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """Height and width to which frames are resized before they are cropped, their proportions kept.

    Examples
    --------
    >>> resized_sides((240, 427), (112, 112), 128), resized_sides((240, 427), (112, 112), None)
    ((128, 228), (112, 199))
    """
    cover = max(size[0] / stored[0], size[1] / stored[1])
    scale = cover if short_side is None else max(cover, short_side / min(stored))
    return max(size[0], round(stored[0] * scale)), max(size[1], round(stored[1] * scale))


def cropped_words(resized: tuple[int, int], size: tuple[int, int]) -> str | None:
    """What is cut off, for notes; ``None`` if less than a pixel on each side is."""
    cut = [(have - want, have, what) for have, want, what in zip(resized, size, ("height", "width"), strict=True)]
    words = [f"{100 * less / have:.0f} % of their {what}" for less, have, what in cut if less > 2]
    return f"of frames of {resized[0]} x {resized[1]} pixels {' and '.join(words)} is cropped" if words else None


def cropped(
    pixels: NDArray[np.uint8],
    size: tuple[int, int],
    place: tuple[float, float] = (0.5, 0.5),
    *,
    mirror: bool = False,
) -> Tensor:
    """A clip [T, C, H, W] of floats from 0 to 1 out of frames [T, H', W', C]; ``place`` is from 0 (top, left) to 1."""
    top, left = (
        int(where * (have - want + 1)) for where, have, want in zip(place, pixels.shape[1:3], size, strict=True)
    )
    part = torch.from_numpy(np.ascontiguousarray(pixels[:, top : top + size[0], left : left + size[1]]))
    clip = part.permute(0, 3, 1, 2).float().div_(255)
    return (clip.flip(-1) if mirror else clip).contiguous()
