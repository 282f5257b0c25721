"""A cell on its way through frames, with its weights prepared once.

A single call of a cell is a walk of one step. What is prepared of the weights (joined kernels, memory formats,
registers) belongs to a walk; what crosses from one walk to the next is the state alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.utils import parametrize

from tt_conv.kernels.convolution import MODULES
from tt_conv.layers.gates import double_candidate, lstm_update
from tt_conv.runtime.compiled import Compiled
from tt_conv.runtime.formats import as_autocast, channels_last, pad_kernel
from tt_conv.runtime.modes import has_hooks, replaces

State: TypeAlias = tuple[Tensor, ...]
"""The last hidden states and the cell state, ``(h_{t-N+1}, ..., h_t, c_t)``, each ``[batch, hidden, *spatial]``."""

TYPICAL_LENGTH = 10
"""Steps that the planner expects of a sequence; it weighs work on the weights alone against work per step."""


class Gates(ABC):
    """The four gates with the weights prepared, as every step uses them.

    Their work has a name: what is called as an object itself, Dynamo of torch 2.6 compiles again for every object.
    """

    @abstractmethod
    def of(self, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """Return the gates i, f, o, 2g before their nonlinearities, ``[batch, 4 * hidden, *spatial]``.

        Parameters
        ----------
        x : Tensor
            The frame, ``[batch, in_channels, *spatial]``.
        hidden : sequence of Tensor
            The last hidden states, oldest first, ``[batch, hidden, *spatial]`` each.
        """


class Walk(ABC):
    """A cell on its way through frames.

    Parameters
    ----------
    state : sequence of Tensor
        ``(h_{t-N}, ..., h_{t-1}, c_{t-1})``.
    seen : int
        Hidden states that a step takes, the newest ones.
    steady : int
        Steps after which all steps are alike. The first ones see other memory formats and other needs of gradients than
        all that follow, so they are not worth a compilation.
    """

    def __init__(self, state: Sequence[Tensor], *, seen: int = 1, steady: int = 1) -> None:
        self.compiled: Compiled | None = None
        self.taken = 0
        self.seen, self.steady = seen, steady
        self.hidden = [channels_last(as_autocast(value)) for value in state[:-1]]
        self.memory = channels_last(state[-1])

    def step(self, x: Tensor) -> Tensor:
        """Take the frame ``[batch, in_channels, *spatial]`` and return ``[batch, hidden_channels, *spatial]``."""
        advance = self.compiled if self.compiled is not None and self.taken >= self.steady else advance_eagerly
        newest = advance(self, channels_last(as_autocast(x)))
        self.hidden = [*self.hidden[1:], newest]
        self.taken += 1
        return newest

    def only_outputs(self, steps: int) -> None:
        """Give up :meth:`state` and what only it needs. ``steps``: number of steps still to run."""
        self.hidden = self.hidden[-self.seen :]

    def state(self) -> State:
        """Return the state after the frames so far."""
        return (*self.hidden, self.memory)

    @abstractmethod
    def next_gates(self, x: Tensor) -> Tensor:
        """Return the gates i, f, o, 2g of the next step before their nonlinearities."""


def advance_eagerly(walk: Walk, x: Tensor) -> Tensor:
    """Take one frame, with what a compiler sees of a step."""
    newest, walk.memory = lstm_update(walk.next_gates(x), walk.memory, disposable=True)
    return newest


class WindowWalk(Walk):
    """A walk that takes the gates from the last hidden states as they are."""

    def __init__(self, gates: Gates, state: Sequence[Tensor], *, steady: int) -> None:
        super().__init__(state, seen=len(state) - 1, steady=steady)
        self.gates = gates

    def next_gates(self, x: Tensor) -> Tensor:
        return self.gates.of(x, self.hidden)


class CalledWalk(Walk):
    """A walk that calls the cell for every frame, since hooks want to see the calls, or since its class has its own."""

    def __init__(self, cell: Callable[[Tensor, State], tuple[Tensor, State]], state: Sequence[Tensor]) -> None:
        super().__init__(state, seen=len(state) - 1)
        self.cell = cell

    def step(self, x: Tensor) -> Tensor:
        newest, (*self.hidden, self.memory) = self.cell(x, self.state())
        return newest

    def next_gates(self, x: Tensor) -> Tensor:
        raise RuntimeError("a cell that is called has its own gates")


def prepare_gate_weights(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the kernel and the bias of gates i, f, o, g as every step uses them, for i, f, o, 2g."""
    weight, bias = pad_kernel(
        as_autocast(double_candidate(weight, dim=0)),
        None if bias is None else as_autocast(double_candidate(bias, dim=0)),
    )
    return channels_last(weight), bias


def keeps_frames(conv: Any, in_channels: int, out_channels: int, kernel_size: Sequence[int], padding_mode: str) -> bool:
    """Say whether something with the attributes of a convolution is told to do what that of a cell does.

    That is to slide one kernel over frames, which keep their size, with borders of one kind.
    """
    half = tuple((k - 1) // 2 for k in kernel_size)
    channels = (conv.in_channels, conv.out_channels)
    return (
        (*channels, conv.groups) == (in_channels, out_channels, 1)
        and tuple(conv.kernel_size) == tuple(kernel_size)
        and conv.padding in (half, "same")
        and conv.padding_mode == padding_mode
        and {*conv.stride, *conv.dilation} == {1}
    )


def is_plain(
    conv: nn.Module, in_channels: int, out_channels: int, kernel_size: Sequence[int], padding_mode: str = "zeros"
) -> bool:
    """Say whether a module does what the convolution of a cell does, and nothing else.

    Then its weights may be read and prepared; whatever else stands in its place is called.
    """
    kind = parametrize.type_before_parametrizations(conv)
    return (
        kind is MODULES.get(len(kernel_size))
        and not replaces(conv, "forward", "_conv_forward")
        and ("weight" in conv._parameters or parametrize.is_parametrized(conv, "weight"))
        and keeps_frames(conv, in_channels, out_channels, kernel_size, padding_mode)
        and not has_hooks(conv)
    )


def check_gates(gates: Tensor, like: Tensor, channels: int, part: str) -> Tensor:
    """Return what a replaced part of a cell gave, if it has the shape of gates for frames like ``like``."""
    expected = (like.shape[0], channels, *like.shape[2:])
    if gates.shape != expected:
        raise ValueError(
            f"{part} must give the gates i, f, o, g for every pixel of a frame, shape {tuple(expected)}, "
            f"got {tuple(gates.shape)}"
        )
    return gates
