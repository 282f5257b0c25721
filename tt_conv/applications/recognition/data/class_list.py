"""Names of classes: as templates with brackets or without, and lists of them in text files."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from tt_conv.applications.data.errors import SHOWN, UnusableFile

# A mirrored clip of a class that speaks of these shows another one.
_SIDED = re.compile("(left|right)(hand|handed|most|side|ward|wards)?|(counter|anti)?clockwise")


def plain_name(name: str) -> str:
    """A class without brackets and needless spaces: ``"Holding [something]"`` is ``"Holding something"``.

    Examples
    --------
    >>> plain_name("Pushing [something] from left  to right ")
    'Pushing something from left to right'
    """
    return " ".join(name.replace("[", "").replace("]", "").split())


def speaks_of_sides(name: str) -> bool:
    """Whether mirroring left and right may make another class of this one.

    Examples
    --------
    >>> [speaks_of_sides(name) for name in ("Pulling something from right to left", "SwipeLeft", "Eating leftovers")]
    [True, True, False]
    """
    words = re.findall("[a-z]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return any(_SIDED.fullmatch(word) for word in words)


def read_class_list(path: Path | str) -> list[str]:
    """Names of classes from a text file: one a line; empty lines, and what follows ``#``, are passed over.

    Parameters
    ----------
    path : path

    Returns
    -------
    list of str
        Without brackets.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    UnusableFile (a ValueError)
        If it names no class, or one twice, or is no text.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "classes.txt")
    ...     _ = file.write_text("Holding [something]\\n# a comment\\nTurning [something]\\n")
    ...     read_class_list(file)
    ['Holding something', 'Turning something']
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file: give a text file with the name of one class on each line")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UnusableFile(path, "not a text file in UTF-8", "give the name of one class on each line") from error
    names = [name for line in lines if (name := plain_name(line.partition("#")[0]))]
    if not names:
        raise UnusableFile(path, "it names no class", "give the name of one class on each line")
    return names


def chosen_classes(asked: Sequence[str], known: Sequence[str], source: object) -> list[str]:
    """The known classes that were asked for, in the order asked for.

    Parameters
    ----------
    asked : sequence of str
        With brackets or without; capitals don't matter.
    known : sequence of str
        All classes, without brackets.
    source : object
        What names the known ones, for messages.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If one is unknown (with those that are most like it), is named twice, or none is named.

    Examples
    --------
    >>> chosen_classes(["holding [something]"], ["Folding something", "Holding something"], "labels.json")
    ['Holding something']
    """
    if not asked:
        raise ValueError("classes is empty: name at least one class, or leave it out for all")
    by_name = {name.casefold(): name for name in known}
    keys = [plain_name(name).casefold() for name in asked]
    unknown = [name for name, key in zip(asked, keys, strict=True) if key not in by_name]
    if unknown:
        raise ValueError(
            f"{source} has no class "
            + "; ".join(_with_near(name, by_name) for name in unknown[:SHOWN])
            + (f"; and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else "")
            + ": name the classes as there, with brackets or without"
        )
    twice = sorted({by_name[key] for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"classes are named twice: {', '.join(map(repr, twice))}: name each once")
    return [by_name[key] for key in keys]


def _with_near(name: str, by_name: dict[str, str]) -> str:
    near = difflib.get_close_matches(plain_name(name).casefold(), by_name, n=3, cutoff=0.5)
    return repr(plain_name(name)) + (f" (near: {', '.join(repr(by_name[key]) for key in near)})" if near else "")
