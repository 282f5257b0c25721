"""Two stacked kernels in the place of a wider one, fitted so that they don't cancel each other."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tt_conv.kernels.chain import stacked_kernel
from tt_conv.kernels.metric import Metric, along_modes, roots

_PENALTIES = (1e-3, 1e-4, 1e-5, 1e-6)
_FEWEST, _MOST = 25, 200  # iterations with each of these weights
_POLISHING = 300  # iterations without a penalty
_MOST_PRODUCTS = 1 << 30  # multiply-adds of one evaluation
_WORK = 1 << 33  # multiply-adds with one weight, as far as the number of iterations may be chosen
_START = 0  # seed


def largest_stable_rank(kernel: Tensor, kernel_size: Sequence[int]) -> int:
    """Return the largest rank for which :func:`fitted_pair` does not take long."""
    entries, taps = kernel[0].numel(), math.prod(kernel_size)
    # unknowns * entries * (entries + unknowns) is at most the limit
    return int((math.sqrt(entries**2 + 4 * _MOST_PRODUCTS / entries) - entries) / 2) // taps


def fitted_pair(kernel: Tensor, rank: int, kernel_size: Sequence[int], metric: Metric | None) -> tuple[Tensor, Tensor]:
    r"""Fit two kernels of one size, one after the other, to a dense one.

    Without a penalty the best pairs of a rank often are large kernels that cancel each other: of little use to a
    training that goes on from them, and slow to find. So

    .. math::

        \|G * P - W\|^2 / \|W\|^2 + \lambda (\|P\|_F^2 + \|G\|_F^2) / \|W\|_F

    is made small, its first part in the metric, for a :math:`\lambda` that falls until the penalty is a quarter of the
    error. A kernel that nearly has such a pair never gets there: its pair is then refined without a penalty.

    Given P, the best G solves a linear system, so that P alone is searched (variable projection), by L-BFGS. Where
    that system is large, both are searched.

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
        ``[rank, I, *k]`` and ``[O, rank, *k]``.

    References
    ----------
    G. Golub, V. Pereyra, "Separable nonlinear least squares: the variable projection method and its applications",
    Inverse Problems 2003. A. Phan et al., "Stable low-rank tensor decomposition for compression of convolutional
    neural network", ECCV 2020, on the same trouble in CP.
    """
    search = _Search(kernel, rank, kernel_size, metric)
    if search.size <= 0:
        outputs, inputs = kernel.shape[:2]
        return kernel.new_zeros(rank, inputs, *kernel_size), kernel.new_zeros(outputs, rank, *kernel_size)
    for penalty in _PENALTIES:
        search.run(penalty, search.iterations)
        projection, core = search.pair(penalty)
        error, added = (float(part) for part in search.parts(projection, core, penalty))
        if added <= error / 4 and core.isfinite().all():
            return projection, core
    search.run(0.0, _POLISHING)
    refined = search.pair(0.0)
    better = float(search.parts(*refined, 0.0)[0]) <= error  # not if it is NaN
    return refined if better else (projection, core)


class _Search:
    """The search for one pair."""

    def __init__(self, kernel: Tensor, rank: int, kernel_size: Sequence[int], metric: Metric | None) -> None:
        self.kernel, self.rank, self.kernel_size = kernel, rank, tuple(kernel_size)
        self.weighted = _weighting(metric)
        self.wanted = self.weighted(kernel)
        self.size, self.norm = float(self.wanted.square().sum()), float(kernel.norm())
        unknowns, entries = rank * math.prod(kernel_size), kernel[0].numel()
        self.iterations = min(_MOST, max(_FEWEST, _WORK // (unknowns * entries * (entries + unknowns))))
        self.every = torch.eye(unknowns).to(kernel).view(unknowns, rank, *self.kernel_size)
        generator = torch.Generator().manual_seed(_START)
        scale = math.sqrt(self.norm * math.sqrt(rank))

        def start(*channels: int) -> Tensor:
            drawn = torch.randn(*channels, *self.kernel_size, generator=generator, dtype=torch.float64).to(kernel)
            return (drawn * (scale / drawn.norm())).requires_grad_()

        self.searched = [start(rank, kernel.shape[1])]
        if rank > largest_stable_rank(kernel, kernel_size):
            self.iterations = _MOST
            self.searched.append(start(len(kernel), rank))

    def pair(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Return the projection and the core, which is the best one for it unless it is searched as well."""
        projection, *core = (value.detach() for value in self.searched)
        return projection, core[0] if core else self._best_core(projection, penalty)

    def _best_core(self, projection: Tensor, penalty: float) -> Tensor:
        # What each single entry of a core makes of the projection.
        basis = self.weighted(stacked_kernel(projection, self.every))
        if penalty:
            system = basis @ basis.mT / self.size + penalty / self.norm * torch.eye(len(basis)).to(basis)
            found = torch.linalg.solve(system, basis @ self.wanted.mT / self.size)
        else:
            found = torch.linalg.lstsq(basis.mT, self.wanted.mT).solution  # the normal equations would lose digits
        return found.mT.reshape(len(self.kernel), self.rank, *self.kernel_size)

    def parts(self, projection: Tensor, core: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        """Return the relative squared error and the penalty."""
        error = (self.weighted(stacked_kernel(projection, core)) - self.wanted).square().sum() / self.size
        return error, penalty / self.norm * (projection.square().sum() + core.square().sum())

    def run(self, penalty: float, iterations: int) -> None:
        """Search on with a penalty; without one, as far as rounding allows."""
        optimizer = torch.optim.LBFGS(
            self.searched,
            max_iter=iterations,
            history_size=10 if penalty else 30,
            tolerance_grad=1e-7 if penalty else 0.0,
            tolerance_change=1e-9 if penalty else 0.0,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            with torch.no_grad():
                # The gradient by the best core is zero.
                core = self.searched[1] if len(self.searched) > 1 else self._best_core(self.searched[0], penalty)
            with torch.enable_grad():
                value = torch.stack(self.parts(self.searched[0], core, penalty)).sum()
                value.backward()
            return value

        optimizer.step(loss)


def _weighting(metric: Metric | None) -> Callable[[Tensor], Tensor]:
    """Return what makes a matrix of kernels whose plain squares are those in the metric."""
    if metric is None:
        return lambda kernel: kernel.flatten(1)
    if metric.patches is not None:
        root = roots(metric.patches)[0]
        return lambda kernel: kernel.flatten(1) @ root
    along = [roots(moment)[0] for moment in (metric.channels, *metric.axes)]
    return lambda kernel: along_modes(kernel, along).flatten(1)
