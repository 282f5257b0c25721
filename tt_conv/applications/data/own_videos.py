"""Anybody's own videos: video files, folders of frames, arrays."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tt_conv.applications import gate
from tt_conv.applications.data.cache import cache_folder, decoded_file
from tt_conv.applications.data.clips import Clip, StoredArray, pair
from tt_conv.applications.data.errors import REPLACE, Broken, UnusableFile
from tt_conv.applications.data.folders import (
    ARRAY_ENDINGS,
    IMAGE_ENDINGS,
    VIDEO_ENDINGS,
    frame_files,
    sources_in,
    without_other_parts,
)
from tt_conv.applications.data.frames import note_squeezed
from tt_conv.applications.data.picture_files import frames_of_folder, pictures_in
from tt_conv.applications.data.pixels import Limits, ValueRange, layout_of
from tt_conv.applications.data.splits import split_folder, split_folders
from tt_conv.applications.data.windows import ClipWindows, by_note, opened

Part = Literal["train", "validation", "test", "all"]


class OwnVideos(ClipWindows):
    """Sequences from video files, folders of frames, and ``.npy`` or ``.npz`` arrays.

    Parameters
    ----------
    path : path
        A video file; an array file; a folder of images, which are the frames of one clip in the order of their
        names (``frame2`` before ``frame10``); or a folder of any of these, to any depth.
    frames : int
        Frames of a sequence, T.
    split : {"train", "validation", "test", "all"}
        If the folder has subfolders of these names, the clips in that one. Otherwise eight of every ten clips are
        for training, one for validation, one for test; of fewer than ten clips each is cut in time: the first
        80 % of its frames for training, then 10 % and 10 %.
    step, stride, size, channels, random, seed
        See :class:`~tt_conv.applications.data.windows.ClipWindows`; ``size`` may be one number.
    layout : str, optional
        What the axes of arrays are, in any order: N sequences, T frames, C channels, H and W pixels, such as
        ``"NTHWC"`` or ``"NHWT"``. By default it is detected, and said in ``notes``; where a shape can be read in two
        ways it must be stated.
    value_range : (float, float), optional
        The values of black and white in arrays. By default they are detected, one range for all arrays of integers
        and one for all of floats, and said in ``notes``.
    array_name : str, optional
        Which array of ``.npz`` files; needed only where a file holds several arrays of frames.
    broken : {"refuse", "skip"}
        What happens to files that cannot be read or are too short: an error that names them, or they are left
        out and named in ``notes``.
    cache : path, optional
        Folder for decoded videos, which are mapped into memory; by default ``tt-conv/videos`` in the user's cache.
    assumed_range : (float, float), optional
        Instead of detection: black and white of arrays that are neither bytes nor booleans, as the arrays had them
        that a network was trained on.

    Raises
    ------
    FileNotFoundError
        If there is no such path, or nothing of these kinds in it.
    UnusableFile (a ValueError)
        If a file cannot be used, with its name, the reason and the remedy.
    ValueError
        If clips are too short or differ in size, or an argument is out of its range.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "rain.npy"), np.zeros((4, 30, 8, 12), np.uint8))
    ...     data = OwnVideos(folder, frames=10, split="all")
    ...     len(data), data[0].shape, data.notes[0]
    (12, torch.Size([10, 1, 8, 12]), 'rain.npy: axes NTHW (detected: sequences first), values 0 to 255, of bytes')
    """

    def __init__(
        self,
        path: Path | str,
        frames: int,
        split: Part = "train",
        *,
        step: int = 1,
        stride: int | None = None,
        size: int | Sequence[int] | None = None,
        channels: int | None = None,
        layout: str | None = None,
        value_range: tuple[float, float] | None = None,
        array_name: str | None = None,
        broken: Broken = "refuse",
        cache: Path | str | None = None,
        random: bool = False,
        seed: int = 0,
        assumed_range: tuple[float, float] | None = None,
    ) -> None:
        if str(path) == "":
            raise ValueError("the path of the videos is empty: give a folder or a file")
        path = Path(path).expanduser()
        if split not in get_args(Part):
            raise ValueError(f"split must be one of {', '.join(map(repr, get_args(Part)))}, got {split!r}")
        sides = pair(size)
        notes: list[str] = []
        own = split_folder(path, split)
        kept = cache_folder(cache).resolve()  # it may lie among the videos
        sources = [source for source in sources_in(own or path, notes) if kept not in source.resolve().parents]
        if own is not None:
            others = {part: folder for part, folder in split_folders(path).items() if folder != own}
            sources = without_other_parts(sources, split, others, notes)
        if not sources:
            raise FileNotFoundError(
                f"{own or path} holds no videos ({' '.join(sorted(VIDEO_ENDINGS))}), images or arrays (.npy, .npz): "
                "give the folder or file that does"
            )
        base = path if path.is_dir() else path.parent
        values = ValueRange(value_range, assumed_range)

        found: list[tuple[str, str]] = []

        def open_one(source: Path) -> Sequence[Clip]:
            name = str(source.relative_to(base)) if source != base else source.name
            own_notes: list[str] = []
            if source.suffix.lower() in ARRAY_ENDINGS and not source.is_dir():
                clips = array_clips(source, name, values, layout, array_name)
            elif source.is_dir():
                files = frame_files(source, own_notes)
                clips = [_picture_clip([*frames_of_folder(files, own_notes)], name, values)]
            elif source.suffix.lower() in IMAGE_ENDINGS:
                clips = [_picture_clip(pictures_in(source, own_notes), name, values)]
            else:
                stored = decoded_file(source, cache_folder(cache), size=sides, channels=channels, notes=own_notes)
                clips = [Clip(name, StoredArray(stored, "THWC", (0.0, 255.0)))]
            if sides is not None:  # decoded videos have their size already
                note_squeezed(clips[0].size, sides, own_notes)
            found.extend((name, note) for note in own_notes)
            return clips

        clips = opened(sources, open_one, broken, notes)
        notes += by_note(found)
        if own is not None:
            _see_other_parts(path, own, values, array_name)
        settle(clips, values, notes)
        self.value_range = _common_range(clips)
        notes.sort()
        hint = ""
        if own is None and split != "all":
            clips, hint = _clips_of_part(clips, split, notes)
        super().__init__(
            clips,
            frames,
            step=step,
            stride=stride,
            size=sides,
            channels=channels,
            random=random,
            seed=seed,
            broken=broken,
            notes=notes,
            hint=hint,
        )


def array_clips(
    path: Path,
    name: str,
    values: ValueRange,
    layout: str | None = None,
    array_name: str | None = None,
) -> list[Clip]:
    """One clip for each sequence in a ``.npy`` or ``.npz`` file; parameters as of :class:`OwnVideos`.

    ``values`` sees the array. :func:`settle` gives all clips their range once every array was seen.
    """
    array, mapped = load_array(path, name, array_name)
    if not array.size:
        raise UnusableFile(name, f"an empty array of shape {array.shape}", "leave it out")
    layout, why = layout_of(array.shape, layout, name)
    values.see(array, name)
    stored = StoredArray(path if mapped else array, layout, description=f"{name}: axes {layout} ({why})")
    count = len(stored.array)
    return [Clip(name if count == 1 else f"{name}[{number}]", stored, number) for number in range(count)]


def settle(clips: Sequence[Clip], values: ValueRange, notes: list[str]) -> None:
    """Give the arrays of clips the range of their values, and note their axes and that range."""
    for clip in clips:
        stored = clip.stored
        if stored.value_range is None:
            stored.value_range, words = values.of(stored.array.dtype, clip.name)
            notes.append(f"{stored.description}, values {words}")


def _common_range(clips: Sequence[Clip]) -> Limits | None:
    """The range of the arrays, if it is one and none of them are bytes or booleans, whose range is that of the type."""
    arrays = [clip.stored for clip in clips if clip.stored.description]
    ranges = {stored.value_range for stored in arrays}
    plain = any(stored.array.dtype in (np.bool_, np.uint8) for stored in arrays)
    return ranges.pop() if len(ranges) == 1 and not plain else None


def _see_other_parts(path: Path, own: Path, values: ValueRange, array_name: str | None) -> None:
    """Look at the arrays of the other parts as well, so that all parts have one range of values."""
    if values.settled:
        return
    for folder in split_folders(path).values():
        if folder != own:
            for source in sources_in(folder):
                if source.suffix.lower() in ARRAY_ENDINGS:
                    with suppress(UnusableFile):  # refused where that part is opened
                        values.see(load_array(source, source.name, array_name)[0], source.name)


def _picture_clip(pictures: Sequence[NDArray], name: str, values: ValueRange) -> Clip:
    """The pictures of a folder or a file as one clip."""
    array = np.stack(pictures)
    if array.dtype == np.uint8:
        return Clip(name, StoredArray(array, "THWC", (0.0, 255.0)))
    values.see(array, name)
    return Clip(name, StoredArray(array, "THWC", description=f"{name}: images of {array.dtype}"))


def load_array(path: Path, name: str, array_name: str | None) -> tuple[NDArray, bool]:
    """The one array of frames in a ``.npy`` or ``.npz`` file, whatever its ending, and whether it is mapped."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        if not zipped:
            return gate.read_npy(path, mapped=True), True
        arrays = gate.read_npz(path)
    except ValueError as error:
        raise UnusableFile(name, gate.problem_of(path, error), REPLACE) from error
    if array_name is not None:
        if array_name not in arrays:
            raise UnusableFile(name, f"it has no array {array_name!r}", f"it has {', '.join(arrays)}")
        return arrays[array_name], False
    arrays = {key: value for key, value in arrays.items() if value.ndim >= 3}
    if len(arrays) != 1:
        has = ", ".join(f"{key} {value.shape}" for key, value in arrays.items()) or "none"
        raise UnusableFile(name, f"expected one array of 3 to 5 axes, it has {has}", "name the one with array_name")
    return next(iter(arrays.values())), False


def _clips_of_part(clips: Sequence[Clip], split: str, notes: list[str]) -> tuple[list[Clip], str]:
    """The clips of a part, and what to do if they are too short."""
    if len(clips) >= 10:
        notes.append("of every ten clips, eight are for training, the 9th for validation, the 10th for test")
        which = {"validation": {8}, "test": {9}}.get(split, set(range(8)))
        return [clip for number, clip in enumerate(clips) if number % 10 in which], ""
    notes.append("each clip is cut in time: 80 % for training, then 10 % for validation and 10 % for test")
    parts = []
    for clip in clips:
        validation, test = clip.length * 8 // 10, clip.length * 9 // 10
        first, last = {"train": (0, validation), "validation": (validation, test), "test": (test, clip.length)}[split]
        parts.append(clip.part(first, last - first))
    return parts, (
        "; fewer than ten clips are each cut in time, 80 % for training, 10 % for validation, 10 % for test: give "
        "longer or more clips, or put them into folders train, validation and test"
    )
