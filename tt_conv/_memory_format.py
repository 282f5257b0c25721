"""The form in which convolutions run fastest: channels innermost in memory, low precision under autocast."""

from collections.abc import Sequence

import torch
from torch import Tensor

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def channels_last(x: Tensor) -> Tensor:
    """Return ``x`` ``[batch, channels, *spatial]`` with its channels innermost, where PyTorch has such a format."""
    if x.ndim not in _CHANNELS_LAST:
        return x.contiguous()
    return x.contiguous(memory_format=_CHANNELS_LAST[x.ndim])


def zeros(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """Return zeros of a shape, with the device and, unless it is given, the dtype of ``like``; channels innermost."""
    dtype = like.dtype if dtype is None else dtype
    if len(shape) not in _CHANNELS_LAST:
        return like.new_zeros(shape, dtype=dtype)
    empty = torch.empty(tuple(shape), dtype=dtype, device=like.device, memory_format=_CHANNELS_LAST[len(shape)])
    return empty.zero_()


def as_autocast(x: Tensor) -> Tensor:
    """Convert what autocast would convert in every convolution, once."""
    device = x.device.type
    # Of tensors without values, on the meta device, nothing can be asked.
    if device != "meta" and torch.is_autocast_enabled(device) and x.dtype == torch.float32:
        return x.to(torch.get_autocast_dtype(device))
    return x
