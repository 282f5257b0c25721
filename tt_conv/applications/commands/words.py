"""Budgets, names and formats as they are typed into a shell."""

from collections.abc import Sequence


def read_budgets(budget: float | None, sweep: str | None) -> list[float]:
    """Return one budget, or those of a sweep.

    Examples
    --------
    >>> read_budgets(None, "0.5, 0.25")
    [0.5, 0.25]
    """
    if (budget is None) == (sweep is None):
        raise ValueError("give one budget, such as --budget 0.25, or several: --sweep 0.5,0.25,0.125")
    if sweep is None:
        return [] if budget is None else [budget]
    try:
        budgets = [float(word) for word in read_names(sweep.strip("[] "))]
    except ValueError as error:
        raise ValueError(f"--sweep takes numbers with commas between, such as 0.5,0.25, got {sweep!r}") from error
    if len(budgets) < 2 or len(set(budgets)) < len(budgets):
        raise ValueError(f"--sweep takes at least two different budgets, got {sweep!r}")
    return budgets


def read_names(text: str) -> list[str]:
    """Return what stands between commas.

    Examples
    --------
    >>> read_names("output, blocks.0.*")
    ['output', 'blocks.0.*']
    """
    return [word.strip() for word in text.split(",") if word.strip()]


def read_force(text: str) -> dict[str, str | tuple[str, int | float | Sequence[int]]]:
    """Return formats, and ranks if given, by name pattern.

    Examples
    --------
    >>> read_force("blocks.*=svd,output=tucker:4:2:3:3,head=tt:0.5")
    {'blocks.*': 'svd', 'output': ('tucker', [4, 2, 3, 3]), 'head': ('tt', 0.5)}
    """
    forced: dict[str, str | tuple[str, int | float | Sequence[int]]] = {}
    for word in read_names(text):
        pattern, separator, wanted = word.partition("=")
        name, *rank = wanted.split(":")
        try:
            numbers = [float(number) if "." in number else int(number) for number in rank]
        except ValueError as error:
            raise ValueError(f"--force {word}: a rank is a number, or several with colons between") from error
        if not separator or not pattern or not name:
            raise ValueError(f"--force takes pattern=format or pattern=format:rank, got {word!r}")
        if len(numbers) < 2:
            forced[pattern] = (name, numbers[0]) if numbers else name
        else:
            forced[pattern] = (name, [int(number) for number in numbers])
    return forced
