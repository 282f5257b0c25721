"""Anybody's own labelled videos: a folder of class folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from tt_conv.applications.data.folders import VIDEO_ENDINGS, natural_key
from tt_conv.applications.data.splits import Split, check_split, split_folder, split_folders
from tt_conv.applications.recognition.data.class_list import chosen_classes, plain_name, read_class_list
from tt_conv.applications.recognition.data.video_clips import ClipOptions, VideoClips

_PARTS = (0.1, 0.1)  # of every class' videos: for validation, for test


class ClassFolders(VideoClips):
    """Clips from a folder with one folder of videos for each class, named like the class.

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
        # Those of the training part, so that a class has the same number in all parts.
        found = _class_folders(split_folders(folder).get("train", own) or folder)
        if classes is None:
            names = list(found)
        else:
            asked = read_class_list(classes) if isinstance(classes, str | Path) else classes
            names = chosen_classes(asked, list(found), folder)
        videos: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(names):
            files = _videos(own / found[name].name if own else found[name])
            chosen = files if own else _part_of(files, split, options.get("seed", 0), name)
            videos += chosen
            labels += [label] * len(chosen)
        notes = [] if own else ["of every class, a tenth of the videos is for validation and a tenth for test"]
        if own and classes is None and (others := sorted(_class_folders(own).keys() - found.keys())):
            notes.append(f"left out classes that the training part has not: {', '.join(others)}")
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
    places = sorted((place for place in folder.iterdir() if place.is_dir()), key=lambda place: natural_key(place.name))
    found = {plain_name(place.name): place for place in places if not place.name.startswith(".") and _videos(place)}
    if not found:
        raise FileNotFoundError(
            f"{folder} has no folders with videos ({' '.join(sorted(VIDEO_ENDINGS))}) in it: "
            "put the videos of each class into a folder of its name"
        )
    return found


def _videos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = (
        file for file in folder.rglob("*") if file.suffix.lower() in VIDEO_ENDINGS and not file.name.startswith(".")
    )
    return sorted(files, key=lambda file: natural_key(str(file)))


def _part_of(files: list[Path], split: Split, seed: int, name: str) -> list[Path]:
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
