"""KTH actions, as distributed (videos and ``00sequences.txt``) or as one ``.npz`` file per clip."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tt_conv.applications.data.cache import cache_folder, decoded_file
from tt_conv.applications.data.clips import Clip, StoredArray, pair
from tt_conv.applications.data.errors import Broken, UnusableFile
from tt_conv.applications.data.names import in_order
from tt_conv.applications.data.own_videos import array_clips, settle
from tt_conv.applications.data.pixels import ValueRange
from tt_conv.applications.data.splits import Split, check_split
from tt_conv.applications.data.windows import ClipWindows, by_note, opened

TRAINING_PERSONS = range(1, 17)
TEST_PERSONS = range(17, 26)
LIST = "00sequences.txt"
_ENTRY = re.compile(r"(person(\d+)_\w+?_d\d)\s+frames\s+(.*)", re.IGNORECASE)
_PERSON = re.compile(r"person(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class ListedVideo:
    """One line of ``00sequences.txt``: a video and its clips, as (first, last) frame counted from 1."""

    name: str
    person: int
    clips: tuple[tuple[int, int], ...]


def read_list(path: Path) -> list[ListedVideo]:
    """Read ``00sequences.txt``; text around the list, and a video marked as missing, are passed over.

    Parameters
    ----------
    path : Path
        The file as distributed.

    Returns
    -------
    list of ListedVideo

    Raises
    ------
    UnusableFile
        If not one line names a video and its frames.
    """
    videos = []
    for line in path.read_text(errors="replace").splitlines():
        entry = _ENTRY.match(line.strip())
        if entry:
            ranges = re.findall(r"(\d+)\s*-\s*(\d+)", entry.group(3))
            clips = tuple((int(first), int(last)) for first, last in ranges)
            videos.append(ListedVideo(entry.group(1).lower(), int(entry.group(2)), clips))
    if not videos:
        raise UnusableFile(path, "no line like 'person01_boxing_d1 frames 1-95, 96-185'", "fetch it again")
    return videos


class KTH(ClipWindows):
    """Sequences from the KTH actions, gray.

    Parameters
    ----------
    path : path
        The folder with ``00sequences.txt`` and the ``.avi`` files, in subfolders or not; or a folder of ``.npz``
        files, one per clip, in subfolders ``train``, ``validation`` and ``test`` or with ``person17`` or the like
        in their names.
    frames : int
        Frames of a sequence, T: published are 10 given and 10 (training), 20 and 40 (test) to predict.
    split : {"train", "validation", "test"}
        Persons 1 to 16 are for training, 17 to 25 for test.
    validation_persons : iterable of int
        Persons of the training part that are for validation instead.
    size : int or (int, int)
        Height and width; the videos are 120 x 160.
    stride, random, seed, broken
        See :class:`~tt_conv.applications.data.windows.ClipWindows`.
    cache : path, optional
        Folder for decoded videos, which are mapped into memory; by default ``tt-conv/videos`` in the user's cache.

    Notes
    -----
    As distributed, one video is missing, and some ranges of the list overlap or reach beyond the end of their
    video. None of that is an error: it is said in ``notes``.

    Raises
    ------
    FileNotFoundError
        If neither form is found, or no video of the split.
    ValueError
        If files are broken or clips too short and ``broken="refuse"``.

    References
    ----------
    C. Schuldt, I. Laptev, B. Caputo: Recognizing human actions: a local SVM approach. ICPR 2004.

    Examples
    --------
    One file per clip, with the person in its name:

    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> with TemporaryDirectory() as folder:
    ...     for person in (1, 15, 17):
    ...         np.savez(Path(folder, f"person{person:02}_walking_d1.npz"), np.zeros((24, 120, 160), np.uint8))
    ...     KTH(folder, frames=20, split="test", size=64)[0].shape
    torch.Size([20, 1, 64, 64])
    """

    def __init__(
        self,
        path: Path | str,
        frames: int,
        split: Split = "train",
        *,
        validation_persons: Iterable[int] = (),
        size: int | Sequence[int] | None = 120,
        stride: int | None = None,
        random: bool = False,
        seed: int = 0,
        broken: Broken = "skip",
        cache: Path | str | None = None,
    ) -> None:
        check_split(split)
        folder, sides = Path(path).expanduser(), pair(size)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder: give the one with {LIST} and the videos, or .npz clips")
        persons = _persons(split, frozenset(validation_persons))
        notes: list[str] = []
        if (folder / LIST).exists():
            clips = _from_videos(folder, persons, sides, cache_folder(cache), broken, notes)
        else:
            clips = _from_archives(folder, split, persons, broken, notes)
        super().__init__(
            clips,
            frames,
            stride=stride,
            size=sides,
            channels=1,
            random=random,
            seed=seed,
            broken=broken,
            notes=notes,
        )


def _persons(split: Split, validation: frozenset[int]) -> frozenset[int]:
    if not validation <= {*TRAINING_PERSONS}:
        raise ValueError(f"validation_persons must be of the training persons 1 to 16, got {sorted(validation)}")
    if split == "validation" and not validation:
        raise ValueError("no persons for validation: name some of 1 to 16 with validation_persons, such as 15 and 16")
    return {"train": frozenset(TRAINING_PERSONS) - validation, "validation": validation}.get(
        split, frozenset(TEST_PERSONS)
    )


def _from_videos(
    folder: Path,
    persons: frozenset[int],
    size: tuple[int, int] | None,
    cache: Path,
    broken: Broken,
    notes: list[str],
) -> list[Clip]:
    files = {file.stem.lower().removesuffix("_uncomp"): file for file in sorted(folder.rglob("*.avi"))}
    listed = [video for video in read_list(folder / LIST) if video.person in persons]
    missing = [video.name for video in listed if video.name not in files]
    present = [video for video in listed if video.name in files]
    if not present:
        raise FileNotFoundError(f"{folder} holds none of the {len(listed)} videos that {LIST} names for this split")
    if missing:
        notes.append(f"not there, though listed: {', '.join(missing)}")

    found: list[tuple[str, str]] = []

    def open_one(video: ListedVideo) -> list[Clip]:
        said: list[str] = []
        decoded = decoded_file(files[video.name], cache, size=size, channels=1, notes=said)
        found.extend((video.name, note) for note in said)
        return _cut(video, StoredArray(decoded, "THWC", (0.0, 255.0)), notes)

    clips = opened(present, open_one, broken, notes)
    notes += by_note(found)
    notes.sort()
    return clips


def _cut(video: ListedVideo, stored: StoredArray, notes: list[str]) -> list[Clip]:
    total, clips, end = stored.array.shape[1], [], 0
    for first, last in video.clips:
        if first <= end:
            notes.append(f"{video.name}: frames {first}-{last} overlap the clip before them")
        end = max(end, last)
        if last > total:
            notes.append(f"{video.name}: frames {first}-{last} reach beyond its {total} frames")
        if 1 <= first <= min(last, total):
            clips.append(Clip(video.name, stored, 0, first - 1, min(last, total) - first + 1))
    return clips


def _from_archives(folder: Path, split: Split, persons: frozenset[int], broken: Broken, notes: list[str]) -> list[Clip]:
    own = folder / split
    files = in_order((own if own.is_dir() else folder).rglob("*.npz"))
    if not own.is_dir():
        found = {file: _PERSON.search(file.name) for file in files}
        nameless = [file for file, person in found.items() if person is None]
        if nameless:
            raise UnusableFile(
                nameless[0],
                "neither its folder tells the split nor its name the person",
                f"put the clips into folders train, validation and test of {folder}, "
                "or name them like person17_walking_d1.npz",
            )
        files = [file for file, person in found.items() if person and int(person.group(1)) in persons]
    if not files:
        raise FileNotFoundError(f"{folder} holds neither {LIST} nor .npz clips of this split ({split})")
    values = ValueRange()
    clips = opened(files, lambda file: array_clips(file, file.name, values), broken, notes)
    settle(clips, values, notes)
    return clips
