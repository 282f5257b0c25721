"""Cores to start from: level by level, so that each search is for one core.

Descents over all cores from random starts end in local minima. Two things make the problem smaller:

- the newest frames show the last levels alone (`from_the_newest`): with a sliding window, frame N passes
  through P_M and G_M only, frame N - 1 through one more core, and so on;
- the last core is a left factor of every frame's kernel (`from_the_top`), whatever the earlier levels do, so
  it can be fitted with all of them replaced by one free kernel; then the core before it, and so on. This is
  the subspace identification of blind multichannel deconvolution (Moulines et al. 1995) as a fit.

Each core starts from several random ones while the later cores are kept, then all are refined together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tt_conv.conv_tt.fit.levenberg_marquardt import Descent, descend
from tt_conv.conv_tt.fit.subspace import core_guess
from tt_conv.conv_tt.fit.train import Target
from tt_conv.conv_tt.fit.variable_projection import VariableProjection

SOLVED = 1e-7
"""A relative error that no local minimum reaches by chance."""

# Entries of the largest table of a descent: 0.5 GB of float64.
MEMORY = 60_000_000


@dataclass(frozen=True)
class Effort:
    """How hard to search.

    Attributes
    ----------
    rounds : int
        How often a core is searched for, each time with a batch of random starts.
    iterations : int
        Limit of each descent.
    """

    rounds: int
    iterations: int = 80


def from_the_newest(target: Target, generator: torch.Generator, effort: Effort) -> list[Tensor]:
    """Cores [taps, R_{m+1}, R_m], found frame by frame, the newest first (sliding windows only)."""
    train = target.train

    def stage(level: int) -> tuple[VariableProjection, VariableProjection]:
        known = [j for j in range(train.steps) if min(train.levels_of(j)) >= level]
        new = [j for j in known if level in train.levels_of(j)]
        return target.levels_from(level, new), target.levels_from(level, known)

    return _level_by_level(target, generator, effort, stage)


def from_the_top(target: Target, generator: torch.Generator, effort: Effort) -> list[Tensor]:
    """Cores [taps, R_{m+1}, R_m], found from all frames with the earlier levels relaxed."""

    def stage(level: int) -> tuple[VariableProjection, VariableProjection]:
        problem = target.relaxed(level)
        return problem, problem

    return _level_by_level(target, generator, effort, stage)


def at_random(target: Target, generator: torch.Generator, effort: Effort) -> list[Tensor]:
    """Cores [taps, R_{m+1}, R_m]: the best of several random starts, all cores at once."""
    train = target.train
    device = target.spectrum.device
    problem = target.levels_from(0, list(range(train.steps)))
    unknowns = sum(train.core_entries(m) for m in range(train.order))
    batch = max(1, batch_size(problem, train.rank, unknowns))
    best: Descent | None = None
    for _ in range(effort.rounds):
        cores = [train.random_core(m, batch, generator, device) for m in range(train.order)]
        best = _better(best, descend(problem, cores, iterations=effort.iterations, target=SOLVED / 100))
        if float(best.error.min()) < SOLVED:
            break
    return [core[0] for core in best.best()] if best else []


def unsearched(target: Target, generator: torch.Generator, effort: Effort) -> list[Tensor]:
    """Random cores [taps, R_{m+1}, R_m] as they are, for trains too large to search."""
    train = target.train
    return [train.random_core(m, 1, generator, target.spectrum.device)[0] for m in range(train.order)]


def batch_size(problem: VariableProjection, rank: tuple[int, ...], unknowns: int) -> int:
    """How many starts to treat at once: many small ones, whose time is overhead; 0 if none fits."""
    table = max(f.entries(rank) * f.target.shape[-1] for f in problem.frames) * unknowns
    wanted = 16 if unknowns <= 60 else 8 if unknowns <= 150 else 4 if unknowns <= 400 else 2
    return min(wanted, MEMORY // table)


def _level_by_level(
    target: Target,
    generator: torch.Generator,
    effort: Effort,
    stage: Callable[[int], tuple[VariableProjection, VariableProjection]],
) -> list[Tensor]:
    train = target.train
    cores: list[Tensor] = []
    for level in reversed(range(train.order)):
        alone, together = stage(level)
        batch = max(1, batch_size(alone, train.rank[level:], train.core_entries(level)))
        best: Descent | None = None
        guess = core_guess(target, level, cores)
        for number in range(effort.rounds):
            new = train.random_core(level, batch, generator, target.spectrum.device)
            if guess is not None and number == 0:
                new[0] = guess
            start = [new, *(core.expand(batch, -1, -1, -1) for core in cores)]
            descent = descend(alone, start, free=[0], iterations=effort.iterations, target=SOLVED / 100)
            if cores:
                descent = _refine(together, descent, effort)
            best = _better(best, descent)
            if float(best.error.min()) < SOLVED:
                break
        cores = best.best() if best else []
    return [core[0] for core in cores]


def _refine(problem: VariableProjection, descent: Descent, effort: Effort) -> Descent:
    """All cores together, from the better half of the batch, or from its best if that is as good as exact."""
    keep = 1 if float(descent.error.min()) < SOLVED else math.ceil(len(descent.error) / 2)
    chosen = descent.error.argsort()[:keep]
    start = [core[chosen] for core in descent.cores]
    return descend(problem, start, iterations=effort.iterations, target=SOLVED / 100)


def _better(one: Descent | None, other: Descent) -> Descent:
    if one is None or float(other.error.min()) < float(one.error.min()):
        return other
    return one
