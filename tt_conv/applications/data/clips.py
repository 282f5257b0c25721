"""Clips: runs of frames that lie in files, read a few frames at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tt_conv.applications import gate
from tt_conv.applications.data.pixels import ordered


class StoredArray:
    """An array ``[N, T, H, W, C]`` of frames in a ``.npy`` file, mapped into memory, or in memory.

    Parameters
    ----------
    source : path or array
        A ``.npy`` file is mapped where it is used: a worker process opens it by itself.
    layout : str
        Of what the source holds, see :mod:`~tt_conv.applications.data.pixels`.
    value_range : (float, float), optional
        The values of black and white; ``None`` until all arrays of the data set were seen.
    description : str
        Whose it is and what its axes are, for the notes of a data set.
    """

    def __init__(
        self,
        source: Path | NDArray,
        layout: str,
        value_range: tuple[float, float] | None = None,
        description: str = "",
    ) -> None:
        self.source = source
        self.layout = layout
        self.value_range = value_range
        self.description = description
        self._mapped: NDArray | None = None

    @property
    def array(self) -> NDArray:
        """The frames as a view [N, T, H, W, C]."""
        if self._mapped is None:
            stored = gate.read_npy(self.source, mapped=True) if isinstance(self.source, Path) else self.source
            self._mapped = ordered(stored, self.layout)
        return self._mapped

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": None}


class Clip:
    """Frames ``first .. first + length - 1`` of one sequence of a stored array.

    Parameters
    ----------
    name : str
        For messages: the file, and which part of it.
    stored : StoredArray
    number : int
        Which of its sequences.
    first, length : int
        Which of its frames.
    """

    def __init__(self, name: str, stored: StoredArray, number: int = 0, first: int = 0, length: int | None = None):
        self.name = name
        self.stored = stored
        self.number = number
        self.first = first
        self.length = stored.array.shape[1] - first if length is None else length

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.stored.array.shape[2:4]

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self.stored.array.shape[4]

    def part(self, first: int, length: int) -> "Clip":
        """The clip of some of its frames."""
        return Clip(self.name, self.stored, self.number, self.first + first, length)

    def read(self, first: int, frames: int, step: int = 1) -> Tensor:
        """Every ``step``-th frame from number ``first`` on: [frames, C, H, W], float32 from 0 to 1."""
        start = self.first + first
        chosen = self.stored.array[self.number, start : start + (frames - 1) * step + 1 : step]
        if self.stored.value_range is None:
            raise RuntimeError(f"{self.name}: its range of values is not known yet")
        black, white = self.stored.value_range
        values = torch.from_numpy(np.array(chosen.transpose(0, 3, 1, 2), np.float32))
        return values.sub_(black).div_(white - black).clamp_(0, 1)


def pair(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """(height, width) of a size that may be one number."""
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"size must be one number or (height, width), in pixels, got {size!r}")
    return sides[0], sides[1]


def fitted(frames: Tensor, size: tuple[int, int] | None, channels: int | None) -> Tensor:
    """Frames [T, C, H, W] in another size and number of channels.

    Gray is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); sizes change by bilinear interpolation with antialiasing.

    Examples
    --------
    >>> fitted(torch.rand(4, 3, 12, 16), (6, 8), 1).shape
    torch.Size([4, 1, 6, 8])
    """
    if channels == 1 and frames.shape[1] == 3:
        frames = (frames * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)
    elif channels == 3 and frames.shape[1] == 1:
        frames = frames.expand(-1, 3, -1, -1)
    if size is not None and tuple(frames.shape[-2:]) != tuple(size):
        frames = F.interpolate(frames, size=size, mode="bilinear", antialias=True).clamp_(0, 1)
    return frames.contiguous()


def windows_of(clips: Sequence[Clip], span: int, stride: int) -> list[tuple[int, int]]:
    """(clip, first frame) of every window of ``span`` frames whose start is a multiple of ``stride``."""
    return [(number, first) for number, clip in enumerate(clips) for first in range(0, clip.length - span + 1, stride)]
