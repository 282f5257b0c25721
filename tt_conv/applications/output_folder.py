"""A folder for results in which nothing is ever overwritten or left half-written."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType


class OutputFolder:
    """Claims a folder at once, before any work is spent, and takes its files one by one, each one whole.

    Parameters
    ----------
    path : path
        The folder; it must not exist yet, or be empty. Missing parents are made.

    Raises
    ------
    FileExistsError
        On entry, if the folder holds something already, or a file has its name.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place, OutputFolder(Path(place, "results")) as folder:
    ...     with folder.new_file("table.txt") as file:
    ...         _ = file.write_text("1 2 3")
    ...     [written.name for written in folder.path.iterdir()]
    ['table.txt']
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @classmethod
    def with_free_name(cls, path: Path | str) -> "OutputFolder":
        """The folder of that name, or of the first of ``path-2``, ``path-3``, ... that is free."""
        path = Path(path)
        names = (path if number == 1 else path.with_name(f"{path.name}-{number}") for number in count(1))
        return cls(next(name for name in names if not name.exists()))

    def __enter__(self) -> "OutputFolder":
        remedy = "choose another folder with --out, or move this one away"
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{str(self.path)!r} is a file, expected a folder to write to: {remedy}")
        self.path.mkdir(parents=True, exist_ok=True)
        if any(self.path.iterdir()):
            raise FileExistsError(f"the output folder {str(self.path)!r} exists and is not empty: {remedy}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not any(self.path.iterdir()):
            self.path.rmdir()

    @contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """Give a temporary path to write to; it takes its name once it has been written without an error."""
        partial = self.path / f".partial-{name}"
        try:
            yield partial
            partial.replace(self.path / name)
        finally:
            partial.unlink(missing_ok=True)
