"""What lies in folders: which files are videos, images and arrays, each real file once."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from tt_conv.applications.data.errors import SHOWN, UnusableFile
from tt_conv.applications.data.names import in_order

VIDEO_ENDINGS = frozenset(
    [
        ".3gp",
        ".avi",
        ".flv",
        ".gif",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
        ".y4m",
    ]
)
IMAGE_ENDINGS = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".webp", ".apng"])
ARRAY_ENDINGS = frozenset((".npy", ".npz"))


_PICTURES = "the pictures of a folder are the frames of one clip: give the folder"


def sources_in(path: Path, notes: list[str] | None = None) -> list[Path]:
    """Videos, arrays, files of several pictures and folders of frames under a path, each real one once, in order.

    Links are followed, but not to folders that are read already or that hold the link; of a file that is there under
    several names one is taken, a name that is no link if there is one.

    Parameters
    ----------
    path : Path
        A file or a folder.
    notes : list of str, optional
        Gets the names of what was left out.

    Raises
    ------
    FileNotFoundError
        If there is no such path.
    UnusableFile
        If it is a file of another kind.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a folder or a file with videos, frames or arrays")
    if path.is_file():
        _check_kind(path)
        return [path]
    said = [] if notes is None else notes
    # Real folders first, so that a link to one of them is what is left out.
    read = {Path(folder).resolve() for folder, _, _ in os.walk(path)}
    found = [*_found(path, path.resolve(), read, said)]
    taken: dict[object, Path] = {}
    for source in sorted(found, key=lambda source: source.is_symlink()):  # stable: in order but for links
        taken.setdefault(identity(source), source)
    twice = [source for source in found if taken[identity(source)] != source]
    if twice:
        named = ", ".join(
            f"{file.relative_to(path)} is {taken[identity(file)].relative_to(path)}" for file in twice[:SHOWN]
        )
        said.append(f"left out {len(twice)} files that are there twice: {named}{' ...' if len(twice) > SHOWN else ''}")
    return [source for source in found if taken[identity(source)] == source]


def identity(source: Path) -> object:
    """What is the same for all names of a file or folder."""
    try:
        state = source.stat()
    except OSError:
        return source  # a link to nothing
    return (state.st_dev, state.st_ino) if state.st_ino else source.resolve()


def without_other_parts(sources: Sequence[Path], split: str, others: dict[str, Path], notes: list[str]) -> list[Path]:
    """The sources of a part; for training without those that are in another part too, which are named.

    Parameters
    ----------
    sources : sequence of Path
    split : str
        Their part.
    others : dict
        The folders of the other parts.
    notes : list of str
    """
    known = {identity(source): part for part, folder in others.items() for source in sources_in(folder)}
    common = [source for source in sources if identity(source) in known]
    if not common:
        return [*sources]
    names = ", ".join(source.name for source in common[:SHOWN]) + (" ..." if len(common) > SHOWN else "")
    parts = " and ".join(sorted({known[identity(source)] for source in common}))
    if split != "train":
        notes.append(f"{len(common)} of the clips are also those of {parts}: {names}")
        return [*sources]
    notes.append(f"left out {len(common)} clips of training that are also for {parts}: {names}")
    kept = [source for source in sources if identity(source) not in known]
    if not kept:
        raise FileNotFoundError(f"all clips for training are also for {parts}: give others for training")
    return kept


def _check_kind(path: Path) -> None:
    kinds = VIDEO_ENDINGS | ARRAY_ENDINGS
    if path.suffix.lower() in IMAGE_ENDINGS:
        if not _has_several(path):
            raise UnusableFile(path, "a single picture is no clip", _PICTURES)
    elif path.suffix.lower() not in kinds:
        raise UnusableFile(
            path, "not known as a video or an array", "expected a name that ends in " + ", ".join(sorted(kinds))
        )


def _found(path: Path, root: Path, read: set[Path], notes: list[str]) -> Iterator[Path]:
    inside = in_order((item for item in path.iterdir() if not is_hidden(item)), notes)
    if any(item.suffix.lower() in IMAGE_ENDINGS and not item.is_dir() and not _has_several(item) for item in inside):
        yield path
    for item in inside:
        if item.is_dir():
            real = item.resolve()
            if item.is_symlink():
                if real in read or root.is_relative_to(real):
                    notes.append(f"left out {item.name}, a link to a folder that is read already: {real}")
                    continue
                read |= {Path(folder).resolve() for folder, _, _ in os.walk(real)}
            yield from _found(item, root, read, notes)
        elif item.suffix.lower() in VIDEO_ENDINGS | ARRAY_ENDINGS or _has_several(item):
            yield item


def frame_files(folder: Path, notes: list[str] | None = None) -> list[Path]:
    """The pictures of a folder that are the frames of a clip, in order; files of several pictures are not."""
    return in_order(
        (
            file
            for file in folder.iterdir()
            if file.suffix.lower() in IMAGE_ENDINGS
            and not is_hidden(file)
            and not file.is_dir()
            and not _has_several(file)
        ),
        notes,
    )


def is_hidden(path: Path) -> bool:
    """Whether a name begins with a point that does not belong to a number (.5.png)."""
    return path.name.startswith(".") and not re.match(r"\.\d", path.name)


def _has_several(path: Path) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    return _holds_several(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1 << 18)
def _holds_several(path: Path, size: int, changed: int) -> bool:
    from tt_conv.applications.data.picture_files import holds_several

    return holds_several(path)
