"""ConvTT-LSTM: the recurrence of a ConvLSTM as a convolutional tensor-train over several past states."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from tt_conv.checks import odd_kernel_size, positive_int
from tt_conv.conv_tt.layer import ConvTT
from tt_conv.conv_tt.registers import Registers, StagewiseLevels
from tt_conv.kernels.convolution import MODULES, PlainConvolution
from tt_conv.layers.cell import RecurrentCell, RecurrentLayer
from tt_conv.layers.gates import double_candidate
from tt_conv.layers.walk import TYPICAL_LENGTH, Gates, Walk, check_gates, is_plain, prepare_gate_weights
from tt_conv.runtime.formats import CONVOLUTIONS, Join, JoinedConvolution, extend
from tt_conv.runtime.modes import has_hooks, replaces

Device: TypeAlias = torch.device | str | None


class LevelGates(Gates):
    """The gates of one window with stagewise borders: one convolution per level, and one of ``[x | V_M]``."""

    def __init__(self, train: ConvTT, conv: PlainConvolution | ConvTT, channels: int) -> None:
        self.levels, self.channels = StagewiseLevels(train), channels
        self.projection = _prepared_projection(conv)
        weight = torch.cat([_input_kernel(conv), train.cores[-1]], dim=1)
        self.output = JoinedConvolution(*prepare_gate_weights(weight, train.bias))

    def of(self, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        beside = x if self.projection is None else self.projection.project(x)[0]
        return self.output.of([beside, self.levels.newest(hidden)], self.channels)


class SumOfGates(Gates):
    """The gates as a part that the frame determines and a part that the hidden states do."""

    def __init__(self, of_frame: Callable[[Tensor], Tensor], of_past: Callable[[Sequence[Tensor]], Tensor]) -> None:
        self.of_frame, self.of_past = of_frame, of_past

    def of(self, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        return double_candidate(self.of_frame(x) + self.of_past(hidden), dim=1)


class RegisterWalk(Walk):
    """A walk with a sliding window: one register convolution and one of ``[x | V_M]`` per step.

    Parameters
    ----------
    train : ConvTT
    conv : Conv1d, Conv2d, Conv3d or ConvTT
        The input convolution.
    state : sequence of Tensor
        The zero state if ``from_zero``.
    apart : callable, optional
        Gives what the frame adds to the gates i, f, o, g, if one convolution cannot serve it together with the newest
        core, as one of another size.
    """

    def __init__(
        self,
        train: ConvTT,
        conv: PlainConvolution | ConvTT,
        state: Sequence[Tensor],
        *,
        apart: Callable[[Tensor], Tensor] | None,
        from_zero: bool,
    ) -> None:
        super().__init__(state, steady=train.lags + 1)
        self.form = form = Registers(train)
        form.prepare()
        self.apart = apart
        # A Conv-TT of order 1 has one register, its projection, which depends on the present frame alone.
        self.projection = _prepared_projection(conv) if apart is None else None
        kernels = [_input_kernel(conv), train.cores[-1]] if apart is None else [train.cores[-1]]
        self.channels = train.out_channels
        self.weight, self.bias = prepare_gate_weights(torch.cat(kernels, dim=1), train.bias)
        self.join = Join(self.weight.shape[1])
        self.placed = [form.place(value) for value in self.hidden]
        if from_zero:
            self.registers = form.start_from_zero(self.placed[0])
        else:
            self.registers = form.start(self.placed)
        self.placed = self.placed[train.order :]
        self.current = True
        self.to_come: int | None = None

    def only_outputs(self, steps: int) -> None:
        super().only_outputs(steps)
        # A compiler would see two kinds of steps.
        if self.compiled is None:
            self.to_come = steps

    def step(self, x: Tensor) -> Tensor:
        newest = super().step(x)
        if self.to_come is not None:
            self.to_come -= 1
            if self.to_come:
                # The registers hold all that is needed of the hidden state, and less.
                self._advance()
            self.hidden = []
        return newest

    def _advance(self) -> None:
        placed = [*self.placed, self.form.place(self.hidden[-1])]
        self.registers = self.form.advance(placed, self.registers)
        self.placed = placed[1:]
        self.current = True

    def next_gates(self, x: Tensor) -> Tensor:
        form = self.form
        if not self.current:
            # Not done before it is needed: the last step of a sequence leaves its registers alone.
            self._advance()
        self.current = False
        newest = form.newest_level(self.registers)
        joined = self.join.cat([newest] if self.apart is not None else [self._beside(x), newest])
        gates = form.output_convolution(joined, self.weight, self.bias)[:, : self.channels]
        return gates if self.apart is None else double_candidate(self.apart(x), dim=1) + gates

    def _beside(self, x: Tensor) -> Tensor:
        """Return what stands beside V_M in the output convolution."""
        if self.projection is None:
            return self.form.beside_newest_level(x)
        return self.projection.newest_level(self.projection.project(x))


def _prepared_projection(conv: PlainConvolution | ConvTT) -> Registers | None:
    """Return the projection of a factorized input convolution, prepared."""
    if not isinstance(conv, ConvTT):
        return None
    projection = Registers(conv)
    projection.prepare()
    return projection


def _input_kernel(conv: PlainConvolution | ConvTT) -> Tensor:
    """Return the kernel that takes the frame, or its projection, to the gates."""
    return conv.cores[0] if isinstance(conv, ConvTT) else conv.weight


def _padding_mode(boundary: str) -> Literal["zeros", "circular"]:
    return "circular" if boundary == "circular" else "zeros"


def _is_conv_tt(module: nn.Module) -> bool:
    """Say whether a module is a Conv-TT and nothing else, so that its weights may be read and prepared."""
    own = isinstance(module, ConvTT) and not replaces(module, "forward", "bind_for") and not has_hooks(module)
    # A subclass with a ``forward`` of its own may compute anything.
    return own and type(module).forward is ConvTT.forward and type(module).bind_for is ConvTT.bind_for  # type: ignore[attr-defined]


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
        return MODULES[self.dim](
            self.in_channels,
            4 * self.hidden_channels,
            self.input_kernel_size,  # type: ignore[arg-type]
            padding=tuple((k - 1) // 2 for k in self.input_kernel_size),  # type: ignore[arg-type]
            padding_mode=_padding_mode(boundary),
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

    def prepare(self, x: Tensor, hidden: Tensor, *, reuse: int = 1) -> Gates:
        """Return the gates with the present weights prepared, for windows that are evaluated as a whole."""
        if self.gates_key(x) is not None:
            return LevelGates(self.recurrent, self.input_conv, 4 * self.hidden_channels)
        return SumOfGates(self._input_gates(x, reuse=reuse), self._past_gates(hidden, reuse=reuse))

    def gates_key(self, x: Tensor) -> Hashable | None:
        """Say what :meth:`prepare` depends on besides weights and precision; None if its result must not be kept."""
        # A program of the Conv-TT keeps its weights by itself. In training the planned programs are the faster ones.
        levels = (
            not self.training
            and self._joins_input()
            and self.recurrent.boundary == "stagewise"
            and self.recurrent.optimize == "auto"
        )
        return "levels" if levels else None

    def walk(self, x: Tensor, state: Sequence[Tensor], *, from_zero: bool) -> Walk:
        """Prepare a walk through a sequence from a state, which is the zero state if ``from_zero``."""
        if not self._evaluates_windows() or self.recurrent.window != "sliding":
            return super().walk(x, state, from_zero=from_zero)
        apart = None if self._joins_input() else self._input_gates(x, reuse=TYPICAL_LENGTH)
        return RegisterWalk(self.recurrent, self.input_conv, state, apart=apart, from_zero=from_zero)

    def _evaluates_windows(self) -> bool:
        """Say whether the recurrence is what this cell was made with, so that its weights may be read and prepared."""
        train: Any = self.recurrent
        return _is_conv_tt(train) and (train.in_channels, train.out_channels, train.steps) == (
            self.hidden_channels,
            4 * self.hidden_channels,
            self.steps,
        )

    def _joins_input(self) -> bool:
        """Say whether one convolution can serve the frame, or its projection, together with the newest level."""
        if not self._evaluates_windows():
            return False
        conv: nn.Module = self.input_conv
        channels, size = (self.in_channels, 4 * self.hidden_channels), self.recurrent.kernel_size[-1]
        boundary = self.recurrent.boundary
        if not isinstance(conv, ConvTT):
            return conv._parameters.get("bias") is None and is_plain(conv, *channels, size, _padding_mode(boundary))
        return (
            _is_conv_tt(conv)
            and (conv.in_channels, conv.out_channels, conv.order, conv.steps) == (*channels, 1, 1)
            and (conv.kernel_size, conv.boundary, conv.bias) == ((size,), boundary, None)
        )

    def _input_gates(self, x: Tensor, *, reuse: int) -> Callable[[Tensor], Tensor]:
        """Return what gives the part of the gates that frames like ``x`` ``[batch, in_channels, *spatial]`` determine.

        The present parameters are bound, if the input convolution is of a kind that has any to bind.
        """
        conv: nn.Module = self.input_conv
        channels = 4 * self.hidden_channels
        if isinstance(conv, ConvTT) and _is_conv_tt(conv) and conv.steps == 1:
            evaluate = conv.bind_for(x, reuse=reuse)
            return lambda frame: evaluate(conv.windows([frame]))
        if isinstance(conv, ConvTT):
            return lambda frame: check_gates(conv(frame.unsqueeze(1)).squeeze(1), frame, channels, "input_conv")
        if is_plain(conv, self.in_channels, channels, self.input_kernel_size, "circular"):
            # torch.nn's own periodic padding refuses frames smaller than half a kernel.
            half = [(k - 1) // 2 for k in self.input_kernel_size]
            weight, bias = cast(PlainConvolution, conv).weight, cast(PlainConvolution, conv).bias
            return lambda frame: CONVOLUTIONS[self.dim](extend(frame, half, "circular"), weight, bias)
        return lambda frame: check_gates(conv(frame), frame, channels, "input_conv")

    def _past_gates(self, newest: Tensor, *, reuse: int) -> Callable[[Sequence[Tensor]], Tensor]:
        """Return what gives the part of the gates that hidden states like ``newest`` determine."""
        train, channels = self.recurrent, 4 * self.hidden_channels
        if self._evaluates_windows():
            evaluate = train.bind_for(newest, reuse=reuse)
            return lambda hidden: evaluate(train.windows(hidden))

        def call(hidden: Sequence[Tensor]) -> Tensor:
            return check_gates(train(torch.stack(list(hidden), dim=1))[:, -1], hidden[-1], channels, "recurrent")

        return call

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
