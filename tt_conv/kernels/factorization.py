"""What the factors of a convolution kernel are, format by format.

The letters of the terms: o and i are the channels, d, h, w the kernel's axes, p to t the ranks.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tt_conv.checks import one_of
from tt_conv.kernels.rank import CPFormat, Format, Rank, SVDFormat, TTFormat, TuckerFormat

Factors = dict[str, Tensor]
_RANKS = "pqrst"


@dataclass(frozen=True)
class Factorization:
    """One format for kernels ``[out_channels, in_channels, *kernel_size]`` of one shape.

    Parameters
    ----------
    form : Format
        What its rank means.
    axes : str
        The letters of the kernel's spatial axes.
    ranks : str
        The letters of its ranks.
    terms : dict
        Name of a factor -> its modes, in the order in which TensorLy keeps the factors.
    contracted : dict
        Name of a factor -> the modes over which it sums, in the order from the input to the output.
    """

    form: Format
    axes: str
    ranks: str
    terms: Mapping[str, str]
    contracted: Mapping[str, str]

    def _sizes(self, rank: Rank) -> dict[str, int]:
        letters = f"oi{self.axes}{self.ranks}"
        return dict(zip(letters, (*self.form.shape, *rank), strict=True))

    def shapes(self, rank: Rank) -> dict[str, tuple[int, ...]]:
        """Return the shape of each factor at a complete rank."""
        sizes = self._sizes(rank)
        return {name: tuple(sizes[mode] for mode in modes) for name, modes in self.terms.items()}

    def rank(self, factors: Mapping[str, Tensor]) -> Rank:
        """Return the complete rank of some factors."""
        sizes = {
            mode: size
            for name, modes in self.terms.items()
            for mode, size in zip(modes, factors[name].shape, strict=True)
        }
        return tuple(sizes[letter] for letter in self.ranks)

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
            ordered["output"] = ordered["output"].unflatten(0, (groups, -1))
        return list(ordered.values())

    def rebuild(self, factors: Mapping[str, Tensor]) -> Tensor:
        """Return the dense kernel."""
        equation = f"{','.join(self.terms.values())}->oi{self.axes}"
        return torch.einsum(equation, *(factors[name] for name in self.terms))

    def draw(self, factors: Mapping[str, Tensor], variance: float) -> None:
        """Fill factors in place so that the entries of the dense kernel have the mean square ``variance``.

        On the way from input to output every factor keeps the variance of what it receives, so that values
        and gradients are of order one in between, at any rank. What chance adds to that, which is much at
        small ranks, is divided out.
        """
        sizes = self._sizes(self.rank(factors))
        drawn = [name for name, modes in self.contracted.items() if modes]
        for name, factor in factors.items():
            if name in drawn:
                received = math.prod(sizes[mode] for mode in self.contracted[name])
                _spread(factor.uniform_(-1, 1), factor, 1 / received)
            else:
                factor.fill_(1)
        dense = self.rebuild({name: factor.float() for name, factor in factors.items()})
        for name in drawn:
            _spread(dense, factors[name], variance, 1 / len(drawn))


def _spread(measured: Tensor, scaled: Tensor, variance: float, share: float = 1.0) -> None:
    """Scale a tensor in place by a share of what another lacks to the mean square ``variance``."""
    square = measured.float().square().mean().clamp_min(torch.finfo(torch.float32).tiny)
    scaled.mul_((variance / square).pow(share / 2).to(scaled.dtype))


def _cp(shape: Sequence[int], axes: str) -> Factorization:
    spatial = dict(zip(axes, axes, strict=True))
    terms = {"weights": "r", "output": "or", "input": "ir", **{axis: f"{axis}r" for axis in axes}}
    contracted = {"input": "i", **spatial, "weights": "", "output": "r"}
    return Factorization(CPFormat(shape), axes, "r", terms, contracted)


def _tucker(shape: Sequence[int], axes: str) -> Factorization:
    ranks = _RANKS[: len(shape)]
    spatial = {axis: axis + rank for axis, rank in zip(axes, ranks[2:], strict=True)}
    terms = {"core": ranks, "output": f"o{ranks[0]}", "input": f"i{ranks[1]}", **spatial}
    contracted = {"input": "i", "core": ranks[1], **spatial, "output": ranks[0]}
    return Factorization(TuckerFormat(shape), axes, ranks, terms, contracted)


def _tt(shape: Sequence[int], axes: str) -> Factorization:
    ranks = _RANKS[: len(axes) + 1]
    terms = {"input": f"i{ranks[0]}"}
    contracted = {"input": "i"}
    for before, axis, after in zip(ranks, axes, ranks[1:], strict=False):
        terms[axis] = before + axis + after
        contracted[axis] = before + axis
    return Factorization(
        TTFormat(shape),
        axes,
        ranks,
        terms | {"output": f"o{ranks[-1]}"},
        contracted | {"output": ranks[-1]},
    )


def _svd(shape: Sequence[int], axes: str) -> Factorization:
    terms = {"output": "or", "kernel": f"ri{axes}"}
    return Factorization(SVDFormat(shape), axes, "r", terms, {"kernel": f"i{axes}", "output": "r"})


FACTORIZATIONS: dict[str, Callable[[Sequence[int], str], Factorization]] = {
    "cp": _cp,
    "tucker": _tucker,
    "tt": _tt,
    "svd": _svd,
}


def kernel_factorization(name: str, shape: Sequence[int]) -> Factorization:
    """Return the format ``name`` for kernels of a shape ``[out_channels, in_channels, *kernel_size]``."""
    name = one_of(name, "factorization", tuple(FACTORIZATIONS))
    return FACTORIZATIONS[name](shape, "dhw"[5 - len(shape) :])
