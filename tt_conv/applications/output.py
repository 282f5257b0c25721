"""A folder for results in which nothing is ever overwritten or left half-written; results as JSON."""

import json
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any


class OutputFolder:
    """Claims a folder at once, before any work is spent, and takes its files one by one, each one whole.

    Parameters
    ----------
    path : path
        The folder; it must not exist yet, or be empty. Missing parents are made.
    all_or_nothing : bool
        Take the files away again if an error ends the work: for results that mean nothing without the others.

    Raises
    ------
    ValueError
        If the path is empty.
    FileExistsError
        On entry, if the folder holds something already, or a file has its name.
    OSError
        On entry, if the folder cannot be made or written to.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place, OutputFolder(Path(place, "results")) as folder:
    ...     with folder.new_file("table.txt") as file:
    ...         _ = file.write_text("1 2 3")
    ...     [written.name for written in folder.path.iterdir()]
    ['table.txt']
    """

    def __init__(self, path: Path | str, *, all_or_nothing: bool = False) -> None:
        if path == "":
            raise ValueError("out is empty: give the name of a folder")
        self.path = Path(path)
        self._is_new = False
        self._all_or_nothing = all_or_nothing
        self._written: list[Path] = []

    @classmethod
    def with_free_name(cls, path: Path | str, *, all_or_nothing: bool = False) -> "OutputFolder":
        """The folder of that name, or of the first of ``path-2``, ``path-3``, ... that is free."""
        path = Path(path)
        names = (path if number == 1 else path.with_name(f"{path.name}-{number}") for number in count(1))
        return cls(next(name for name in names if not name.exists()), all_or_nothing=all_or_nothing)

    def __enter__(self) -> "OutputFolder":
        remedy = "choose another folder with --out, or move this one away"
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{str(self.path)!r} is a file, expected a folder to write to: {remedy}")
        self._is_new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if any(self.path.iterdir()):
                raise FileExistsError(f"the output folder {str(self.path)!r} exists and is not empty: {remedy}")
            self._probe()
        except FileExistsError:
            raise
        except OSError as error:
            self._remove_if_new_and_empty()
            reason = error.strerror or str(error)
            raise type(error)(f"cannot write to the output folder {str(self.path)!r} ({reason}): {remedy}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for path in self._written if self._all_or_nothing else []:
                path.unlink(missing_ok=True)
            self._remove_if_new_and_empty()

    def _probe(self) -> None:
        """Write a file, because neither permissions nor free space tell for certain whether that works."""
        with self.new_file("probe") as file:
            file.write_text("probe")
        (self.path / "probe").unlink()

    def _remove_if_new_and_empty(self) -> None:
        if self._is_new and self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    @contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """Give a temporary path to write to; it takes its name once it has been written without an error."""
        with replaced_file(self.path / name) as partial:
            yield partial
        self._written.append(self.path / name)


@contextmanager
def replaced_file(path: Path, *, to_disk: bool = False, several_writers: bool = False) -> Iterator[Path]:
    """Give a temporary path beside a file; what is written there takes its place as a whole, or not at all.

    Parameters
    ----------
    path : path
        The file, old or new.
    to_disk : bool
        Bring the content to the disk first, for what must survive a loss of power.
    several_writers : bool
        Other processes and threads may write the same file, so that each needs a name of its own; what one that is
        killed leaves is not written over then.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     with replaced_file(Path(place, "table.txt")) as partial:
    ...         _ = partial.write_text("1 2 3")
    ...     [written.name for written in Path(place).iterdir()]
    ['table.txt']
    """
    own = f"{os.getpid()}-{threading.get_ident()}-" if several_writers else ""
    partial = path.with_name(f".partial-{own}{path.name}")
    partial.unlink(missing_ok=True)  # what was left there may be a link, and its target somebody else's file
    try:
        yield partial
        if to_disk:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path | str) -> Iterator[Path]:
    """Give a temporary folder to fill; it takes its name once all of it has been written without an error.

    Parameters
    ----------
    path : path
        The folder; it must not exist yet, or be empty. After an error it is as it was.

    Yields
    ------
    Path
        A name beside it at which nothing is yet.

    Raises
    ------
    ValueError, FileExistsError, OSError
        As :class:`OutputFolder` does.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     with whole_folder(Path(place, "results")) as folder:
    ...         folder.mkdir()
    ...         _ = (folder / "table.txt").write_text("1 2 3")
    ...     [written.name for written in Path(place, "results").iterdir()]
    ['table.txt']
    """
    path = Path(path)
    had = path.exists()
    with OutputFolder(path) as claimed:  # checks the name, and that it can be written to, before any work
        if not had:
            claimed.path.rmdir()
    place = Path(tempfile.mkdtemp(prefix=f".partial-{path.name}-", dir=path.parent))
    try:
        yield place / path.name
        if had:
            path.rmdir()
        (place / path.name).rename(path)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def finite(value: Any) -> Any:
    """The same value with ``None`` for what is infinite or not a number, which JSON cannot say."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(contents: Mapping[str, Any]) -> str:
    """Results as the text of a JSON file."""
    return json.dumps(finite(contents), indent=2, allow_nan=False) + "\n"
