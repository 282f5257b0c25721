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
from tt_conv.conv_tt.registers import Registers, StagewiseLevels
from tt_conv.layers.engine import prepared
from tt_conv.runtime.formats import JoinedConvolution, as_autocast

if TYPE_CHECKING:
    from tt_conv.layers.conv_lstm import ConvLSTMCell
    from tt_conv.layers.conv_tt_lstm import ConvTTLSTMCell

Gates: TypeAlias = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""From a frame and the hidden states to the gates i, f, o, 2g."""


def frozen_conv_lstm(cell: ConvLSTMCell) -> Gates:
    """Return the gates of a ConvLSTM."""
    output, channels = JoinedConvolution(*prepared(cell.conv.weight, cell.conv.bias)), 4 * cell.hidden_channels
    return lambda x, hidden: output([as_autocast(x), as_autocast(hidden[-1])], channels)


def frozen_conv_tt_lstm(cell: ConvTTLSTMCell) -> Gates:
    """Return the gates of a ConvTT-LSTM with stagewise borders: one convolution per level, and one for the gates."""
    train, conv = cell.recurrent, cell.input_conv
    levels = StagewiseLevels(train)
    input_weight = conv.cores[0] if isinstance(conv, ConvTT) else conv.weight
    output = JoinedConvolution(*prepared(torch.cat([input_weight, train.cores[-1]], dim=1), train.bias))
    projection = Registers(conv) if isinstance(conv, ConvTT) else None
    if projection is not None:
        projection.prepare()
    channels = 4 * cell.hidden_channels

    def gates(x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        x, hidden = as_autocast(x), [as_autocast(value) for value in hidden]
        beside = x if projection is None else projection.project(x)[0]
        return output([beside, levels.newest(hidden)], channels)

    return gates
