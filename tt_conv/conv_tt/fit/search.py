"""Which starts are tried, in what order, how each is polished, and when the search ends."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tt_conv.conv_tt.fit.levenberg_marquardt import descend, orthonormalise
from tt_conv.conv_tt.fit.matrix_free import ApplyMoment, Factors, refine_factors
from tt_conv.conv_tt.fit.starts import Effort, at_random, batch_size, from_the_newest, from_the_top, unsearched
from tt_conv.conv_tt.fit.subspace import from_the_divisors, from_the_sides
from tt_conv.conv_tt.fit.train import Target

# An error this small is that of an exact train in rounded numbers: nothing is left to find.
EXACT = 1e-6
# Independent searches, this many, that end this close to each other have found what there is.
AGREEMENT, AGREEING = 1e-4, 3
# Errors of kernels that are no train, not even roughly; there, searches differ little and all end high.
POOR, POOR_AGREEMENT, HOPELESS = 0.1, 0.1, 0.5
# What the noise may have cost a start by linear algebra that is otherwise right.
CONSISTENT = 3.0
# Limit of iterations after each start.
POLISHING = 60
# Entries of a core, and of all cores, up to which a search by dense Gauss-Newton systems is worth its time.
SEARCHED_CORE, SEARCHED_CORES = 1500, 3000

# Unknowns in the cores up to which the Gauss-Newton system is written down.
DENSE_UNKNOWNS = 1500


def polish(
    target: Target, cores: list[Tensor], *, iterations: int, apply_moment: ApplyMoment | None = None
) -> tuple[Factors, list[float]]:
    """Decrease the error of the whole kernel.

    Parameters
    ----------
    target : Target
    cores : list of Tensor [taps, R_{m+1}, R_m]
        The start; its projections are the best ones.
    iterations : int
        Upper limit.
    apply_moment : callable, optional
        Second moment of the input.

    Returns
    -------
    Factors, list of float
        And the relative error at the start and after each iteration, never increasing.
    """
    train = target.train
    problem = target.whole()
    unknowns = sum(train.core_entries(level) for level in range(train.order))
    if apply_moment is None and unknowns <= DENSE_UNKNOWNS and batch_size(problem, train.rank, unknowns):
        descent = descend(problem, [core[None] for core in cores], iterations=iterations, target=1e-13)
        cores = [core[0] for core in descent.cores]
        return Factors(cores, target.best_projections(cores)), descent.history
    cores = [core[0] for core in orthonormalise([core[None] for core in cores])]
    start = Factors(cores, target.best_projections(cores))
    return refine_factors(target, start, apply_moment=apply_moment, iterations=iterations)


@dataclass
class SearchResult:
    """The best of several searches of one problem.

    Attributes
    ----------
    cores : list of Tensor [taps, R_{m+1}, R_m]
        Empty before the first.
    errors : list of float
        What each search ended with.
    """

    cores: list[Tensor]
    errors: list[float]

    def try_from(self, target: Target, start: list[Tensor]) -> list[float]:
        """Polish a start and keep it if it is the best; gives the errors on the way."""
        factors, history = polish(target, start, iterations=POLISHING)
        if not self.errors or history[-1] < min(self.errors):
            self.cores = factors.cores
        self.errors.append(history[-1])
        return history


def by_algebra(target: Target) -> tuple[SearchResult, bool]:
    """Cores by linear algebra, polished, and whether there is no need to search.

    Parameters
    ----------
    target : Target

    Returns
    -------
    SearchResult, bool
    """
    found = SearchResult([], [])
    for algebra in (from_the_sides, from_the_divisors):
        start = algebra(target)
        if start is None:
            continue
        history = found.try_from(target, start)
        if is_settled(found.errors) or (history[-1] < POOR and history[0] < CONSISTENT * history[-1]):
            return found, True
        # Of a train, however noisy, the null spaces would have said more; divisors may mislead.
        if algebra is from_the_sides and history[-1] > POOR:
            return found, True
    return found, False


def by_search(target: Target, generator: torch.Generator, rounds: int, found: SearchResult) -> SearchResult:
    """Go on from what was found by searches with random starts.

    Parameters
    ----------
    target : Target
    generator : torch.Generator
    rounds : int
        How often the list of strategies is gone through, each time with more random starts.
    found : SearchResult
        From the same target.

    Returns
    -------
    SearchResult
    """
    train = target.train
    entries = [train.core_entries(level) for level in range(train.order)]
    strategies = [from_the_top, at_random if sum(entries) <= SEARCHED_CORES else unsearched]
    if train.window == "sliding":
        # The newest frame shows its levels only if it has channels enough.
        strategies.insert(0 if train.rank[-1] <= train.inputs else 1, from_the_newest)
    if max(entries) > SEARCHED_CORE:
        strategies = [unsearched]
    found = SearchResult(list(found.cores), list(found.errors))
    for number in range(rounds):
        for strategy in strategies:
            found.try_from(target, strategy(target, generator, Effort(rounds=2 * (number + 1))))
            if is_settled(found.errors):
                return found
    return found


def is_settled(errors: list[float]) -> bool:
    """Whether the errors that independent searches ended with say that more would not help."""
    ranked = sorted(errors)
    if ranked[0] <= EXACT or ranked[0] > HOPELESS:
        return True
    if ranked[0] > POOR:
        return len(ranked) >= 2 and ranked[1] <= (1 + POOR_AGREEMENT) * ranked[0]
    return len(ranked) >= AGREEING and ranked[AGREEING - 1] <= (1 + AGREEMENT) * ranked[0]
