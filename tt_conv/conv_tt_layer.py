"""The convolutional tensor-train layer."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tt_conv._arguments import check_shape, odd_kernel_size, one_of, positive_int, rank_per_level, spatial_dim
from tt_conv._boundary import crop, extend

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_SEQUENCE = "[batch, time, channels, *spatial]"
_FRAME = "[batch, channels, *spatial]"


class ConvTT(nn.Module):
    r"""Convolutional tensor-train layer: one causal convolution over ``steps`` frames, jointly factorized.

    With projections :math:`P_m`, cores :math:`G_m`, order :math:`M` and spatial convolution :math:`*`,

    .. math::

        u_m = P_m * \text{window}_m, \qquad v_1 = u_1, \qquad
        v_m = u_m + G_{m-1} * v_{m-1}, \qquad y = G_M * v_M .

    Level 1 is the oldest. An older frame passes through more cores, and the kernels of all frames share them.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of a frame, :math:`I`, and of an output, :math:`O`.
    kernel_size : int or sequence of int
        Odd size of every projection and core, per spatial axis.
    order : int
        Number of cores :math:`M`.
    steps : int, optional
        Number of frames :math:`N \ge M` that one output sees; ``None`` means ``order``.
    rank : int or sequence of int
        Channels :math:`R_1, \dots, R_M` of the levels; one int means the same at every level.
    window : {"sliding", "fixed"}
        Frames that level m sees: m .. m + lags - 1 with lags = steps - order + 1, or all of them.
    boundary : {"zeros", "circular", "stagewise"}
        Beyond its border a frame is zero, or periodic; ``"stagewise"`` sets every intermediate
        to zero there again before the next core, as the published ConvTT-LSTM does.
    bias : bool
        Add a bias to the output.
    core_bias : bool
        Add a bias after every projection and every core but the last.
    dim : int
        Number of spatial axes: 1, 2 or 3.
    device, dtype
        Of the parameters.

    Raises
    ------
    ValueError
        For an even kernel, ``steps < order``, a rank below 1, or an unknown window or boundary.

    Examples
    --------
    >>> import torch
    >>> from tt_conv import ConvTT
    >>> layer = ConvTT(in_channels=3, out_channels=16, kernel_size=5, order=3, rank=8)
    >>> layer(torch.rand(2, 10, 3, 32, 32)).shape
    torch.Size([2, 10, 16, 32, 32])

    References
    ----------
    Su, Byeon, Kossaifi, Huang, Kautz, Anandkumar, "Convolutional Tensor-Train LSTM for Spatio-Temporal
    Learning", NeurIPS 2020, arXiv:2002.09131.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        *,
        order: int = 3,
        steps: int | None = None,
        rank: int | Sequence[int] = 8,
        window: str = "sliding",
        boundary: str = "zeros",
        bias: bool = True,
        core_bias: bool = False,
        dim: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim = spatial_dim(dim)
        self.in_channels = positive_int(in_channels, "in_channels")
        self.out_channels = positive_int(out_channels, "out_channels")
        self.kernel_size = odd_kernel_size(kernel_size, self.dim)
        self.order = positive_int(order, "order")
        self.steps = positive_int(order if steps is None else steps, "steps")
        if self.steps < self.order:
            raise ValueError(
                f"steps must be at least order, since every level sees a frame of its own: "
                f"got steps={self.steps}, order={self.order}"
            )
        self.rank = rank_per_level(rank, self.order)
        self.window = one_of(window, "window", ("sliding", "fixed"))
        self.boundary = one_of(boundary, "boundary", ("zeros", "circular", "stagewise"))

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape, device=device, dtype=dtype))

        k, frames = self.kernel_size, (self.in_channels, self.window_length)
        levels = zip((*self.rank[1:], self.out_channels), self.rank, strict=True)
        self.projections = nn.ParameterList(zeros(r, *frames, *k) for r in self.rank)
        self.cores = nn.ParameterList(zeros(newer, older, *k) for newer, older in levels)
        self.projection_biases = nn.ParameterList(zeros(r) for r in self.rank if core_bias)
        self.core_biases = nn.ParameterList(zeros(r) for r in self.rank[1:] if core_bias)
        self.bias = zeros(self.out_channels) if bias else None
        self.reset_parameters()

    @property
    def lags(self) -> int:
        """Frames in one level's sliding window, ``steps - order + 1``."""
        return self.steps - self.order + 1

    @property
    def window_length(self) -> int:
        """Frames that one level sees."""
        return self.lags if self.window == "sliding" else self.steps

    def reset_parameters(self) -> None:
        """Draw fresh parameters.

        For white input of variance 1 the levels share the variance of the output equally, and it is 1/3:
        that of PyTorch's own convolution initialisation, at any rank.
        """
        taps = math.prod(self.kernel_size)
        frame = self.in_channels * self.window_length * taps
        for m, (projection, core) in enumerate(zip(self.projections, self.cores, strict=True), start=1):
            gain = m / (m + 1) if m < self.order else 1 / 3
            _uniform(projection, 1 / (m * frame))
            _uniform(core, gain / (core.shape[1] * taps))
        for bias in (*self.projection_biases, *self.core_biases):
            nn.init.zeros_(bias)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_channels * self.steps * taps)
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, sequence: Tensor) -> Tensor:
        """Return the causal output of a sequence; frames before its start are zero.

        Parameters
        ----------
        sequence : Tensor
            ``[batch, time, in_channels, *spatial]``, oldest frame first.

        Returns
        -------
        Tensor
            ``[batch, time, out_channels, *spatial]``; output t sees frames t - steps + 1 .. t.
        """
        check_shape(sequence, "sequence", _SEQUENCE, self.in_channels, self.dim, channel_axis=2)
        batch, time, channels, *spatial = sequence.shape
        past = sequence.new_zeros(batch, self.steps - 1, channels, *spatial)
        padded = torch.cat([past, sequence], dim=1)
        windows = [padded[:, n : n + time].flatten(0, 1) for n in range(self.steps)]
        return self._evaluate(windows).unflatten(0, (batch, time))

    def forward_window(self, window: Tensor) -> Tensor:
        """Return the output that sees the ``steps`` frames of one window.

        Parameters
        ----------
        window : Tensor
            ``[batch, steps, in_channels, *spatial]``, oldest frame first.

        Returns
        -------
        Tensor
            ``[batch, out_channels, *spatial]``.
        """
        check_shape(window, "window", _SEQUENCE, self.in_channels, self.dim, channel_axis=2)
        if window.shape[1] != self.steps:
            raise ValueError(
                f"window must hold steps={self.steps} frames, got {window.shape[1]} "
                f"in shape {tuple(window.shape)}"
            )
        return self._evaluate(window.unbind(1))

    def stream(
        self, frame: Tensor, state: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Take one frame of a sequence and return its output and the state for the next.

        Parameters
        ----------
        frame : Tensor
            ``[batch, in_channels, *spatial]``.
        state : sequence of Tensor, optional
            The ``steps - 1`` frames before this one, oldest first; ``None`` means zero frames.

        Returns
        -------
        output : Tensor
            ``[batch, out_channels, *spatial]``.
        state : tuple of Tensor
            The last ``steps - 1`` frames.
        """
        check_shape(frame, "frame", _FRAME, self.in_channels, self.dim, channel_axis=1)
        if state is None:
            state = (torch.zeros_like(frame),) * (self.steps - 1)
        if len(state) != self.steps - 1 or any(past.shape != frame.shape for past in state):
            raise ValueError(
                f"state must be {self.steps - 1} frames of shape {tuple(frame.shape)}, "
                f"got {[tuple(past.shape) for past in state]}"
            )
        frames = (*state, frame)
        return self._evaluate(frames), frames[1:]

    def _evaluate(self, frames: Sequence[Tensor]) -> Tensor:
        """Evaluate level by level the ``steps`` frames ``[batch, in_channels, *spatial]`` of a window."""
        halves = [(k - 1) // 2 for k in self.kernel_size]
        stagewise = self.boundary == "stagewise"
        convolution = _CONVOLUTIONS[self.dim]
        padding = halves if stagewise else 0
        if not stagewise:
            frames = [
                extend(frame, [(self.order + 1) * h for h in halves], self.boundary) for frame in frames
            ]
        value: Tensor | None = None
        for m in range(self.order):
            first = m if self.window == "sliding" else 0
            seen = torch.cat(list(frames[first : first + self.window_length]), dim=1)
            # A level that is m cores nearer to the output needs m half kernels less of the extended frames.
            seen = seen if stagewise else crop(seen, [m * h for h in halves])
            kernel = self.projections[m].transpose(1, 2).flatten(1, 2)
            level = convolution(seen, kernel, _item(self.projection_biases, m), padding=padding)
            if value is not None:
                core_bias = _item(self.core_biases, m - 1)
                level = level + convolution(value, self.cores[m - 1], core_bias, padding=padding)
            value = level
        assert value is not None
        return convolution(value, self.cores[-1], self.bias, padding=padding)

    def macs(self, spatial_size: Sequence[int]) -> int:
        """Return the multiply-adds of one output ``[out_channels, *spatial_size]`` from its window."""
        if len(spatial_size) != self.dim:
            raise ValueError(f"spatial_size must have {self.dim} sizes, got {tuple(spatial_size)}")

        def pixels(cores_to_go: int) -> int:
            reach = 0 if self.boundary == "stagewise" else cores_to_go
            return math.prod(s + reach * (k - 1) for s, k in zip(spatial_size, self.kernel_size, strict=True))

        projections = sum(p.numel() * pixels(self.order - m) for m, p in enumerate(self.projections))
        return projections + sum(
            g.numel() * pixels(self.order - m) for m, g in enumerate(self.cores, start=1)
        )

    def extra_repr(self) -> str:
        """Describe the layer as its constructor call would."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, order={self.order}, "
            f"steps={self.steps}, rank={self.rank}, window={self.window!r}, boundary={self.boundary!r}, "
            f"bias={self.bias is not None}, core_bias={len(self.projection_biases) > 0}, dim={self.dim}"
        )


def _uniform(parameter: Tensor, variance: float) -> None:
    bound = math.sqrt(3 * variance)
    nn.init.uniform_(parameter, -bound, bound)


def _item(parameters: nn.ParameterList, index: int) -> Tensor | None:
    return parameters[index] if len(parameters) else None
