"""The formats of kernels by their names: one line for each."""

from collections.abc import Sequence

from tt_conv.checks import one_of
from tt_conv.kernels.cp import CPFormat
from tt_conv.kernels.format import KernelFactors, KernelFormat
from tt_conv.kernels.stacked import StackedFormat
from tt_conv.kernels.svd import SVDFormat
from tt_conv.kernels.tt import TTFormat
from tt_conv.kernels.tucker import TuckerFormat

FORMATS: dict[str, type[KernelFormat]] = {
    "svd": SVDFormat,
    "tucker": TuckerFormat,
    "tt": TTFormat,
    "cp": CPFormat,
    "conv_tt": StackedFormat,
}


def kernel_format(name: str, shape: Sequence[int]) -> KernelFormat:
    """Return the format ``name`` for kernels of a shape ``[out_channels, in_channels, *kernel_size]``.

    Raises
    ------
    ValueError
        For a name that is not known, or a shape that the format cannot have.

    Example
    -------
    >>> kernel_format("tucker", (64, 32, 3, 3)).shapes((16, 16, 3, 3))["core"]
    (16, 16, 3, 3)
    """
    return FORMATS[one_of(name, "factorization", tuple(FORMATS))](shape)


def read_factorized(weight: object) -> tuple[KernelFormat, KernelFactors]:
    """Return the format and copies of the factors of a factorized tensor of TensorLy or TensorLy-Torch.

    Raises
    ------
    TypeError
        If it is not a CP, Tucker or tensor-train tensor.
    ValueError
        If it is not a kernel of 1 to 3 spatial axes.
    """
    for form in FORMATS.values():
        if form.reads(weight):
            return form.read(weight)
    *kinds, last = [form.tensor for form in reversed(FORMATS.values()) if form.tensor]
    raise TypeError(
        f"expected a {', '.join(kinds)} or {last} of TensorLy or TensorLy-Torch, "
        f"got {type(weight).__module__}.{type(weight).__name__}"
    )
