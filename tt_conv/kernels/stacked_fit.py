"""Two stacked kernels in the place of a wider one, fitted so that they don't cancel each other."""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from tt_conv.kernels.chain import stacked_kernel
from tt_conv.kernels.metric import Metric, refitted_core

_PENALTIES = (1e-3, 1e-4, 1e-5, 1e-6)
_FEWEST, _MOST = 25, 200  # iterations with each of these weights
_MOST_PRODUCTS = 1 << 30  # multiply-adds of one evaluation
_WORK = 1 << 33  # multiply-adds with one weight, as far as the number of iterations may be chosen
_SEED = 0


def largest_stable_rank(kernel: Tensor, kernel_size: Sequence[int]) -> int:
    """Return the largest rank for which :func:`stable_pair` does not take long."""
    entries, taps = kernel[0].numel(), math.prod(kernel_size)
    # unknowns * entries * (entries + unknowns) is at most the limit
    return int((math.sqrt(entries**2 + 4 * _MOST_PRODUCTS / entries) - entries) / 2) // taps


def stable_pair(
    kernel: Tensor, rank: int, kernel_size: Sequence[int], metric: Metric | None
) -> tuple[Tensor, Tensor] | None:
    r"""Fit two kernels of one size, one after the other, to a dense one.

    Without a penalty the best pairs of a rank often are large kernels that cancel each other: of little use to a
    training that goes on from them, and slow to find. So

    .. math::

        \|G * P - W\|^2 / \|W\|^2 + \lambda (\|P\|_F^2 + \|G\|_F^2) / \|W\|_F

    is made small, its first part in the metric, for a :math:`\lambda` that falls until the penalty is a quarter of the
    error. Given P, the best G solves a linear system, so that P alone is searched (variable projection), by L-BFGS.

    Parameters
    ----------
    kernel : Tensor
        ``[O, I, *K]`` with K = 2k - 1.
    rank : int
    kernel_size : sequence of int
        k, of both kernels.
    metric : Metric, optional
        What errors cost; without it entries count alike.

    Returns
    -------
    projection, core : Tensor
        ``[rank, I, *k]`` and ``[O, rank, *k]``; None where that is too much work, and where the kernel
        nearly has such a pair, for which a fit without a penalty is better.

    References
    ----------
    G. Golub, V. Pereyra, "Separable nonlinear least squares: the variable projection method and its applications",
    Inverse Problems 2003. A. Phan et al., "Stable low-rank tensor decomposition for compression of convolutional
    neural network", ECCV 2020, on the same trouble in CP.
    """
    matrix = kernel.flatten(1)
    taps = math.prod(kernel_size)
    unknowns, entries = rank * taps, matrix.shape[1]
    weighted = matrix if metric is None else metric.times(matrix)
    size, norm = float((weighted * matrix).sum()), float(kernel.norm())
    if rank > largest_stable_rank(kernel, kernel_size) or size <= 0:
        return None
    iterations = min(_MOST, max(_FEWEST, _WORK // (unknowns * entries * (entries + unknowns))))
    every = torch.eye(unknowns).to(kernel).view(unknowns, rank, *kernel_size)
    one = torch.eye(unknowns).to(kernel)

    def core_of(projection: Tensor, penalty: float) -> Tensor:
        basis = stacked_kernel(projection, every).flatten(1)
        seen = basis if metric is None else metric.times(basis)
        system = seen @ basis.mT / size + penalty / norm * one
        found = torch.linalg.solve(system, seen @ matrix.mT / size)
        return found.mT.reshape(len(kernel), rank, *kernel_size)

    generator = torch.Generator().manual_seed(_SEED)
    start = torch.randn(rank, kernel.shape[1], *kernel_size, generator=generator, dtype=torch.float64).to(kernel)
    projection = (start * (math.sqrt(norm * math.sqrt(rank)) / start.norm())).requires_grad_()

    def parts(projection: Tensor, core: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        off = (stacked_kernel(projection, core) - kernel).flatten(1)
        error = ((off if metric is None else metric.times(off)) * off).sum() / size
        return error, penalty / norm * (projection.square().sum() + core.square().sum())

    for penalty in _PENALTIES:
        optimizer = torch.optim.LBFGS([projection], max_iter=iterations, history_size=10, line_search_fn="strong_wolfe")

        def loss(penalty: float = penalty, optimizer: torch.optim.LBFGS = optimizer) -> Tensor:
            optimizer.zero_grad()
            with torch.no_grad():
                core = core_of(projection, penalty)  # the best one: its own gradient is zero
            with torch.enable_grad():
                value = torch.stack(parts(projection, core, penalty)).sum()
                value.backward()
            return value

        optimizer.step(loss)
        with torch.no_grad():
            core = core_of(projection, penalty)
            error, added = parts(projection, core, penalty)
        if added <= error / 4 and core.isfinite().all():
            return projection.detach(), core
    return None


def plain_pair(kernel: Tensor, rank: int, kernel_size: Sequence[int], metric: Metric | None) -> tuple[Tensor, Tensor]:
    """Fit two kernels as :func:`stable_pair` does, without a penalty and with no more channels than are of use."""
    from tt_conv.conv_tt.fit import PoorFitWarning, conv_tt

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoorFitWarning)  # who calls judges the error
        found = conv_tt(
            kernel.unsqueeze(2),
            rank,
            order=1,
            kernel_size=tuple(kernel_size),
            second_moment=None if metric is None else metric.channels,
            restarts=1,
            n_iter_max=30,
        )
    projection, core = found.projections[0].squeeze(2), found.cores[0]
    return projection, core if metric is None else refitted_core(kernel, projection, core, metric)


def fitted_pair(kernel: Tensor, rank: int, kernel_size: Sequence[int], metric: Metric | None) -> tuple[Tensor, Tensor]:
    """Fit two kernels with a penalty, or without where :func:`stable_pair` gives none."""
    return stable_pair(kernel, rank, kernel_size, metric) or plain_pair(kernel, rank, kernel_size, metric)
