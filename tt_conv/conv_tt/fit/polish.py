"""From cores near a minimum to all factors at the minimum, by whichever method fits the size."""

from __future__ import annotations

import torch
from torch import Tensor

from tt_conv.conv_tt.fit.levenberg_marquardt import descend, orthonormalise
from tt_conv.conv_tt.fit.matrix_free import ApplyMoment, Factors, refine
from tt_conv.conv_tt.fit.starts import batch_size
from tt_conv.conv_tt.fit.train import Target

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
        return Factors(cores, best_projections(target, cores)), descent.history
    cores = [core[0] for core in orthonormalise([core[None] for core in cores])]
    start = Factors(cores, best_projections(target, cores))
    return refine(target, start, apply_moment=apply_moment, iterations=iterations)


def best_projections(target: Target, cores: list[Tensor]) -> list[Tensor]:
    """Projections [frames of the window, taps, R_m, I] that fit best, given cores [taps, R_{m+1}, R_m]."""
    train = target.train
    problem = target.whole()
    found: dict[tuple[int, int], Tensor] = {}
    for group, state in zip(problem.frames, problem.fit([core[None] for core in cores]).frames, strict=True):
        for projection, (level, _) in zip(state.projections, group.terms, strict=True):
            for frame, part in zip(group.numbers, projection[0].split(train.inputs, -1), strict=True):
                found[level, frame] = part
    return [torch.stack([found[level, frame] for frame in frames]) for level, frames in enumerate(train.windows)]
