"""Single calls of a cell whose weights stay as they are: prepared once, not once per frame.

What is prepared is kept beside the cell and dropped as soon as a weight has changed. States are as before: nothing that
depends on weights crosses a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from tt_conv.conv_tt.layer import ConvTT
from tt_conv.conv_tt.registers import Registers, embedded
from tt_conv.layers.engine import CONVOLVE, prepared
from tt_conv.runtime.formats import Join, as_autocast, channels_last, pad_kernel

if TYPE_CHECKING:
    from tt_conv.layers.conv_lstm import ConvLSTMCell
    from tt_conv.layers.conv_tt_lstm import ConvTTLSTMCell

Gates: TypeAlias = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""From a frame and the hidden states to the gates i, f, o, 2g."""


class _Convolution:
    """A convolution of tensors beside each other, with zero borders, in its fastest form."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take weights that are prepared and padded already."""
        self.weight, self.bias = weight, bias
        self.convolve = CONVOLVE[weight.ndim - 2]
        self.padding = [(k - 1) // 2 for k in weight.shape[2:]]
        self.join = Join(weight.shape[1])

    def __call__(self, parts: Sequence[Tensor], channels: int) -> Tensor:
        return self.convolve(self.join(parts), self.weight, self.bias, padding=self.padding)[:, :channels]


def frozen_conv_lstm(cell: ConvLSTMCell) -> Gates:
    """Return the gates of a ConvLSTM."""
    output, channels = _Convolution(*prepared(cell.conv.weight, cell.conv.bias)), 4 * cell.hidden_channels
    return lambda x, hidden: output([as_autocast(x), as_autocast(hidden[-1])], channels)


def frozen_conv_tt_lstm(cell: ConvTTLSTMCell) -> Gates:
    """Return the gates of a ConvTT-LSTM with stagewise borders: one convolution per level, and one for the gates."""
    train, conv = cell.recurrent, cell.input_conv
    levels = _levels(train)
    input_weight = conv.cores[0] if isinstance(conv, ConvTT) else conv.weight
    output = _Convolution(*prepared(torch.cat([input_weight, train.cores[-1]], dim=1), train.bias))
    projection = Registers(conv) if isinstance(conv, ConvTT) else None
    if projection is not None:
        projection.prepare()
    channels = 4 * cell.hidden_channels
    windows = [train.window_of(list(range(train.steps)), level) for level in range(train.order)]

    def gates(x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        x, hidden = as_autocast(x), [as_autocast(value) for value in hidden]
        value: list[Tensor] = []
        for level, window, rank in zip(levels, windows, train.rank, strict=True):
            value = [level([*(hidden[n] for n in window), *value], rank)]
        beside = x if projection is None else projection.project(x)[0]
        return output([beside, *value], channels)

    return gates


def _levels(train: ConvTT) -> list[_Convolution]:
    """Return the convolutions of a level's window and the level before it."""
    biases, levels = train.level_biases(), []
    for m in range(train.order):
        weight = train.projections[m].transpose(1, 2).flatten(1, 2)
        if m:
            older = train.cores[m - 1]
            sides = tuple(map(max, weight.shape[2:], older.shape[2:]))
            weight = torch.cat([embedded(weight, sides), embedded(older, sides)], dim=1)
        weight, bias = pad_kernel(as_autocast(weight), as_autocast(biases[m]) if biases else None)
        levels.append(_Convolution(channels_last(weight), bias))
    return levels
