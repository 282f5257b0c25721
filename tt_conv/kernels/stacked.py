"""Two stacked kernels in the place of a wide one, which is a Conv-TT of order 1."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from tt_conv.kernels.chain import KernelChain, merged, stacked_kernel
from tt_conv.kernels.format import KernelFactors, KernelFormat
from tt_conv.kernels.rank import Rank
from tt_conv.kernels.stacked_fit import fitted_pair, largest_stable_rank
from tt_conv.kernels.weighted import WeightedKernel


class StackedFormat(KernelFormat):
    r"""A projection ``[R, I, *k]`` and a core ``[O, R, *k]``, one after the other: one rank.

    Together they span K = 1 + 2 (k - 1), with k odd as in every Conv-TT.
    """

    name = "conv_tt"

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        if not self.is_worthwhile(self.shape):
            raise ValueError(
                f"conv_tt, two stacked kernels of odd size k, spans the sizes 2k - 1 = 5, 9, 13, ..., and 1 on some "
                f"axes; a kernel of shape {self.shape} can't be written so"
            )
        self.inner_size = tuple((size + 1) // 2 for size in self.shape[2:])
        self.largest = (math.prod(self.inner_size) * min(self.shape[:2]),)
        self.ranks = "r"
        self.terms = {"projection": f"ri{self.axes}", "core": f"or{self.axes}"}
        self.contracted = {"projection": f"i{self.axes}", "core": f"r{self.axes}"}

    @classmethod
    def is_worthwhile(cls, shape: Sequence[int]) -> bool:
        """Whether two odd kernels can span this one, and it is not a single tap."""
        return all(size % 4 == 1 for size in shape[2:]) and super().is_worthwhile(shape)

    def sizes(self, rank: Rank) -> dict[str, int]:
        """Return the sizes of the modes, of which the spatial ones are smaller than the kernel's."""
        return super().sizes(rank) | dict(zip(self.axes, self.inner_size, strict=True))

    def parameters(self, rank: Rank) -> int:
        """Return the parameters of both kernels."""
        return rank[0] * math.prod(self.inner_size) * sum(self.shape[:2])

    def rebuild(self, factors: Mapping[str, Tensor]) -> Tensor:
        """Return the dense kernel, differentiably."""
        return stacked_kernel(factors["projection"], factors["core"])

    def chains(self, factors: Mapping[str, Tensor]) -> list[KernelChain]:
        """Return the chains: both kernels, or the dense one."""
        return merged([factors["projection"], factors["core"]])

    def decomposed(self, kernel: WeightedKernel, rank: Rank) -> KernelFactors:
        """Fit both kernels so that they don't cancel each other."""
        projection, core = fitted_pair(kernel.dense, rank[0], self.inner_size, kernel.metric)
        return {"projection": projection, "core": core}

    def quick_rank(self, kernel: WeightedKernel) -> int:
        """Return the largest rank for which the fit does not take long."""
        return largest_stable_rank(kernel.dense, self.inner_size)
