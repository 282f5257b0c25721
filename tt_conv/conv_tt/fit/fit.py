"""From a dense kernel in float64 to the factors of one train: search, expand, refine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tt_conv.conv_tt.fit.matrix_free import ApplyMoment, Factors, balance, refine_factors, train_error
from tt_conv.conv_tt.fit.search import SearchResult, by_algebra, by_search, polish
from tt_conv.conv_tt.fit.sketch import expand, sketch
from tt_conv.conv_tt.fit.train import Target, Train

CANCELLING = 4.0
"""Mean square of the factors' norms beyond which they are taken to cancel each other, in the units of `_is_large`.

Fits of random and planted kernels of orders 1 to 3 that don't cancel end at 1 to 3, those that do at 20 to 1000.
"""

PENALTIES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
DEARER = 1.005
"""The share by which a penalty may raise the relative error."""


@dataclass(frozen=True)
class FitSettings:
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


class PoorFitWarning(UserWarning):
    """`conv_tt` ended with a large error, or did not reach the one that was asked for.

    The kernel may have no such structure (a randomly initialized one has none), or the rank is too low.

    Examples
    --------
    A kernel of random numbers has no low-rank structure:

    >>> import warnings, torch
    >>> from tt_conv import conv_tt
    >>> from tt_conv.conv_tt.fit import PoorFitWarning
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     tensor = conv_tt(torch.randn(6, 6, 2, 5), rank=1, order=2, kernel_size=3)
    >>> any(issubclass(warning.category, PoorFitWarning) for warning in caught)
    True
    """


def fit_train(
    train: Train, kernel: Tensor, settings: FitSettings, apply_moment: ApplyMoment | None = None
) -> tuple[Factors, list[float]]:
    """Find the factors of a train for a dense kernel.

    Parameters
    ----------
    train : Train
    kernel : Tensor [O, I, N, *K]
        In float64, its support that of the train.
    settings : FitSettings
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
        found = by_search(narrow.target, generator, settings.restarts, found if same else SearchResult([], []))
        candidates.append(expand(target, kernel, found.cores, narrow.outputs))
    problem = target.whole()
    best = min(candidates, key=lambda cores: float(problem.fit([core[None] for core in cores]).squared_error))
    factors, errors = polish(target, best, iterations=settings.iterations, apply_moment=apply_moment)
    return _without_cancelling(target, balance(factors), errors, settings.iterations, apply_moment)


def _without_cancelling(
    target: Target, factors: Factors, errors: list[float], iterations: int, apply_moment: ApplyMoment | None
) -> tuple[Factors, list[float]]:
    r"""Lead factors that cancel each other to smaller ones with about the same error, or a lower one.

    Trains of a rank are no closed set: the best of them may be approached only by factors that grow without limit and
    cancel each other, of little use to a training that goes on from them. So

    .. math::

        \|T - W\|^2 / \|W\|^2 + \lambda \sum_f \|f\|_F^2

    is made small over the factors f, for the largest :math:`\lambda` that hardly raises the error.

    References
    ----------
    V. de Silva, L.-H. Lim, "Tensor rank and the ill-posedness of the best low-rank approximation problem", SIAM J.
    Matrix Anal. Appl. 30 (2008). A. Phan et al., "Stable low-rank tensor decomposition for compression of
    convolutional neural network", ECCV 2020.
    """
    if not _is_large(target, factors):
        return factors, errors
    smaller = factors
    for penalty in PENALTIES:
        smaller, _ = refine_factors(target, smaller, apply_moment=apply_moment, iterations=iterations, penalty=penalty)
        error = train_error(target, smaller, apply_moment)
        if error <= DEARER * errors[-1]:
            return smaller, [max(e, error) for e in errors[:-1]] + [error]
    return factors, errors


def _is_large(target: Target, factors: Factors) -> bool:
    """Whether balanced factors are far larger than the kernel calls for.

    Factors of a kernel of norm 1 that don't cancel are, as a core with R orthonormal columns has the squared norm R
    and the projections then about 1, of the mean square R^(M / (M + 1)).
    """
    order, rank = target.train.order, max(target.train.rank)
    norm = float(torch.linalg.vector_norm(target.spectrum))
    usual = rank ** (order / (order + 1)) * norm ** (2 / (order + 1))
    return factors.dot(factors) / len(factors.all()) > CANCELLING * usual
