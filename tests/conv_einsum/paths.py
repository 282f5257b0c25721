"""Every order in which operands can be contracted in pairs, written as opt_einsum writes paths."""

from collections.abc import Iterator
from itertools import combinations
from random import Random

Path = list[tuple[int, ...]]


def pairwise_paths(count: int) -> Iterator[Path]:
    """Yield all sequences of pairs: both operands leave the list, and the result joins its end."""
    if count == 1:
        yield []
    for pair in combinations(range(count), 2) if count > 1 else ():
        for rest in pairwise_paths(count - 1):
            yield [pair, *rest]


def random_path(count: int, random: Random) -> Path:
    """Draw one such sequence, each pair in either order."""
    return [tuple(random.sample(range(left), 2)) for left in range(count, 1, -1)]
