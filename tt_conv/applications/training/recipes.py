"""Named recipes: YAML files for ``tt-conv train --config NAME``, in the folder ``recipes`` of every task."""

from collections.abc import Sequence
from pathlib import Path

_APPLICATIONS = Path(__file__).parents[1]


def recipe_names(task: str = "*") -> list[str]:
    """The names, sorted: of one task, or of all."""
    return sorted(path.stem for path in _APPLICATIONS.glob(f"{task}/recipes/*.yaml"))


def recipe_file(name: str) -> Path:
    """The file of a recipe.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    for path in _APPLICATIONS.glob("*/recipes/*.yaml"):
        if path.stem == name:
            return path
    raise ValueError(f"there is no file and no recipe {name!r}; the recipes are {', '.join(recipe_names())}")


def with_recipe_files(arguments: Sequence[str]) -> list[str]:
    """The same command line, with the file in the place of every name of a recipe after ``--config``.

    Examples
    --------
    >>> with_recipe_files(["--config", "kth_conv_lstm_modern", "--out", "x"])[1].rpartition("/")[2]
    'kth_conv_lstm_modern.yaml'
    """
    resolved = list(arguments)
    for place, word in enumerate(arguments):
        name = word.removeprefix("--config=") if word.startswith("--config=") else word
        follows = place > 0 and arguments[place - 1] == "--config"
        if (follows or name != word) and not Path(name).exists():
            resolved[place] = word.removesuffix(name) + str(recipe_file(name))
    return resolved
