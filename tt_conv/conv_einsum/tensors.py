"""Whether operands are tensors that an expression can be run on."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tt_conv.conv_einsum.errors import ConvEinsumError
from tt_conv.runtime.formats import autocast_dtype

SUPPORTED = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
)
MIXED_BY_AUTOCAST = {torch.float32, torch.float16, torch.bfloat16}


def check_tensors(
    equation: str,
    operands: Mapping[int, tuple[Tensor, tuple[int, ...]]],
    constants: Sequence[tuple[torch.dtype, torch.device]] = (),
) -> None:
    """Refuse what is not a tensor of the expected shape, or differs from the others in dtype or device.

    Parameters
    ----------
    equation : str
        For the message.
    operands : mapping from int to (Tensor, tuple of int)
        Operand number -> value and expected shape.
    constants : sequence of (torch.dtype, torch.device)
        Of what the expression holds, which the operands must agree with.

    Raises
    ------
    ConvEinsumError
    """
    for i, (operand, shape) in operands.items():
        if not isinstance(operand, Tensor):
            raise ConvEinsumError(f"operand {i} must be a torch.Tensor, got {type(operand).__name__}", equation)
        if operand.is_nested:
            raise ConvEinsumError(f"operand {i} is a nested tensor; expected one of shape {shape}", equation)
        if operand.shape != shape:
            raise ConvEinsumError(
                f"operand {i} has shape {tuple(operand.shape)}, but the expression was compiled for {shape}",
                equation,
            )
        if operand.dtype not in SUPPORTED or operand.layout != torch.strided:
            supported = ", ".join(str(dtype).removeprefix("torch.") for dtype in SUPPORTED)
            raise ConvEinsumError(
                f"operand {i} has dtype {operand.dtype} and layout {operand.layout}; "
                f"expected a strided tensor of {supported}",
                equation,
            )
        first = next(iter(operands))
        other = "the constants" if constants else f"operand {first}"
        for dtype, device in constants or [(operands[first][0].dtype, operands[first][0].device)]:
            if operand.device != device:
                raise ConvEinsumError(
                    f"operand {i} is on {operand.device} and {other} on {device}; move them together", equation
                )
            if operand.dtype != dtype and not ({operand.dtype, dtype} <= MIXED_BY_AUTOCAST and autocast_dtype(device)):
                raise ConvEinsumError(
                    f"operand {i} has dtype {operand.dtype} and {other} {dtype}; convert them to one dtype "
                    "(outside autocast nothing is converted)",
                    equation,
                )
