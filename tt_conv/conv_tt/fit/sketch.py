"""A smaller kernel with the same inner cores, for the search, and the way back to the full one.

Combining a kernel's output channels turns G_M into another core of the same rank, and combining its input
channels does so to the projections. The inner cores stay what they are. So the search may run on a few
combinations that hold most of the kernel, and the outer factors follow by linear least squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tt_conv.conv_tt.fit.fourier import unfold_gram
from tt_conv.conv_tt.fit.matrix_free import Factors, Linearisation, ridged_cholesky
from tt_conv.conv_tt.fit.train import Target, Train


def main_channels(kernel: Tensor, axis: int, count: int) -> Tensor | None:
    """Orthonormal combinations [channels, count] along one axis of a kernel that hold most of it.

    Each frame counts the same, since a planted kernel's oldest frame may outweigh all others. None if there
    are no more channels than that.
    """
    channels = kernel.shape[axis]
    if count >= channels:
        return None
    norms = torch.linalg.vector_norm(kernel, dim=[n for n in range(kernel.ndim) if n != 2], keepdim=True)
    balanced = kernel / torch.where(norms > 0, norms, 1.0)
    unfolded = balanced.movedim(axis, 0).flatten(1)
    vectors = torch.linalg.eigh(unfolded @ unfolded.T)[1]
    return vectors[:, -count:]


@dataclass(frozen=True)
class Sketch:
    """A kernel with fewer channels.

    Attributes
    ----------
    target : Target
        The smaller problem.
    outputs : Tensor [O, O'] or None
        The combinations of output channels, if there are fewer than before.
    """

    target: Target
    outputs: Tensor | None


def sketch(train: Train, kernel: Tensor, multiple: int) -> Sketch:
    """Reduce the channels to about a multiple of the rank, where there are more.

    Parameters
    ----------
    train : Train
    kernel : Tensor [O, I, N, *K]
    multiple : int

    Returns
    -------
    Sketch
    """
    outputs = main_channels(kernel, 0, multiple * train.rank[-1] + 2)
    inputs = main_channels(kernel, 1, multiple * max(train.rank) + 2)
    small = kernel
    if outputs is not None:
        small = torch.einsum("oi...,op->pi...", small, outputs)
    if inputs is not None:
        small = torch.einsum("oi...,iq->oq...", small, inputs)
    return Sketch(Target(train.resized(small.shape[0], small.shape[1]), small), outputs)


def expand(target: Target, kernel: Tensor, cores: list[Tensor], outputs: Tensor | None) -> list[Tensor]:
    """The cores for the full kernel from those of its sketch.

    Parameters
    ----------
    target : Target
        Of the full kernel.
    kernel : Tensor [O, I, N, *K]
    cores : list of Tensor [taps, R_{m+1}, R_m]
        The last with O' rows.
    outputs : Tensor [O, O'] or None
        What `sketch` gave.

    Returns
    -------
    list of Tensor [taps, R_{m+1}, R_m]
        The last with O rows.
    """
    if outputs is None:
        return cores
    reduced = torch.einsum("oi...,op->pi...", kernel, outputs)
    small = Target(target.train.resized(outputs.shape[1], target.train.inputs), reduced)
    factors = Factors(cores, small.best_projections(cores))
    return [*cores[:-1], _best_last_core(target, small, factors)]


def _best_last_core(target: Target, small: Target, factors: Factors) -> Tensor:
    """G_M that fits best, given the partial sums v_M of another target's train."""
    size = target.train.core_sizes[-1]
    grid = target.grid
    value = Linearisation(small, factors).values[-1]
    scale = grid.scale[:, None, None]
    gram = grid.gram((scale.square() * (value.conj() @ value.mT).sum(0))[None], size, size)[0]
    rhs = grid.adjoint((scale * target.spectrum @ value.mH).sum(0), size).permute(0, 2, 1)
    solution = torch.cholesky_solve(rhs.flatten(0, 1), ridged_cholesky(unfold_gram(gram)))
    return solution.view_as(rhs).permute(0, 2, 1)
