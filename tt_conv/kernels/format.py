"""What a format of kernels is: a kernel of one shape as factors, with everything that is done with them.

The letters of the terms: o and i are the channels, d, h, w the kernel's axes, p to t the ranks.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from tt_conv.kernels.chain import KernelChain
from tt_conv.kernels.rank import Format, Rank, RankArgument, choose_rank
from tt_conv.kernels.search import smallest_that
from tt_conv.kernels.tensorly import copies_of, is_tensor
from tt_conv.kernels.weighted import WeightedKernel

KernelFactors = dict[str, Tensor]
RANK_LETTERS = "pqrst"
_SIZES = 28  # truncations per format; fewer leave much of a budget unused
_FEW_SIZES = 4  # of formats whose decomposition is a long iteration
_MOST_WORK = 4_000_000  # kernel entries times rank of such a decomposition: a second or so


@dataclass(frozen=True)
class Truncation:
    """What a format can do with one rank.

    Parameters
    ----------
    rank : tuple of int
        Complete rank of the format.
    parameters : int
        Numbers in the factors.
    error : float
        Relative error of the kernel, in its metric.
    """

    rank: Rank
    parameters: int
    error: float


class KernelFormat(Format):
    """One format for kernels ``[out_channels, in_channels, *kernel_size]`` of one shape.

    A subclass says what its factors are (``terms``, ``contracted``) and how those of a given rank are found
    (``decomposed``); what else it can do better than by these is a method to override.

    Attributes
    ----------
    axes : str
        The letters of the kernel's spatial axes.
    ranks : str
        The letters of its ranks.
    terms : dict
        Name of a factor -> its modes, in the order in which TensorLy keeps the factors.
    contracted : dict
        Name of a factor -> the modes over which it sums, in the order from the input to the output.
    tensor : str or None
        The class of TensorLy that holds such factors.
    """

    ranks: str
    terms: Mapping[str, str]
    contracted: Mapping[str, str]
    tensor: ClassVar[str | None] = None

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.axes = "dhw"[5 - len(self.shape) :]

    @classmethod
    def is_worthwhile(cls, shape: Sequence[int]) -> bool:
        """Whether a kernel of this shape can have the format, and not a simpler one that is the same."""
        return math.prod(shape[2:]) > 1  # without spatial modes it is a product of two matrices, as "svd" is

    # Factors.

    def sizes(self, rank: Rank) -> dict[str, int]:
        """Return the size of each mode of the factors at a complete rank."""
        letters = f"oi{self.axes}{self.ranks}"
        return dict(zip(letters, (*self.shape, *rank), strict=True))

    def shapes(self, rank: Rank) -> dict[str, tuple[int, ...]]:
        """Return the shape of each factor at a complete rank."""
        sizes = self.sizes(rank)
        return {name: tuple(sizes[mode] for mode in modes) for name, modes in self.terms.items()}

    def rank(self, factors: Mapping[str, Tensor]) -> Rank:
        """Return the complete rank of some factors."""
        sizes: dict[str, int] = {}
        for name, modes in self.terms.items():
            sizes |= zip(modes, factors[name].shape, strict=True)
        return tuple(sizes[letter] for letter in self.ranks)

    def written_rank(self, rank: Rank) -> int | Rank:
        """Return a complete rank as TensorLy writes it."""
        return rank[0] if len(rank) == 1 else rank

    def rebuild(self, factors: Mapping[str, Tensor]) -> Tensor:
        """Return the dense kernel, differentiably."""
        equation = f"{','.join(self.terms.values())}->oi{self.axes}"
        return torch.einsum(equation, *(factors[name] for name in self.terms))

    def draw(self, factors: Mapping[str, Tensor], variance: float) -> None:
        """Fill factors in place so that the entries of the dense kernel have the mean square ``variance``.

        On the way from input to output every factor keeps the variance of what it receives, so that values
        and gradients are of order one in between, at any rank. What chance adds to that, which is much at
        small ranks, is divided out.
        """
        drawn = [name for name, modes in self.contracted.items() if modes]
        for name, factor in factors.items():
            if name in drawn:
                sizes = dict(zip(self.terms[name], factor.shape, strict=True))
                received = math.prod(sizes[mode] for mode in self.contracted[name])
                _scale(factor.uniform_(-1, 1), factor, 1 / received)
            else:
                factor.fill_(1)
        dense = self.rebuild({name: factor.float() for name, factor in factors.items()})
        for name in drawn:
            _scale(dense, factors[name], variance, 1 / len(drawn))

    # Evaluation.

    def equation(self, groups: int) -> str:
        """Return the convolution of a feature with the factors as a conv-einsum equation.

        The factors come in the order from the input to the output, which makes sense of left to right. With
        groups, the feature is ``bgi``, the output ``bgo``, and the factor of the output channels has
        them split into ``go``: the groups share all other factors.
        """
        group, terms = "", [self.terms[name] for name in self.contracted]
        if groups > 1:
            group, terms = "g", [term.replace("o", "go") for term in terms]
        return f"b{group}i{self.axes},{','.join(terms)}->b{group}o{self.axes}|{self.axes}"

    def operands(self, factors: Mapping[str, Tensor], groups: int) -> list[Tensor]:
        """Return the factors as ``equation`` takes them."""
        ordered = {name: factors[name] for name in self.contracted}
        if groups > 1:
            name = next(name for name in ordered if "o" in self.terms[name])
            ordered[name] = ordered[name].unflatten(self.terms[name].index("o"), (groups, -1))
        return list(ordered.values())

    @abstractmethod
    def chains(self, factors: Mapping[str, Tensor]) -> list[KernelChain]:
        """Return the ways to apply the kernel as convolutions one after the other, from input to output.

        The dense kernel, a chain of one link, is among them.
        """

    # Decomposition.

    def decompose(self, kernel: Tensor, rank: RankArgument | None = None, tol: float | None = None) -> KernelFactors:
        """Return factors whose product approximates a dense kernel, in float64 where the device has it.

        The result is the same every time: random starting values come from a generator of their own.

        Parameters
        ----------
        kernel : Tensor
            ``[out_channels, in_channels, *kernel_size]``, of any floating dtype.
        rank, tol
            As in :func:`tt_conv.kernels.rank.choose_rank`.

        Returns
        -------
        dict
            The factors by name.

        Raises
        ------
        TypeError, ValueError
            If the kernel has no real, finite values, or ``rank`` and ``tol`` are not as expected.
        """
        weighted = WeightedKernel(kernel)
        complete = choose_rank(
            self,
            rank,
            tol=tol,
            tolerance=partial(self.rank_within, weighted),
            vbmf=partial(self.vbmf_rank, weighted.dense),
        )
        return self.approximate(weighted, complete)

    def approximate(self, kernel: WeightedKernel, rank: Rank) -> KernelFactors:
        """Return the factors of a complete rank that come closest to a kernel, as far as is known."""
        if not kernel.dense.any():
            return {name: kernel.dense.new_zeros(shape) for name, shape in self.shapes(rank).items()}
        found = self.decomposed(kernel, rank)
        return {name: found[name].contiguous() for name in self.terms}

    def decomposed(self, kernel: WeightedKernel, rank: Rank) -> KernelFactors:
        """Return factors of a kernel that is not zero, by decomposing the white kernel."""
        return self._restored(kernel, self.decomposed_plainly(kernel.white, rank))

    def decomposed_plainly(self, kernel: Tensor, rank: Rank) -> KernelFactors:
        """Return factors of a kernel whose entries count alike."""
        raise NotImplementedError

    def _restored(self, kernel: WeightedKernel, factors: KernelFactors) -> KernelFactors:
        """Return the factors of the kernel from those of the white one, the last of them fitted anew."""
        restored = dict(factors)
        for letter, inverse in zip(f"i{self.axes}", kernel.unwhitening, strict=False):
            name = "input" if letter == "i" else letter
            mode = self.terms[name].index(letter)
            moved = torch.tensordot(factors[name], inverse, ([mode], [0])).movedim(-1, mode)
            restored[name] = moved.contiguous()
        return self._refitted(kernel, restored)

    def _refitted(self, kernel: WeightedKernel, factors: KernelFactors) -> KernelFactors:
        """Fit the factor of the output channels anew, which is linear, in the metric of whole patches."""
        metric = kernel.metric
        if metric is None or metric.patches is None:
            return factors
        rank = factors["output"].shape[1]
        one = {**factors, "output": torch.eye(rank).to(kernel.dense)}
        basis = type(self)((rank, *self.shape[1:])).rebuild(one).flatten(1)
        weighted = metric.times(basis)
        gram = weighted @ basis.mT
        ridge = 1e-10 * gram.diagonal().mean() * torch.eye(rank).to(gram)
        output = torch.linalg.lstsq(gram + ridge, weighted @ kernel.dense.flatten(1).mT).solution.mT
        if not output.isfinite().all():
            return factors
        refitted = {**factors, "output": output.contiguous()}
        better = kernel.error(self.rebuild(refitted)) <= kernel.error(self.rebuild(factors))
        return refitted if better else factors

    def rank_within(self, kernel: WeightedKernel, tol: float) -> Rank:
        """Return the smallest rank that reaches a relative error, by decomposing: no formula gives it.

        Raises
        ------
        ValueError
            If no rank does.
        """
        reached = 0.0

        def is_enough(rank: int) -> bool:
            nonlocal reached
            reached = self.truncation(kernel, self.uniform(rank)).error
            return reached <= tol

        largest = max(self.largest)
        found = smallest_that(is_enough, largest)
        if found is None:
            raise ValueError(
                f"no rank of {self.name!r} reaches a relative error of {tol}: rank {largest}, the largest, ended at "
                f"{reached:.3g}; give a larger tol or another factorization"
            )
        return self.uniform(found)

    def vbmf_rank(self, kernel: Tensor) -> Rank:
        """Return the rank by variational Bayes, for formats whose ranks are those of matrices."""
        raise ValueError(f'rank="vbmf" needs the format tucker, tt or svd, not {self.name}')

    # Truncations.

    def truncation(self, kernel: WeightedKernel, rank: Rank) -> Truncation:
        """Return what a complete rank can do."""
        return self._judged(kernel, rank, self.approximate(kernel, rank))

    def truncations(self, kernel: WeightedKernel) -> Iterator[Truncation]:
        """Return what growing ranks can do, up to about the size of the dense kernel.

        A format with one rank whose decomposition is a long iteration is decomposed at a few; in between, errors
        shrink evenly with the rank.
        """
        per_rank = self.parameters((1,))
        most = min(self.largest[0], max(self.quick_rank(kernel), _MOST_WORK // self.dense_parameters))
        ranks = sorted({min(most, size // per_rank) for size in self._growing_sizes(_FEW_SIZES)})
        judged = [self.truncation(kernel, (rank,)) for rank in ranks]
        yield from judged
        for low, high in pairwise(judged):
            between = range(low.rank[0] + 1, high.rank[0])
            for rank in between[:: max(1, len(between) // 16)]:
                share = (rank - low.rank[0]) / (high.rank[0] - low.rank[0])
                # By a factor; a bound keeps zero out of it.
                shrinks = max(high.error, 1e-12) / max(low.error, 1e-12)
                yield Truncation((rank,), rank * per_rank, low.error * shrinks**share)

    def quick_rank(self, kernel: WeightedKernel) -> int:
        """Return the largest rank whose decomposition is known to be quick, whatever the size of the kernel."""
        return 1

    def _judged(self, kernel: WeightedKernel, rank: Rank, factors: KernelFactors) -> Truncation:
        parameters = sum(factor.numel() for factor in factors.values())
        return Truncation(rank, parameters, kernel.error(self.rebuild(factors)))

    def _growing_sizes(self, count: int = _SIZES) -> list[int]:
        """Return parameter counts from the format's smallest to just below the dense kernel's."""
        smallest, largest = self.parameters(self.uniform(1)), 0.95 * self.dense_parameters
        if smallest >= largest:
            return [smallest] if smallest < self.dense_parameters else []
        ratio = (largest / smallest) ** (1 / (count - 1))
        return sorted({max(smallest, round(smallest * ratio**n)) for n in range(count)})

    # Exchange with TensorLy.

    @classmethod
    def reads(cls, weight: object) -> bool:
        """Whether a tensor of TensorLy or TensorLy-Torch is in this format."""
        return cls.tensor is not None and is_tensor(weight, cls.tensor)

    @classmethod
    def read(cls, weight: Any) -> tuple[Self, KernelFactors]:
        """Return the format and copies of the factors of a factorized tensor.

        Raises
        ------
        TypeError
            If its values are not real and floating.
        ValueError
            If it is not a kernel of 1 to 3 spatial axes.
        """
        shape, tensors = cls._taken_apart(weight)
        if not 3 <= len(shape) <= 5:
            raise ValueError(
                f"a kernel has 2 channel modes and 1 to 3 spatial ones, got a tensor with {len(shape)} modes"
            )
        form = cls(shape)
        factors = dict(zip(form.terms, tensors, strict=True))
        expected = form.shapes(form.rank(factors))
        given = {key: tuple(factor.shape) for key, factor in factors.items()}
        if given != expected:
            raise ValueError(f"the factors don't fit together: got {given}, expected {expected}")
        return form, factors

    @classmethod
    def _taken_apart(cls, weight: Any) -> tuple[tuple[int, ...], list[Tensor]]:
        """Return the shape of the dense kernel and copies of the factors in the order of ``terms``."""
        raise NotImplementedError

    def to_tensorly(self, factors: Mapping[str, Tensor]) -> Any:
        """Return the factors, copies_of, as a factorized tensor of TensorLy-Torch."""
        raise TypeError(f"TensorLy has no tensor for the format {self.name!r}; to_tensor() gives the dense kernel")


def first_and_rest(weight: Any, first: object) -> tuple[tuple[int, ...], list[Tensor]]:
    """Take a CP or Tucker tensor apart: its weights or core, and one matrix per mode of the kernel."""
    tensors = copies_of([first, *weight.factors])
    return tuple(int(factor.shape[0]) for factor in tensors[1:]), tensors


def parameter_copies(factors: Mapping[str, Tensor]) -> list[nn.Parameter]:
    """Return copies of factors as parameters; what takes no gradient stays so."""
    return [nn.Parameter(factor.detach().clone(), factor.requires_grad) for factor in factors.values()]


def _scale(measured: Tensor, scaled: Tensor, variance: float, share: float = 1.0) -> None:
    """Scale a tensor in place by a share of what another lacks to the mean square ``variance``."""
    square = measured.float().square().mean().clamp_min(torch.finfo(torch.float32).tiny)
    scaled.mul_((variance / square).pow(share / 2).to(scaled.dtype))
