"""Which starts are tried, in what order, and when the search ends."""

from __future__ import annotations

import torch
from torch import Tensor

from tt_conv.decomposition.polish import polish
from tt_conv.decomposition.starts import Effort, at_random, from_the_newest, from_the_top
from tt_conv.decomposition.subspace import from_the_sides
from tt_conv.decomposition.train import Target

# An error this small is that of an exact train in rounded numbers: nothing is left to find.
EXACT = 1e-6
# Independent searches, this many, that end this close to each other have found what there is.
AGREEMENT, AGREEING = 1e-4, 3
# Errors of kernels that are no train, not even roughly; there, searches differ little and all end high.
POOR, POOR_AGREEMENT = 0.1, 0.1
# What the noise may have cost a start by linear algebra that is otherwise right.
CONSISTENT = 3.0
# Limit of iterations after each start.
POLISHING = 60


def find_cores(target: Target, generator: torch.Generator, rounds: int) -> list[Tensor]:
    """Search for the cores of a train.

    Parameters
    ----------
    target : Target
    generator : torch.Generator
        Source of the random starts.
    rounds : int
        How often the list of strategies is gone through, each time with more random starts.

    Returns
    -------
    list of Tensor [taps, R_{m+1}, R_m]
    """
    train = target.train
    errors: list[float] = []
    best: list[Tensor] = []
    guess = from_the_sides(target)
    if guess is not None:
        factors, history = polish(target, guess, iterations=POLISHING)
        errors.append(history[-1])
        best = factors.cores
        if is_settled(errors) or (history[-1] < POOR and history[0] < CONSISTENT * history[-1]):
            return best
    strategies = [from_the_top, at_random]
    if train.window == "sliding":
        # The newest frame shows its levels only if it has channels enough.
        strategies.insert(0 if train.rank[-1] <= train.inputs else 1, from_the_newest)
    for number in range(rounds):
        for strategy in strategies:
            start = strategy(target, generator, Effort(rounds=2 * (number + 1)))
            factors, history = polish(target, start, iterations=POLISHING)
            if not errors or history[-1] < min(errors):
                best = factors.cores
            errors.append(history[-1])
            if is_settled(errors):
                return best
    return best


def is_settled(errors: list[float]) -> bool:
    """Whether the errors that independent searches ended with say that more would not help."""
    ranked = sorted(errors)
    if ranked[0] <= EXACT:
        return True
    if ranked[0] > POOR:
        return len(ranked) >= 2 and ranked[1] <= (1 + POOR_AGREEMENT) * ranked[0]
    return len(ranked) >= AGREEING and ranked[AGREEING - 1] <= (1 + AGREEMENT) * ranked[0]
