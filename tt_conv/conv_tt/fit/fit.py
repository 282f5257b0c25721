"""From a dense kernel in float64 to the factors of one train: search, expand, refine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tt_conv.conv_tt.fit.matrix_free import ApplyMoment, Factors
from tt_conv.conv_tt.fit.polish import polish
from tt_conv.conv_tt.fit.search import Found, by_algebra, by_search
from tt_conv.conv_tt.fit.sketch import expand, sketch
from tt_conv.conv_tt.fit.train import Target, Train


@dataclass(frozen=True)
class Settings:
    """What the search and the refinement may spend.

    Attributes
    ----------
    seed : int
        Of the random starts.
    restarts : int
        Rounds of the search.
    iterations : int
        Limit of the refinement.
    """

    seed: int
    restarts: int
    iterations: int


def fit_train(
    train: Train, kernel: Tensor, settings: Settings, apply_moment: ApplyMoment | None = None
) -> tuple[Factors, list[float]]:
    """Find the factors of a train for a dense kernel.

    Parameters
    ----------
    train : Train
    kernel : Tensor [O, I, N, *K]
        In float64, its support that of the train.
    settings : Settings
    apply_moment : callable, optional
        Second moment of the input, for the refinement.

    Returns
    -------
    Factors, list of float
        And the relative errors of the refinement, never increasing.
    """
    # Linear algebra gains by more channels, a search by fewer.
    wide, narrow = sketch(train, kernel, 4), sketch(train, kernel, 2)
    target = Target(train, kernel)
    found, settled = by_algebra(wide.target)
    candidates = [expand(target, kernel, found.cores, wide.outputs)] if found.cores else []
    if not settled:
        same = wide.target.spectrum.shape == narrow.target.spectrum.shape
        generator = torch.Generator().manual_seed(settings.seed)
        found = by_search(narrow.target, generator, settings.restarts, found if same else Found([], []))
        candidates.append(expand(target, kernel, found.cores, narrow.outputs))
    problem = target.whole()
    best = min(candidates, key=lambda cores: float(problem.fit([core[None] for core in cores]).squared_error))
    return polish(target, best, iterations=settings.iterations, apply_moment=apply_moment)
