"""Anybody's own labelled videos: a folder of class folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from tt_conv.applications.data.folders import (
    ARRAY_ENDINGS,
    VIDEO_ENDINGS,
    identity,
    is_hidden,
    sources_in,
    without_other_parts,
)
from tt_conv.applications.data.names import in_order
from tt_conv.applications.data.splits import Split, check_split, split_folder, split_folders
from tt_conv.applications.recognition.data.class_list import chosen_classes, plain_name, read_class_list
from tt_conv.applications.recognition.data.video_clips import ClipOptions, VideoClips

_PARTS = (0.1, 0.1)  # of every class' videos: for validation, for test


class ClassFolders(VideoClips):
    """Clips from a folder with one folder for each class, named like the class: of videos, or of folders of frames.

    Parameters
    ----------
    path : path
        The folder. If it has subfolders ``train``, ``validation`` (or ``val``) and ``test``, these hold the class
        folders; otherwise a tenth of every class' videos is for validation and a tenth for test, at least one each if
        there are three, chosen at random by ``seed``.
    frames : int
        Frames of a clip, T.
    split : {"train", "validation", "test"}
        Which part.
    classes : path or sequence of str, optional
        A text file with the name of one class a line, or the names; by default every folder, in the order of names.
    size, short_side, channels, random, flip, seed, broken, keep_decoded, cache
        See :class:`~tt_conv.applications.recognition.data.VideoClips`.

    Raises
    ------
    FileNotFoundError
        If the folder is missing or holds no class folders with videos.
    ValueError
        If a class is unknown or has no videos, or an argument is out of its range.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from tt_conv.applications.video_prediction.data import write_video
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("jump", "walk"):
    ...         Path(folder, name).mkdir()
    ...         for number in range(4):
    ...             write_video(Path(folder, name, f"{number}.avi"), np.zeros((9, 16, 16), np.uint8))
    ...     data = ClassFolders(folder, 8, cache=Path(folder, "cache"), channels=1)
    >>> len(data), data.classes, data.labels
    (4, ['jump', 'walk'], [0, 0, 1, 1])
    """

    def __init__(
        self,
        path: Path | str,
        frames: int,
        split: Split = "train",
        *,
        classes: Path | str | Sequence[str] | None = None,
        **options: Unpack[ClipOptions],
    ) -> None:
        check_split(split)
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder: give one with a folder of videos for each class")
        own = split_folder(folder, split)
        notes: list[str] = []
        # Those of the training part, so that a class has the same number in all parts.
        found = _class_folders(split_folders(folder).get("train", own) or folder)
        others = {part: place for part, place in split_folders(folder).items() if place != own} if own else {}
        if classes is None:
            names = list(found)
        else:
            asked = read_class_list(classes) if isinstance(classes, str | Path) else classes
            names = chosen_classes(asked, list(found), folder)
        videos: list[Path] = []
        labels: list[int] = []
        classes_of: dict[object, str] = {}
        for label, name in enumerate(names):
            files = _videos(own / found[name].name if own else found[name], notes)
            files = _of_no_other_class(files, name, classes_of, notes)
            chosen = files if own else _files_of_split(files, split, options.get("seed", 0), name)
            videos += chosen
            labels += [label] * len(chosen)
        if own:
            kept = {*without_other_parts(videos, split, others, notes)}
            labels = [label for video, label in zip(videos, labels, strict=True) if video in kept]
            videos = [video for video in videos if video in kept]
        else:
            notes.append("of every class, a tenth of the videos is for validation and a tenth for test")
        if own and classes is None and (unknown := sorted(_class_folders(own).keys() - found.keys())):
            notes.append(f"left out classes that the training part has not: {', '.join(unknown)}")
        if not videos:
            raise FileNotFoundError(f"{own or folder} has no video for {split}: add some, or ask for another part")
        super().__init__(
            videos,
            labels,
            names,
            frames,
            notes=notes,
            **options,
        )


def _class_folders(folder: Path) -> dict[str, Path]:
    places = in_order(place for place in folder.iterdir() if place.is_dir() and not is_hidden(place))
    # A link to a folder that holds the classes is none of them.
    places = [place for place in places if not folder.resolve().is_relative_to(place.resolve())]
    found = {plain_name(place.name): place for place in places if _videos(place, [])}
    if not found:
        raise FileNotFoundError(
            f"{folder} has no folders with videos ({' '.join(sorted(VIDEO_ENDINGS))}, files of several pictures, "
            "folders of pictures) in it: put the videos of each class into a folder of its name"
        )
    return found


def _videos(folder: Path, notes: list[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    clips = [source for source in sources_in(folder, notes) if source.suffix.lower() not in ARRAY_ENDINGS]
    if folder in clips:
        notes.append(f"left out the pictures in {folder.name} itself: put the frames of each clip into a folder there")
    return [source for source in clips if source != folder]


def _of_no_other_class(files: list[Path], name: str, classes: dict[object, str], notes: list[str]) -> list[Path]:
    """The files that no class before has; the classes of all files are remembered."""
    other = {file: classes.setdefault(identity(file), name) for file in files}
    for file, first in other.items():
        if first != name:
            notes.append(f"left out {file.name} of class {name!r}, which is also of class {first!r}")
    return [file for file in files if other[file] == name]


def _files_of_split(files: list[Path], split: Split, seed: int, name: str) -> list[Path]:
    """The videos of a class that are for a split; in the order given."""
    order = np.random.default_rng([seed, *name.encode()]).random(len(files)).argsort(kind="stable").tolist()
    validation, test = (
        round(len(files) * part) if len(files) < 3 else max(1, round(len(files) * part)) for part in _PARTS
    )
    parts = {
        "validation": order[:validation],
        "test": order[validation : validation + test],
        "train": order[validation + test :],
    }
    return [files[number] for number in sorted(parts[split])]
