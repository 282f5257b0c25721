"""Networks that name the action in a video after every frame, and predict the frames to come."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tt_conv.checks import check_shape, one_of, positive_int
from tt_conv.layers.cell import RecurrentCell
from tt_conv.layers.conv_lstm import ConvLSTMCell
from tt_conv.layers.conv_tt_lstm import ConvTTLSTMCell
from tt_conv.layers.walk import State

_CELLS: dict[str, type[ConvLSTMCell | ConvTTLSTMCell]] = {"conv_lstm": ConvLSTMCell, "conv_tt_lstm": ConvTTLSTMCell}
_STRIDE = 2  # of every layer of an encoder
_KERNELS = (5, 3)  # of the first layer of an encoder, and of the others


class Recognizer(nn.Module, ABC):
    """Clips in, a score for every class after every frame out, and the frames that follow.

    Whatever comes out after a frame depends on that frame and those before it, so the answers for every observed part
    of a clip are those of one pass over the clip, and :meth:`step` gives the same ones frame by frame.

    Parameters
    ----------
    in_channels : int
        Channels of a frame.
    classes : int
        Number of classes, K.
    features : int
        Channels of what the network has found after a frame.
    scale : int
        How many pixels of a frame a pixel of it stands for, per axis.
    ahead : int
        Frames that the decoder predicts after each frame; 0 means that there is no decoder.
    dropout : float
        Share of the features that the classifier does without in training.
    """

    def __init__(
        self, in_channels: int, classes: int, features: int, scale: int, *, ahead: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.in_channels = positive_int(in_channels, "in_channels")
        self.classes = positive_int(classes, "classes")
        if ahead < 0 or not 0 <= dropout < 1:
            raise ValueError(f"ahead must not be negative and dropout be from 0 to below 1, got {ahead} and {dropout}")
        self.ahead, self.scale = ahead, scale
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * features, classes)
        self.decoder: nn.Sequential | None = None
        if ahead:
            self.decoder = nn.Sequential(
                nn.Conv2d(features, features, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(features, ahead * in_channels * scale**2, 1),
            )

    @abstractmethod
    def features(self, clips: Tensor) -> Tensor:
        """What is found after every frame: ``[B, T, C, H, W]`` to ``[B, T, features, H / scale, W / scale]``."""

    @abstractmethod
    def feature_step(self, frame: Tensor, state: Sequence[Tensor] | None) -> tuple[Tensor, State]:
        """The same after one more frame ``[B, C, H, W]``, with the state before and after it."""

    @abstractmethod
    def macs(self, size: Sequence[int]) -> int:
        """Return the multiply-adds of the convolutions for one frame ``[in_channels, *size]``, without the decoder."""

    def forward(self, clips: Tensor, future: bool = False) -> Any:
        """Score the classes after every frame, and predict the frames that follow if ``future``.

        Parameters
        ----------
        clips : Tensor
            ``[batch, time, in_channels, height, width]``, values from 0 to 1, oldest frame first.
        future : bool
            Whether to predict frames as well; needs a decoder.

        Returns
        -------
        scores : Tensor
            ``[batch, time, classes]``, logits: number t has seen the frames up to t.
        future : Tensor
            Only if asked for: ``[batch, time, ahead, in_channels, height, width]``, logits of the pixels: number t, n
            is a guess at frame t + 1 + n.

        Raises
        ------
        ValueError
            If ``clips`` has another shape, or sides that the encoder cannot halve, or there is no decoder.
        """
        if future and self.decoder is None:
            raise ValueError("this network predicts no frames: build it with ahead of at least 1")
        features = self.features(self._checked(clips, "clips", "[batch, time, channels, height, width]", 2))
        scores = self.classify(features)
        return (scores, self.decode(features)) if future else scores

    def with_future(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Score the classes and predict the frames that follow, after every frame; see :meth:`forward`."""
        scores, future = self(clips, True)
        return scores, future

    def step(self, frame: Tensor, state: Sequence[Tensor] | None = None) -> tuple[Tensor, State]:
        """Take one frame and score the classes.

        Parameters
        ----------
        frame : Tensor
            ``[batch, in_channels, height, width]``.
        state : sequence of Tensor, optional
            As the step before returned it; ``None`` before the first frame.

        Returns
        -------
        scores : Tensor
            ``[batch, classes]``, logits.
        state : tuple of Tensor
            For the next step.
        """
        checked = self._checked(frame, "frame", "[batch, channels, height, width]", 1)
        features, state = self.feature_step(checked, state)
        return self.classify(features), state

    def classify(self, features: Tensor) -> Tensor:
        """Logits from features: their mean and their largest value over the frame, then a linear map."""
        pooled = torch.cat([features.mean((-2, -1)), features.amax((-2, -1))], dim=-1)
        return self.classifier(self.dropout(pooled))

    def decode(self, features: Tensor) -> Tensor:
        """Logits of the pixels of the next frames, from features ``[B, T, features, h, w]``."""
        assert self.decoder is not None
        batch, time = features.shape[:2]
        blocks = self.decoder(features.flatten(0, 1))
        frames = F.pixel_shuffle(blocks, self.scale)
        return frames.reshape(batch, time, self.ahead, self.in_channels, *frames.shape[-2:])

    def check_size(self, size: Sequence[int]) -> None:
        """Refuse sides of frames that the encoder cannot halve as often as it has layers."""
        if any(side < self.scale or side % self.scale for side in size):
            raise ValueError(
                f"the encoder halves the sides of a frame until {self.scale} pixels are one, which sides of "
                f"{tuple(size)} don't allow: choose others with data.size"
            )

    def _checked(self, frames: Tensor, name: str, layout: str, channel_axis: int) -> Tensor:
        check_shape(frames, name, layout, self.in_channels, 2, channel_axis=channel_axis)
        self.check_size(frames.shape[-2:])
        if channel_axis == 2 and frames.shape[1] == 0:
            raise ValueError(f"{name} must hold at least one frame, got shape {tuple(frames.shape)}")
        return frames


class RecurrentRecognizer(Recognizer):
    """A convolutional encoder of each frame, a stack of ConvLSTM or ConvTT-LSTM cells, a classifier and a decoder.

    The encoder halves the sides of a frame with each of its layers: convolutions with stride 2, of 5 x 5 pixels in the
    first and 3 x 3 in the others, and ReLU. The cells begin with a bias of 1 on their forget gates. The classifier
    sees the mean and the maximum over the frame of the last cell's hidden state.

    Parameters
    ----------
    in_channels, classes : int
        Channels of a frame; number of classes.
    encoder_channels : sequence of int
        Channels after each layer of the encoder.
    hidden_channels : sequence of int
        Of each cell.
    cell : {"conv_tt_lstm", "conv_lstm"}
        Kind of the cells.
    kernel_size : int
        Odd kernel size of the cells.
    ahead, dropout
        See :class:`Recognizer`.
    **cell_options
        Further arguments of :class:`~tt_conv.layers.ConvLSTMCell` or :class:`~tt_conv.layers.ConvTTLSTMCell`.

    Examples
    --------
    >>> model = RecurrentRecognizer(1, 5, (8, 8), (8,), kernel_size=3, rank=2, ahead=2)
    >>> clips = torch.rand(2, 6, 1, 16, 16)
    >>> scores, future = model.with_future(clips)
    >>> scores.shape, future.shape
    (torch.Size([2, 6, 5]), torch.Size([2, 6, 2, 1, 16, 16]))
    >>> state = None
    >>> for frame in clips.unbind(1):
    ...     scores, state = model.step(frame, state)
    >>> scores.shape
    torch.Size([2, 5])

    References
    ----------
    Su, Byeon, Kossaifi, Huang, Kautz, Anandkumar, "Convolutional Tensor-Train LSTM for Spatio-Temporal
    Learning", NeurIPS 2020, arXiv:2002.09131.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        encoder_channels: Sequence[int] = (16, 32),
        hidden_channels: Sequence[int] = (32,),
        *,
        cell: str = "conv_tt_lstm",
        kernel_size: int = 3,
        ahead: int = 0,
        dropout: float = 0.0,
        **cell_options: Any,
    ) -> None:
        encoder_channels = _channel_counts(encoder_channels, "encoder_channels")
        hidden_channels = _channel_counts(hidden_channels, "hidden_channels")
        scale = _STRIDE ** len(encoder_channels)
        super().__init__(in_channels, classes, hidden_channels[-1], scale, ahead=ahead, dropout=dropout)
        make = _CELLS[one_of(cell, "cell", tuple(_CELLS))]
        for option in cell_options:
            if option not in inspect.signature(make).parameters:
                raise TypeError(f"{cell} cells have no option {option!r}; see {make.__name__}")
        ends = (in_channels, *encoder_channels)
        kernels = (_KERNELS[0], *(_KERNELS[1],) * (len(encoder_channels) - 1))
        self.encoder = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, kernel, stride=_STRIDE, padding=kernel // 2), nn.ReLU())
                for (i, o), kernel in zip(pairwise(ends), kernels, strict=True)
            )
        )
        inputs = (encoder_channels[-1], *hidden_channels)
        self.cells = nn.ModuleList(
            make(i, h, kernel_size=kernel_size, **cell_options) for i, h in zip(inputs, hidden_channels, strict=False)
        )
        self._remember_at_first()

    def _remember_at_first(self) -> None:
        for cell in self._cells():
            bias = cell.conv.bias if isinstance(cell, ConvLSTMCell) else cast(ConvTTLSTMCell, cell).recurrent.bias
            if bias is not None:
                with torch.no_grad():
                    bias[cell.hidden_channels : 2 * cell.hidden_channels] += 1

    def features(self, clips: Tensor) -> Tensor:
        encoded = self.encoder(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        frames = encoded.unbind(1)
        for cell in self._cells():
            walk = cell.begin(frames[0])
            frames = tuple(walk.step(frame) for frame in frames)
        return torch.stack(frames, dim=1)

    def feature_step(self, frame: Tensor, state: Sequence[Tensor] | None) -> tuple[Tensor, State]:
        x, cells = self.encoder(frame), self._cells()
        lengths = [cell.steps + 1 for cell in cells]
        if state is not None and len(state) != sum(lengths):
            raise ValueError(f"state must hold {sum(lengths)} tensors, as a step returned it, got {len(state)}")
        after: list[Tensor] = []
        for cell, length in zip(cells, lengths, strict=True):
            own = None if state is None else tuple(state[len(after) : len(after) + length])
            x, new = cell(x, own)
            after += new
        return x, tuple(after)

    def _cells(self) -> list[RecurrentCell]:
        return [cast(RecurrentCell, cell) for cell in self.cells]

    def macs(self, size: Sequence[int]) -> int:
        """Return the multiply-adds of the convolutions for one frame ``[in_channels, *size]``, without the decoder."""
        total, sides = 0, tuple(size)
        for layer in self.encoder:
            total += _macs(cast(nn.Sequential, layer)[0], sides)
            sides = tuple(side // _STRIDE for side in sides)
        return total + sum(cell.macs(sides) for cell in self._cells())


class ConvolutionalRecognizer(Recognizer):
    """A 3-D CNN that sees no future: the baseline.

    Layers of 3 x 3 x 3 convolutions (time, height, width) and ReLU. In time they are causal: a frame and the two
    before it. The first ones halve the sides of the frames. What the classifier sees after a frame is pooled over all
    frames so far. The state of :meth:`step` holds the last two inputs of every layer, and the sums of what was
    pooled, with their number.

    Parameters
    ----------
    in_channels, classes : int
        Channels of a frame; number of classes.
    encoder_channels : sequence of int
        Channels after each layer that halves the sides.
    hidden_channels : sequence of int
        Channels after each further layer.
    ahead, dropout
        See :class:`Recognizer`.

    Examples
    --------
    >>> model = ConvolutionalRecognizer(1, 5, (8, 8), (8, 8))
    >>> model(torch.rand(2, 6, 1, 16, 16)).shape
    torch.Size([2, 6, 5])
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        encoder_channels: Sequence[int] = (16, 32),
        hidden_channels: Sequence[int] = (32, 32),
        *,
        ahead: int = 0,
        dropout: float = 0.0,
    ) -> None:
        encoder_channels = _channel_counts(encoder_channels, "encoder_channels")
        hidden_channels = _channel_counts(hidden_channels, "hidden_channels")
        ends = (in_channels, *encoder_channels, *hidden_channels)
        scale = _STRIDE ** len(encoder_channels)
        super().__init__(in_channels, classes, ends[-1], scale, ahead=ahead, dropout=dropout)
        self.layers = nn.ModuleList(
            _CausalLayer(i, o, _STRIDE if number < len(encoder_channels) else 1)
            for number, (i, o) in enumerate(pairwise(ends))
        )

    def features(self, clips: Tensor) -> Tensor:
        x = clips.transpose(1, 2)
        for layer in self.layers:
            x = layer(F.pad(x, (0, 0, 0, 0, _CausalLayer.PAST, 0)))
        return x.transpose(1, 2)

    def classify(self, features: Tensor) -> Tensor:
        pooled = torch.cat([features.mean((-2, -1)), features.amax((-2, -1))], dim=-1)
        seen = torch.arange(1, pooled.shape[1] + 1, device=pooled.device, dtype=pooled.dtype)
        return self.classifier(self.dropout(pooled.cumsum(dim=1) / seen[:, None]))

    def feature_step(self, frame: Tensor, state: Sequence[Tensor] | None) -> tuple[Tensor, State]:
        if state is not None and len(state) != len(self.layers):
            raise ValueError(f"state must hold {len(self.layers)} tensors, as a step returned it, got {len(state)}")
        x, after = frame.unsqueeze(2), []
        for number, layer in enumerate(self.layers):
            past = x.new_zeros(*x.shape[:2], _CausalLayer.PAST, *x.shape[3:]) if state is None else state[number]
            window = torch.cat([past, x], dim=2)
            after.append(window[:, :, 1:])
            x = layer(window)
        return x.squeeze(2), tuple(after)

    def step(self, frame: Tensor, state: Sequence[Tensor] | None = None) -> tuple[Tensor, State]:
        checked = self._checked(frame, "frame", "[batch, channels, height, width]", 1)
        features, windows = self.feature_step(checked, None if state is None else state[:-2])
        pooled = torch.cat([features.mean((-2, -1)), features.amax((-2, -1))], dim=-1)
        total, count = (pooled, pooled.new_ones(())) if state is None else (state[-2] + pooled, state[-1] + 1)
        return self.classifier(self.dropout(total / count)), (*windows, total, count)

    def macs(self, size: Sequence[int]) -> int:
        """Return the multiply-adds of the convolutions for one frame ``[in_channels, *size]``, without the decoder."""
        total, sides = 0, tuple(size)
        for layer in self.layers:
            conv = cast(Any, layer.conv)
            total += _macs(conv, (_CausalLayer.PAST + 1, *sides))
            sides = tuple(side // conv.stride[1] for side in sides)
        return total


class _CausalLayer(nn.Module):
    """A convolution over a frame and those before it, and ReLU."""

    PAST = 2

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, stride=(1, stride, stride), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, T + 2, H, W]`` to ``[B, C', T, H', W']``."""
        return F.relu(self.conv(x))


def _macs(conv: Any, sides: Sequence[int]) -> int:
    """Multiply-adds of a convolution, plain or factorized, of a frame (in three dimensions: of one output frame)."""
    explain = getattr(conv, "explain", None)
    if explain is not None:  # factorized
        return int(explain((1, conv.in_channels, *sides), train=False).opt_cost)
    spatial = zip(sides[-2:], conv.stride[-2:], strict=True)
    return conv.weight.numel() * math.prod(side // stride for side, stride in spatial)


def _channel_counts(channels: Sequence[int], name: str) -> tuple[int, ...]:
    if not channels:
        raise ValueError(f"{name} must name at least one number of channels")
    return tuple(positive_int(count, name) for count in channels)
