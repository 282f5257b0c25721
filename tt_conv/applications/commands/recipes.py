"""``tt-conv recipes``."""

from tt_conv.applications.training.recipes import recipe_file, recipe_names


def recipes(name: str | None = None) -> None:
    """List the recipes for tt-conv train, or show one of them.

    Args:
        name: Print the YAML of this recipe, to be changed and given to tt-conv train --config.
    """
    if name is not None:
        print(recipe_file(name).read_text(), end="")
        return
    for each in recipe_names():
        print(f"{each:<40} {recipe_file(each).read_text().splitlines()[0].removeprefix('# ')}")
