"""The convolutional tensor-train layer."""

import math
from collections.abc import Callable, Sequence
from operator import index
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from tt_conv.checks import (
    check_shape,
    kernel_size_per_level,
    one_of,
    positive_int,
    rank_per_level,
    spatial_dim,
)
from tt_conv.conv_tt.fit import conv_tt
from tt_conv.conv_tt.measure import Programs, can_measure, measured_programs
from tt_conv.conv_tt.program import (
    ConvTTShape,
    Evaluate,
    Frames,
    ProgramUsage,
    Weights,
    compiled,
    explanation,
    program_weights,
    ranked_programs,
    trace,
)
from tt_conv.conv_tt.rank import ConvTTFormat
from tt_conv.conv_tt.tensor import ConvTTTensor, check_window, dense_support
from tt_conv.kernels.rank import choose_rank
from tt_conv.runtime.formats import check_dtype, check_state
from tt_conv.runtime.kept import Kept

_SEQUENCE = "[batch, time, channels, *spatial]"
_FRAME = "[batch, channels, *spatial]"
T = TypeVar("T")


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
    kernel_size : int, sequence of int, or one such sequence per level
        Odd size of every projection and core, per spatial axis; or one such sequence per level, oldest first,
        for the projection and the core of that level.
    order : int
        Number of cores :math:`M`.
    steps : int, optional
        Number of frames :math:`N \ge M` that one output sees; ``None`` means ``order``.
    rank : int, sequence of int, or float
        Channels :math:`R_1, \dots, R_M` of the levels; one int means the same at every level. A float in (0, 1] is a
        parameter budget: a share of the parameters of the dense kernel that projections and cores keep within.
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
    optimize : {"auto", "measure"}
        Run the program that should be fastest by its multiply-adds and bytes, or time the most promising ones in the
        first call with each kind of frames, on their device, and remember the fastest for as long as the process
        lives.
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
        kernel_size: int | Sequence[int] | Sequence[Sequence[int]],
        *,
        order: int = 3,
        steps: int | None = None,
        rank: int | float | Sequence[int] = 8,
        window: str = "sliding",
        boundary: str = "zeros",
        bias: bool = True,
        core_bias: bool = False,
        dim: int = 2,
        optimize: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim = spatial_dim(dim)
        self.in_channels = positive_int(in_channels, "in_channels")
        self.out_channels = positive_int(out_channels, "out_channels")
        self.order = positive_int(order, "order")
        self.kernel_size = kernel_size_per_level(kernel_size, self.order, self.dim)
        self.steps = positive_int(order if steps is None else steps, "steps")
        if self.steps < self.order:
            raise ValueError(
                f"steps must be at least order, since every level sees a frame of its own: "
                f"got steps={self.steps}, order={self.order}"
            )
        self.window = one_of(window, "window", ("sliding", "fixed"))
        self.boundary = one_of(boundary, "boundary", ("zeros", "circular", "stagewise"))
        self.optimize = one_of(optimize, "optimize", ("auto", "measure"))
        self.rank = self._checked_rank(rank)
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"dtype must be a real floating-point torch.dtype, got {dtype!r}")

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape, device=device, dtype=dtype))

        frames = (self.in_channels, self.window_length)
        levels = list(zip((*self.rank[1:], self.out_channels), self.rank, self.kernel_size, strict=True))
        self.projections = nn.ParameterList(zeros(r, *frames, *k) for _, r, k in levels)
        self.cores = nn.ParameterList(zeros(newer, older, *k) for newer, older, k in levels)
        self.projection_biases = nn.ParameterList(zeros(r) for r in self.rank if core_bias)
        self.core_biases = nn.ParameterList(zeros(r) for r in self.rank[1:] if core_bias)
        self.bias = zeros(self.out_channels) if bias else None
        self._kept = Kept()
        self.reset_parameters()

    @property
    def lags(self) -> int:
        """Frames in one level's sliding window, ``steps - order + 1``."""
        return self.steps - self.order + 1

    @property
    def window_length(self) -> int:
        """Frames that one level sees."""
        return self.lags if self.window == "sliding" else self.steps

    def _checked_rank(self, rank: int | float | Sequence[int]) -> tuple[int, ...]:
        if not isinstance(rank, float):
            return rank_per_level(rank, self.order)
        support = dense_support(self.kernel_size, self.kernel_size)
        shape = (self.out_channels, self.in_channels, self.steps, *support)
        return choose_rank(ConvTTFormat(shape, self.kernel_size, self.window_length), rank)

    def reset_parameters(self) -> None:
        """Draw fresh parameters.

        For white input of variance 1 the levels share the variance of the output equally, and it is 1/3:
        that of PyTorch's own convolution initialization, at any rank.
        """
        for m, (projection, core) in enumerate(zip(self.projections, self.cores, strict=True), start=1):
            gain = m / (m + 1) if m < self.order else 1 / 3
            _uniform(projection, 1 / (m * projection[0].numel()))
            _uniform(core, gain / core[0].numel())
        for bias in (*self.projection_biases, *self.core_biases):
            nn.init.zeros_(bias)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_channels * self.steps * math.prod(self.kernel_size[-1]))
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
        check_dtype(sequence, "sequence", self.cores[0])
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
        check_dtype(window, "window", self.cores[0])
        if window.shape[1] != self.steps:
            raise ValueError(
                f"window must hold steps={self.steps} frames, got {window.shape[1]} in shape {tuple(window.shape)}"
            )
        return self._evaluate(window.unbind(1))

    def stream(self, frame: Tensor, state: Sequence[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
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
        check_dtype(frame, "frame", self.cores[0])
        if state is None:
            state = (torch.zeros_like(frame),) * (self.steps - 1)
        check_state(state, self.steps - 1, tuple(frame.shape), frame, "the frames before this one")
        frames = (*state, frame)
        return self._evaluate(frames), frames[1:]

    def _evaluate(self, frames: Sequence[Tensor]) -> Tensor:
        """Evaluate the ``steps`` frames ``[batch, in_channels, *spatial]`` of a window."""
        return self.bind_for(frames[0])(self.windows(frames))

    def bind_for(self, frame: Tensor, *, reuse: int = 1) -> Evaluate:
        """Return the preferred program for frames like ``frame`` with the present parameters bound.

        In eval mode, when the parameters take no gradient, what they give together is kept until one changes.

        Parameters
        ----------
        frame : Tensor
            ``[batch, in_channels, *spatial]``.
        reuse : int
            Calls that are expected of the program before the parameters change.
        """
        if frame.shape[0] == 0:
            # No program is for nothing: evaluate a frame more and drop its output.
            evaluate = self.bind_for(_with_one_more(frame), reuse=reuse)
            return lambda frames: evaluate(lambda level: _with_one_more(frames(level)))[:0]
        parameters = list(self.parameters())
        learns = torch.is_grad_enabled() and any(value.requires_grad for value in (frame, *parameters))
        if torch.compiler.is_compiling():
            sizes = self._sizes(frame.shape[0], frame.shape[2:])
            return trace(sizes, learns, reuse, self.weights(), measured=self.optimize == "measure")
        shape = self._shape(frame.shape[0], frame.shape[2:])
        if not self.training and not (torch.is_grad_enabled() and any(value.requires_grad for value in parameters)):
            program = self._ranked(shape, ProgramUsage(train=learns, frozen=True), lambda: frame)[0]

            def bind() -> Evaluate:
                # What is kept must serve calls outside autocast as well.
                with torch.autocast(frame.device.type, enabled=False):
                    return compiled(program).bind(self.weights())

            kept = self._kept.get(self, program, bind)
            if kept is not None:
                return kept
        self.forget_weights()
        program = self._ranked(shape, ProgramUsage(train=learns, reuse=reuse), lambda: frame)[0]
        return compiled(program).bind(self.weights())

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what was kept of the weights is dropped."""
        self.forget_weights()
        return super().train(mode)

    def forget_weights(self) -> None:
        """Drop what was kept of the weights."""
        self._kept.forget()

    def windows(self, frames: Sequence[Tensor]) -> Frames:
        """Return the function by which a program asks for the window of a level."""
        return lambda level: torch.cat(self.window_of(frames, level), dim=1)

    def weights(self) -> Weights:
        """Return the present parameters in the form that programs take."""
        stagewise = self.boundary == "stagewise"
        return program_weights(
            list(self.projections),
            list(self.cores),
            check_window(self.window),
            self.level_biases() if stagewise else [],
            self.bias if stagewise else self.output_bias(),
        )

    def _ranked(self, shape: ConvTTShape, usage: ProgramUsage, frame: Callable[[], Tensor]) -> Programs:
        """Return all programs, the one that is run first."""
        if self.optimize == "auto" or not can_measure():
            return ranked_programs(shape, usage)
        return measured_programs(shape, usage, frame(), self.windows, self.to_conv_tt_tensor)

    def window_of(self, frames: Sequence[T], level: int | None) -> list[T]:
        """Return the frames that a level sees, counted from 0, or with None all."""
        if level is None or self.window == "fixed":
            return list(frames)
        return list(frames[level : level + self.lags])

    def _shape(self, batch: int, spatial_size: Sequence[int]) -> ConvTTShape:
        return ConvTTShape(*self._sizes(batch, spatial_size))

    def _sizes(self, batch: int, spatial_size: Sequence[int]) -> tuple[Any, ...]:
        # In a trace, sizes are tensors or symbols, and so are numbers that differ from those of a model that was
        # compiled before (torch 2.6); a program is for numbers.
        return (
            index(batch),
            tuple([index(size) for size in spatial_size]),
            index(self.in_channels),
            index(self.out_channels),
            tuple([index(rank) for rank in self.rank]),
            tuple([tuple([index(size) for size in sizes]) for sizes in self.kernel_size]),
            index(self.window_length),
            index(self.steps),
            self.boundary,
        )

    def programs(self, input_shape: Sequence[int], *, train: bool | None = None, frozen: bool = False) -> Programs:
        """Return every way to evaluate sequences of one shape, the one that is run first, the others by price.

        With ``optimize="measure"`` that one is found by timing frames of the parameters' dtype.

        Parameters
        ----------
        input_shape : sequence of int
            ``[batch, time, in_channels, *spatial]``; a window or a stream is a batch of sequences of time 1.
        train : bool, optional
            Whether gradients are counted; None asks whether the layer is in training mode.
        frozen : bool
            Whether the parameters stay as they are, so that what they give together costs nothing.

        Raises
        ------
        ValueError
            If ``input_shape`` does not fit the layer.
        """
        try:
            sizes = tuple(index(n) for n in input_shape)
        except TypeError:
            sizes = ()
        if len(sizes) != self.dim + 3 or min(sizes) < 1 or sizes[2] != self.in_channels:
            raise ValueError(
                f"input_shape must be {_SEQUENCE} with {self.in_channels} channels and {self.dim} spatial axes, "
                f"ints of at least 1, got {input_shape!r}"
            )
        shape = self._shape(input_shape[0] * input_shape[1], input_shape[3:])
        usage = ProgramUsage(self.training if train is None else train, frozen)
        like = (shape.batch, shape.in_channels, *shape.spatial_size)
        return self._ranked(shape, usage, lambda: self.cores[0].new_zeros(like))

    def explain(self, input_shape: Sequence[int], *, train: bool | None = None, frozen: bool = False) -> None:
        """Print every way to evaluate sequences of one shape, its cost, and the choice with its steps.

        The parameters are those of :meth:`programs`.

        Examples
        --------
        >>> from tt_conv import ConvTT
        >>> ConvTT(16, 32, kernel_size=3, order=2, rank=4).explain((8, 10, 16, 32, 32), train=False)
        Conv-TT of order 2, 80 windows of 2 frames, borders 'zeros', inference
        ...
        level by level ... <- chosen
        cores 1-2 merged ...
        dense kernel ...
        """
        print(explanation(self.programs(input_shape, train=train, frozen=frozen)))

    @classmethod
    def from_dense(
        cls,
        weight: Tensor,
        rank: int | float | Sequence[int] | None = None,
        *,
        order: int,
        kernel_size: int | tuple[int, ...] | tuple[tuple[int, ...], ...],
        window: str = "sliding",
        boundary: str = "zeros",
        bias: Tensor | None = None,
        **options: Any,
    ) -> Self:
        """Make a layer whose dense kernel approximates a given one.

        Parameters
        ----------
        weight : Tensor
            Dense kernel ``[out_channels, in_channels, steps, *K]``, oldest frame first.
        rank, order, kernel_size, window
            Of the layer; see :func:`tt_conv.conv_tt`, which finds projections and cores.
        boundary : {"zeros", "circular", "stagewise"}
            Only with the first two the layer computes the convolution with ``weight`` at the border, too.
        bias : Tensor, optional
            ``[out_channels]``; it is copied.
        **options
            Of :func:`tt_conv.conv_tt`, such as ``tol``.

        Returns
        -------
        ConvTT
            With the dtype and device of ``weight``.

        Raises
        ------
        ValueError
            If ``weight`` or ``bias`` does not fit, as :func:`tt_conv.conv_tt` says.

        Examples
        --------
        >>> import torch
        >>> from tt_conv import ConvTT
        >>> dense = ConvTT(2, 4, kernel_size=3, order=2, rank=2).to_tensor().detach()
        >>> layer = ConvTT.from_dense(dense, rank=2, order=2, kernel_size=3)
        >>> torch.allclose(layer.to_tensor(), dense, atol=1e-4)
        True
        """
        tensor = conv_tt(weight, rank, order=order, kernel_size=kernel_size, window=check_window(window), **options)
        return cls.from_conv_tt_tensor(tensor, boundary=boundary, bias=bias)

    @classmethod
    def from_conv_tt_tensor(cls, tensor: ConvTTTensor, *, boundary: str = "zeros", bias: Tensor | None = None) -> Self:
        """Make a layer of a :class:`tt_conv.ConvTTTensor`; projections, cores and ``bias`` are copied."""
        out_channels, in_channels, steps, *spatial = tensor.shape
        for projection, core in zip(tensor.projections, tensor.cores, strict=True):
            if projection.shape[3:] != core.shape[2:]:
                raise ValueError(
                    f"a layer's projection and core of one level have one kernel size, got "
                    f"{tuple(projection.shape[3:])} and {tuple(core.shape[2:])}"
                )
        if bias is not None and bias.shape != (out_channels,):
            raise ValueError(f"bias must have shape ({out_channels},), got {tuple(bias.shape)}")
        layer = cls(
            in_channels,
            out_channels,
            [core.shape[2:] for core in tensor.cores],
            order=tensor.order,
            steps=steps,
            rank=tensor.rank,
            window=tensor.window,
            boundary=boundary,
            bias=bias is not None,
            dim=len(spatial),
            device=tensor.cores[0].device,
            dtype=tensor.cores[0].dtype,
        )
        values = [*tensor.projections, *tensor.cores, *([] if bias is None else [bias])]
        targets = [*layer.projections, *layer.cores, *([] if layer.bias is None else [layer.bias])]
        with torch.no_grad():
            for target, value in zip(targets, values, strict=True):
                target.copy_(value)
        return layer

    def to_conv_tt_tensor(self) -> ConvTTTensor:
        """Return the projections and cores as a :class:`tt_conv.ConvTTTensor`; they are shared, biases left out."""
        return ConvTTTensor(list(self.projections), list(self.cores), window=check_window(self.window))

    def to_dense(self) -> tuple[Tensor, Tensor | None]:
        """Return the dense kernel ``[out_channels, in_channels, steps, *K]`` and the bias that equal the layer.

        The bias, ``[out_channels]`` or None, is the constant that all biases together add. With
        ``boundary="stagewise"`` no dense kernel equals the layer: these describe outputs that no border reaches.
        """
        return self.to_tensor(), self.output_bias()

    def to_tensor(self) -> Tensor:
        """Return the dense kernel ``[out_channels, in_channels, steps, *K]``, oldest frame first.

        With ``boundary="stagewise"`` it describes outputs that no border reaches.
        """
        return self.to_conv_tt_tensor().to_tensor()

    def level_biases(self) -> list[Tensor]:
        """Return what the biases of projections and cores add to every v_m, ``[R_m]`` each, or an empty list."""
        biases = list(self.projection_biases)
        # Not [*self.core_biases]: Dynamo of torch 2.11 cannot unpack an nn.ParameterList.
        older = list(self.core_biases)
        return biases[:1] + [bias + other for bias, other in zip(biases[1:], older, strict=True)]

    def output_bias(self) -> Tensor | None:
        """Return the constant that all biases together add to the output, ``[out_channels]``, or None.

        On a domain without an inner border a bias is a constant frame, and a core multiplies it by the sum
        of its kernel.
        """
        constant: Tensor | None = None
        biases = self.level_biases()
        # Dynamo of torch 2.6 takes no zip of other lengths.
        for bias, core in zip(biases, list(self.cores)[: len(biases)], strict=True):
            constant = core.flatten(2).sum(2) @ (bias if constant is None else bias + constant)
        if constant is None or self.bias is None:
            return constant if self.bias is None else self.bias
        return self.bias + constant

    def macs(self, spatial_size: Sequence[int]) -> int:
        """Return the multiply-adds of one output ``[out_channels, *spatial_size]`` in inference."""
        if not isinstance(spatial_size, Sequence) or len(spatial_size) != self.dim:
            raise ValueError(f"spatial_size must be a sequence of {self.dim} ints, got {spatial_size!r}")
        program = self.programs((1, 1, self.in_channels, *spatial_size), train=False)[0]
        return int(program.cost()[0])

    def extra_repr(self) -> str:
        """Describe the layer as its constructor call would."""
        kernel_size = self.kernel_size[0] if len(set(self.kernel_size)) == 1 else self.kernel_size
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={kernel_size}, order={self.order}, "
            f"steps={self.steps}, rank={self.rank}, window={self.window!r}, boundary={self.boundary!r}, "
            f"bias={self.bias is not None}, core_bias={len(self.projection_biases) > 0}, dim={self.dim}, "
            f"optimize={self.optimize!r}"
        )


def _with_one_more(frames: Tensor) -> Tensor:
    return torch.cat([frames, frames.new_zeros(1, *frames.shape[1:])])


def _uniform(parameter: Tensor, variance: float) -> None:
    bound = math.sqrt(3 * variance)
    nn.init.uniform_(parameter, -bound, bound)
