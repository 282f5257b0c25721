"""What every recurrent cell and layer shares: the state and the walk through time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tt_conv._arguments import (
    check_dtype,
    check_shape,
    check_state,
    odd_kernel_size,
    positive_int,
    spatial_dim,
)
from tt_conv._memory_format import channels_last, zeros
from tt_conv.layers.engine import Recurrence, State
from tt_conv.layers.gates import double_candidate, lstm_update

CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class RecurrentCell(nn.Module, ABC):
    """A cell with LSTM gates whose state is passed in and out.

    Subclasses say what the four gates are before their nonlinearities.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, kernel_size: int | Sequence[int], steps: int, dim: int
    ) -> None:
        super().__init__()
        self.dim = spatial_dim(dim)
        self.in_channels = positive_int(in_channels, "in_channels")
        self.hidden_channels = positive_int(hidden_channels, "hidden_channels")
        self.kernel_size = odd_kernel_size(kernel_size, self.dim)
        self.steps = steps

    @abstractmethod
    def gates(self, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """Return the gates i, f, o, g before their nonlinearities, ``[batch, 4 * hidden, *spatial]``."""

    @abstractmethod
    def recurrence(self, state: Sequence[Tensor], *, from_zero: bool) -> Recurrence:
        """Prepare a walk through a sequence from ``state``, which is the zero state if ``from_zero``."""

    @abstractmethod
    def macs(self, spatial_size: Sequence[int]) -> int:
        """Return the multiply-adds of the convolutions of one step of one sample."""

    def zero_state(self, x: Tensor) -> State:
        """Return the state before the first frame, for an input like ``x`` ``[batch, in_channels, *spatial]``."""
        # Tensors of their own: a tracer takes two names of one tensor for one input.
        shape = (x.shape[0], self.hidden_channels, *x.shape[2:])
        return tuple(zeros(x, shape) for _ in range(self.steps + 1))

    def forward(self, x: Tensor, state: Sequence[Tensor] | None = None) -> tuple[Tensor, State]:
        """Take one frame.

        Parameters
        ----------
        x : Tensor
            ``[batch, in_channels, *spatial]``.
        state : sequence of Tensor, optional
            ``(h_{t-N}, ..., h_{t-1}, c_{t-1})``, each ``[batch, hidden_channels, *spatial]``, as the step
            before returned it; ``None`` is the zero state.

        Returns
        -------
        hidden : Tensor
            ``[batch, hidden_channels, *spatial]``.
        state : tuple of Tensor
            ``(h_{t-N+1}, ..., h_t, c_t)``.

        Raises
        ------
        ValueError
            If ``x`` or ``state`` has another shape.
        """
        check_shape(x, "x", "[batch, channels, *spatial]", self.in_channels, self.dim, channel_axis=1)
        check_dtype(x, "x", next(self.parameters()))
        if state is None:
            state = self.zero_state(x)
        else:
            self._check_state(x, state)
        # One memory format from the first step on: nobody downstream meets a state in two.
        *hidden, memory = map(channels_last, state)
        gates = channels_last(self.gates(channels_last(x), hidden))
        newest, memory = lstm_update(double_candidate(gates, dim=1), memory)
        return newest, (*hidden[1:], newest, memory)

    def begin(self, x: Tensor, state: Sequence[Tensor] | None = None) -> Recurrence:
        """Prepare a walk through a sequence of frames like ``x`` ``[batch, in_channels, *spatial]``."""
        check_shape(x, "x", "[batch, channels, *spatial]", self.in_channels, self.dim, channel_axis=1)
        check_dtype(x, "x", next(self.parameters()))
        if state is None:
            return self.recurrence(self.zero_state(x), from_zero=True)
        self._check_state(x, state)
        return self.recurrence(state, from_zero=False)

    def _check_state(self, x: Tensor, state: Sequence[Tensor]) -> None:
        expected = (x.shape[0], self.hidden_channels, *x.shape[2:])
        check_state(state, self.steps + 1, expected, x, f"{self.steps} hidden states and the cell state")


class RecurrentLayer(nn.Module):
    """A cell applied to every frame of a sequence."""

    cell: RecurrentCell

    def forward(self, sequence: Tensor, state: Sequence[Tensor] | None = None) -> tuple[Tensor, State]:
        """Take a sequence.

        Parameters
        ----------
        sequence : Tensor
            ``[batch, time, in_channels, *spatial]``, oldest frame first.
        state : sequence of Tensor, optional
            The state that an earlier segment returned; ``None`` is the zero state.

        Returns
        -------
        outputs : Tensor
            ``[batch, time, hidden_channels, *spatial]``.
        state : tuple of Tensor
            ``(h_{T-N+1}, ..., h_T, c_T)``, each ``[batch, hidden_channels, *spatial]``.

        Raises
        ------
        ValueError
            If ``sequence`` or ``state`` has another shape.
        """
        cell = self.cell
        layout = "[batch, time, channels, *spatial]"
        check_shape(sequence, "sequence", layout, cell.in_channels, cell.dim, channel_axis=2)
        if sequence.shape[1] == 0:
            raise ValueError(f"sequence must hold at least one frame, got shape {tuple(sequence.shape)}")
        recurrence = cell.begin(sequence[:, 0], state)
        outputs = [recurrence.step(x) for x in sequence.unbind(1)]
        return torch.stack(outputs, dim=1), recurrence.state()
