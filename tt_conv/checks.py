"""Checks and normal forms of the arguments that the modules share."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

LARGEST_SIZE = 1 << 20
"""Of anything that a file may say of a network; more is damage, and would fill the memory."""
_MOST_CELLS, _DEEPEST = 4096, 8


def positive_int(value: object, name: str) -> int:
    """Return ``value`` as an int of at least 1, or raise an error that names the argument."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def spatial_dim(value: object) -> int:
    """Return the number of spatial axes: 1, 2 or 3."""
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) not in (1, 2, 3):  # type: ignore[unreachable]
        raise ValueError(f"dim must be 1, 2 or 3 spatial axes, got {value!r}")
    return int(value)


def odd_kernel_size(value: int | Sequence[int], dim: int) -> tuple[int, ...]:
    """Return one odd kernel size per spatial axis; an even one has no centre and is refused."""
    sizes = tuple(value) if isinstance(value, Sequence) else (value,) * dim
    if len(sizes) != dim:
        raise ValueError(f"kernel_size must be an int or {dim} ints, one per spatial axis, got {value!r}")
    sizes = tuple(positive_int(size, "kernel_size") for size in sizes)
    if any(size % 2 == 0 for size in sizes):
        raise ValueError(
            f"kernel_size must be odd on every axis, got {value!r}: an even kernel has no centre, "
            "so the output could not keep the size of the input"
        )
    return sizes


def kernel_size_per_level(
    value: int | Sequence[int] | Sequence[Sequence[int]], order: int, dim: int
) -> tuple[tuple[int, ...], ...]:
    """Return odd kernel sizes per level and spatial axis, from one for all levels or a sequence per level."""
    if not isinstance(value, Sequence) or not any(isinstance(size, tuple | list) for size in value):
        return (odd_kernel_size(value, dim),) * order  # type: ignore[arg-type]
    if len(value) != order or not all(isinstance(size, Sequence) for size in value):
        raise ValueError(
            f"kernel_size must be an int, {dim} ints, or one sequence of {dim} ints for each of {order} levels, "
            f"got {value!r}"
        )
    return tuple(odd_kernel_size(size, dim) for size in value)


def rank_per_level(value: int | Sequence[int], order: int) -> tuple[int, ...]:
    """Return one rank per level from an int or a sequence of ``order`` ints."""
    rank = tuple(value) if isinstance(value, Sequence) else (value,) * order
    if len(rank) != order:
        raise ValueError(f"rank must be an int or {order} ints, one per level (order={order}), got {value!r}")
    return tuple(positive_int(r, "rank") for r in rank)


def one_of(value: object, name: str, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


_FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_floating(tensor: Tensor, name: str) -> None:
    """Refuse tensors that hold no real floating-point numbers to compute with."""
    if tensor.is_nested or tensor.layout != torch.strided:
        raise TypeError(f"{name} must be strided, got layout {tensor.layout}; use {name}.to_dense()")
    if tensor.dtype not in _FLOATING:
        raise TypeError(f"{name} must be real and floating-point, got {tensor.dtype}")
    if tensor.device.type == "meta":
        raise ValueError(f"{name} is on the meta device: it has no values")


def check_finite(tensor: Tensor, name: str) -> None:
    """Refuse tensors with infinities or NaN."""
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} has entries that are not finite")


def check_shape(value: Tensor, name: str, layout: str, channels: int, dim: int, channel_axis: int) -> None:
    """Check the number of axes and of channels of a tensor whose last ``dim`` axes are spatial.

    ``layout`` is how the axes read in the message, such as ``"[batch, time, channels, *spatial]"``.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor {layout}, got {type(value).__name__}")
    if value.is_nested or value.layout != torch.strided:
        raise TypeError(f"{name} must be a strided tensor {layout}, got layout {value.layout}; use to_dense()")
    if value.ndim != channel_axis + 1 + dim:
        raise ValueError(
            f"{name} must be {layout} with {dim} spatial axes, so {channel_axis + 1 + dim} axes, "
            f"got {value.ndim} axes of shape {tuple(value.shape)}"
        )
    if value.shape[channel_axis] != channels:
        raise ValueError(
            f"{name} must be {layout} with {channels} channels, got {value.shape[channel_axis]} channels "
            f"in shape {tuple(value.shape)}"
        )
    if 0 in value.shape[channel_axis + 1 :]:
        raise ValueError(f"{name} must be {layout} without empty spatial axes, got shape {tuple(value.shape)}")


def check_sizes(arguments: Mapping[str, Any]) -> None:
    """Refuse to build what a file describes if it would never end."""
    if not _is_modest(arguments, _DEEPEST):
        raise ValueError("sizes of the model are out of range")


def _is_modest(value: object, depth: int) -> bool:
    if isinstance(value, Mapping | list | tuple) and not depth:
        return False
    if isinstance(value, Mapping):
        layers, order = value.get("layers_per_block"), value.get("order")
        cells = sum(n for n in layers if isinstance(n, int)) if isinstance(layers, list | tuple) else 1
        levels = cells * (max(1, order) if isinstance(order, int) else 1)
        return levels <= _MOST_CELLS and all(_is_modest(part, depth - 1) for part in value.values())
    if isinstance(value, list | tuple):
        return len(value) <= _MOST_CELLS and all(_is_modest(part, depth - 1) for part in value)
    return not isinstance(value, int) or abs(value) <= LARGEST_SIZE
