"""Widths that tensor cores take: convolutions in half precision run on them by eights of channels."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tt_conv._memory_format import zeros

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
    """Puts tensors beside each other along their channels, and zeros beside them up to a width."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._rest: Tensor | None = None

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        """Join tensors ``[batch, channels, *spatial]``."""
        missing = self.width - sum(part.shape[1] for part in parts)
        if not missing:
            return torch.cat(list(parts), dim=1) if len(parts) > 1 else parts[0]
        first = parts[0]
        shape = (first.shape[0], missing, *first.shape[2:])
        if self._rest is None or self._rest.shape != shape:
            self._rest = zeros(first, shape)
        return torch.cat([*parts, self._rest], dim=1)
