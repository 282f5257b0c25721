"""Named recipes: YAML files for ``tt-conv train --config NAME``."""

from collections.abc import Sequence
from pathlib import Path

_FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """The names, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def recipe_file(name: str) -> Path:
    """The file of a recipe.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    path = _FOLDER / f"{name}.yaml"
    if not path.exists():
        raise ValueError(f"there is no file and no recipe {name!r}; the recipes are {', '.join(recipe_names())}")
    return path


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
