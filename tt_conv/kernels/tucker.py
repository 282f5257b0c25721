"""Tucker: a small kernel between a matrix for every mode."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tt_conv.kernels.chain import KernelChain, from_end_to_end, merged
from tt_conv.kernels.format import (
    RANK_LETTERS,
    KernelFactors,
    KernelFormat,
    Truncation,
    first_and_rest,
    parameter_copies,
)
from tt_conv.kernels.rank import Rank
from tt_conv.kernels.tensorly import pytorch_backend, tensorly_torch
from tt_conv.kernels.vbmf import matrix_rank
from tt_conv.kernels.weighted import WeightedKernel

_MOST_SWEEPS = 100
_STANDSTILL = 1e-8


class TuckerFormat(KernelFormat):
    """A core with one factor per mode: one rank per mode, or the two of the channels."""

    name = "tucker"
    tensor = "TuckerTensor"

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.largest = self.shape
        self.largest = self.clip(self.shape)
        self.ranks = ranks = RANK_LETTERS[: len(self.shape)]
        spatial = {axis: axis + rank for axis, rank in zip(self.axes, ranks[2:], strict=True)}
        self.terms = {"core": ranks, "output": f"o{ranks[0]}", "input": f"i{ranks[1]}", **spatial}
        self.contracted = {"input": "i", "core": ranks[1], **spatial, "output": ranks[0]}

    @property
    def accepted(self) -> str:
        """Two ints leave the spatial modes as they are."""
        return f"{super().accepted}, one per mode, or 2 ints for the output and input channels"

    def parameters(self, rank: Rank) -> int:
        """Return the parameters of core and factors."""
        return math.prod(rank) + sum(n * r for n, r in zip(self.shape, rank, strict=True))

    def clip(self, rank: Rank) -> Rank:
        """Return the rank lowered to the mode sizes and to what the other modes can feed."""
        clipped = list(super().clip(rank))
        while True:
            total = math.prod(clipped)
            lowered = [min(r, total // r) for r in clipped]
            if lowered == clipped:
                return tuple(clipped)
            worst = max(range(len(clipped)), key=lambda mode: clipped[mode] - lowered[mode])
            clipped[worst] = lowered[worst]

    def complete(self, rank: Sequence[int]) -> Rank:
        """Return one rank per mode."""
        return super().complete((*rank, *self.shape[2:]) if len(rank) == 2 else rank)

    def chains(self, factors: Mapping[str, Tensor]) -> list[KernelChain]:
        """Return the chains of input factor, core and output factor; the core takes the spatial factors in."""
        first, axes, output = from_end_to_end(factors)
        core = factors["core"]
        for position, axis in enumerate(axes, start=2):
            core = torch.tensordot(core, axis, ([position], [1])).movedim(-1, position)
        return merged([first, core, output])

    def decomposed_plainly(self, kernel: Tensor, rank: Rank) -> KernelFactors:
        """Higher-order orthogonal iteration over the modes that lose rank; the others keep their basis."""
        modes = [mode for mode, size in enumerate(kernel.shape) if rank[mode] < size]
        core, factors = kernel, [torch.eye(size).to(kernel) for size in kernel.shape]
        if modes:
            with pytorch_backend() as tensorly:
                (core, found), _ = tensorly.partial_tucker(
                    kernel,
                    rank=[rank[mode] for mode in modes],
                    modes=modes,
                    n_iter_max=_MOST_SWEEPS,
                    tol=_STANDSTILL,
                    random_state=0,
                )
            for mode, factor in zip(modes, found, strict=True):
                factors[mode] = factor
        return dict(zip(self.terms, [core, *factors], strict=True))

    def rank_within(self, kernel: WeightedKernel, tol: float) -> Rank:
        """Return the rank with the fewest parameters whose truncated HOSVD is within a relative error.

        In the basis of the higher-order SVD every truncation keeps a corner of the core, and its squared error
        is the energy outside that corner, so all truncations are judged from one table of sums.
        """
        energy = _corner_energy(_higher_order_svd(kernel.white)[0])
        enough = (1 - tol**2) * energy.flatten()[-1]
        outputs, inputs = (torch.arange(1, n + 1, device=energy.device) for n in energy.shape[:2])
        best: tuple[float, Rank] = (math.inf, tuple(energy.shape))
        for spatial in np.ndindex(*energy.shape[2:]):
            sizes = [s + 1 for s in spatial]
            channels = self.shape[0] * outputs[:, None] + self.shape[1] * inputs
            parameters = channels + outputs[:, None] * inputs * math.prod(sizes)
            parameters = parameters + sum(n * s for n, s in zip(self.shape[2:], sizes, strict=True))
            reached = energy[(slice(None), slice(None), *spatial)] >= enough
            reached &= _is_fed(outputs[:, None], inputs, sizes)
            count, index = parameters.double().masked_fill(~reached, math.inf).flatten().min(0)
            if float(count) < best[0]:
                out, inner = divmod(int(index), len(inputs))
                best = (float(count), (out + 1, inner + 1, *sizes))
        return best[1]

    def vbmf_rank(self, kernel: Tensor) -> Rank:
        """Return the EVBMF rank of the two channel unfoldings, at least 1, with the spatial modes left whole.

        Kim et al., "Compression of deep convolutional neural networks for fast and low power mobile
        applications", ICLR 2016, choose the channel ranks so.
        """
        channels = [matrix_rank(kernel.movedim(mode, 0).flatten(1)) for mode in (0, 1)]
        return (*channels, *kernel.shape[2:])

    def truncations(self, kernel: WeightedKernel) -> Iterator[Truncation]:
        """Read all truncations of the higher-order SVD off one table of energies, and keep the best per size."""
        core, bases = _higher_order_svd(kernel.white)
        energy = _corner_energy(core)
        entries = torch.ones((), dtype=torch.long, device=core.device)
        linear = torch.zeros((), dtype=torch.long, device=core.device)
        for mode, (full, size) in enumerate(zip(self.shape, core.shape, strict=True)):
            ranks = torch.arange(1, size + 1, device=core.device).view(-1, *(1,) * (core.ndim - mode - 1))
            entries, linear = entries * ranks, linear + full * ranks
        parameters = entries + linear
        seen = set()
        for size in self._growing_sizes():
            best = int(energy.masked_fill(parameters > size, -1).argmax())
            rank = self.clip(tuple(int(r) + 1 for r in torch.unravel_index(torch.tensor(best), core.shape)))
            if rank in seen:
                continue
            seen.add(rank)
            kept = [basis[:, :r] for basis, r in zip(bases, rank, strict=True)]
            corner = core[tuple(slice(r) for r in rank)]
            factors = dict(zip(self.terms, [corner, *kept], strict=True))
            yield self._judged(kernel, rank, self._restored(kernel, factors))

    @classmethod
    def _taken_apart(cls, weight: Any) -> tuple[tuple[int, ...], list[Tensor]]:
        return first_and_rest(weight, weight.core)

    def to_tensorly(self, factors: Mapping[str, Tensor]) -> Any:
        """Return a TuckerTensor."""
        core, *rest = parameter_copies(factors)
        return tensorly_torch().TuckerTensor(core, rest)


def _higher_order_svd(kernel: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the core and the basis of each mode, the most important directions first."""
    core, bases = kernel, []
    for mode in range(kernel.ndim):
        bases.append(torch.linalg.svd(core.movedim(mode, 0).flatten(1), full_matrices=False).U)
        core = torch.tensordot(bases[-1], core, ([0], [mode])).movedim(0, mode)
    return core, bases


def _corner_energy(core: Tensor) -> Tensor:
    """Return the sum of squares of every corner of a core, by its largest index."""
    energy = core.square()
    for mode in range(core.ndim):
        energy = energy.cumsum(mode)
    return energy


def _is_fed(outputs: Tensor, inputs: Tensor, spatial: Sequence[int]) -> Tensor:
    """Tell where no rank is larger than what the others can feed."""
    product = outputs * inputs * math.prod(spatial)
    fed = torch.ones_like(product, dtype=torch.bool)
    rank: list[Tensor | int] = [outputs, inputs, *spatial]
    for r in rank:
        fed &= r * r <= product
    return fed
