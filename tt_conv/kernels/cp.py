"""CP: a kernel as a sum of outer products."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tt_conv.kernels.chain import KernelChain, Link, from_end_to_end, merged
from tt_conv.kernels.format import KernelFactors, KernelFormat, first_and_rest, parameter_copies
from tt_conv.kernels.rank import Rank
from tt_conv.kernels.tensorly import pytorch_backend, tensorly_torch

_ITERATIONS = 100
_STALLED = 1e-8
_START_SEED = 0


class CPFormat(KernelFormat):
    """A sum of R outer products with R weights: one rank."""

    name = "cp"
    tensor = "CPTensor"

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        # One outer product per fibre along the longest mode rebuilds any kernel.
        self.largest = (self.dense_parameters // max(self.shape),)
        self.ranks = "r"
        self.terms = {"weights": "r", "output": "or", "input": "ir", **{axis: f"{axis}r" for axis in self.axes}}
        self.contracted = {"input": "i", **{axis: axis for axis in self.axes}, "weights": "", "output": "r"}

    def parameters(self, rank: Rank) -> int:
        """Return the parameters of weights and factors."""
        return rank[0] * (1 + sum(self.shape))

    def chains(self, factors: Mapping[str, Tensor]) -> list[KernelChain]:
        """Return the chains; the spatial factors act on every rank by itself."""
        first, axes, output = from_end_to_end(factors)
        dim = len(axes)
        spatial = factors["weights"].view(-1, *(1,) * dim)
        for n, axis in enumerate(axes):
            spatial = spatial * axis.mT.reshape(len(spatial), *(-1 if m == n else 1 for m in range(dim)))
        spatial = spatial.unsqueeze(1)
        apart: KernelChain = [Link([first]), Link([spatial], groups=len(spatial)), Link([output])]
        return [apart, *merged([first * spatial, output])]

    def decomposed_plainly(self, kernel: Tensor, rank: Rank) -> KernelFactors:
        """Alternating least squares from singular vectors, with the norms shared out among the factors."""
        scale = kernel.square().mean().sqrt()
        start = _start(kernel, rank[0])
        # Some regularization keeps the normal equations regular when the rank is more than the kernel has.
        for regularization in (1e-10, 1e-6, 1e-2):
            try:
                with pytorch_backend() as tensorly:
                    _, factors = tensorly.parafac(
                        kernel / scale,
                        rank[0],
                        n_iter_max=_ITERATIONS,
                        init=(kernel.new_ones(rank[0]), [factor.clone() for factor in start]),
                        tol=_STALLED,
                        l2_reg=regularization,
                    )
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                continue
            if all(factor.isfinite().all() for factor in factors):
                break
        else:
            raise RuntimeError(f"the CP decomposition of rank {rank[0]} of a kernel of shape {self.shape} failed")
        norms = torch.stack([factor.norm(dim=0) for factor in factors])
        shared = (scale * norms.prod(0)) ** (1 / len(factors))
        balanced = [
            f * (shared / norm.clamp_min(torch.finfo(norm.dtype).tiny)) for f, norm in zip(factors, norms, strict=True)
        ]
        names = [name for name in self.terms if name != "weights"]
        return {"weights": kernel.new_ones(rank[0]), **dict(zip(names, balanced, strict=True))}

    @classmethod
    def _taken_apart(cls, weight: Any) -> tuple[tuple[int, ...], list[Tensor]]:
        return first_and_rest(weight, weight.weights)

    def to_tensorly(self, factors: Mapping[str, Tensor]) -> Any:
        """Return a CPTensor."""
        weights, *rest = parameter_copies(factors)
        return tensorly_torch().CPTensor(weights, rest)


def _start(kernel: Tensor, rank: int) -> list[Tensor]:
    """Return the leading left singular vectors of each unfolding, completed with random columns."""
    generator = torch.Generator().manual_seed(_START_SEED)
    start = []
    for mode, size in enumerate(kernel.shape):
        leading = torch.linalg.svd(kernel.movedim(mode, 0).flatten(1), full_matrices=False).U[:, :rank]
        extra = torch.randn(size, rank - leading.shape[1], generator=generator, dtype=torch.float64)
        start.append(torch.cat([leading, extra.to(leading) / size**0.5], dim=1))
    return start
