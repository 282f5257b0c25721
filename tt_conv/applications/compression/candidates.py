"""What may take the place of one layer: formats and ranks that are smaller, and the layer that is made of one."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from tt_conv.applications.compression.layers import Layer
from tt_conv.applications.compression.low_rank_linear import LowRankLinear
from tt_conv.checks import one_of
from tt_conv.kernels.format import KernelFactors, Truncation
from tt_conv.kernels.layer import TensorizedConv
from tt_conv.kernels.rank import Rank
from tt_conv.kernels.table import FORMATS, kernel_format
from tt_conv.kernels.weighted import WeightedKernel


@dataclass(frozen=True)
class Candidate:
    """One way to store a layer's kernel.

    Parameters
    ----------
    format : str
        "dense", or one of ``FORMATS``.
    rank : tuple of int
        Complete rank of the format; empty for the dense kernel.
    parameters : int
        Numbers in the kernel's factors.
    error : float
        Relative error: of the kernel, or of the layer's output on the calibration data.
    macs : int, optional
        Multiply-adds in one pass of the calibration data's first batch.
    seconds : float, optional
        What the layer takes of such a pass, once it was timed.
    """

    format: str
    rank: Rank
    parameters: int
    error: float
    macs: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, name: str, truncation: Truncation) -> "Candidate":
        """Return the candidate of a format and what it can do with one rank."""
        return cls(name, truncation.rank, truncation.parameters, truncation.error)


def can_hold(layer: Layer, name: str) -> bool:
    """Whether a layer may be stored in a format: a linear layer as the product of two only."""
    form = FORMATS[_known(name)]
    return form.is_worthwhile(layer.weight.shape) and (name == "svd" or not isinstance(layer, nn.Linear))


def smaller_candidates(layer: Layer, kernel: WeightedKernel, formats: Iterable[str]) -> list[Candidate]:
    """Return what the formats can do with fewer parameters than the dense kernel has."""
    found = []
    for name in formats:
        if can_hold(layer, name):
            truncations = kernel_format(name, kernel.dense.shape).truncations(kernel)
            found += [Candidate.of(name, t) for t in truncations if t.parameters < kernel.dense.numel()]
    return found


def factor_shapes(layer: Layer, name: str, rank: Rank) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the factors of a layer's kernel."""
    form = kernel_format(name, layer.weight.shape)
    return form.shapes(form.complete(rank))


def build_layer(layer: Layer, name: str, factors: KernelFactors) -> nn.Module:
    """Return the layer with given factors that takes the place of a dense one; gradients and mode are kept."""
    _known(name)
    if not isinstance(layer, nn.Linear):
        return TensorizedConv.with_factors(layer, name, factors)
    if name != "svd":
        raise ValueError(f"a linear layer has the format 'svd' only, got {name!r}")
    weight, bias = layer.weight, layer.bias
    parts = {key: value.to(weight.device, weight.dtype).contiguous() for key, value in factors.items()}
    new = LowRankLinear(parts["output"], parts["kernel"], None if bias is None else bias.detach().clone())
    for key, parameter in new.named_parameters():
        parameter.requires_grad_((bias if key == "bias" else weight).requires_grad)
    return new.train(layer.training)


def _known(name: str) -> str:
    return one_of(name, "format", tuple(FORMATS))
