"""The recurrence engine: a cell on its way through one sequence, with its weights prepared once.

Everything that a sequence shares (joined kernels, memory formats, registers) lives in a :class:`Recurrence`
and ends with it. What crosses from one sequence to the next is the state alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from tt_conv.conv_tt.layer import ConvTT
from tt_conv.conv_tt.registers import Registers
from tt_conv.kernels.chain import fastest_chain, paddings
from tt_conv.layers.gates import double_candidate, lstm_update
from tt_conv.runtime.formats import Join, as_autocast, channels_last, pad_kernel

if TYPE_CHECKING:
    from tt_conv.layers.conv_lstm import ConvLSTMCell
    from tt_conv.layers.conv_tt_lstm import ConvTTLSTMCell
    from tt_conv.layers.recurrence import RecurrentCell

State: TypeAlias = tuple[Tensor, ...]
"""The last hidden states and the cell state, ``(h_{t-N+1}, ..., h_t, c_t)``, each ``[batch, hidden, *spatial]``."""

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TYPICAL_LENGTH = 10
"""Steps that the planner expects of a sequence; it weighs work on the weights alone against work per step."""


def prepared(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the kernel and the bias of gates i, f, o, g as a sequence uses them at every step, for i, f, o, 2g."""
    weight, bias = pad_kernel(
        as_autocast(double_candidate(weight, dim=0)),
        None if bias is None else as_autocast(double_candidate(bias, dim=0)),
    )
    return channels_last(weight), bias


class Recurrence(ABC):
    """A cell on its way through one sequence."""

    def __init__(self, cell: RecurrentCell, state: Sequence[Tensor]) -> None:
        self.dim = cell.dim
        self.compiled = cell.compiled_step
        self.taken = 0
        self.steady = 1
        self.seen = 1  # hidden states that a step takes
        self.hidden = [channels_last(as_autocast(value)) for value in state[:-1]]
        self.memory = channels_last(state[-1])
        self.gate_channels = 4 * cell.hidden_channels

    def step(self, x: Tensor) -> Tensor:
        """Take the frame ``[batch, in_channels, *spatial]`` and return ``[batch, hidden_channels, *spatial]``."""
        # The first steps see other memory formats and other needs of gradients than all that follow, so they are not
        # worth a compilation.
        advance = self.compiled if self.compiled is not None and self.taken >= self.steady else advance_eagerly
        newest = advance(self, channels_last(as_autocast(x)))
        self.hidden = [*self.hidden[1:], newest]
        self.taken += 1
        return newest

    def only_outputs(self, steps: int) -> None:
        """Give up :meth:`state` and what only it needs, for a walk of which ``steps`` steps are to come."""
        self.hidden = self.hidden[-self.seen :]

    def state(self) -> State:
        """Return the state after the frames so far."""
        return (*self.hidden, self.memory)

    @abstractmethod
    def gates(self, x: Tensor) -> Tensor:
        """Return the gates i, f, o, 2g before their nonlinearities, ``[batch, 4 * hidden, *spatial]``."""


def advance_eagerly(recurrence: Recurrence, x: Tensor) -> Tensor:
    """Take one frame, with what a compiler sees of a step."""
    newest, recurrence.memory = lstm_update(recurrence.gates(x), recurrence.memory, disposable=True)
    return newest


class ConvLSTMRecurrence(Recurrence):
    """A ConvLSTM: one convolution of ``[x | h]``."""

    def __init__(self, cell: ConvLSTMCell, state: Sequence[Tensor]) -> None:
        super().__init__(cell, state)
        self.weight, self.bias = prepared(cell.conv.weight, cell.conv.bias)
        self.join = Join(self.weight.shape[1])
        self.padding = [(k - 1) // 2 for k in cell.kernel_size]

    def gates(self, x: Tensor) -> Tensor:
        joined = self.join.cat([x, self.hidden[-1]])
        return CONVOLVE[self.dim](joined, self.weight, self.bias, padding=self.padding)[:, : self.gate_channels]


class ModuleRecurrence(Recurrence):
    """A ConvLSTM whose convolution is a module to be called: of an unknown kind."""

    def __init__(self, cell: ConvLSTMCell, state: Sequence[Tensor]) -> None:
        super().__init__(cell, state)
        self.conv = cell.conv

    def gates(self, x: Tensor) -> Tensor:
        return double_candidate(self.conv(torch.cat([x, self.hidden[-1]], dim=1)), dim=1)


class CalledRecurrence(Recurrence):
    """A cell that is called for every frame, since hooks on it or on something inside want to see the calls."""

    def __init__(self, cell: RecurrentCell, state: Sequence[Tensor]) -> None:
        super().__init__(cell, state)
        self.cell, self.seen = cell, cell.steps

    def step(self, x: Tensor) -> Tensor:
        newest, (*self.hidden, self.memory) = self.cell(x, self.state())
        return newest

    def gates(self, x: Tensor) -> Tensor:
        return self.cell.gates(x, self.hidden)


class ChainRecurrence(Recurrence):
    """A ConvLSTM whose convolution is factorized: a few convolutions one after the other, merged and bound once."""

    def __init__(self, cell: ConvLSTMCell, state: Sequence[Tensor]) -> None:
        super().__init__(cell, state)
        conv: Any = cell.conv
        batch, _, *spatial = state[-1].shape
        chain = fastest_chain(conv.chains(), index(batch) * math.prod(map(index, spatial)), state[-1].device)
        *inner, last = chain
        weight, self.bias = prepared(last.kernel, conv.bias)
        kernels = [*(channels_last(as_autocast(link.kernel)) for link in inner), weight]
        self.links = list(zip(kernels, paddings(chain), [link.groups for link in chain], strict=True))

    def gates(self, x: Tensor) -> Tensor:
        value, convolve = torch.cat([x, self.hidden[-1]], dim=1), CONVOLVE[self.dim]
        for kernel, padding, groups in self.links[:-1]:
            value = convolve(value, kernel, padding=padding, groups=groups)
        kernel, padding, _ = self.links[-1]
        return convolve(value, kernel, self.bias, padding=padding)


class WindowRecurrence(Recurrence):
    """A ConvTT-LSTM that evaluates the window of past states at every step, with weights bound once."""

    def __init__(self, cell: ConvTTLSTMCell, state: Sequence[Tensor]) -> None:
        super().__init__(cell, state)
        self.steady = self.seen = cell.steps
        self.bind_input, self.train = cell.bind_input, cell.recurrent
        self.input: Callable[[Tensor], Tensor] | None = None
        self.evaluate = self.train.bind_for(self.hidden[0], reuse=_TYPICAL_LENGTH)

    def gates(self, x: Tensor) -> Tensor:
        if self.input is None:
            self.input = self.bind_input(x, reuse=_TYPICAL_LENGTH)
        return double_candidate(self.input(x) + self.evaluate(self.train.windows(self.hidden)), dim=1)


class RegisterRecurrence(Recurrence):
    """A ConvTT-LSTM with a sliding window: one register convolution and one of ``[x | V_M]`` per step.

    An input convolution of another size than the newest core's stays apart from it.
    """

    def __init__(self, cell: ConvTTLSTMCell, state: Sequence[Tensor], *, from_zero: bool) -> None:
        super().__init__(cell, state)
        train = cell.recurrent
        self.form = form = Registers(train)
        form.prepare()
        self.steady = train.lags + 1
        conv = cell.input_conv
        self.bind_input = cell.bind_input
        self.apart: Callable[[Tensor], Tensor] | None = None
        self.together = cell.input_kernel_size == cell.kernel_size
        # A Conv-TT of order 1 has one register, its projection, which depends on the present frame alone.
        self.projection = Registers(conv) if isinstance(conv, ConvTT) and self.together else None
        if self.projection is not None:
            self.projection.prepare()
        kernels = [train.cores[-1]]
        if self.together:
            kernels = [conv.cores[0] if isinstance(conv, ConvTT) else conv.weight, *kernels]
        self.weight, self.bias = prepared(torch.cat(kernels, dim=1), train.bias)
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

    def gates(self, x: Tensor) -> Tensor:
        form = self.form
        if not self.current:
            # Not done before it is needed: the last step of a sequence leaves its registers alone.
            self._advance()
        self.current = False
        newest = form.newest_level(self.registers)
        joined = self.join.cat([self.input(x), newest] if self.together else [newest])
        gates = form.output_convolution(joined, self.weight, self.bias)[:, : self.gate_channels]
        if self.together:
            return gates
        if self.apart is None:
            self.apart = self.bind_input(x, reuse=_TYPICAL_LENGTH)
        return double_candidate(self.apart(x), dim=1) + gates

    def input(self, x: Tensor) -> Tensor:
        """Return what stands beside V_M in the output convolution."""
        if self.projection is None:
            return self.form.beside_newest_level(x)
        return self.projection.newest_level(self.projection.project(x))
