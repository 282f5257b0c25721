"""The order of files by their names: numbers as people write them, in numeric order."""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

_BEFORE = r"(?<![^\s_=(\[;])"  # at the start, or after what separates words
_NUMBER = re.compile(
    rf"(?P<sign>{_BEFORE}[-+−](?=[.,]?\d))?(?P<digits>\d+(?:[.,]\d+)*|[.,]\d+)"
    r"(?P<exponent>(?<=\d)e[-+]?\d{1,3}(?![^\s_)\];]))?",
    re.IGNORECASE,
)
_SEPARATES = "_=([; \t"
_YEAR_LAST = re.compile(r"(?<!\d)(\d{1,2})([-_. ])(\d{1,2})\2(\d{4})(?!\d)")
Key = list[tuple[int, Decimal, str]]


def natural_key(name: str, *, counting: bool = False) -> Key:
    """Sorts ``frame2`` before ``frame10``, ``0.25`` before ``0.5``, ``-3`` before ``1e-3``.

    Dates and versions, of three numbers or more, are sorted number by number, and so are numbers of two parts with
    ``counting`` (1.9 before 1.10).

    Examples
    --------
    >>> sorted(["1.0", "frame10", ".5", "-3", "frame9", "1e-3", "0.25"], key=natural_key)
    ['-3', '1e-3', '0.25', '.5', '1.0', 'frame9', 'frame10']
    """
    key: Key = []
    place, name = 0, name.lower()
    while match := _NUMBER.search(name, place):
        start, stop = match.span()
        exponent = match["exponent"] or ""
        begins = match.start("digits") - len(match["sign"] or "")
        if exponent and (begins and name[begins - 1] not in _SEPARATES):
            exponent, stop = "", match.start("exponent")  # s01e05 is an episode
        if start > place:
            key.append((1, Decimal(0), name[place:start]))
        sign = -1 if match["sign"] in ("-", "−") else 1
        parts = re.split("[.,]", match["digits"])
        if len(parts) == 2 and not (counting and parts[0] and not exponent):
            key.append((0, sign * Decimal(f"{parts[0] or 0}.{parts[1]}{exponent}"), ""))
        else:
            numbers = [Decimal(part + exponent) if len(parts) == 1 else Decimal(part) for part in parts]
            key += [(0, sign * number, "") for number in numbers]
            if exponent and len(parts) > 1:
                stop = match.start("exponent")
        place = stop
    if place < len(name):
        key.append((1, Decimal(0), name[place:]))
    return key


def in_order(paths: Iterable[Path], notes: list[str] | None = None) -> list[Path]:
    """Paths in the order of the numbers in their names; where names can be read in two ways, a note says how.

    Parameters
    ----------
    paths : iterable of Path
    notes : list of str, optional

    Returns
    -------
    list of Path
    """
    files = list(paths)
    names = [[*path.parts[:-1], path.name if path.is_dir() else path.stem] for path in files]
    said = [] if notes is None else notes
    lasts = [parts[-1] for parts in names]
    dated = _dates(lasts, said)
    counting = _counted(dated, said)
    _note_signs(dated, said)
    order = sorted(
        range(len(files)),
        key=lambda number: (
            [natural_key(part) for part in names[number][:-1]],
            natural_key(dated[number], counting=counting),
            files[number].name,
        ),
    )
    return [files[number] for number in order]


def _counted(names: Sequence[str], notes: list[str]) -> bool:
    """Whether 1.10 comes after 1.9, as chapters do, and not before it, as decimal numbers do."""
    fractions = [
        parts[1]
        for name in names
        for match in _NUMBER.finditer(name)
        if len(parts := re.split("[.,]", match["digits"])) == 2 and parts[0] and not match["exponent"]
    ]
    if len({len(part) for part in fractions}) < 2:
        return False  # the two orders are one
    decimal = sorted(names, key=natural_key)
    chapters = sorted(names, key=lambda name: natural_key(name, counting=True))
    if decimal == chapters:
        return False
    shortest = min(map(len, fractions))
    # Nobody writes 1.10 for a tenth beside 1.9; and nobody counts 1.05.
    counting = any(len(part) > shortest and part[-1] == "0" for part in fractions) and not any(
        len(part) > 1 and part[0] == "0" for part in fractions
    )
    first, second = next((a, b) for a, b in zip(decimal, chapters, strict=True) if a != b)
    kind, one, other = ("chapters are counted", second, first) if counting else ("decimal numbers", first, second)
    notes.append(f"names with numbers of two parts are ordered as {kind}: {one} before {other}")
    return counting


def _note_signs(names: Sequence[str], notes: list[str]) -> None:
    """Where every number has a hyphen before it, that may be no minus."""
    signs = [match["sign"] or "" for name in names if (match := _NUMBER.search(name))]
    if len(signs) > 1 and all(sign in ("-", "−") for sign in signs):
        notes.append(f"names such as {names[0]} are read as negative numbers: rename them if the hyphen is no minus")


def _dates(names: Sequence[str], notes: list[str]) -> list[str]:
    """Names in which dates with the year last are written year first."""
    found = [_YEAR_LAST.search(name) for name in names]
    dates = [match for match in found if match]
    if len(dates) < 2 or any(max(int(match[1]), int(match[3])) > 31 for match in dates):
        return list(names)
    month_first = any(int(match[3]) > 12 for match in dates)
    if month_first and any(int(match[1]) > 12 for match in dates):
        return list(names)  # no dates
    sure = month_first or any(int(match[1]) > 12 for match in dates)
    notes.append(
        f"names such as {names[found.index(dates[0])]} are ordered by date, the {'month' if month_first else 'day'} "
        f"first{'' if sure else ' (it may be the month: write the year first if it is)'}"
    )
    written = r"\4\g<2>\1\g<2>\3" if month_first else r"\4\g<2>\3\g<2>\1"
    # A point between two numbers would make decimal numbers of them.
    return [_YEAR_LAST.sub(written, name) for name in names]
