"""What lies beyond the border of a frame."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


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
