"""Something-Something V2 as distributed: WebM files, and JSON files that say what happens in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from tt_conv.applications import gate
from tt_conv.applications.data.errors import SHOWN, UnusableFile
from tt_conv.applications.data.folders import VIDEO_ENDINGS
from tt_conv.applications.data.splits import Split, check_split
from tt_conv.applications.recognition.data.class_list import chosen_classes, plain_name, read_class_list
from tt_conv.applications.recognition.data.video_clips import ClipOptions, VideoClips

# Where the archives of the data set put their files, and what older ones call them.
_LABEL_FOLDERS = (".", "labels")
_PREFIXES = ("", "something-something-v2-")
_VIDEO_FOLDERS = ("20bn-something-something-v2", "videos", ".")
ANSWERS = "test-answers.csv"
_ENDING = ".webm"
_FETCH = "fetch it again, or give the folder of Something-Something V2"


class SomethingSomething(VideoClips):
    """Clips of Something-Something V2, or of data in its form.

    Parameters
    ----------
    path : path
        The folder with ``labels.json``, ``train.json``, ``validation.json`` and ``test.json``, in it or in ``labels``,
        and with ``<id>.webm`` files, in ``20bn-something-something-v2``, in ``videos``, or in it.
    frames : int
        Frames of a clip, T.
    split : {"train", "validation", "test"}
        ``test.json`` is distributed without labels; they come from ``answers``.
    classes : path or sequence of str, optional
        A text file with the name of one class a line (``#`` starts a comment), or the names; with brackets or
        without. Their order is that of the labels. By default all classes, by their numbers in ``labels.json``.
    videos : path, optional
        The folder of the videos, if it is another.
    answers : path, optional
        Lines ``id;class`` for the test videos; by default ``test-answers.csv`` beside ``test.json``.
    size, short_side, channels, random, flip, seed, broken, keep_decoded, cache
        See :class:`~tt_conv.applications.recognition.data.VideoClips`.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is missing.
    UnusableFile (a ValueError)
        If a file has another form, with its name, the reason and the remedy.
    ValueError
        If a class is unknown, no clip is of the classes asked for, or an argument is out of its range.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from tt_conv.applications.recognition.data import write_digit_actions
    >>> with TemporaryDirectory() as place:
    ...     folder = write_digit_actions(Path(place, "digits"), clips={"train": 14, "validation": 14, "test": 14})
    ...     asked = ["Moving [something] and [something] up", "Moving [something] and [something] down"]
    ...     data = SomethingSomething(folder, 16, classes=asked, size=32, channels=1, cache=place)
    ...     clip, label = data[0]
    >>> len(data), clip.shape, data.classes[0]
    (2, torch.Size([16, 1, 32, 32]), 'Moving something and something up')

    References
    ----------
    R. Goyal et al.: The "Something Something" video database for learning and evaluating visual common sense.
    ICCV 2017.
    """

    def __init__(
        self,
        path: Path | str,
        frames: int,
        split: Split = "train",
        *,
        classes: Path | str | Sequence[str] | None = None,
        videos: Path | str | None = None,
        answers: Path | str | None = None,
        **options: Unpack[ClipOptions],
    ) -> None:
        check_split(split)
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder: give the one with labels.json and the videos")
        if not any(folder.iterdir()):
            raise FileNotFoundError(f"{folder} is empty: give the one with labels.json and the videos")
        labels_file, list_file = (_label_file(folder, name) for name in ("labels", split))
        known = read_labels(labels_file)
        if classes is None:
            chosen = known
        else:
            asked = read_class_list(classes) if isinstance(classes, str | Path) else classes
            chosen = chosen_classes(asked, known, labels_file)
        if split == "test":
            pairs = _test_clips(list_file, None if answers is None else Path(answers).expanduser())
        else:
            pairs = read_clips(list_file)
        _check_known(pairs, known, list_file, labels_file)
        numbers = {name: number for number, name in enumerate(chosen)}
        pairs = [(clip, name) for clip, name in pairs if name in numbers]
        if not pairs:
            raise ValueError(
                f"{list_file} has no clip of the {len(chosen)} classes asked for, such as {chosen[0]!r}: "
                "name others with classes"
            )
        place = _video_folder(folder, videos, pairs[0][0])
        super().__init__(
            [_video_of(place, clip) for clip, _ in pairs],
            [numbers[name] for _, name in pairs],
            chosen,
            frames,
            **options,
        )


def read_labels(path: Path) -> list[str]:
    """The classes of ``labels.json``, without brackets, in the order of their numbers."""
    content = _read_json(path)
    form = 'an object like {"Holding something": "0", ...}'
    if not isinstance(content, dict) or not content:
        raise UnusableFile(path, f"expected {form}", _FETCH)
    try:
        numbers = {plain_name(name): int(number) for name, number in content.items()}
    except (TypeError, ValueError) as error:
        raise UnusableFile(path, f"expected {form}, the numbers as text", _FETCH) from error
    return sorted(numbers, key=lambda name: numbers[name])


def read_clips(path: Path) -> list[tuple[str, str]]:
    """(id, class without brackets) of each clip that ``train.json`` or ``validation.json`` lists."""
    clips = []
    for number, entry in enumerate(_entries(path)):
        if not isinstance(entry.get("template"), str):
            raise UnusableFile(path, f"entry {number + 1} (id {entry['id']}) has no template", _FETCH)
        clips.append((str(entry["id"]), plain_name(entry["template"])))
    return clips


def _test_clips(path: Path, answers: Path | None) -> list[tuple[str, str]]:
    beside = path.with_name(ANSWERS)
    entries = _entries(path)
    if answers is None and not beside.is_file():
        if all("template" in entry for entry in entries):
            return read_clips(path)
        raise FileNotFoundError(
            f"{path} has no labels, and there is no {beside}: name a file of lines id;class with answers, "
            "or use split='validation'"
        )
    source = answers or beside
    known = _answers(source)
    missing = [str(entry["id"]) for entry in entries if str(entry["id"]) not in known]
    if missing:
        raise UnusableFile(
            source,
            f"it has no answer for {len(missing)} of {len(entries)} clips of {path.name}, such as {missing[0]}",
            "give the answers of this test set",
        )
    return [(str(entry["id"]), known[str(entry["id"])]) for entry in entries]


def _answers(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file: give a file of lines id;class")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UnusableFile(path, "not a text file in UTF-8", "give a file of lines id;class") from error
    known = {}
    for number, line in enumerate(lines):
        if line.strip():
            clip, separator, name = line.partition(";")
            if not separator:
                raise UnusableFile(path, f"line {number + 1} is not id;class: {line!r}", _FETCH)
            known[clip.strip()] = plain_name(name)
    return known


def _entries(path: Path) -> list[dict[str, Any]]:
    content = _read_json(path)
    if not isinstance(content, list) or not content:
        raise UnusableFile(path, 'expected a list like [{"id": "1", ...}, ...]', _FETCH)
    for number, entry in enumerate(content):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str | int):
            raise UnusableFile(path, f"entry {number + 1} has no id", _FETCH)
    return content


def _read_json(path: Path) -> Any:
    try:
        return gate.read_json(path)
    except ValueError as error:
        raise UnusableFile(path, gate.problem_of(path, error), _FETCH) from error


def _label_file(folder: Path, name: str) -> Path:
    places = [folder / inside / f"{prefix}{name}.json" for inside in _LABEL_FOLDERS for prefix in _PREFIXES]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"{folder} has no {name}.json, neither in it nor in {folder / 'labels'}: give the folder of "
        "Something-Something V2; folders of videos by class are data of another form"
    )


def _check_known(pairs: Sequence[tuple[str, str]], known: Sequence[str], source: Path, labels_file: Path) -> None:
    names = {*known}
    unknown = sorted({name for _, name in pairs} - names)
    if unknown:
        shown = ", ".join(map(repr, unknown[:SHOWN])) + (" ..." if len(unknown) > SHOWN else "")
        raise UnusableFile(
            source,
            f"{len(unknown)} of its classes are not in {labels_file.name}: {shown}",
            f"give the {labels_file.name} that belongs to it",
        )


def _video_folder(folder: Path, videos: Path | str | None, clip: str) -> Path:
    """Where the videos are: the folder named, else the first that holds one at all."""
    if videos is not None:
        place = Path(videos).expanduser()
        if not place.is_dir():
            raise FileNotFoundError(f"{place} is no folder: give the one with the videos, such as {clip}{_ENDING}")
        return place
    for inside in _VIDEO_FOLDERS:
        place = folder / inside
        if place.is_dir() and (next(place.glob(f"*{_ENDING}"), None) or _video_of(place, clip).exists()):
            return place
    raise FileNotFoundError(
        f"{folder} holds no {_ENDING} files, neither in it nor in {_VIDEO_FOLDERS[0]} or {_VIDEO_FOLDERS[1]}: "
        f"name the folder with the videos, such as {clip}{_ENDING}, with videos"
    )


def _video_of(place: Path, clip: str) -> Path:
    """The file of a clip as distributed, or what people made of it: another container, or a folder of frames."""
    file = place / f"{clip}{_ENDING}"
    if file.exists():
        return file
    others = (place / f"{clip}{ending}" for ending in ("", *sorted(VIDEO_ENDINGS)))
    return next((other for other in others if other.exists()), file)
