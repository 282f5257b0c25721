"""What the rank of a Conv-TT means: one entry per level, and how many parameters they take."""

import math
from collections.abc import Sequence

from tt_conv.kernels.rank import Format, Rank


class ConvTTFormat(Format):
    """Projections and cores of a convolutional tensor-train: one rank per level, oldest first.

    Parameters
    ----------
    shape : sequence of int
        ``[O, I, N, *K]``.
    kernel_size : sequence of sequence of int
        Of the projection and the core of each level.
    window_length : int
        Frames that one level sees.
    """

    name = "conv_tt"

    def __init__(self, shape: Sequence[int], kernel_size: Sequence[Sequence[int]], window_length: int) -> None:
        super().__init__(shape)
        self._taps = [math.prod(size) for size in kernel_size]
        self._inputs = self.shape[1] * window_length
        self.largest = self.clip((self.dense_parameters * math.prod(self._taps),) * len(self._taps))

    def parameters(self, rank: Rank) -> int:
        """Return the parameters of projections and cores."""
        newer = (*rank[1:], self.shape[0])
        return sum(t * r * (self._inputs + n) for t, r, n in zip(self._taps, rank, newer, strict=True))

    def clip(self, rank: Rank) -> Rank:
        """Return the rank lowered to what a level is fed with, and to what the next core can tell apart."""
        before, clipped = None, list(rank)
        while clipped != before:
            before = list(clipped)
            fed = 0
            for m, taps in enumerate(self._taps):
                clipped[m] = min(clipped[m], taps * self._inputs + fed)
                fed = taps * clipped[m]
            newer = self.shape[0]
            for m in reversed(range(len(clipped))):
                newer = clipped[m] = min(clipped[m], self._taps[m] * newer)
        return tuple(clipped)
