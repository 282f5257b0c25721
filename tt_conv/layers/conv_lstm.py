"""ConvLSTM."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tt_conv.layers.engine import ChainRecurrence, ConvLSTMRecurrence, ModuleRecurrence, Recurrence
from tt_conv.layers.frozen import Gates, frozen_conv_lstm
from tt_conv.layers.recurrence import CONVOLUTIONS, RecurrentCell, RecurrentLayer


class ConvLSTMCell(RecurrentCell):
    r"""One step of a ConvLSTM, without peepholes.

    .. math::

        [i, f, o, g] = W * [x_t ; h_{t-1}] + b, \qquad
        c_t = \sigma(f)\, c_{t-1} + \sigma(i) \tanh(g), \qquad h_t = \sigma(o) \tanh(c_t) .

    Parameters
    ----------
    in_channels, hidden_channels : int
        Channels of a frame and of the hidden state.
    kernel_size : int or sequence of int
        Odd kernel size, per spatial axis; borders are zero and frames keep their size.
    bias : bool
        Add a bias to the gates.
    dim : int
        Number of spatial axes: 1, 2 or 3.
    device, dtype
        Of the parameters.

    Examples
    --------
    >>> import torch
    >>> from tt_conv.layers import ConvLSTMCell
    >>> cell = ConvLSTMCell(1, 8, kernel_size=3)
    >>> hidden, state = cell(torch.rand(2, 1, 16, 16))
    >>> hidden, state = cell(torch.rand(2, 1, 16, 16), state)
    >>> hidden.shape, len(state)
    (torch.Size([2, 8, 16, 16]), 2)

    References
    ----------
    Shi, Chen, Wang, Yeung, Wong, Woo, "Convolutional LSTM Network", NeurIPS 2015, arXiv:1506.04214.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | Sequence[int],
        *,
        bias: bool = True,
        dim: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_channels, hidden_channels, kernel_size, steps=1, dim=dim)
        self.conv = CONVOLUTIONS[self.dim](
            self.in_channels + self.hidden_channels,
            4 * self.hidden_channels,
            self.kernel_size,  # type: ignore[arg-type]
            padding=tuple((k - 1) // 2 for k in self.kernel_size),  # type: ignore[arg-type]
            bias=bias,
            device=device,
            dtype=dtype,
        )

    def gates(self, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """Return the gates i, f, o, g before their nonlinearities, ``[batch, 4 * hidden, *spatial]``."""
        return self.conv(torch.cat([x, hidden[-1]], dim=1))

    def recurrence(self, state: Sequence[Tensor], *, from_zero: bool) -> Recurrence:
        """Prepare a walk through a sequence from ``state``, which is the zero state if ``from_zero``."""
        conv: nn.Module = self.conv
        if isinstance(conv, nn.modules.conv._ConvNd):
            return ConvLSTMRecurrence(self, state)
        # Compression replaces it.
        return ChainRecurrence(self, state) if hasattr(conv, "chains") else ModuleRecurrence(self, state)

    def can_freeze(self) -> bool:
        """Say whether :meth:`frozen_gates` serves single calls of this cell."""
        return isinstance(self.conv, nn.modules.conv._ConvNd)

    def frozen_gates(self) -> Gates:
        """Return the gates with the present weights prepared."""
        return frozen_conv_lstm(self)

    def macs(self, spatial_size: Sequence[int]) -> int:
        """Return the multiply-adds of the convolutions of one step of one sample."""
        explain = getattr(self.conv, "explain", None)
        if explain is not None:  # factorized
            return int(explain((1, self.conv.in_channels, *spatial_size), train=False).opt_cost)
        return self.conv.weight.numel() * math.prod(spatial_size)


class ConvLSTM(RecurrentLayer):
    """A ConvLSTM over a sequence; the arguments are those of :class:`ConvLSTMCell`.

    Examples
    --------
    >>> import torch
    >>> from tt_conv.layers import ConvLSTM
    >>> outputs, state = ConvLSTM(1, 8, kernel_size=3)(torch.rand(2, 10, 1, 16, 16))
    >>> outputs.shape
    torch.Size([2, 10, 8, 16, 16])
    """

    cell: ConvLSTMCell

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | Sequence[int],
        *,
        bias: bool = True,
        dim: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.cell = ConvLSTMCell(
            in_channels, hidden_channels, kernel_size, bias=bias, dim=dim, device=device, dtype=dtype
        )
