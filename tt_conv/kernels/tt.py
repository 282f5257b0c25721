"""The tensor-train: a kernel as a chain of small tensors, one per mode."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tt_conv.kernels.chain import KernelChain, along_axis, from_end_to_end, merged
from tt_conv.kernels.format import RANK_LETTERS, KernelFactors, KernelFormat, Truncation, parameter_copies
from tt_conv.kernels.rank import Rank
from tt_conv.kernels.tensorly import copies_of, pytorch_backend, tensorly_torch
from tt_conv.kernels.vbmf import matrix_rank
from tt_conv.kernels.weighted import WeightedKernel


class TTFormat(KernelFormat):
    """A train over the modes (in_channels, \\*kernel_size, out_channels): one rank per bond."""

    name = "tt"
    tensor = "TTTensor"

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.modes = (*self.shape[1:], self.shape[0])
        bonds = range(1, len(self.modes))
        self.largest = tuple(min(math.prod(self.modes[:b]), math.prod(self.modes[b:])) for b in bonds)
        self.ranks = RANK_LETTERS[: len(bonds)]
        through = {a: b + a + c for b, a, c in zip(self.ranks, self.axes, self.ranks[1:], strict=False)}
        self.terms = {"input": f"i{self.ranks[0]}", **through, "output": f"o{self.ranks[-1]}"}
        self.contracted = {"input": "i", **{a: term[:2] for a, term in through.items()}, "output": self.ranks[-1]}

    @property
    def accepted(self) -> str:
        """The ends may be written, as in TensorLy, or not."""
        return f"{super().accepted}, one per bond, or {len(self.modes) + 1} ints that begin and end with 1"

    def parameters(self, rank: Rank) -> int:
        """Return the parameters of all cores."""
        return sum(a * n * b for a, n, b in zip((1, *rank), self.modes, (*rank, 1), strict=True))

    def clip(self, rank: Rank) -> Rank:
        """Return the rank lowered to what the neighbouring cores can carry, from both ends."""
        clipped = [1, *super().clip(rank), 1]
        for k, size in enumerate(self.modes[:-1]):
            clipped[k + 1] = min(clipped[k + 1], clipped[k] * size)
        for k in range(len(self.modes) - 1, 0, -1):
            clipped[k] = min(clipped[k], clipped[k + 1] * self.modes[k])
        return tuple(clipped[1:-1])

    def complete(self, rank: Sequence[int]) -> Rank:
        """Return one rank per bond, without the ones at the ends."""
        if len(rank) == len(self.modes) + 1:
            if (rank[0], rank[-1]) != (1, 1):
                raise ValueError(f"the rank of a tensor-train begins and ends with 1, got {tuple(rank)}")
            rank = rank[1:-1]
        return super().complete(rank)

    def written_rank(self, rank: Rank) -> Rank:
        """Return the rank with ones at both ends."""
        return (1, *rank, 1)

    def chains(self, factors: Mapping[str, Tensor]) -> list[KernelChain]:
        """Return the chains of the cores, each a convolution along one axis, and of runs of them."""
        first, axes, output = from_end_to_end(factors)
        inner = [along_axis(axis.permute(2, 0, 1), n, len(axes)) for n, axis in enumerate(axes)]
        return merged([first, *inner, output])

    def decomposed_plainly(self, kernel: Tensor, rank: Rank) -> KernelFactors:
        """TT-SVD."""
        with pytorch_backend() as tensorly:
            first, *middle, last = tensorly.tensor_train(kernel.movedim(0, -1).contiguous(), rank=[1, *rank, 1])
        return dict(zip(self.terms, [first.squeeze(0), *middle, last.squeeze(-1).mT], strict=True))

    def rank_within(self, kernel: WeightedKernel, tol: float) -> Rank:
        """Return a rank whose TT-SVD is within a relative error.

        The squared error of TT-SVD is at most the sum, over the unfoldings, of the squared singular values
        that each drops (Oseledets, "Tensor-train decomposition", SIAM J. Sci. Comput. 33, 2011, theorem 2.2):
        the smallest of all of them are dropped first.
        """
        spectra = _spectra(kernel.white)
        everything = torch.cat(spectra)
        owner = torch.cat([torch.full_like(s, n, dtype=torch.long) for n, s in enumerate(spectra)])
        order = everything.argsort(stable=True)
        allowed = tol**2 * float(kernel.white.square().sum())
        dropped = owner[order][everything[order].cumsum(0) <= allowed]
        return self.clip(tuple(max(1, len(s) - int((dropped == n).sum())) for n, s in enumerate(spectra)))

    def vbmf_rank(self, kernel: Tensor) -> Rank:
        """Return the EVBMF rank of each unfolding of the train, at least 1."""
        return tuple(matrix_rank(unfolding) for unfolding in _unfoldings(kernel))

    def truncations(self, kernel: WeightedKernel) -> Iterator[Truncation]:
        """Decompose at the ranks that keep the largest singular values of all cuts."""
        spectra = _spectra(kernel.white)
        ranks = (self._best_within(spectra, size) for size in self._growing_sizes())
        for rank in dict.fromkeys(ranks):
            yield self.truncation(kernel, rank)

    def _best_within(self, spectra: Sequence[Tensor], size: int) -> Rank:
        """Return the rank that keeps the largest singular values of all cuts, as many as ``size`` parameters allow."""
        everything = torch.cat(list(spectra)).sort(descending=True).values

        def rank(kept: int) -> Rank:
            return self.clip(tuple(max(1, int((spectrum >= everything[kept - 1]).sum())) for spectrum in spectra))

        counts = range(1, len(everything) + 1)
        return rank(max(1, bisect_right(counts, size, key=lambda kept: self.parameters(rank(kept)))))

    @classmethod
    def _taken_apart(cls, weight: Any) -> tuple[tuple[int, ...], list[Tensor]]:
        first, *middle, last = copies_of(weight.factors)
        *modes, out_channels = (int(core.shape[1]) for core in (first, *middle, last))
        return (out_channels, *modes), [first.squeeze(0), *middle, last.squeeze(-1).T]

    def to_tensorly(self, factors: Mapping[str, Tensor]) -> Any:
        """Return a TTTensor with the modes (in_channels, \\*kernel_size, out_channels)."""
        first, *middle, last = parameter_copies(factors)
        ends = [(first, first.detach().unsqueeze(0)), (last, last.detach().T.unsqueeze(-1).contiguous())]
        first, last = (nn.Parameter(end, source.requires_grad) for source, end in ends)
        return tensorly_torch().TTTensor([first, *middle, last])


def _unfoldings(kernel: Tensor) -> list[Tensor]:
    """Return the matrices that the bonds of a train over (in_channels, *kernel_size, out_channels) cut."""
    train = kernel.movedim(0, -1)
    return [train.reshape(math.prod(train.shape[:bond]), -1) for bond in range(1, train.ndim)]


def _spectra(kernel: Tensor) -> list[Tensor]:
    """Return the squared singular values of each cut, in descending order."""
    return [torch.linalg.svdvals(unfolding).square() for unfolding in _unfoldings(kernel)]
