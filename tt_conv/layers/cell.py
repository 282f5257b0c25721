"""What every recurrent cell and layer shares: the state, and the walk through frames."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from tt_conv.checks import (
    check_shape,
    odd_kernel_size,
    positive_int,
    spatial_dim,
)
from tt_conv.layers.walk import TYPICAL_LENGTH, CalledWalk, Gates, State, Walk, WindowWalk, advance_eagerly
from tt_conv.runtime.compiled import Compiled
from tt_conv.runtime.formats import autocast_dtype, check_dtype, check_state, zeros
from tt_conv.runtime.graphs import Replayable
from tt_conv.runtime.kept import Kept, forget_weights
from tt_conv.runtime.modes import has_hooks, replaces


class RecurrentCell(Replayable, ABC):
    """A cell with LSTM gates whose state is passed in and out.

    Subclasses say what the four gates are before their nonlinearities, in :meth:`prepare`.
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
        self.compiled_step: Compiled | None = None
        self._kept = Kept()

    @abstractmethod
    def prepare(self, x: Tensor, hidden: Tensor, *, reuse: int = 1) -> Gates:
        """Return the gates with the present weights prepared.

        Parameters
        ----------
        x, hidden : Tensor
            A frame ``[batch, in_channels, *spatial]`` and a hidden state, as others will be.
        reuse : int
            Frames that are expected.
        """

    def gates_key(self, x: Tensor) -> Hashable | None:
        """Say what :meth:`prepare` depends on besides weights and precision; None if its result must not be kept.

        What calls a part must not be kept, unless the part itself is known to read its weights in every call.
        """
        return None

    @abstractmethod
    def macs(self, spatial_size: Sequence[int]) -> int:
        """Return the multiply-adds of the convolutions of one step of one sample."""

    def zero_state(self, x: Tensor) -> State:
        """Return the state before the first frame, for an input like ``x`` ``[batch, in_channels, *spatial]``."""
        # Tensors of their own: a tracer takes two names of one tensor for one input.
        shape = (x.shape[0], self.hidden_channels, *x.shape[2:])
        hidden = [zeros(x, shape) for _ in range(self.steps)]
        # Under autocast frames that come from another layer are in low precision. The cell state is not.
        dtype = torch.promote_types(x.dtype, next(self.parameters()).dtype)
        return *hidden, zeros(x, shape, dtype)

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
        if self._graphs is None:
            return self._frame(x, state)
        newest, *state = self._graphs("frame", lambda x, *state: _together(self._frame(x, state)), (x, *state))
        return newest, tuple(state)

    def _frame(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, State]:
        """Walk through one frame."""
        walk = WindowWalk(self._gates(x, state[-2]), state, steady=0)
        walk.compiled = self.compiled_step
        return walk.step(x), walk.state()

    def _gates(self, x: Tensor, hidden: Tensor) -> Gates:
        """Return the gates with weights that were prepared in an earlier call, if they still are what they were."""
        if not self.training and not torch.compiler.is_compiling():
            key = self.gates_key(x)
            if key is not None:
                kept = self._kept.get(self, (key, autocast_dtype(x.device)), lambda: self.prepare(x, hidden))
                if kept is not None:
                    return kept
        return self.prepare(x, hidden)

    def compile(self, *, backend: str | Callable[..., Any] = "inductor", **options: Any) -> None:
        """Compile what one frame takes: single calls of the cell, and its steps through sequences.

        Nothing is compiled before the first such call, and then once per shape, precision and grad mode; from the
        ninth such combination on the steps run uncompiled, and so do the first few of every sequence, which start up.

        Parameters
        ----------
        backend : str or callable
        **options
            As :func:`torch.compile` takes them; ``fullgraph=True`` and ``dynamic=False`` unless they are given.

        Examples
        --------
        >>> import torch
        >>> from tt_conv.layers import ConvTTLSTM
        >>> layer = ConvTTLSTM(1, 4, kernel_size=3, rank=2)
        >>> layer.compile(backend="eager")  # the default backend needs a C++ compiler, or a GPU
        >>> with torch.no_grad():
        ...     layer(torch.rand(1, 5, 1, 8, 8))[0].shape
        torch.Size([1, 5, 4, 8, 8])
        """
        options = {"backend": backend, **options}
        self.compiled_step = Compiled(advance_eagerly, options)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what was prepared of the weights is dropped."""
        self.forget_weights()
        return super().train(mode)

    def forget_weights(self) -> None:
        """Drop what the cell and its parts keep of their weights."""
        forget_weights(self)

    def extra_repr(self) -> str:
        """Describe the cell by what its parts do not show."""
        return f"{self.in_channels}, {self.hidden_channels}, kernel_size={self.kernel_size}, steps={self.steps}"

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles are not compiled.
        return {**super().__getstate__(), "compiled_step": None}

    def begin(self, x: Tensor, state: Sequence[Tensor] | None = None) -> Walk:
        """Prepare a walk through a sequence of frames like ``x`` ``[batch, in_channels, *spatial]``."""
        check_shape(x, "x", "[batch, channels, *spatial]", self.in_channels, self.dim, channel_axis=1)
        check_dtype(x, "x", next(self.parameters()))
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # An optimizer may follow, and version counters don't notice fused ones.
            self.forget_weights()
        from_zero = state is None
        if state is None:
            state = self.zero_state(x)
        else:
            self._check_state(x, state)
        if has_hooks(self) or type(self).forward is not RecurrentCell.forward or replaces(self, "forward"):
            return CalledWalk(self, state)
        walk = self.walk(x, state, from_zero=from_zero)
        walk.compiled = self.compiled_step
        return walk

    def walk(self, x: Tensor, state: Sequence[Tensor], *, from_zero: bool) -> Walk:
        """Prepare a walk through a sequence from a state, which is the zero state if ``from_zero``."""
        return WindowWalk(self.prepare(x, state[-2], reuse=TYPICAL_LENGTH), state, steady=self.steps)

    def _check_state(self, x: Tensor, state: Sequence[Tensor]) -> None:
        expected = (x.shape[0], self.hidden_channels, *x.shape[2:])
        check_state(state, self.steps + 1, expected, x, f"{self.steps} hidden states and the cell state")


def _together(result: tuple[Tensor, State]) -> tuple[Tensor, ...]:
    """Return an output and a state as one sequence of tensors."""
    return result[0], *result[1]


class RecurrentLayer(Replayable):
    """A cell applied to every frame of a sequence."""

    cell: RecurrentCell

    def compile(self, *, backend: str | Callable[..., Any] = "inductor", **options: Any) -> None:
        """Compile a step, never the unrolled sequence; see :meth:`ConvTTLSTMCell.compile`."""
        self.cell.compile(backend=backend, **options)

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
        if self._graphs is None:
            return self._walk(sequence, state)
        outputs, *last = self._graphs(
            state is None,
            lambda sequence, *state: _together(self._walk(sequence, state or None)),
            (sequence, *(state or ())),
        )
        return outputs, tuple(last)

    def _walk(self, sequence: Tensor, state: Sequence[Tensor] | None) -> tuple[Tensor, State]:
        walk = self.cell.begin(sequence[:, 0], state)
        outputs = [walk.step(x) for x in sequence.unbind(1)]
        return torch.stack(outputs, dim=1), walk.state()
