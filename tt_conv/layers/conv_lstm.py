"""ConvLSTM."""

import math
from collections.abc import Hashable, Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor, nn

from tt_conv.kernels.chain import fastest_chain, paddings
from tt_conv.kernels.convolution import MODULES
from tt_conv.layers.cell import RecurrentCell, RecurrentLayer
from tt_conv.layers.gates import double_candidate
from tt_conv.layers.walk import Gates, check_gates, is_plain, keeps_frames, prepare_gate_weights
from tt_conv.runtime.formats import CONVOLUTIONS, JoinedConvolution, as_autocast, channels_last
from tt_conv.runtime.modes import assume_constant_result, has_hooks, replaces


class ConvolutionGates(Gates):
    """The gates as one convolution of ``[x | h]``."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.channels = len(weight)
        self.convolution = JoinedConvolution(*prepare_gate_weights(weight, bias))

    def of(self, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        return self.convolution.of([x, hidden[-1]], self.channels)


class ChainGates(Gates):
    """The gates of a factorized convolution: a few convolutions one after the other, merged once."""

    def __init__(self, conv: Any, x: Tensor) -> None:
        batch, _, *spatial = x.shape
        chain = fastest_chain(conv.chains(), index(batch) * math.prod(map(index, spatial)), x.device)
        *inner, last = chain
        weight, self.bias = prepare_gate_weights(last.kernel, conv.bias)
        kernels = [*(channels_last(as_autocast(link.kernel)) for link in inner), weight]
        self.links = list(zip(kernels, paddings(chain), [link.groups for link in chain], strict=True))
        self.channels = conv.out_channels
        self.convolve = CONVOLUTIONS[len(spatial)]

    def of(self, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        value = torch.cat([x, hidden[-1]], dim=1)
        for kernel, padding, groups in self.links[:-1]:
            value = self.convolve(value, kernel, padding=padding, groups=groups)
        kernel, padding, _ = self.links[-1]
        return self.convolve(value, kernel, self.bias, padding=padding)[:, : self.channels]


class CalledGates(Gates):
    """The gates of a module that is called: one with hooks, or of an unknown kind."""

    def __init__(self, conv: nn.Module, channels: int) -> None:
        self.conv, self.channels = conv, channels

    def of(self, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        gates = self.conv(torch.cat([x, hidden[-1]], dim=1))
        return double_candidate(check_gates(gates, x, self.channels, "conv"), dim=1)


def _is_chain(conv: nn.Module) -> bool:
    """Say whether a module is a factorized convolution, and nothing but its chains of kernels."""
    return _runs_its_chains(type(conv)) and not replaces(conv, "forward") and not has_hooks(conv)


@assume_constant_result
def _runs_its_chains(kind: type[nn.Module]) -> bool:
    """Say whether one class defines both the chains and the call."""
    # A subclass with a ``forward`` of its own may compute anything, whatever chains it inherits.
    homes = [next((each for each in kind.__mro__ if name in vars(each)), None) for name in ("chains", "forward")]
    return homes[0] is not None and homes[0] is homes[1]


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
        self.conv = MODULES[self.dim](
            self.in_channels + self.hidden_channels,
            4 * self.hidden_channels,
            self.kernel_size,  # type: ignore[arg-type]
            padding=tuple((k - 1) // 2 for k in self.kernel_size),  # type: ignore[arg-type]
            bias=bias,
            device=device,
            dtype=dtype,
        )

    def prepare(self, x: Tensor, hidden: Tensor, *, reuse: int = 1) -> Gates:
        """Return the gates with the present weights prepared."""
        conv: Any = self.conv
        kind = self._kind_of_convolution()
        if kind == "plain":
            return ConvolutionGates(conv.weight, conv.bias)
        return ChainGates(conv, x) if kind == "chain" else CalledGates(conv, 4 * self.hidden_channels)

    def gates_key(self, x: Tensor) -> Hashable | None:
        """Say what :meth:`prepare` depends on besides weights and precision; None if its result must not be kept."""
        kind = self._kind_of_convolution()
        if kind == "called":
            return None
        # Which factors are merged depends on the size of the frames.
        return (kind, x.shape) if kind == "chain" else kind

    def _kind_of_convolution(self) -> str:
        """Say whether the convolution is one kernel, a chain of kernels (after compression), or is to be called."""
        conv: nn.Module = self.conv
        told = (self.in_channels + self.hidden_channels, 4 * self.hidden_channels, self.kernel_size)
        if is_plain(conv, *told):
            return "plain"
        return "chain" if _is_chain(conv) and keeps_frames(conv, *told, "zeros") else "called"

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
