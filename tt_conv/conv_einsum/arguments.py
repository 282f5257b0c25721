"""Checks and normal forms of what the public functions take beside the equation and its options."""

from collections.abc import Collection, Sequence
from operator import index
from typing import Any

import torch
from opt_einsum.paths import PathOptimizer
from torch import Tensor

from tt_conv.conv_einsum.cost import Usage
from tt_conv.conv_einsum.errors import ConvEinsumError
from tt_conv.conv_einsum.network import Network, Shape
from tt_conv.conv_einsum.options import is_int
from tt_conv.conv_einsum.plan import checked_path
from tt_conv.conv_einsum.tensors import check_tensors


def hashable(equation: str, optimize: Any) -> Any:
    """Return ``optimize`` in a form that can be a key."""
    if isinstance(optimize, str | bool | PathOptimizer):
        return optimize
    return checked_path(equation, optimize)


def requiring_gradients(operands: Sequence[Tensor]) -> int:
    """Return the operands that require a gradient now, as a bit mask."""
    if not torch.is_grad_enabled():
        return 0
    return sum([1 << i for i, operand in enumerate(operands) if operand.requires_grad])


def named_gradients(equation: str, train: bool | Collection[int] | None, constants: Collection[int], count: int) -> int:
    """Return the operands that ``train`` names, as a bit mask."""
    fixed = mask(equation, "constants", constants, count)
    if train is True:
        return ((1 << count) - 1) & ~fixed
    gradients = mask(equation, "train", train or (), count)
    if gradients & fixed:
        raise ConvEinsumError(f"train={train!r} names an operand that is among constants={constants!r}", equation)
    return gradients


def usage_of(network: Network, gradients: int, constants: Collection[int], reuse: int) -> Usage:
    """Return what costs are for; the caller's numbers are checked here."""
    text = network.equation.text
    if not is_int(reuse) or reuse < 1:
        raise ConvEinsumError(f"reuse must be a number of calls of at least 1, got {reuse!r}", text)
    fixed = mask(text, "constants", constants, len(network.operands))
    weights = (network.everything & ~network.features) | fixed if reuse > 1 else 0
    return Usage(gradients, fixed, weights, int(reuse))


def mask(equation: str, name: str, positions: Collection[int], count: int) -> int:
    """Return operand numbers as a bit mask."""
    if not isinstance(positions, Collection) or isinstance(positions, str | bytes):
        raise ConvEinsumError(f"{name} must be a collection of operand numbers, got {positions!r}", equation)
    for position in positions:
        if not is_int(position) or not 0 <= position < count:
            raise ConvEinsumError(f"{name} names operand {position!r}; the operands are 0 to {count - 1}", equation)
    return sum({1 << int(position) for position in positions})


def tensor_shapes(equation: str, operands: Sequence[Any]) -> tuple[Shape, ...]:
    """Return the shapes of operands, which must be tensors."""
    for i, operand in enumerate(operands):
        if not isinstance(operand, Tensor) or operand.is_nested:
            what = "a nested tensor" if isinstance(operand, Tensor) else type(operand).__name__
            raise ConvEinsumError(f"operand {i} must be a torch.Tensor, got {what}; shapes need shapes=True", equation)
    return tuple(tuple(map(index, operand.shape)) for operand in operands)


def checked_tensor_shapes(equation: str, operands: Sequence[Any]) -> tuple[Shape, ...]:
    """Return the shapes of operands, which must be tensors that agree in dtype and device."""
    shapes = tensor_shapes(equation, operands)
    check_tensors(equation, dict(enumerate(zip(operands, shapes, strict=True))))
    return shapes


def given_shapes(equation: str, shapes: Sequence[Any]) -> tuple[Shape, ...]:
    """Return shapes that were given as such."""
    for i, shape in enumerate(shapes):
        if isinstance(shape, str) or not isinstance(shape, Sequence) or not all(map(is_int, shape)):
            what = "a tensor; name it in constants" if isinstance(shape, Tensor) else repr(shape)
            raise ConvEinsumError(f"operand {i} must be given by its shape, a sequence of ints; got {what}", equation)
    return tuple(tuple(map(int, shape)) for shape in shapes)


def constant_tensors(equation: str, given: Sequence[Any], constants: Collection[int], train: bool) -> dict[int, Tensor]:
    """Return the operands that are given as tensors, cut off from the graph."""
    mask(equation, "constants", constants, len(given))
    fixed = {}
    for i in sorted(set(map(int, constants))):
        value = given[i]
        if not isinstance(value, Tensor):
            what = type(value).__name__
            raise ConvEinsumError(
                f"operand {i} is among the constants, so it must be a torch.Tensor, got {what}", equation
            )
        if train and value.requires_grad:
            raise ConvEinsumError(
                f"operand {i} is a constant but requires a gradient, which it would not get: detach it, or "
                "give its shape here and its value to bind()",
                equation,
            )
        fixed[i] = value.detach()
    return fixed
