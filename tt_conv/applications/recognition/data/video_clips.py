"""Labelled clips from video files: sampled in time, resized, cropped, and in training varied."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import SupportsIndex, TypeVar

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from tt_conv.applications.data.cache import cache_folder, decoded_file
from tt_conv.applications.data.errors import UnusableFile
from tt_conv.applications.data.own_videos import pair
from tt_conv.applications.data.video_file import pixels_of, stored_frames
from tt_conv.applications.data.windows import Broken, check_broken
from tt_conv.applications.recognition.data.class_list import speaks_of_sides
from tt_conv.applications.recognition.data.labelled import LabelledClips
from tt_conv.applications.recognition.data.sampling import sampled_frames
from tt_conv.checks import positive_int

T = TypeVar("T")
_SHOWN = 5
_WHOLE = 0.9  # of its stated length: what a video must have to be taken for whole


@dataclass(frozen=True)
class Found:
    """What is known of a video: how many frames [height, width] it has, or what is wrong with it."""

    frames: int
    height: int
    width: int
    problem: str | None = None


_MISSING = Found(0, 0, 0, "it is not there")


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
        The files.
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
        whole = _usable(videos, found, broken, self.notes)
        self.videos = [videos[number] for number in whole]
        self.labels = [labels[number] for number in whole]
        self._found = [found[number] for number in whole]
        self.size = sides or (self._found[0].height, self._found[0].width)
        self._mirrored = [not speaks_of_sides(name) for name in self.classes]
        missing = [name for number, name in enumerate(self.classes) if number not in set(self.labels)]
        if missing:
            shown = ", ".join(map(repr, missing[:_SHOWN])) + (" ..." if len(missing) > _SHOWN else "")
            self.notes.append(f"{len(missing)} of {len(self.classes)} classes have no clip here: {shown}")
        if keep_decoded:
            with ThreadPoolExecutor(8) as threads:
                stored = threads.map(self._stored, range(len(self)))
                deque(_with_bar(stored, "decoding the videos", len(self)), maxlen=0)

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
            pixels = np.load(self._stored(number), mmap_mode="r")[chosen]
        else:
            pixels = _decoded(self.videos[number], chosen, self._resized(number), self.channels)
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
) -> Tensor:
    """The clip that stands for a video in evaluation.

    Parameters
    ----------
    video : path
    frames : int
        Frames of the clip.
    size, short_side, channels
        As of :class:`VideoClips`.

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
    if not video.is_file():
        raise FileNotFoundError(f"{video} is no file: give a video")
    found = _look(video)
    if found.problem is not None:
        raise UnusableFile(video, found.problem, "replace it")
    resized = resized_sides((found.height, found.width), sides, short_side)
    return cropped(_decoded(video, sampled_frames(found.frames, frames), resized, channels), sides)


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


def looked_through(videos: Sequence[Path], cache: Path) -> list[Found]:
    """Decode every video once to its end; what was found is remembered in the cache, for files that don't change."""
    base = Path(os.path.commonpath([video.parent.resolve() for video in videos]))
    kept = cache / f"looked-through-{hashlib.sha256(str(base).encode()).hexdigest()[:16]}.json"
    known = _remembered(kept)
    keys = [_key(video, base) for video in videos]
    new = {key: video for key, video in zip(keys, videos, strict=True) if key is not None and key not in known}
    if new:
        try:
            with ThreadPoolExecutor(8) as threads:  # decoders leave Python's lock
                looks = threads.map(_look, new.values())
                for key, found in zip(new, _with_bar(looks, "looking through the videos", len(new)), strict=True):
                    known[key] = found
        finally:  # also what was done before an interruption
            _remember(kept, known)
    return [_MISSING if key is None else known[key] for key in keys]


def _with_bar(items: Iterable[T], what: str, count: int) -> Iterable[T]:
    """The items, with a bar that shows how far they are if that takes more than a moment, on a terminal."""
    return tqdm(items, what, count, leave=False, disable=None, delay=3)


def _remembered(path: Path) -> dict[str, Found]:
    try:
        return {key: Found(**found) for key, found in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # nothing remembered, or nothing that this version can read


def _remember(path: Path, known: dict[str, Found]) -> None:
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({key: asdict(found) for key, found in known.items()}))
        partial.replace(path)
    except OSError as error:
        raise type(error)(
            f"cannot write to the cache folder {path.parent} ({error.strerror}): choose another with cache"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _key(video: Path, base: Path) -> str | None:
    """The file and its state; ``None`` if it is not there."""
    if not video.is_file():
        return None
    state = video.stat()
    return f"{(video.parent.resolve() / video.name).relative_to(base)} {state.st_size} {state.st_mtime_ns}"


def _look(video: Path) -> Found:
    count, height, width, first, last = 0, 0, 0, None, None
    try:
        for frame in stored_frames(video):
            if not count:
                height, width, first = frame.height, frame.width, frame.time
            count, last = count + 1, frame.time
        stated = _stated_seconds(video)
    except UnusableFile as error:
        return Found(0, 0, 0, error.problem)
    except OSError as error:
        return Found(0, 0, 0, f"cannot be opened ({error.strerror})")
    # FFmpeg takes the end of a file that was cut off for the end of the video.
    if first is not None and last is not None and stated is not None:
        # The last frame is shown for as long as the others; a single one for a second at most.
        seconds = (last - first) * count / (count - 1) if count > 1 else min(stated, 1.0)
        if seconds < _WHOLE * stated:
            return Found(0, 0, 0, f"it breaks off after {seconds:.1f} of {stated:.1f} seconds")
    return Found(count, height, width)


def _stated_seconds(video: Path) -> float | None:
    """How long a video is by its header; ``None`` where that does not say, or may speak of sound."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        if container.duration is not None and len(container.streams) == 1:
            return container.duration / av.time_base
    return None


def _usable(videos: Sequence[Path], found: Sequence[Found], broken: Broken, notes: list[str]) -> list[int]:
    """Numbers of the videos that can be decoded; the others are refused, or noted and left out."""
    usable = [number for number, what in enumerate(found) if what.problem is None]
    unusable = [(video, what.problem) for video, what in zip(videos, found, strict=True) if what.problem is not None]
    if unusable and (broken == "refuse" or not usable):
        named = "; ".join(f"{video}: {problem}" for video, problem in unusable[:_SHOWN])
        raise ValueError(
            f"{len(unusable)} of {len(videos)} videos cannot be used: {named}"
            f"{' ...' if len(unusable) > _SHOWN else ''}; "
            + ("fetch them, or leave them out with broken=skip" if usable else "give the folder that holds the videos")
        )
    if unusable:
        notes.append(f"left out {len(unusable)} of {len(videos)} videos that cannot be used")
    notes += [f"left out {video.name}: {problem}" for video, problem in unusable]
    return usable


def _decoded(video: Path, chosen: NDArray[np.int64], size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """Some frames of a video [T, H, W, C]."""
    wanted = {*chosen.tolist()}
    pixels = {
        number: pixels_of(frame, size, channels)
        for number, frame in enumerate(islice(stored_frames(video), max(wanted) + 1))
        if number in wanted
    }
    if len(pixels) < len(wanted):
        raise UnusableFile(video, "it is shorter than when the data were opened", "open the data set again")
    return np.stack([pixels[number] for number in chosen.tolist()])
