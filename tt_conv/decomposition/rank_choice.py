"""From what a user may say about the rank to one rank per level."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable, Sequence

from tt_conv.decomposition.subspace import left_factor_error
from tt_conv.decomposition.train import Target

Rank = int | float | Sequence[int]


def resolve_rank(
    rank: object, order: int, n_parameters: Callable[[tuple[int, ...]], int], dense_parameters: int
) -> tuple[int, ...]:
    """One rank per level.

    Parameters
    ----------
    rank : int, sequence of int, or float
        The rank of every level, of each level, or a parameter budget as a share of the dense kernel's
        parameters: the largest equal ranks that stay within it.
    order : int
        Number of levels.
    n_parameters : callable
        Parameters of a train of given ranks.
    dense_parameters : int
        Entries of the dense kernel.

    Returns
    -------
    tuple of int

    Raises
    ------
    TypeError
        If the rank is none of these.
    ValueError
        If a rank is below 1, the sequence has the wrong length, or rank 1 exceeds the budget.
    """
    if isinstance(rank, bool):
        raise TypeError("rank must be an int, a sequence of ints or a float (a parameter budget), got a bool")
    if isinstance(rank, numbers.Integral):
        chosen = (operator.index(rank),) * order
    elif isinstance(rank, numbers.Real):
        return _within_budget(float(rank), order, n_parameters, dense_parameters)
    elif isinstance(rank, Sequence) and not isinstance(rank, str):
        wrong = [r for r in rank if isinstance(r, bool) or not isinstance(r, numbers.Integral)]
        if wrong:
            raise TypeError(f"rank must hold integers, got {wrong[0]!r} in {rank!r}")
        chosen = tuple(operator.index(r) for r in rank)
    else:
        raise TypeError(f"rank must be an int, a sequence of ints or a float (a parameter budget), got {rank!r}")
    if len(chosen) != order:
        raise ValueError(f"rank must have one entry for each of the {order} levels, got {rank!r}")
    if min(chosen) < 1:
        raise ValueError(f"ranks must be at least 1, got {rank!r}")
    return chosen


def _within_budget(
    budget: float, order: int, n_parameters: Callable[[tuple[int, ...]], int], dense_parameters: int
) -> tuple[int, ...]:
    smallest = n_parameters((1,) * order) / dense_parameters
    if not budget >= smallest:
        raise ValueError(
            f"a parameter budget of {budget:g} of the dense kernel is too small: rank 1 takes {smallest:.3g}"
        )
    if budget == float("inf"):
        raise ValueError("a parameter budget must be finite")
    rank = 1
    while n_parameters((rank + 1,) * order) <= budget * dense_parameters:
        rank += 1
    return (rank,) * order


def is_ruled_out(target: Target, tol: float) -> bool:
    """Whether linear algebra alone shows that a relative error is out of reach for the target's train.

    G_M is a left factor of all frames, and P_m a right factor of a frame that no other level sees.
    """
    train, grid, spectrum = target.train, target.grid, target.spectrum
    allowed = tol**2 * float(spectrum.abs().square().sum())
    together = spectrum.permute(1, 2, 0, 3).flatten(2)
    if left_factor_error(grid, together, train.rank[-1], train.core_sizes[-1]) > allowed:
        return True
    missed = 0.0
    for frame in range(train.steps):
        levels = train.levels_of(frame)
        if len(levels) == 1:
            size = train.projection_sizes[levels[0]]
            missed += left_factor_error(grid, spectrum[frame].mT, train.rank[levels[0]], size)
    return missed > allowed


def smallest_rank(reaches: Callable[[tuple[int, ...]], bool], largest: tuple[int, ...]) -> tuple[int, ...]:
    """The smallest equal ranks for which something holds, then each level's as small as it may be.

    Parameters
    ----------
    reaches : callable
        Whether a rank suffices; taken to hold for all larger ranks if it holds for one.
    largest : tuple of int
        Limit of each level's rank.

    Returns
    -------
    tuple of int
        The limit, if none suffices.
    """

    def capped(rank: int) -> tuple[int, ...]:
        return tuple(min(rank, limit) for limit in largest)

    low, high = 0, 1
    while not reaches(capped(high)):
        if high >= max(largest):
            return largest
        low, high = high, min(2 * high, max(largest))
    chosen = capped(_bisect(lambda rank: reaches(capped(rank)), low, high))
    for level in reversed(range(len(largest))):
        chosen = _with_smallest_level(reaches, chosen, level)
    return chosen


def _with_smallest_level(
    reaches: Callable[[tuple[int, ...]], bool], chosen: tuple[int, ...], level: int
) -> tuple[int, ...]:
    def replaced(rank: int) -> tuple[int, ...]:
        return (*chosen[:level], rank, *chosen[level + 1 :])

    # Most often the ranks are equal already: one look below before a search.
    if chosen[level] == 1 or not reaches(replaced(chosen[level] - 1)):
        return chosen
    return replaced(_bisect(lambda rank: reaches(replaced(rank)), 0, chosen[level] - 1))


def _bisect(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest number above `low` for which something holds that is known to hold for `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
