"""ConvTT-LSTM: the recurrence of a ConvLSTM as a convolutional tensor-train over several past states."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from tt_conv.checks import odd_kernel_size, positive_int
from tt_conv.conv_tt.layer import ConvTT
from tt_conv.kernels.convolution import PlainConvolution
from tt_conv.layers.engine import CONVOLVE, Recurrence, RegisterRecurrence, WindowRecurrence
from tt_conv.layers.frozen import Gates, frozen_conv_tt_lstm
from tt_conv.layers.recurrence import CONVOLUTIONS, RecurrentCell, RecurrentLayer
from tt_conv.runtime.formats import extend
from tt_conv.runtime.modes import has_hooks

Device: TypeAlias = torch.device | str | None


class ConvTTLSTMCell(RecurrentCell):
    r"""One step of a ConvTT-LSTM.

    .. math::

        [i, f, o, g] = W_x * x_t + \text{ConvTT}(h_{t-N}, \dots, h_{t-1}) + b ,

    then as in a ConvLSTM. ``cell.recurrent`` is the :class:`tt_conv.ConvTT`. Most of the multiply-adds are those of
    :math:`W_x`, which the paper leaves dense; with ``input_rank`` it is a Conv-TT of order 1, :math:`G * (P * x_t)`.

    Parameters
    ----------
    in_channels, hidden_channels : int
        Channels of a frame and of the hidden state.
    kernel_size : int, sequence of int, or one such sequence per level
        Odd size of every kernel, per spatial axis; or one such sequence per level of the Conv-TT, oldest first.
    order, steps, rank, window
        Of the Conv-TT, see :class:`tt_conv.ConvTT`; the default is the published model's.
    boundary
        Likewise. With ``"circular"`` the input convolution is periodic too.
    bias : bool
        Add a bias in every projection and core.
    dim : int
        Number of spatial axes: 1, 2 or 3.
    input_rank : int, optional
        Send :math:`x_t` to the gates through a projection to this many channels, of the same kernel size and with
        the same borders; ``None`` is the published model's dense convolution.
    input_kernel_size : int or sequence of int, optional
        Odd size of the input convolution, or of its two kernels; ``None`` means that of the newest level, which one
        convolution then serves together with the input.
    device, dtype
        Of the parameters.

    Examples
    --------
    >>> import torch
    >>> from tt_conv.layers import ConvTTLSTMCell
    >>> cell = ConvTTLSTMCell(1, 8, kernel_size=3, order=2, steps=3, rank=4)
    >>> hidden, state = cell(torch.rand(2, 1, 16, 16))
    >>> hidden, state = cell(torch.rand(2, 1, 16, 16), state)
    >>> hidden.shape, len(state)
    (torch.Size([2, 8, 16, 16]), 4)

    References
    ----------
    Su, Byeon, Kossaifi, Huang, Kautz, Anandkumar, "Convolutional Tensor-Train LSTM for Spatio-Temporal
    Learning", NeurIPS 2020, arXiv:2002.09131.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | Sequence[int] | Sequence[Sequence[int]],
        *,
        order: int = 3,
        steps: int | None = None,
        rank: int | Sequence[int] = 8,
        window: str = "sliding",
        boundary: str = "stagewise",
        bias: bool = True,
        dim: int = 2,
        input_rank: int | None = None,
        input_kernel_size: int | Sequence[int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        recurrent = ConvTT(
            positive_int(hidden_channels, "hidden_channels"),
            4 * hidden_channels,
            kernel_size,
            order=order,
            steps=steps,
            rank=rank,
            window=window,
            boundary=boundary,
            bias=bias,
            core_bias=bias,
            dim=dim,
            device=device,
            dtype=dtype,
        )
        super().__init__(in_channels, hidden_channels, recurrent.kernel_size[-1], steps=recurrent.steps, dim=dim)
        # Where sizes are equal, the newest core takes [x_t ; v_M] together.
        same = input_kernel_size is None
        self.input_kernel_size = self.kernel_size if same else odd_kernel_size(input_kernel_size, self.dim)  # type: ignore[arg-type]
        self.input_rank = None if input_rank is None else positive_int(input_rank, "input_rank")
        self.input_conv: PlainConvolution | ConvTT = (
            self._dense_input(boundary, device, dtype)
            if self.input_rank is None
            else self._factorized_input(self.input_rank, boundary, bias, device, dtype)
        )
        self.recurrent = recurrent

    def _dense_input(self, boundary: str, device: Device, dtype: torch.dtype | None) -> PlainConvolution:
        return CONVOLUTIONS[self.dim](
            self.in_channels,
            4 * self.hidden_channels,
            self.input_kernel_size,  # type: ignore[arg-type]
            padding=tuple((k - 1) // 2 for k in self.input_kernel_size),  # type: ignore[arg-type]
            padding_mode="circular" if boundary == "circular" else "zeros",
            bias=False,
            device=device,
            dtype=dtype,
        )

    def _factorized_input(
        self, rank: int, boundary: str, bias: bool, device: Device, dtype: torch.dtype | None
    ) -> ConvTT:
        return ConvTT(
            self.in_channels,
            4 * self.hidden_channels,
            self.input_kernel_size,
            order=1,
            rank=rank,
            boundary=boundary,
            bias=False,
            core_bias=bias,
            dim=self.dim,
            device=device,
            dtype=dtype,
        )

    def gates(self, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """Return the gates i, f, o, g before their nonlinearities, ``[batch, 4 * hidden, *spatial]``."""
        if has_hooks(self.recurrent):
            past = self.recurrent(torch.stack(list(hidden), dim=1))[:, -1]
        else:
            past = self.recurrent.bind_for(hidden[-1])(self.recurrent.windows(hidden))
        return self.bind_input(x)(x) + past

    def bind_input(self, x: Tensor, *, reuse: int = 1) -> Callable[[Tensor], Tensor]:
        """Return what gives the part of the gates that frames like ``x`` ``[batch, in_channels, *spatial]`` determine.

        The present parameters are bound; ``reuse`` says how many frames are expected.
        """
        conv = self.input_conv
        if isinstance(conv, ConvTT) and has_hooks(conv):
            return lambda frame: conv(frame.unsqueeze(1)).squeeze(1)
        if isinstance(conv, ConvTT):
            evaluate = conv.bind_for(x, reuse=reuse)
            return lambda frame: evaluate(conv.windows([frame]))
        if self.recurrent.boundary != "circular" or has_hooks(conv):
            return conv
        # torch.nn's own periodic padding refuses frames smaller than half a kernel.
        half = [(k - 1) // 2 for k in self.input_kernel_size]
        return lambda frame: CONVOLVE[self.dim](extend(frame, half, "circular"), conv.weight)

    def recurrence(self, state: Sequence[Tensor], *, from_zero: bool) -> Recurrence:
        """Prepare a walk through a sequence from ``state``, which is the zero state if ``from_zero``."""
        if self.recurrent.window == "sliding":
            return RegisterRecurrence(self, state, from_zero=from_zero)
        return WindowRecurrence(self, state)

    def can_freeze(self) -> bool:
        """Say whether :meth:`frozen_gates` serves single calls of this cell."""
        plain = isinstance(self.input_conv, (ConvTT, torch.nn.modules.conv._ConvNd))
        plain = plain and self.input_kernel_size == self.kernel_size
        return plain and self.recurrent.boundary == "stagewise" and self.recurrent.optimize == "auto"

    def frozen_gates(self) -> Gates:
        """Return the gates with the present weights prepared."""
        return frozen_conv_tt_lstm(self)

    def forget_weights(self) -> None:
        """Drop what was prepared of the weights."""
        super().forget_weights()
        for part in (self.recurrent, self.input_conv):
            if isinstance(part, ConvTT):
                part.forget_weights()

    def macs(self, spatial_size: Sequence[int]) -> int:
        """Return the multiply-adds of the convolutions of one step of one sample."""
        conv = self.input_conv
        if isinstance(conv, ConvTT):
            return conv.macs(spatial_size) + self.recurrent.macs(spatial_size)
        return conv.weight.numel() * math.prod(spatial_size) + self.recurrent.macs(spatial_size)


class ConvTTLSTM(RecurrentLayer):
    """A ConvTT-LSTM over a sequence; the arguments are those of :class:`ConvTTLSTMCell`.

    Examples
    --------
    >>> import torch
    >>> from tt_conv.layers import ConvTTLSTM
    >>> outputs, state = ConvTTLSTM(1, 8, kernel_size=3, rank=4)(torch.rand(2, 10, 1, 16, 16))
    >>> outputs.shape
    torch.Size([2, 10, 8, 16, 16])
    """

    cell: ConvTTLSTMCell

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | Sequence[int] | Sequence[Sequence[int]],
        *,
        order: int = 3,
        steps: int | None = None,
        rank: int | Sequence[int] = 8,
        window: str = "sliding",
        boundary: str = "stagewise",
        bias: bool = True,
        dim: int = 2,
        input_rank: int | None = None,
        input_kernel_size: int | Sequence[int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.cell = ConvTTLSTMCell(
            in_channels,
            hidden_channels,
            kernel_size,
            order=order,
            steps=steps,
            rank=rank,
            window=window,
            boundary=boundary,
            bias=bias,
            dim=dim,
            input_rank=input_rank,
            input_kernel_size=input_kernel_size,
            device=device,
            dtype=dtype,
        )
