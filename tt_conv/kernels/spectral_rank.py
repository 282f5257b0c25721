"""Ranks read off a kernel's singular values: for a relative error, or by variational Bayes."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tt_conv.kernels.rank import Rank, TTFormat
from tt_conv.kernels.vbmf import evbmf_rank


def svd_tolerance(kernel: Tensor, tol: float) -> Rank:
    """Return the smallest rank of the channel SVD within a relative error."""
    return _share([torch.linalg.svdvals(kernel.flatten(1)).square()], tol**2 * _energy(kernel))


def tt_tolerance(kernel: Tensor, tol: float) -> Rank:
    """Return a rank whose TT-SVD is within a relative error.

    The squared error of TT-SVD is at most the sum, over the unfoldings, of the squared singular values
    that each drops (Oseledets, "Tensor-train decomposition", SIAM J. Sci. Comput. 33, 2011, theorem 2.2):
    the smallest of all of them are dropped first.
    """
    spectra = [torch.linalg.svdvals(unfolding).square() for unfolding in _train_unfoldings(kernel)]
    return TTFormat(kernel.shape).clip(_share(spectra, tol**2 * _energy(kernel)))


def _energy(kernel: Tensor) -> float:
    return float(kernel.square().sum())


def _train_unfoldings(kernel: Tensor) -> list[Tensor]:
    """Return the matrices that the bonds of a train over (in_channels, *kernel_size, out_channels) cut."""
    train = kernel.movedim(0, -1)
    return [train.reshape(math.prod(train.shape[:bond]), -1) for bond in range(1, train.ndim)]


def _share(spectra: Sequence[Tensor], allowed: float) -> Rank:
    """Return the rank per spectrum after dropping the smallest values of all, up to a sum of ``allowed``."""
    everything = torch.cat(list(spectra))
    owner = torch.cat([torch.full_like(s, n, dtype=torch.long) for n, s in enumerate(spectra)])
    order = everything.argsort(stable=True)
    dropped = owner[order][everything[order].cumsum(0) <= allowed]
    return tuple(max(1, len(s) - int((dropped == n).sum())) for n, s in enumerate(spectra))


def tucker_tolerance(kernel: Tensor, tol: float) -> Rank:
    """Return the rank with the fewest parameters whose truncated HOSVD is within a relative error.

    In the basis of the higher-order SVD every truncation keeps a corner of the core, and its squared error
    is the energy outside that corner, so all truncations are judged from one table of sums.
    """
    core = kernel
    for mode in range(kernel.ndim):
        unfolding = core.movedim(mode, 0).flatten(1)
        basis = torch.linalg.svd(unfolding, full_matrices=False).U
        core = (basis.mT @ unfolding).reshape(-1, *core.movedim(mode, 0).shape[1:]).movedim(0, mode)
    energy = core.square()
    for mode in range(kernel.ndim):
        energy = energy.cumsum(mode)
    enough = (1 - tol**2) * energy.flatten()[-1]
    outputs, inputs = (torch.arange(1, n + 1, device=kernel.device) for n in energy.shape[:2])
    best: tuple[float, Rank] = (math.inf, tuple(energy.shape))
    for spatial in np.ndindex(*energy.shape[2:]):
        sizes = [s + 1 for s in spatial]
        channels = kernel.shape[0] * outputs[:, None] + kernel.shape[1] * inputs
        parameters = channels + outputs[:, None] * inputs * math.prod(sizes)
        parameters = parameters + sum(n * s for n, s in zip(kernel.shape[2:], sizes, strict=True))
        reached = energy[(slice(None), slice(None), *spatial)] >= enough
        reached &= _feasible(outputs[:, None], inputs, sizes)
        count, index = parameters.double().masked_fill(~reached, math.inf).flatten().min(0)
        if float(count) < best[0]:
            out, inner = divmod(int(index), len(inputs))
            best = (float(count), (out + 1, inner + 1, *sizes))
    return best[1]


def _feasible(outputs: Tensor, inputs: Tensor, spatial: Sequence[int]) -> Tensor:
    """Tell where no rank is larger than what the others can feed."""
    product = outputs * inputs * math.prod(spatial)
    feasible = torch.ones_like(product, dtype=torch.bool)
    rank: list[Tensor | int] = [outputs, inputs, *spatial]
    for r in rank:
        feasible &= r * r <= product
    return feasible


def svd_vbmf(kernel: Tensor) -> Rank:
    """Return the EVBMF rank of the channel SVD, at least 1."""
    return (_at_least_one(kernel.flatten(1)),)


def tt_vbmf(kernel: Tensor) -> Rank:
    """Return the EVBMF rank of each unfolding of the train, at least 1."""
    return tuple(_at_least_one(unfolding) for unfolding in _train_unfoldings(kernel))


def tucker_vbmf(kernel: Tensor) -> Rank:
    """Return the EVBMF rank of the two channel unfoldings, at least 1, with the spatial modes left whole.

    Kim et al., "Compression of deep convolutional neural networks for fast and low power mobile
    applications", ICLR 2016, choose the channel ranks so.
    """
    channels = [_at_least_one(kernel.movedim(mode, 0).flatten(1)) for mode in (0, 1)]
    return (*channels, *kernel.shape[2:])


def _at_least_one(matrix: Tensor) -> int:
    return max(1, evbmf_rank(torch.linalg.svdvals(matrix), *matrix.shape))
