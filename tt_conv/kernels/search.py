"""The smallest rank that is good enough."""

from bisect import bisect_left
from collections.abc import Callable


def smallest_that(holds: Callable[[int], bool], largest: int) -> int | None:
    """Return the smallest int from 1 to ``largest`` for which something holds, or None if it holds for none.

    What holds for a number is taken to hold for all larger ones. The numbers 1, 2, 4, ... are tried before the
    bisection, since a decomposition of a large rank takes longer than all of those of smaller ones.

    Parameters
    ----------
    holds : callable
    largest : int

    Example
    -------
    >>> asked = []
    >>> smallest_that(lambda rank: asked.append(rank) or rank * rank >= 40, 100)
    7
    >>> asked
    [1, 2, 4, 8, 6, 7]
    """
    low = high = 1
    while not holds(high):
        if high >= largest:
            return None
        low, high = high + 1, min(2 * high, largest)
    return low + bisect_left(range(low, high), True, key=holds)
