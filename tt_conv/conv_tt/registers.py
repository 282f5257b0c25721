"""A Conv-TT whose kernels are joined once: registers for the frames of a sequence, levels for a single window.

Every level advances with one convolution as soon as a frame is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from tt_conv.runtime.formats import (
    CONVOLUTIONS,
    Join,
    JoinedConvolution,
    as_autocast,
    channels_last,
    crop,
    extend,
    pad_kernel,
    zeros,
)

if TYPE_CHECKING:
    from tt_conv.conv_tt.layer import ConvTT

Levels: TypeAlias = tuple[Tensor, Tensor]
"""The registers, apart by what takes them next: ``V_M`` and ``[V_{M-1} | ... | V_1]``."""


class Registers:
    r"""The partial sums of the outputs to come, for a Conv-TT with a sliding window.

    Level m of the output M - m frames ahead is complete once frame s is known:

    .. math::

        V_m(s) = P_m * [f_{s-L+1}, \dots, f_s] + G_{m-1} * V_{m-1}(s - 1), \qquad y_s = G_M * V_M(s) ,

    so all levels advance with one convolution of ``[f_{s-L+1} .. f_s | V_{M-1} .. V_1]``.

    The kernel of that convolution is built from the layer's parameters when this object is made. Registers
    depend on the parameters, so they must not outlive a change of them or a detached graph: make a new
    object for each sequence and start it from the frames before.
    """

    def __init__(self, layer: ConvTT) -> None:
        if layer.window != "sliding":
            raise ValueError(
                "only a sliding window has registers: with a fixed one every level sees the newest frame, "
                "so no level is complete before it"
            )
        self.layer = layer
        # Smaller kernels of other levels are embedded in zeros, so that one convolution serves all.
        self._kernel_size = tuple(map(max, zip(*layer.kernel_size, strict=True)))
        self._half = [(k - 1) // 2 for k in self._kernel_size]
        self._output_half = [(k - 1) // 2 for k in layer.kernel_size[-1]]
        # Zero borders that are set once need every level on a common margin, wide enough for level 1.
        reach = [sum((k - 1) // 2 for k in axis) for axis in zip(*layer.kernel_size, strict=True)]
        self._margin = reach if layer.boundary == "zeros" else [0] * layer.dim
        self._convolution = CONVOLUTIONS[layer.dim]
        self.weight, self.bias = _combined(layer, self._kernel_size)
        self._join = Join(self.weight.shape[1])

    def prepare(self) -> None:
        """Bring the kernel into the form in which convolutions run fastest, autocast's conversion included."""
        weight, self.bias = pad_kernel(as_autocast(self.weight), None if self.bias is None else as_autocast(self.bias))
        self.weight = channels_last(weight)
        self._join = Join(weight.shape[1])

    def place(self, frame: Tensor) -> Tensor:
        """Extend a frame ``[batch, in_channels, *spatial]`` as far as the registers reach."""
        return extend(frame, self._margin, "zeros")

    def start(self, frames: Sequence[Tensor]) -> Levels:
        """Return the registers after ``steps`` frames, placed, oldest first."""
        first, lags = frames[0], self.layer.lags
        older = zeros(first, (first.shape[0], sum(self.layer.rank[:-1]), *first.shape[2:]))
        levels = (older, older)  # Nothing takes the first of them before the levels below it have filled it.
        for m in range(self.layer.order):
            levels = self.advance(frames[m : m + lags], levels)
        return levels

    def start_from_zero(self, like: Tensor) -> Levels:
        """Return the registers after nothing but zero frames, for placed frames like ``like``."""
        batch, frame_channels, *size = like.shape
        if self.bias is None:
            channels = self.layer.rank[-1], sum(self.layer.rank[:-1])
            newest, older = (zeros(like, (batch, n, *size)) for n in channels)
            return newest, older
        # Away from the border they are constant, so a small frame tells what the large one holds.
        periodic = self.layer.boundary == "circular"
        reach = [0 if periodic else self.layer.order * half for half in self._half]
        zero = like.new_zeros(1, frame_channels, *(min(n, 2 * r + 1) for n, r in zip(size, reach, strict=True)))
        newest, older = (_stretch(level, size, reach) for level in self.start([zero] * self.layer.steps))
        whole = (batch, -1, *(-1 for _ in size))
        return channels_last(newest.expand(whole)), channels_last(older.expand(whole))

    def advance(self, frames: Sequence[Tensor], levels: Levels) -> Levels:
        """Return the registers after the newest of the last ``lags`` frames, placed, oldest first."""
        rank = self.layer.rank
        joined = self._join.cat([*frames, levels[1]])
        registers = self._convolve(joined, self.weight, self.bias, self._half)
        newest, older = registers[:, : sum(rank)].split([rank[-1], sum(rank[:-1])], dim=1)
        return newest, older

    def project(self, frame: Tensor) -> Levels:
        """Return the registers of a train of order 1 that sees one frame, for a frame that is not placed."""
        projected = self._convolve(self._join.cat([self.place(frame)]), self.weight, self.bias, self._half)
        return projected[:, : self.layer.rank[0]], projected[:, :0]

    def newest_level(self, levels: Levels) -> Tensor:
        """Return :math:`V_M` on the margin that the output kernel needs, if it does not pad by itself."""
        return crop(levels[0], [m - h if m else 0 for m, h in zip(self._margin, self._output_half, strict=True)])

    def output_convolution(self, value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve what stands on the margin of :meth:`newest_level` with an output kernel."""
        if self.layer.boundary == "zeros":
            return self._convolution(value, weight, bias)
        return self._convolve(value, weight, bias, self._output_half)

    def beside_newest_level(self, frame: Tensor) -> Tensor:
        """Extend a frame with zeros to the margin of :meth:`newest_level`."""
        return extend(frame, self._output_half, "zeros") if self.layer.boundary == "zeros" else frame

    def _convolve(self, value: Tensor, weight: Tensor, bias: Tensor | None, half: Sequence[int]) -> Tensor:
        if self.layer.boundary == "circular":
            return self._convolution(extend(value, half, "circular"), weight, bias)
        return self._convolution(value, weight, bias, padding=half)


def _stretch(x: Tensor, size: Sequence[int], reach: Sequence[int]) -> Tensor:
    """Repeat the middle of ``x`` along its spatial axes until it has a size, where it is smaller than that."""
    for axis, (n, r) in enumerate(zip(size, reach, strict=True), start=2):
        if x.shape[axis] < n:
            middle = x.narrow(axis, r, 1)
            repeated = [n - 2 * r if a == axis else -1 for a in range(x.ndim)]
            x = torch.cat([x.narrow(axis, 0, r), middle.expand(repeated), x.narrow(axis, r + 1, r)], dim=axis)
    return x


def _combined(layer: ConvTT, kernel_size: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
    """Return the kernel and bias of the register convolution.

    Rows are ``[V_M | ... | V_1]``, columns ``[L frames, oldest first | V_{M-1} | ... | V_1]``.
    """
    rank, rows = layer.rank, []
    for m in reversed(range(layer.order)):
        projection = _beside(layer.projections[m])
        # Column blocks V_{M-1} .. V_1; the row of V_{m+1} has its core in the block of V_m.
        blocks = [
            embedded(layer.cores[older], kernel_size)
            if older == m - 1
            else projection.new_zeros(rank[m], rank[older], *kernel_size)
            for older in reversed(range(layer.order - 1))
        ]
        rows.append(torch.cat([embedded(projection, kernel_size), *blocks], dim=1))
    biases = layer.level_biases()[::-1]
    return torch.cat(rows, dim=0), torch.cat(biases) if biases else None


def _beside(projection: Tensor) -> Tensor:
    """Return a projection ``[R, I, frames, *k]`` as a kernel ``[R, frames * I, *k]`` of frames beside each other."""
    return projection.transpose(1, 2).flatten(1, 2)


class StagewiseLevels:
    """The levels of one window with stagewise borders: one convolution of ``[window | V_{m-1}]`` for each.

    Registers advance all levels at once, which pays off over a sequence only: a window by itself would take as many
    advances as there are levels. A fixed window has levels as well. As registers do, these depend on the parameters,
    and must not outlive a change of them.
    """

    def __init__(self, layer: ConvTT) -> None:
        if layer.boundary != "stagewise":
            raise ValueError(
                f'levels one by one have borders of their own: boundary="stagewise", got {layer.boundary!r}'
            )
        self._rank = layer.rank
        self._windows = [layer.window_of(list(range(layer.steps)), level) for level in range(layer.order)]
        biases = layer.level_biases()
        self._levels = []
        for m in range(layer.order):
            weight = _beside(layer.projections[m])
            if m:
                older = layer.cores[m - 1]
                sides = tuple(map(max, weight.shape[2:], older.shape[2:]))
                weight = torch.cat([embedded(weight, sides), embedded(older, sides)], dim=1)
            weight, bias = pad_kernel(as_autocast(weight), as_autocast(biases[m]) if biases else None)
            self._levels.append(JoinedConvolution(channels_last(weight), bias))

    def newest(self, frames: Sequence[Tensor]) -> Tensor:
        """Return :math:`V_M` of the ``steps`` frames ``[batch, in_channels, *spatial]``, oldest first."""
        older: list[Tensor] = []
        for level, window, rank in zip(self._levels, self._windows, self._rank, strict=True):
            older = [level.of([*(frames[n] for n in window), *older], rank)]
        return older[0]


def embedded(kernel: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return a kernel in the middle of zeros."""
    return extend(kernel, [(n - k) // 2 for n, k in zip(size, kernel.shape[2:], strict=True)], "zeros")
