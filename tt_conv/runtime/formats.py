"""The form in which convolutions run fastest, and what lies beyond the border of a frame.

Channels innermost in memory, low precision under autocast, and widths that tensor cores take: convolutions in half
precision run on them by eights of channels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tt_conv.runtime.modes import has_autocast, is_transformed

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
"""By the number of spatial axes."""

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def channels_last(x: Tensor) -> Tensor:
    """Return ``x`` ``[batch, channels, *spatial]`` with its channels innermost, where PyTorch has such a format."""
    if x.ndim not in _CHANNELS_LAST:
        return x.contiguous()
    if is_transformed():
        # vmap of torch 2.13 cannot say in which format a tensor is.
        return x
    return x.contiguous(memory_format=_CHANNELS_LAST[x.ndim])


def zeros(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """Return zeros of a shape, with the device and, unless it is given, the dtype of ``like``; channels innermost."""
    dtype = like.dtype if dtype is None else dtype
    if len(shape) not in _CHANNELS_LAST:
        return like.new_zeros(shape, dtype=dtype)
    empty = torch.empty(tuple(shape), dtype=dtype, device=like.device, memory_format=_CHANNELS_LAST[len(shape)])
    return empty.zero_()


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the dtype to which autocast converts on a device; None if it is off, or unknown there."""
    if not has_autocast(device.type) or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def as_autocast(x: Tensor) -> Tensor:
    """Convert what autocast would convert in every convolution, once."""
    if x.dtype != torch.float32:
        return x
    low = autocast_dtype(x.device)
    return x if low is None else x.to(low)


def check_dtype(value: Tensor, name: str, parameter: Tensor) -> None:
    """Check that a tensor has the dtype and device of a module's parameters; autocast mixes fp32 and its own dtype."""
    if value.device != parameter.device:
        raise ValueError(f"{name} is on {value.device} and the parameters on {parameter.device}; move one of them")
    if value.dtype == parameter.dtype or _mixed_by_autocast(value, parameter):
        return
    hint = "scale it to floats first" if not value.is_floating_point() else f"use {name}.to(...) or module.to(...)"
    raise ValueError(f"{name} has dtype {value.dtype} and the parameters {parameter.dtype}; {hint}")


def _mixed_by_autocast(*values: Tensor) -> bool:
    """Say whether autocast is on and converts all of these tensors to its dtype."""
    low = autocast_dtype(values[0].device)
    return low is not None and all(value.dtype in (torch.float32, low) for value in values)


def check_state(state: object, count: int, shape: tuple[int, ...], like: Tensor, what: str) -> None:
    """Check that a state is ``count`` floating tensors of one shape on the device of ``like``."""
    if not isinstance(state, Sequence) or not all(isinstance(value, Tensor) for value in state):
        given = [type(value).__name__ for value in state] if isinstance(state, Sequence) else type(state).__name__
        raise TypeError(f"state must be {what}, {count} tensors in all, got {given}")
    if len(state) != count:
        raise ValueError(f"state must be {what}, {count} tensors in all, got {len(state)}")
    for n, value in enumerate(state):
        if value.shape != shape:
            raise ValueError(f"state[{n}] must have shape {shape}, got {tuple(value.shape)}")
        if value.device != like.device or not value.is_floating_point():
            raise ValueError(f"state[{n}] must be floating-point on {like.device}, got {value.dtype} on {value.device}")
        if value.dtype != like.dtype and not _mixed_by_autocast(value, like):
            raise ValueError(
                f"state[{n}] must have the dtype of the input, {like.dtype}, got {value.dtype}; use state[{n}].to(...)"
            )


_UNIT = 8
_NARROWEST = 4


def padded_width(channels: int, like: Tensor) -> int:
    """Return how many channels convolutions on tensors like ``like`` should have for ``channels`` that are needed.

    On CUDA in bf16 and fp16 that is the next multiple of 8, unless more than half of it would be zeros; otherwise it
    is ``channels``. A convolution that cannot use tensor cores is slower by more than the factor 2 that this can cost.
    """
    if like.device.type != "cuda" or like.dtype not in (torch.bfloat16, torch.float16) or channels < _NARROWEST:
        return channels
    return -(-channels // _UNIT) * _UNIT


def pad_kernel(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Extend a kernel ``[out_channels, in_channels, *size]`` and its bias by zeros to padded widths."""
    rows, columns = (padded_width(n, weight) - n for n in weight.shape[:2])
    if rows or columns:
        weight = F.pad(weight, [0, 0] * (weight.ndim - 2) + [0, columns, 0, rows])
    return weight, F.pad(bias, [0, rows]) if bias is not None and rows else bias


class Join:
    """Puts tensors beside each other along their channels, and zeros beside them up to a width.

    Its work has a name: what is called as an object itself, Dynamo of torch 2.6 compiles again for every object.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._rest: Tensor | None = None

    def cat(self, parts: Sequence[Tensor]) -> Tensor:
        """Join tensors ``[batch, channels, *spatial]``."""
        missing = self.width - sum(part.shape[1] for part in parts)
        if not missing:
            return torch.cat(list(parts), dim=1) if len(parts) > 1 else parts[0]
        first = parts[0]
        shape = (first.shape[0], missing, *first.shape[2:])
        # Read once: another thread may exchange it.
        rest = self._rest
        if rest is None or rest.shape != shape:
            self._rest = rest = zeros(first, shape)
        return torch.cat([*parts, rest], dim=1)


class JoinedConvolution:
    """A convolution of tensors beside each other, with zero borders, whose kernel is padded and channels last.

    Parameters
    ----------
    weight : Tensor
        ``[out_channels, in_channels, *size]``, of odd size.
    bias : Tensor, optional
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self._convolve = CONVOLUTIONS[weight.ndim - 2]
        self._padding = [(k - 1) // 2 for k in weight.shape[2:]]
        self._join = Join(weight.shape[1])

    def of(self, parts: Sequence[Tensor], channels: int) -> Tensor:
        """Convolve tensors ``[batch, *, *spatial]``; of the output only the first ``channels`` are no padding."""
        joined = self._join.cat(parts)
        return self._convolve(joined, self.weight, self.bias, padding=self._padding)[:, :channels]


def extend(x: Tensor, margin: Sequence[int], boundary: str) -> Tensor:
    """Extend the last ``len(margin)`` axes of ``x`` by ``margin`` elements on both sides of each.

    ``boundary="circular"`` repeats the frame periodically, by any amount; anything else adds zeros.
    """
    if not any(margin):
        return x
    if boundary == "circular":
        for axis, amount in enumerate(margin, start=x.ndim - len(margin)):
            size = x.shape[axis]
            if amount:
                x = x.index_select(axis, torch.arange(-amount, size + amount, device=x.device) % size)
        return x
    return F.pad(x, [amount for m in reversed(margin) for amount in (m, m)])


def crop(x: Tensor, margin: Sequence[int]) -> Tensor:
    """Drop ``margin`` elements from both ends of the last ``len(margin)`` axes of ``x``."""
    for axis, amount in enumerate(margin, start=x.ndim - len(margin)):
        if amount:
            x = x.narrow(axis, amount, x.shape[axis] - 2 * amount)
    return x
