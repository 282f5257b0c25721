"""Which ranks reach a relative error: what linear algebra rules out, and the smallest that is left."""

from __future__ import annotations

from collections.abc import Callable

from tt_conv.conv_tt.fit.subspace import left_factor_error
from tt_conv.conv_tt.fit.train import Target
from tt_conv.kernels.search import smallest_that


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

    equal = smallest_that(lambda rank: reaches(capped(rank)), max(largest))
    if equal is None:
        return largest
    chosen = capped(equal)
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
    return replaced(smallest_that(lambda rank: reaches(replaced(rank)), chosen[level] - 1) or chosen[level] - 1)
