"""A factorized kernel as a few ordinary convolutions one after the other, for whoever applies it many times.

The links of a chain are the factors, or runs of adjacent factors merged. Merging is work on weights alone, so whoever
applies a kernel to every frame of a sequence does it once and then calls PyTorch's convolutions only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from tt_conv.runtime.formats import CONVOLUTIONS
from tt_conv.runtime.machine import machine_of


@dataclass(frozen=True)
class Link:
    r"""One convolution: its kernel ``[O, I / groups, \*k]``, of odd size, or the factors that give it when merged."""

    factors: Sequence[Tensor]
    groups: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the kernel."""
        sizes = zip(*(factor.shape[2:] for factor in self.factors), strict=True)
        spatial = (1 + sum(k - 1 for k in size) for size in sizes)
        return (self.factors[-1].shape[0], self.factors[0].shape[1], *spatial)

    @property
    def kernel(self) -> Tensor:
        """The kernel, differentiably."""
        product, *rest = self.factors
        for factor in rest:
            product = stacked_kernel(product, factor)
        return product


KernelChain = Sequence[Link]


def from_end_to_end(factors: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return the factors of the input channels, of the spatial axes and of the output channels."""
    axes = [factors[axis] for axis in "dhw" if axis in factors]
    return pointwise(factors["input"].mT, len(axes)), axes, pointwise(factors["output"], len(axes))


def merged(factors: Sequence[Tensor]) -> list[KernelChain]:
    """Return all chains that some kernels, applied one after the other, give when runs of them are merged."""
    count = len(factors)
    chains: list[KernelChain] = []
    for cuts in range(count):
        for inner in combinations(range(1, count), cuts):
            bounds = [0, *inner, count]
            chains.append([Link(factors[start:end]) for start, end in pairwise(bounds)])
    return chains


def stacked_kernel(first: Tensor, second: Tensor) -> Tensor:
    """Return the kernel ``[O, I, *K]`` of one convolution, ``[O, R, *k]``, after another, ``[R, I, *k]``."""
    dim, sizes = second.ndim - 2, second.shape[2:]
    if math.prod(sizes) == 1:
        return torch.tensordot(second.flatten(1), first, 1)
    if first[0, 0].numel() == 1:
        return torch.tensordot(second, first.flatten(1), ([1], [0])).movedim(-1, 1)
    # Cross-correlations one after the other are one with the full convolution of their kernels.
    wide = F.pad(first.transpose(0, 1), [k - 1 for k in reversed(sizes) for _ in range(2)])
    return CONVOLUTIONS[dim](wide, torch.flip(second, tuple(range(2, second.ndim)))).transpose(0, 1)


def fastest_chain(chains: Sequence[KernelChain], positions: int, device: torch.device) -> KernelChain:
    """Return the chain that should take the least time, by its multiply-adds, bytes and calls.

    Parameters
    ----------
    chains : sequence of sequence of Link
    positions : int
        Spatial positions times samples of a frame.
    device : torch.device

    Returns
    -------
    sequence of Link
    """
    return min(chains, key=lambda chain: seconds(chain, positions, device.type))


def seconds(chain: KernelChain, positions: int, device: str = "cpu") -> float:
    """Return how long a chain should take."""
    machine = machine_of(device)
    return sum(
        machine.convolution_seconds(
            positions,
            link.groups * link.shape[1],
            link.shape[0],
            math.prod(link.shape[2:]),
            link.groups,
            link.factors[0].element_size(),
        )
        for link in chain
    )


def paddings(chain: KernelChain) -> list[list[int]]:
    """Return the zeros on each side of each axis, per link, so that frames keep their size.

    The first link along an axis gets all of them: a frame is extended once, and what later links add up reaches
    beyond its border as that of the dense kernel does.
    """
    sizes = [list(link.shape[2:]) for link in chain]
    total = [sum((size[axis] - 1) // 2 for size in sizes) for axis in range(len(sizes[0]))]
    amounts = []
    for size in sizes:
        amounts.append([left if k > 1 else 0 for k, left in zip(size, total, strict=True)])
        total = [0 if k > 1 else left for k, left in zip(size, total, strict=True)]
    return amounts


def pointwise(matrix: Tensor, dim: int) -> Tensor:
    """Return a matrix as a kernel of one tap."""
    return matrix[(..., *(None,) * dim)]


def along_axis(kernel: Tensor, axis: int, dim: int) -> Tensor:
    """Return a kernel ``[O, I, k]`` as one along one of several axes."""
    return kernel.reshape(*kernel.shape[:2], *(-1 if n == axis else 1 for n in range(dim)))
