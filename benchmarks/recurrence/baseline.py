"""The obvious good implementation of the predictor, which every speed of the engine is measured against.

NCHW memory, the lags of a window concatenated in the channels, one convolution per projection and core, one
for ``[x | v]``, PyTorch's own operations, eager. It knows the published form only: a sliding window,
stagewise borders, biases everywhere, two spatial axes.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tt_conv import ConvTT
from tt_conv.layers import ConvLSTMCell, ConvTTLSTMCell, FramePredictor
from tt_conv.layers.patches import fold_patches, unfold_patches


def _convolution(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    kernel = (weight.shape[2], weight.shape[3])
    padding = (kernel[0] // 2, kernel[1] // 2)
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], kernel, padding=padding, bias=bias is not None)
    with torch.no_grad():
        conv.weight.copy_(weight)
        if bias is not None and conv.bias is not None:
            conv.bias.copy_(bias)
    return conv.to(weight.dtype)


def _update(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    i, f, o, g = gates.chunk(4, dim=1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


class BaselineConvLSTM(nn.Module):
    """One ConvLSTM cell."""

    steps = 1

    def __init__(self, cell: ConvLSTMCell) -> None:
        super().__init__()
        self.hidden_channels = cell.hidden_channels
        self.conv = _convolution(cell.conv.weight, cell.conv.bias)

    def forward(self, x: Tensor, hidden: Sequence[Tensor], cell: Tensor) -> tuple[Tensor, Tensor]:
        return _update(self.conv(torch.cat([x, hidden[-1]], dim=1)), cell)


class BaselineConvTTLSTM(nn.Module):
    """One ConvTT-LSTM cell."""

    def __init__(self, cell: ConvTTLSTMCell) -> None:
        super().__init__()
        train = cell.recurrent
        self.hidden_channels, self.steps, self.lags = cell.hidden_channels, train.steps, train.lags
        *cores, last = train.cores
        self.projections = nn.ModuleList(
            _convolution(weight.transpose(1, 2).flatten(1, 2), bias)
            for weight, bias in zip(train.projections, train.projection_biases, strict=True)
        )
        self.cores = nn.ModuleList(
            _convolution(weight, bias) for weight, bias in zip(cores, train.core_biases, strict=True)
        )
        if isinstance(cell.input_conv, ConvTT):
            raise ValueError(f"the baseline has a dense input convolution, got input_rank={cell.input_rank}")
        self.output = _convolution(torch.cat([cell.input_conv.weight, last], dim=1), train.bias)

    def forward(self, x: Tensor, hidden: Sequence[Tensor], cell: Tensor) -> tuple[Tensor, Tensor]:
        value = self.projections[0](torch.cat(list(hidden[: self.lags]), dim=1))
        for m, core in enumerate(self.cores, start=1):
            value = self.projections[m](torch.cat(list(hidden[m : m + self.lags]), dim=1)) + core(value)
        return _update(self.output(torch.cat([x, value], dim=1)), cell)


def _baseline(cell: nn.Module) -> BaselineConvLSTM | BaselineConvTTLSTM:
    if isinstance(cell, ConvLSTMCell):
        return BaselineConvLSTM(cell)
    return BaselineConvTTLSTM(cast(ConvTTLSTMCell, cell))


class BaselinePredictor(nn.Module):
    """The whole network, with the weights of a :class:`FramePredictor`."""

    def __init__(self, model: FramePredictor) -> None:
        super().__init__()
        self.patch_size, self.skip_stride, self.sigmoid = model.patch_size, model.skip_stride, model.sigmoid
        self.blocks = nn.ModuleList(
            nn.ModuleList(_baseline(cell) for cell in cast(nn.ModuleList, block)) for block in model.blocks
        )
        self.output = _convolution(model.output.weight, model.output.bias)

    def forward(self, frames: Tensor, future: int) -> Tensor:
        states: dict[nn.Module, tuple[list[Tensor], Tensor]] = {}
        predictions: list[Tensor] = []
        for t in range(frames.shape[1] + future - 1):
            frame = frames[:, t] if t < frames.shape[1] else predictions[-1]
            x, own = fold_patches(frame, self.patch_size, 2), []
            for b, block in enumerate(self.blocks):
                for cell in cast(list[BaselineConvLSTM | BaselineConvTTLSTM], block):
                    if cell not in states:
                        zero = x.new_zeros(x.shape[0], cell.hidden_channels, *x.shape[2:])
                        states[cell] = ([zero] * cell.steps, zero)
                    hidden, memory = states[cell]
                    x, memory = cell(x, hidden, memory)
                    states[cell] = ([*hidden[1:], x], memory)
                own.append(x)
                if b >= self.skip_stride:
                    x = torch.cat([x, own[b - self.skip_stride]], dim=1)
            x = self.output(x)
            x = torch.sigmoid(x) if self.sigmoid else x
            predictions.append(unfold_patches(x, self.patch_size, 2))
        return torch.stack(predictions, dim=1)
