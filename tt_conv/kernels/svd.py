"""The channel SVD: a convolution with few output channels, and a mixture of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tt_conv.kernels.chain import KernelChain, merged, pointwise
from tt_conv.kernels.format import KernelFactors, KernelFormat, Truncation, parameter_copies
from tt_conv.kernels.rank import Rank
from tt_conv.kernels.tensorly import tensorly_torch
from tt_conv.kernels.vbmf import matrix_rank
from tt_conv.kernels.weighted import WeightedKernel

_MOST_RANKS = 48  # truncations, whose errors cost nothing


class SVDFormat(KernelFormat):
    """A product ``[O, R] @ [R, I * prod(K)]``: one rank."""

    name = "svd"

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.largest = (min(self.shape[0], math.prod(self.shape[1:])),)
        self.ranks = "r"
        self.terms = {"output": "or", "kernel": f"ri{self.axes}"}
        self.contracted = {"kernel": f"i{self.axes}", "output": "r"}

    @classmethod
    def is_worthwhile(cls, shape: Sequence[int]) -> bool:
        """Every matrix has it."""
        return True

    def parameters(self, rank: Rank) -> int:
        """Return the parameters of both factors."""
        return rank[0] * (self.shape[0] + math.prod(self.shape[1:]))

    def chains(self, factors: Mapping[str, Tensor]) -> list[KernelChain]:
        """Return the chains: both factors, or the dense kernel."""
        kernel = factors["kernel"]
        return merged([kernel, pointwise(factors["output"], kernel.ndim - 2)])

    def decomposed(self, kernel: WeightedKernel, rank: Rank) -> KernelFactors:
        """Return the best factors there are, whatever the metric."""
        left, values, right = kernel.svd
        values, right = values[: rank[0]], right[: rank[0]]
        # Symmetric scales train best, but the rows of a restored right factor have scales of their own.
        scale = (values / right.norm(dim=1).clamp_min(1e-300)).sqrt()
        inner = (values / scale.clamp_min(1e-300))[:, None] * right
        return {"output": left[:, : rank[0]] * scale, "kernel": inner.reshape(rank[0], *self.shape[1:])}

    def rank_within(self, kernel: WeightedKernel, tol: float) -> Rank:
        """Return the smallest rank within a relative error."""
        tails = _tails(kernel)
        return (max(1, int((tails > tol**2 * tails[0]).sum())),)

    def vbmf_rank(self, kernel: Tensor) -> Rank:
        """Return the EVBMF rank, at least 1."""
        return (matrix_rank(kernel.flatten(1)),)

    def truncations(self, kernel: WeightedKernel) -> Iterator[Truncation]:
        """Read the errors off the singular values."""
        tails = _tails(kernel)
        total = max(float(tails[0]), torch.finfo(tails.dtype).tiny)
        steps = max(1, len(tails) // _MOST_RANKS)
        for rank in sorted({*range(1, min(9, len(tails))), *range(steps, len(tails), steps)}):
            yield Truncation((rank,), self.parameters((rank,)), math.sqrt(float(tails[rank]) / total))

    def to_tensorly(self, factors: Mapping[str, Tensor]) -> Any:
        """Return a TuckerTensor whose factors but that of the output channels are identities without gradients."""
        output, kernel = parameter_copies(factors)
        identities = [torch.eye(size).to(kernel) for size in kernel.shape[1:]]
        return tensorly_torch().TuckerTensor(kernel, [output, *identities])


def _tails(kernel: WeightedKernel) -> Tensor:
    """Return what is lost of the sum of squares by rank 0, 1, ..."""
    return kernel.svd[1].square().flip(0).cumsum(0).flip(0)
