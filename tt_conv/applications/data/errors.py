"""Files that cannot be used: what is wrong with them, and whether they are refused or left out."""

from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

Broken = Literal["refuse", "skip"]
T = TypeVar("T")
REPLACE = "replace it, or leave it out with broken=skip"
EMPTY_SECTOR = bytes(512)  # stands in a file where a download stopped or a disk lost a part
SHOWN = 5  # files named in a message


class UnusableFile(ValueError):
    """A file that cannot be used: its name, what is wrong with it, and what to do about it."""

    def __init__(self, name: object, problem: str, remedy: str) -> None:
        super().__init__(f"{name}: {problem}: {remedy}")
        self.name = str(name)
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple:
        return type(self), (self.name, self.problem, self.remedy)


def check_broken(broken: str) -> None:
    """Refuse what is no way to deal with broken files."""
    if broken not in get_args(Broken):
        raise ValueError(f"broken must be 'refuse' or 'skip', got {broken!r}")


def without_broken(
    results: Sequence[T | UnusableFile],
    broken: Broken,
    notes: list[str],
    *,
    what: str = "files",
    remedies: tuple[str, str] = ("mend or remove them, or leave them out with broken=skip", "nothing is left"),
    folder: str = "",
) -> list[T]:
    """The results of opening files without the errors, which are refused, all at once, or noted.

    Parameters
    ----------
    results : sequence
        For each file what opening it gave, or why it cannot be used.
    broken : {"refuse", "skip"}
        Whether an error is raised, or files are left out; if none would remain, an error is raised all the same.
    notes : list of str
        Gets a line for each file that is left out.
    what : str
        What the files are, for messages.
    remedies : (str, str)
        What to do if some files can be used, and if none can.
    folder : str
        Left out of the names in notes.
    """
    errors = [result for result in results if isinstance(result, UnusableFile)]
    usable = [result for result in results if not isinstance(result, UnusableFile)]
    if errors and (broken == "refuse" or not usable):
        if len(errors) == 1 and broken == "refuse":
            raise errors[0]
        named = "; ".join(f"{error.name}: {error.problem}" for error in errors[:SHOWN])
        raise ValueError(
            f"{len(errors)} of {len(results)} {what} cannot be used: {named}"
            f"{' ...' if len(errors) > SHOWN else ''}; {remedies[0] if usable else remedies[1]}"
        )
    if errors:
        notes.append(f"left out {len(errors)} of {len(results)} {what} that cannot be used")
    notes += [f"left out {error.name.removeprefix(folder)}: {error.problem}" for error in errors]
    return usable
