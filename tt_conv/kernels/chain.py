"""A factorized kernel as a few ordinary convolutions one after the other, for whoever applies it many times.

The links of a chain are the factors, or runs of adjacent factors merged. Merging is work on weights alone, so whoever
applies a kernel to every frame of a sequence does it once and then calls PyTorch's convolutions only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from tt_conv.checks import one_of
from tt_conv.runtime.machine import machine_of

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


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


Chain = Sequence[Link]


def factor_chains(name: str, factors: Mapping[str, Tensor]) -> list[Chain]:
    """Return the ways to apply a kernel in one of the formats of TensorizedConv, from input to output.

    The dense kernel, a chain of one link, is among them.

    Parameters
    ----------
    name : str
        Of the format.
    factors : mapping of str to Tensor
        As :class:`tt_conv.TensorizedConv` has them.

    Returns
    -------
    list of sequence of Link

    Raises
    ------
    ValueError
        For a format that is not known.
    """
    return _CHAINS[one_of(name, "factorization", tuple(_CHAINS))](factors)


def _svd(factors: Mapping[str, Tensor]) -> list[Chain]:
    kernel = factors["kernel"]
    return merged([kernel, _pointwise(factors["output"], kernel.ndim - 2)])


def _tucker(factors: Mapping[str, Tensor]) -> list[Chain]:
    first, axes, output = _from_end_to_end(factors)
    core = factors["core"]
    for position, axis in enumerate(axes, start=2):
        core = torch.tensordot(core, axis, ([position], [1])).movedim(-1, position)
    return merged([first, core, output])


def _tt(factors: Mapping[str, Tensor]) -> list[Chain]:
    first, axes, output = _from_end_to_end(factors)
    return merged([first, *(_along(axis.permute(2, 0, 1), n, len(axes)) for n, axis in enumerate(axes)), output])


def _cp(factors: Mapping[str, Tensor]) -> list[Chain]:
    first, axes, output = _from_end_to_end(factors)
    dim = len(axes)
    # The spatial factors act on every rank by itself.
    spatial = factors["weights"].view(-1, *(1,) * dim)
    for n, axis in enumerate(axes):
        spatial = spatial * axis.mT.reshape(len(spatial), *(-1 if m == n else 1 for m in range(dim)))
    spatial = spatial.unsqueeze(1)
    return [[Link([first]), Link([spatial], groups=len(spatial)), Link([output])], *merged([first * spatial, output])]


_CHAINS: dict[str, Callable[[Mapping[str, Tensor]], list[Chain]]] = {
    "cp": _cp,
    "tucker": _tucker,
    "tt": _tt,
    "svd": _svd,
}


def _from_end_to_end(factors: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return the factors of the input channels, of the spatial axes and of the output channels."""
    axes = [factors[axis] for axis in "dhw" if axis in factors]
    return _pointwise(factors["input"].mT, len(axes)), axes, _pointwise(factors["output"], len(axes))


def merged(factors: Sequence[Tensor]) -> list[Chain]:
    """Return all chains that some kernels, applied one after the other, give when runs of them are merged."""
    count = len(factors)
    chains: list[Chain] = []
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
    return _CONVOLVE[dim](wide, torch.flip(second, tuple(range(2, second.ndim)))).transpose(0, 1)


def fastest(chains: Sequence[Chain], positions: int, device: torch.device) -> Chain:
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


def seconds(chain: Chain, positions: int, device: str = "cpu") -> float:
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


def paddings(chain: Chain) -> list[list[int]]:
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


def _pointwise(matrix: Tensor, dim: int) -> Tensor:
    return matrix[(..., *(None,) * dim)]


def _along(kernel: Tensor, axis: int, dim: int) -> Tensor:
    """Return a kernel ``[O, I, k]`` as one along one of several axes."""
    return kernel.reshape(*kernel.shape[:2], *(-1 if n == axis else 1 for n in range(dim)))
