"""A stack of recurrent cells that predicts the next frames of a video."""

import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tt_conv.checks import check_shape, one_of, positive_int, spatial_dim
from tt_conv.kernels.convolution import MODULES
from tt_conv.layers.cell import RecurrentCell
from tt_conv.layers.conv_lstm import ConvLSTMCell
from tt_conv.layers.conv_tt_lstm import ConvTTLSTMCell
from tt_conv.layers.patches import fold_patches, unfold_patches
from tt_conv.layers.walk import State, Walk
from tt_conv.runtime.graphs import Replayable

_CELL_CLASSES: dict[str, type[ConvLSTMCell | ConvTTLSTMCell]] = {
    "conv_lstm": ConvLSTMCell,
    "conv_tt_lstm": ConvTTLSTMCell,
}


class FramePredictor(Replayable):
    """Blocks of recurrent cells with skip connections and a 1x1 output convolution.

    From block ``skip_stride`` on (counted from 0) a block's output is concatenated with the own output of
    the block ``skip_stride`` before it. After the given frames the network feeds on its own predictions.
    The defaults are the published 12-layer network for 1-channel frames.

    Parameters
    ----------
    in_channels : int
        Channels of a frame.
    hidden_channels : sequence of int
        Hidden channels of the cells, per block.
    layers_per_block : sequence of int
        Cells in each block.
    cell : {"conv_tt_lstm", "conv_lstm"}
        Kind of the cells.
    kernel_size : int or sequence of int
        Odd kernel size of the cells, per spatial axis.
    skip_stride : int, optional
        Blocks that a skip connection spans; ``None``, or at least the number of blocks, means none.
    sigmoid : bool
        End with a sigmoid, so that predictions lie in (0, 1).
    patch_size : int
        Side of the patches that are folded into channels on the way in and unfolded on the way out.
    dim : int
        Number of spatial axes: 1, 2 or 3.
    device, dtype
        Of the parameters.
    **cell_options
        Further arguments of :class:`ConvLSTMCell` or :class:`ConvTTLSTMCell`.

    Raises
    ------
    ValueError
        For sizes below 1, ``skip_stride=0``, or another number of blocks in ``layers_per_block``.
    TypeError
        For an option that the cell does not have.

    Examples
    --------
    >>> import torch
    >>> from tt_conv.layers import FramePredictor
    >>> model = FramePredictor(1, (8, 8), (1, 1), kernel_size=3, rank=4, skip_stride=None, patch_size=4)
    >>> model(torch.rand(2, 5, 1, 32, 32), future=3).shape
    torch.Size([2, 7, 1, 32, 32])

    References
    ----------
    Su, Byeon, Kossaifi, Huang, Kautz, Anandkumar, "Convolutional Tensor-Train LSTM for Spatio-Temporal
    Learning", NeurIPS 2020, arXiv:2002.09131.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int] = (32, 48, 48, 32),
        layers_per_block: Sequence[int] = (3, 3, 3, 3),
        *,
        cell: str = "conv_tt_lstm",
        kernel_size: int | Sequence[int] = 5,
        skip_stride: int | None = 2,
        sigmoid: bool = False,
        patch_size: int = 1,
        dim: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **cell_options: Any,
    ) -> None:
        super().__init__()
        self.dim = spatial_dim(dim)
        self.in_channels = positive_int(in_channels, "in_channels")
        self.patch_size = positive_int(patch_size, "patch_size")
        self.sigmoid = sigmoid
        hidden_channels = tuple(positive_int(h, "hidden_channels") for h in hidden_channels)
        layers_per_block = tuple(positive_int(n, "layers_per_block") for n in layers_per_block)
        if not hidden_channels or len(hidden_channels) != len(layers_per_block):
            raise ValueError(
                f"hidden_channels and layers_per_block must name the same number of blocks, at least one: "
                f"got {hidden_channels} and {layers_per_block}"
            )
        blocks = len(hidden_channels)
        stride = blocks if skip_stride is None else positive_int(skip_stride, "skip_stride")
        self.skip_stride = min(stride, blocks)
        make = _CELL_CLASSES[one_of(cell, "cell", tuple(_CELL_CLASSES))]
        for option in cell_options:
            if option not in inspect.signature(make).parameters:
                raise TypeError(f"{cell} cells have no option {option!r}; see {make.__name__}")
        options = {"kernel_size": kernel_size, "dim": dim, "device": device, "dtype": dtype, **cell_options}

        self.blocks = nn.ModuleList()
        channels = patch_channels = self.in_channels * self.patch_size**self.dim
        for b, (hidden, layers) in enumerate(zip(hidden_channels, layers_per_block, strict=True)):
            inputs = (channels, *(hidden,) * (layers - 1))
            self.blocks.append(nn.ModuleList(make(i, hidden, **options) for i in inputs))
            skipped = hidden_channels[b - self.skip_stride] if b >= self.skip_stride else 0
            channels = hidden + skipped
        self.output = MODULES[self.dim](channels, patch_channels, 1, device=device, dtype=dtype)

    def forward(
        self, frames: Tensor, future: int, truth: Tensor | None = None, use_truth: Tensor | None = None
    ) -> Tensor:
        """Predict the frames that follow each given frame, and ``future`` frames in all after the last.

        Parameters
        ----------
        frames : Tensor
            ``[batch, time, in_channels, *spatial]``, oldest frame first.
        future : int
            Number of frames to predict after the given ones, at least 1.
        truth : Tensor, optional
            ``[batch, future - 1, in_channels, *spatial]``, the true frames time + 1 .. time + future - 1, for
            scheduled sampling.
        use_truth : Tensor, optional
            ``[batch, future - 1]``, bool: where the network is fed with ``truth`` instead of its own prediction;
            goes with ``truth``.

        Returns
        -------
        Tensor
            ``[batch, time + future - 1, in_channels, *spatial]``: the predictions of frames 2 .. time + future.

        Raises
        ------
        ValueError
            If an argument has another shape, or ``frames`` a side that ``patch_size`` does not divide.
        """
        layout = "[batch, time, channels, *spatial]"
        check_shape(frames, "frames", layout, self.in_channels, self.dim, channel_axis=2)
        future = positive_int(future, "future")
        time = frames.shape[1]
        if time == 0:
            raise ValueError(f"frames must hold at least one frame, got shape {tuple(frames.shape)}")
        self._check_sides(frames.shape[3:])
        check_truth(frames, future, truth, use_truth)
        if self._graphs is None:
            return self._walk(frames, future, truth, use_truth)
        given = (frames,) if truth is None or use_truth is None else (frames, truth, use_truth)
        (predictions,) = self._graphs(
            ("predict", future), lambda frames, *truth: (self._walk(frames, future, *truth),), given
        )
        return predictions

    def _walk(
        self, frames: Tensor, future: int, truth: Tensor | None = None, use_truth: Tensor | None = None
    ) -> Tensor:
        """Predict, with arguments that were checked."""
        time = frames.shape[1]
        walk: list[Walk] = []

        def advance(layer: int, cell: RecurrentCell, x: Tensor) -> Tensor:
            if layer == len(walk):
                walk.append(cell.begin(x))
                walk[layer].only_outputs(time + future - 1)
            return walk[layer].step(x)

        predictions: list[Tensor] = []
        for t in range(time + future - 1):
            frame = frames[:, t] if t < time else predictions[-1]
            if truth is not None and use_truth is not None and t >= time:
                fed = use_truth[:, t - time].reshape(-1, *(1,) * (frame.ndim - 1))
                frame = torch.where(fed, truth[:, t - time], frame)
            predictions.append(self._predict(frame, advance))
        return torch.stack(predictions, dim=1)

    def step(self, frame: Tensor, states: Sequence[State] | None = None) -> tuple[Tensor, tuple[State, ...]]:
        """Take one frame and predict the next.

        Parameters
        ----------
        frame : Tensor
            ``[batch, in_channels, *spatial]``.
        states : sequence of states, optional
            One state per cell, in order, as the step before returned them; ``None`` is the zero state.

        Returns
        -------
        prediction : Tensor
            ``[batch, in_channels, *spatial]``.
        states : tuple of states
            For the next step.
        """
        check_shape(frame, "frame", "[batch, channels, *spatial]", self.in_channels, self.dim, channel_axis=1)
        self._check_sides(frame.shape[2:])
        cells = self.cells()
        if states is not None and not isinstance(states, Sequence):
            raise TypeError(f"states must be a sequence of one state per cell, got {type(states).__name__}")
        if states is not None and len(states) != len(cells):
            raise ValueError(f"states must be one state per cell, {len(cells)} in all, got {len(states)}")
        if self._graphs is None:
            return self._step(frame, states)
        sizes = [cell.steps + 1 for cell in cells]
        if states is not None and [len(state) for state in states] != sizes:
            raise ValueError(f"states must hold {sizes} tensors, got {[len(state) for state in states]}")

        def step(frame: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
            prediction, states = self._step(frame, _as_states(flat, sizes) if flat else None)
            return prediction, *(value for state in states for value in state)

        flat = [] if states is None else [value for state in states for value in state]
        prediction, *values = self._graphs("step", step, (frame, *flat))
        return prediction, _as_states(values, sizes)

    def _step(self, frame: Tensor, states: Sequence[State] | None) -> tuple[Tensor, tuple[State, ...]]:
        given = (None,) * len(self.cells()) if states is None else tuple(states)
        new_states: list[State] = []

        def advance(layer: int, cell: RecurrentCell, x: Tensor) -> Tensor:
            hidden, state = cell(x, given[layer])
            new_states.append(state)
            return hidden

        return self._predict(frame, advance), tuple(new_states)

    def _predict(self, frame: Tensor, advance: Callable[[int, RecurrentCell, Tensor], Tensor]) -> Tensor:
        """Take one frame through the network; ``advance`` takes it through the cell of a layer."""
        x, layer = fold_patches(frame, self.patch_size, self.dim), 0
        own_outputs: list[Tensor] = []
        for b, block in enumerate(self.blocks):
            for cell in cast("list[RecurrentCell]", block):  # as text, for Dynamo of torch 2.6
                x, layer = advance(layer, cell, x), layer + 1
            own_outputs.append(x)
            if b >= self.skip_stride:
                x = torch.cat([x, own_outputs[b - self.skip_stride]], dim=1)
        x = self.output(x)
        x = torch.sigmoid(x) if self.sigmoid else x
        return unfold_patches(x, self.patch_size, self.dim)

    def _check_sides(self, sides: Sequence[int]) -> None:
        if any(side < 1 or side % self.patch_size for side in sides):
            raise ValueError(f"patch_size={self.patch_size} must divide every side of a frame, got {tuple(sides)}")

    def compile(self, *, backend: str | Callable[..., Any] = "inductor", **options: Any) -> None:
        """Compile a step of every cell, never the unrolled sequence; see :meth:`ConvTTLSTMCell.compile`."""
        for cell in self.cells():
            cell.compile(backend=backend, **options)

    def extra_repr(self) -> str:
        """Describe the network by what its parts do not show."""
        return (
            f"{self.in_channels}, skip_stride={self.skip_stride}, sigmoid={self.sigmoid}, patch_size={self.patch_size}"
        )

    def cells(self) -> list[RecurrentCell]:
        """Return the cells in the order in which a frame passes them."""
        return [cast(RecurrentCell, cell) for block in self.blocks for cell in cast(nn.ModuleList, block)]

    def macs(self, spatial_size: Sequence[int]) -> int:
        """Return the multiply-adds of the convolutions for one frame ``[in_channels, *spatial_size]``."""
        if len(spatial_size) != self.dim:
            raise ValueError(f"spatial_size must have {self.dim} sizes, got {tuple(spatial_size)}")
        self._check_sides(spatial_size)
        patches = tuple(side // self.patch_size for side in spatial_size)
        cells = sum(cell.macs(patches) for cell in self.cells())
        explain = getattr(self.output, "explain", None)
        if explain is not None:  # factorized
            return cells + int(explain((1, self.output.in_channels, *patches), train=False).opt_cost)
        return cells + self.output.weight.numel() * math.prod(patches)


def _as_states(values: Sequence[Tensor], sizes: Sequence[int]) -> tuple[State, ...]:
    """Return the values as states of these sizes."""
    ends = list(itertools.accumulate(sizes))
    return tuple(tuple(values[end - size : end]) for end, size in zip(ends, sizes, strict=True))


def check_truth(frames: Tensor, future: int, truth: Tensor | None, use_truth: Tensor | None) -> None:
    """Check what :meth:`FramePredictor.forward` is fed with in place of its own predictions."""
    if (truth is None) != (use_truth is None):
        raise ValueError("truth and use_truth go together, got only one of them")
    if truth is None or use_truth is None:
        return
    expected = (frames.shape[0], future - 1, *frames.shape[2:])
    if truth.shape != expected:
        raise ValueError(f"truth must be the {future - 1} frames between, shape {expected}, got {tuple(truth.shape)}")
    if use_truth.shape != expected[:2] or use_truth.dtype != torch.bool:
        raise ValueError(
            f"use_truth must be bool of shape {expected[:2]}, got {use_truth.dtype} of shape {tuple(use_truth.shape)}"
        )
