"""A trained ConvLSTM as a ConvTT-LSTM, and dense kernels over several past states as one."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, cast

import torch
from torch import Tensor, nn

from tt_conv.applications.compression.calibration import Calibration, relative_error
from tt_conv.applications.compression.holders import copied, replaced_in
from tt_conv.applications.compression.past_states import explained_by_past, steps_worth_having
from tt_conv.applications.compression.report import CompressionReport, LayerReport
from tt_conv.checks import kernel_size_per_level, odd_kernel_size, one_of, positive_int, rank_per_level
from tt_conv.conv_tt.fit import conv_tt
from tt_conv.conv_tt.fit.decompose import KernelSize
from tt_conv.conv_tt.layer import ConvTT
from tt_conv.conv_tt.rank import ConvTTFormat
from tt_conv.conv_tt.tensor import check_window
from tt_conv.kernels.chain import stacked_kernel
from tt_conv.kernels.convolution import PlainConvolution, plain_convolution
from tt_conv.kernels.metric import Metric
from tt_conv.kernels.stacked_fit import fitted_pair
from tt_conv.layers import ConvLSTM, ConvLSTMCell, ConvTTLSTM, ConvTTLSTMCell, FramePredictor
from tt_conv.runtime.formats import extend

_CHOSEN_BUDGET = 0.25
_MOST_LEVELS = 3  # as published
_MOST_STATES = 5
_WORTH_A_STATE = 0.01
_NO_LOSS = 1e-3  # relative error, which is a millionth of the squares
_FITTING_SEED = 0


def to_conv_tt_lstm(
    model: nn.Module,
    *,
    order: int | None = None,
    steps: int | None = None,
    rank: int | float | Sequence[int] | None = None,
    tol: float | None = None,
    kernel_size: KernelSize | None = None,
    input_rank: int | float | None = None,
    input_kernel_size: int | Sequence[int] | None = None,
    window: str = "sliding",
    boundary: str = "zeros",
    data: Iterable[Any] | None = None,
) -> tuple[nn.Module, CompressionReport]:
    r"""Return the ConvTT-LSTM that begins where a trained ConvLSTM, with its recurrent kernel truncated, is.

    The newest level of the Conv-TT, :math:`G_M * P_M * h_{t-1}`, is fitted to the trained kernel of the hidden
    state. Earlier states have no effect at first: the cores of the older levels are zero, and so are the kernels by
    which the newest level sees earlier states. Their projections are not, so that training brings the levels in,
    from the newest to the oldest, one per step of the optimizer. Biases are copied, and those of the Conv-TT zero.

    Parameters
    ----------
    model : ConvLSTMCell, ConvLSTM, FramePredictor or another module
        Trained, with ordinary convolutions. It is left as it is. Another module holds such layers or cells, whose
        kernels have one size, and takes their states as they come: a ConvTT-LSTM has more of them.
    order : int, optional
        Number of levels, as in :class:`tt_conv.layers.ConvTTLSTM`. ``None`` chooses it: as many as ``rank`` or
        ``kernel_size`` name, otherwise one per past state, up to the published 3, or fewer where the budget holds
        no more.
    steps : int, optional
        Number of past states. ``None`` is one per level; with ``data`` there are more, up to 5, as long as each
        explains another 1 % of what the truncated kernels lose (a regression on the states before the newest one,
        judged on other samples than it was fitted to), and at least one per level of a given ``order``.
        ``report.notes`` has the shares: what earlier states could tell, not what tuning will reach.
    rank : int, float or sequence of int, optional
        One rank, or one per level, for all cells. A float in (0, 1] is a budget: the largest int with which all
        projections and cores together have that share of the parameters of all trained recurrent kernels. With
        ``tol``, the largest rank to consider. ``None`` without ``tol`` is a quarter.
    tol : float, optional
        The smallest rank with which the newest level of every cell reaches this relative error: of the kernel, or,
        with ``data``, of what it gives.
    kernel_size : int or sequence of int, optional
        Odd size of projections and cores, or one per level. ``None`` is the smallest for which the two kernels of
        a level, together, span the trained one: 3 for 3 and 5, 5 for 7 and 9.
    input_rank : int or float, optional
        Factorize the kernel of the frame as well, to two kernels with this many channels in between; a float is a
        share of its parameters. ``None`` keeps it as it is.
    input_kernel_size : int or sequence of int, optional
        Odd size of the kernel of the frame, or of each of its two factors. ``None`` is the smallest that spans the
        trained kernel.
    window : {"sliding", "fixed"}
        As in :class:`tt_conv.layers.ConvTTLSTM`.
    boundary : {"zeros", "stagewise"}
        With "zeros" the result computes exactly what the ConvLSTM with the truncated kernel does. "stagewise"
        cuts off, before the last core, what the projection gives beyond the border: near it the outputs differ.
    data : iterable, optional
        Calibration batches, as :func:`compress` takes them. The kernels are then fitted to what they see; those of
        later cells behind earlier ones whose kernels are truncated, where the spans allow.

    Returns
    -------
    converted : ConvTTLSTMCell, ConvTTLSTM, FramePredictor or a copy of the other module
        In the mode of ``model``.
    report : CompressionReport
        Of the parts of each cell: ``"...recurrent"`` and ``"...input_conv"``.

    Raises
    ------
    TypeError
        If ``model`` holds no ConvLSTM, or a convolution is not an ordinary one.
    ValueError
        If an argument is out of range, the budget or the kernel size is too small, or cells differ in kernel size.

    Examples
    --------
    >>> import torch
    >>> from tt_conv.applications.compression import to_conv_tt_lstm
    >>> from tt_conv.layers import ConvLSTM
    >>> trained = ConvLSTM(1, 8, kernel_size=5)
    >>> converted, report = to_conv_tt_lstm(trained, order=2, rank=4)
    >>> converted.cell.recurrent.rank, converted.cell.recurrent.kernel_size
    ((4, 4), ((3, 3), (3, 3)))
    >>> converted(torch.rand(2, 6, 1, 16, 16))[0].shape
    torch.Size([2, 6, 8, 16, 16])

    References
    ----------
    Su, Byeon, Kossaifi, Huang, Kautz, Anandkumar, "Convolutional Tensor-Train LSTM for Spatio-Temporal
    Learning", NeurIPS 2020, arXiv:2002.09131.
    """
    cells = _cells_of(model)
    one_of(boundary, "boundary", ("zeros", "stagewise"))
    calibration = None if data is None else Calibration(data)
    metrics = _CellMetrics(model, cells, calibration)

    of_input = None if input_rank is None else _input_rank(input_rank, cells.values())
    ask = _Ask(window, kernel_size, rank, tol, cells, metrics)
    levels, per_level, notes = ask.levels(model, order, steps)

    options: dict[str, Any] = {"order": levels.order, "steps": levels.steps, "rank": per_level, "window": window}
    options |= {"kernel_size": levels.kernel_size, "boundary": boundary}
    first = next(iter(cells.values()))
    own = _input_kernel_size(input_kernel_size, first, factorized=of_input is not None)
    options |= {"input_rank": of_input, "input_kernel_size": None if own == levels.kernel_size[-1] else own}
    converted = _like(model, options)
    rows: list[LayerReport] = []
    for name, trained in cells.items():
        rows += _fill_cell(name, cast(ConvTTLSTMCell, converted.get_submodule(name)), trained, metrics)
    return converted, _conversion_report(model, converted, rows, calibration, notes)


def higher_order_to_conv_tt_lstm(
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None = None,
    *,
    order: int,
    rank: int | float | Sequence[int] | None = None,
    tol: float | None = None,
    kernel_size: KernelSize | None = None,
    window: str = "sliding",
    boundary: str = "zeros",
    second_moment: Tensor | None = None,
) -> ConvTTLSTMCell:
    """Return a ConvTT-LSTM cell for a ConvLSTM whose gates see several past states by dense kernels.

    Parameters
    ----------
    input_weight : Tensor
        Kernel of the frame, ``[4 * H, I, *K]``, gates in the order i, f, o, g. It is kept dense.
    recurrent_weight : Tensor
        Kernels of the N past states, ``[4 * H, H, N, *K]``, oldest first.
    bias : Tensor, optional
        ``[4 * H]``.
    order, rank, tol, window, second_moment
        As :func:`tt_conv.conv_tt` takes them.
    kernel_size : int or sequence of int, optional
        As :func:`tt_conv.conv_tt` takes it; ``None`` is the smallest odd size with which the oldest state's
        kernels span the dense one.
    boundary : {"zeros", "circular", "stagewise"}
        As in :class:`tt_conv.layers.ConvTTLSTMCell`; with "stagewise" outputs near the border differ from those
        of the dense kernels.

    Returns
    -------
    ConvTTLSTMCell
        With the dtype and device of ``recurrent_weight``; ``cell.recurrent`` is what :func:`tt_conv.conv_tt` found.

    Raises
    ------
    ValueError
        If a shape does not fit, or an argument is out of range.

    Examples
    --------
    >>> import torch
    >>> from tt_conv import ConvTT
    >>> from tt_conv.applications.compression import higher_order_to_conv_tt_lstm
    >>> dense = ConvTT(4, 16, kernel_size=3, order=2, rank=2).to_tensor().detach()
    >>> cell = higher_order_to_conv_tt_lstm(torch.zeros(16, 1, 3, 3), dense, order=2, rank=2, kernel_size=3)
    >>> torch.allclose(cell.recurrent.to_tensor(), dense, atol=1e-4)
    True
    """
    dim = recurrent_weight.ndim - 3
    if not 1 <= dim <= 3 or recurrent_weight.shape[0] != 4 * recurrent_weight.shape[1]:
        shape = tuple(recurrent_weight.shape)
        raise ValueError(f"recurrent_weight must be [4 * hidden, hidden, steps, *kernel_size], got shape {shape}")
    hidden, steps = recurrent_weight.shape[1:3]
    if input_weight.ndim != dim + 2 or len(input_weight) != 4 * hidden:
        shape = tuple(input_weight.shape)
        raise ValueError(f"input_weight must be [{4 * hidden}, in_channels, *kernel_size], got shape {shape}")
    if bias is not None and tuple(bias.shape) != (4 * hidden,):
        raise ValueError(f"bias must be [{4 * hidden}], got shape {tuple(bias.shape)}")
    order = positive_int(order, "order")
    sizes = kernel_size_per_level(
        _spanning(recurrent_weight.shape[3:], order + 1) if kernel_size is None else kernel_size, order, dim
    )
    found = conv_tt(
        recurrent_weight.detach(),
        rank,
        order=order,
        kernel_size=sizes,
        window=check_window(window),
        tol=tol,
        second_moment=second_moment,
    )
    own = tuple(input_weight.shape[2:])
    cell = ConvTTLSTMCell(
        input_weight.shape[1],
        hidden,
        sizes,
        order=order,
        steps=steps,
        rank=found.rank,
        window=window,
        boundary=boundary,
        bias=bias is not None,
        dim=dim,
        input_kernel_size=None if own == sizes[-1] else own,
        device=recurrent_weight.device,
        dtype=recurrent_weight.dtype,
    )
    with torch.no_grad():
        targets = [*cell.recurrent.projections, *cell.recurrent.cores]
        for target, value in zip(targets, [*found.projections, *found.cores], strict=True):
            target.copy_(value)
        _dense_input(cell).weight.copy_(input_weight)
        if bias is not None:
            cast(Tensor, cell.recurrent.bias).copy_(bias)
    return cell


class _OverBudgetError(ValueError):
    """A budget that does not even hold a rank of 1."""


@dataclass(frozen=True)
class _Levels:
    """The Conv-TT that all cells get, but for its rank."""

    order: int
    steps: int
    window: str
    kernel_size: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls, order: object, steps: object, window: str, kernel_size: KernelSize | None, cell: ConvLSTMCell
    ) -> "_Levels":
        levels = positive_int(order, "order")
        frames = levels if steps is None else positive_int(steps, "steps")
        if frames < levels:
            raise ValueError(f"steps must be at least order, got steps={frames}, order={levels}")
        trained, enough = tuple(cell.kernel_size), _spanning(cell.kernel_size)
        sizes = kernel_size_per_level(enough if kernel_size is None else kernel_size, levels, cell.dim)
        if any(k < needed for k, needed in zip(sizes[-1], enough, strict=True)):
            raise ValueError(
                f"kernel_size {sizes[-1]} of the newest level is too small: its two kernels span "
                f"{tuple(2 * k - 1 for k in sizes[-1])}, and the trained kernel {trained}; give at least {enough}"
            )
        return cls(levels, frames, check_window(window), sizes)

    def parameters(self, rank: Sequence[int], hidden: int) -> int:
        """Return the parameters of projections and cores in a cell."""
        support = [2 * k - 1 for k in self.kernel_size[-1]]
        length = self.steps - self.order + 1 if self.window == "sliding" else self.steps
        form = ConvTTFormat((4 * hidden, hidden, self.steps, *support), self.kernel_size, length)
        return form.parameters(tuple(rank))

    def rank_within(self, rank: object, cells: Iterable[ConvLSTMCell]) -> tuple[int, ...]:
        """Return the rank per level that an int, a sequence or a budget asks for."""
        if isinstance(rank, bool) or not isinstance(rank, Real | Sequence):
            raise TypeError(f"rank must be an int, a sequence of {self.order} ints or a float in (0, 1], got {rank!r}")
        if not isinstance(rank, float):
            return rank_per_level(cast("int | Sequence[int]", rank), self.order)
        hidden = [cell.hidden_channels for cell in cells]
        trained = sum(4 * h * h * math.prod(cell.kernel_size) for h, cell in zip(hidden, cells, strict=True))
        return (
            _largest("rank", rank, trained, lambda r: sum(self.parameters((r,) * self.order, h) for h in hidden)),
        ) * self.order

    def rank_reaching(
        self, tol: float, most: object, cells: Mapping[str, ConvLSTMCell], metrics: "_CellMetrics"
    ) -> tuple[int, ...]:
        """Return the smallest rank with which the newest levels of all cells reach an error."""
        if isinstance(tol, bool) or not isinstance(tol, int | float) or not 0 < tol < 1:
            raise ValueError(f"tol must be a relative error between 0 and 1, got {tol!r}")
        limit = None if most is None else self.rank_within(most, cells.values())[-1]
        size, needed = self.kernel_size[-1], 1
        for name, cell in cells.items():
            kernel, metric = _parts(cell.conv, cell.in_channels)[1], metrics.recurrent(name, self.kernel_size[-1])
            largest = math.prod(size) * kernel.shape[1] if limit is None else limit
            needed = _smallest_reaching(tol, needed, largest, kernel, size, metric)
        return (needed,) * self.order


def _smallest_reaching(
    tol: float, least: int, most: int, kernel: Tensor, kernel_size: Sequence[int], metric: Metric | None
) -> int:
    """Return the smallest rank, from ``least`` on, whose error is small enough; errors fall with the rank."""

    def error(rank: int) -> float:
        return _pair(kernel, rank, kernel_size, metric).error

    too_small, enough = least - 1, least
    while (reached := error(enough)) > tol:
        if enough >= most:
            raise ValueError(
                f"no rank up to {most} reaches a relative error of {tol}: rank {most} ends at {reached:.3g}"
            )
        too_small, enough = enough, min(2 * enough, most)
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        too_small, enough = (too_small, middle) if error(middle) <= tol else (middle, enough)
    return enough


class _CellMetrics:
    """What the parts of each cell's kernel see of the data; nothing is known without data."""

    def __init__(self, model: nn.Module, cells: Mapping[str, ConvLSTMCell], calibration: Calibration | None) -> None:
        self.cells, self.calibration = cells, calibration
        self.watched = copied(model)
        self._untouched = True
        self._known: dict[str, Metric] = {}

    def metric(self, name: str) -> Metric | None:
        """Return the metric of all that a cell's convolution sees, behind what was truncated so far."""
        if self.calibration is None:
            return None
        if name not in self._known:
            # As long as nothing is truncated, one pass does for all cells.
            wanted = {n: c.conv for n, c in _cells_of(self.watched).items() if self._untouched or n == name}
            found = self.calibration.metrics(self.watched, wanted)
            self._known |= {n: self._usable(n, found.get(n)) for n in wanted}
        return self._known[name]

    def _usable(self, name: str, found: Metric | None) -> Metric:
        if found is None:
            raise ValueError(f"the data never reach the cell {name or '(model)'!r}; give others, or data=None")
        inputs = self.cells[name].in_channels
        if not found.channels[inputs:, inputs:].any():
            raise ValueError(
                f"on the data, the cell {name or '(model)'!r} sees no hidden state but zero; give sequences of "
                "several frames"
            )
        return found.floored()

    def input(self, name: str, kernel_size: Sequence[int]) -> Metric | None:
        """Return the metric of the frame for two kernels of a size."""
        return self._part(name, kernel_size, slice(None, self.cells[name].in_channels))

    def recurrent(self, name: str, kernel_size: Sequence[int]) -> Metric | None:
        """Return the metric of the hidden state for two kernels of a size."""
        return self._part(name, kernel_size, slice(self.cells[name].in_channels, None))

    def _part(self, name: str, kernel_size: Sequence[int], channels: slice) -> Metric | None:
        metric, cell = self.metric(name), self.cells[name]
        if metric is None:
            return None
        patches = None
        # Patches were seen as wide as the trained kernel is.
        if metric.patches is not None and tuple(2 * k - 1 for k in kernel_size) == tuple(cell.kernel_size):
            taps = math.prod(cell.kernel_size)
            entries = slice(*(None if end is None else end * taps for end in (channels.start, channels.stop)))
            patches = metric.patches[entries, entries]
        return Metric(metric.channels[channels, channels], patches)

    def truncated(self, name: str, kernel: Tensor) -> None:
        """Let later cells see what a cell does with its truncated kernel, if it is no wider than the trained one."""
        conv = _cells_of(self.watched)[name].conv
        if conv.weight.shape == kernel.shape:
            with torch.no_grad():
                conv.weight.copy_(kernel)
            self._known, self._untouched = {}, False


@dataclass(frozen=True)
class _Ask:
    """What was asked for, from which order, steps and rank follow."""

    window: str
    kernel_size: KernelSize | None
    rank: int | float | Sequence[int] | None
    tol: float | None
    cells: Mapping[str, ConvLSTMCell]
    metrics: _CellMetrics

    def levels(
        self, model: nn.Module, order: int | None, steps: int | None
    ) -> tuple[_Levels, tuple[int, ...], tuple[str, ...]]:
        """Return levels, their ranks, and what to say about how they were chosen."""
        order = self._named() if order is None else positive_int(order, "order")
        steps = None if steps is None else positive_int(steps, "steps")
        helpful, notes = steps, []
        if steps is None and self.metrics.calibration is not None:
            helpful, note = self._helpful(model, 1 if order is None else order, self.metrics.calibration)
            notes.append(note)
        wanted, *_ = tries = self._tries(order, steps, helpful)
        for attempt in tries:
            try:
                levels, rank = self._at(*attempt)
            except _OverBudgetError:
                if attempt == tries[-1]:
                    raise
                continue
            if attempt != wanted:
                notes.append(f"order={levels.order}, steps={levels.steps}: the budget holds no more")
            return levels, rank, tuple(notes)
        raise AssertionError("there is at least one attempt")

    @staticmethod
    def _tries(order: int | None, steps: int | None, helpful: int | None) -> list[tuple[int, int | None]]:
        """Return order and steps to try, the most wanted first; ``steps`` as given, ``helpful`` what would be good."""
        most = _MOST_LEVELS if helpful is None else min(_MOST_LEVELS, helpful)
        tries = [(levels, helpful) for levels in ([order] if order else range(most, 0, -1))]
        if steps is None and helpful is not None:  # then rather fewer states than none
            tries += [(tries[-1][0], states) for states in range(helpful - 1, tries[-1][0] - 1, -1)]
        return tries

    def _named(self) -> int | None:
        """Return the number of levels that the other arguments have."""
        if isinstance(self.rank, Sequence):
            return max(1, len(self.rank))
        if isinstance(self.kernel_size, Sequence) and any(isinstance(k, Sequence) for k in self.kernel_size):
            return len(self.kernel_size)
        return None

    def _at(self, order: int, steps: int | None) -> tuple[_Levels, tuple[int, ...]]:
        levels = _Levels.of(order, steps, self.window, self.kernel_size, next(iter(self.cells.values())))
        if self.tol is None:
            rank = _CHOSEN_BUDGET if self.rank is None else self.rank
            return levels, levels.rank_within(rank, self.cells.values())
        return levels, levels.rank_reaching(self.tol, self.rank, self.cells, self.metrics)

    def _helpful(self, model: nn.Module, order: int, calibration: Calibration) -> tuple[int | None, str]:
        """Return how many past states help on the data, None where they don't tell, and why."""
        levels, rank = self._at(order, None)
        size, lost, worst = levels.kernel_size[-1], {}, 0.0
        for name, cell in self.cells.items():
            kernel = _parts(cell.conv, cell.in_channels)[1]
            pair = _pair(kernel, rank[-1], size, self.metrics.recurrent(name, size))
            dense, worst = pair.dense, max(worst, pair.error)
            lost[name] = _in_the_middle(kernel, dense.shape[2:]) - dense
        if worst < _NO_LOSS:
            return order, f"steps={order}: the truncated kernels lose next to nothing"
        shares = explained_by_past(model, self.cells, lost, calibration, max(_MOST_STATES, order))
        if len(shares) == 1:
            return None, "the sequences of the data are too short to tell how many past states help"
        steps = max(order, steps_worth_having(shares, _WORTH_A_STATE))
        told = ", ".join(f"{share:.1%} by {n}" for n, share in enumerate(shares[1:], 2))
        return steps, (
            f"steps={steps}: of what the truncated kernels lose on the data, past states explain at most {told} of them"
        )


@dataclass(frozen=True)
class _Pair:
    """Two kernels, one after the other, in the place of a wider one."""

    projection: Tensor
    core: Tensor
    error: float

    @property
    def dense(self) -> Tensor:
        return stacked_kernel(self.projection, self.core)


def _pair(kernel: Tensor, rank: int, kernel_size: Sequence[int], metric: Metric | None) -> _Pair:
    """Fit two kernels of one size to ``[O, I, *K]``."""
    wide = _in_the_middle(kernel.double(), [2 * k - 1 for k in kernel_size])
    projection, core = fitted_pair(wide, rank, tuple(kernel_size), metric)
    more = rank - len(projection)
    if more > 0:  # more channels than the kernel can use: without effect at first, as older levels are
        generator = torch.Generator().manual_seed(_FITTING_SEED)
        extra = torch.randn(more, *projection.shape[1:], generator=generator).to(projection) * projection.std()
        projection = torch.cat([projection, extra])
        core = torch.cat([core, core.new_zeros(len(core), more, *core.shape[2:])], dim=1)
    difference = stacked_kernel(projection, core) - wide
    squared = [float(k.square().sum()) if metric is None else metric.squared(k) for k in (difference, wide)]
    error = math.sqrt(squared[0] / squared[1]) if squared[1] else 0.0
    return _Pair(projection.to(kernel.dtype), core.to(kernel.dtype), error)


def _fill_cell(name: str, cell: ConvTTLSTMCell, trained: ConvLSTMCell, metrics: _CellMetrics) -> list[LayerReport]:
    """Fill a fresh cell from a trained one, and say what was lost."""
    of_input, recurrent = _parts(trained.conv, trained.in_channels)
    conv, train = cell.input_conv, cell.recurrent
    newest = _pair(recurrent, train.rank[-1], train.kernel_size[-1], metrics.recurrent(name, train.kernel_size[-1]))
    rows = []
    with torch.no_grad():
        for core in train.cores[:-1]:
            core.zero_()
        train.projections[-1].zero_()
        train.projections[-1][:, :, -1].copy_(newest.projection)
        train.cores[-1].copy_(newest.core)
        if trained.conv.bias is not None:
            cast(Tensor, train.bias).copy_(trained.conv.bias)
        kept = of_input
        if isinstance(conv, ConvTT):
            size = conv.kernel_size[0]
            pair = _pair(of_input, conv.rank[0], size, metrics.input(name, size))
            conv.projections[0][:, :, 0].copy_(pair.projection)
            conv.cores[0].copy_(pair.core)
            kept = pair.dense
            rows.append(_row(f"{name}.input_conv", of_input, conv, pair, metrics.calibration is not None))
        else:
            conv.weight.copy_(_in_the_middle(of_input, conv.weight.shape[2:]))
    rows.append(_row(f"{name}.recurrent", recurrent, train, newest, metrics.calibration is not None))
    if kept.shape[2:] == newest.dense.shape[2:]:
        metrics.truncated(name, torch.cat([kept, newest.dense], dim=1))
    return rows


def _row(name: str, trained: Tensor, train: ConvTT, pair: _Pair, measured: bool) -> LayerReport:
    factors = [*train.projections, *train.cores]
    dense = pair.dense
    wide = _in_the_middle(trained, dense.shape[2:])
    norm = float(trained.norm())
    return LayerReport(
        name.removeprefix("."),
        tuple(trained.shape),
        "conv_tt",
        train.rank,
        trained.numel(),
        sum(factor.numel() for factor in factors),
        None,
        None,
        float((dense - wide).norm()) / norm if norm else 0.0,
        pair.error if measured else None,
    )


def _conversion_report(
    model: nn.Module,
    converted: nn.Module,
    rows: Sequence[LayerReport],
    calibration: Calibration | None,
    notes: tuple[str, ...],
) -> CompressionReport:
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, converted))
    sizes = [sum(p.numel() * p.element_size() for p in m.parameters()) for m in (model, converted)]
    error = None
    if calibration is not None:
        # A ConvTT-LSTM has more states to return: what is compared are the outputs, which come first.
        given, expected = ([batch[:1] for batch in calibration.outputs(m)] for m in (converted, model))
        error = relative_error(given, expected)
    return CompressionReport(
        rows, {}, after / before, "parameters", before, after, sizes[0], sizes[1], output_error=error, notes=notes
    )


def _cells_of(model: nn.Module) -> dict[str, ConvLSTMCell]:
    """Return the ConvLSTM cells of a network by name."""
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    cells = {name: module for name, module in modules if isinstance(module, ConvLSTMCell)}
    if not cells:
        raise TypeError(f"model must be a ConvLSTMCell, or hold such cells, got {_described(model)}")
    for name, cell in cells.items():
        try:
            plain_convolution(cell.conv)
        except TypeError as error:
            raise TypeError(f"the cell {name or '(model)'!r} has no ordinary convolution: {error}") from error
    sizes = {tuple(cell.kernel_size) for cell in cells.values()}
    if len(sizes) > 1:
        told = " and ".join(map(str, sorted(sizes)))
        raise ValueError(f"the kernels of the cells must have one size, got {told}: convert the cells one by one")
    return cells


def _described(model: object) -> str:
    if isinstance(model, FramePredictor):
        return "a FramePredictor of other cells"
    return f"a {type(model).__name__}; other networks' weights come into one by load_conv_lstm_weights"


def _parts(conv: PlainConvolution, inputs: int) -> tuple[Tensor, Tensor]:
    """Return the kernels of the frame and of the hidden state."""
    weight = conv.weight.detach()
    return weight[:, :inputs], weight[:, inputs:]


def _spanning(kernel_size: Sequence[int], kernels: int = 2) -> tuple[int, ...]:
    """Return the smallest odd size with which some kernels, one after the other, span one."""
    return tuple(1 + 2 * math.ceil((size - 1) / (2 * kernels)) for size in kernel_size)


def _in_the_middle(kernel: Tensor, size: Sequence[int]) -> Tensor:
    return extend(kernel, [(n - k) // 2 for n, k in zip(size, kernel.shape[2:], strict=True)], "zeros")


def _input_kernel_size(size: int | Sequence[int] | None, cell: ConvLSTMCell, *, factorized: bool) -> tuple[int, ...]:
    """Return the size of the kernel of the frame, or of its factors."""
    enough = _spanning(cell.kernel_size) if factorized else tuple(cell.kernel_size)
    asked = enough if size is None else odd_kernel_size(size, cell.dim)
    if any(k < needed for k, needed in zip(asked, enough, strict=True)):
        raise ValueError(
            f"input_kernel_size {asked} is too small for the trained kernel {tuple(cell.kernel_size)}; "
            f"give at least {enough}"
        )
    return asked


def _input_rank(rank: object, cells: Iterable[ConvLSTMCell]) -> int:
    """Return the rank of the input convolutions that an int or a budget asks for."""
    if not isinstance(rank, float):
        return positive_int(rank, "input_rank")
    shapes = [(cell.in_channels, 4 * cell.hidden_channels, cell.kernel_size) for cell in cells]
    trained = sum(inputs * outputs * math.prod(size) for inputs, outputs, size in shapes)
    per_rank = sum((inputs + outputs) * math.prod(_spanning(size)) for inputs, outputs, size in shapes)
    return _largest("input_rank", rank, trained, lambda r: r * per_rank)


def _largest(what: str, budget: float, trained: int, parameters: Callable[[int], int]) -> int:
    """Return the largest rank whose parameters are within a share of the trained ones."""
    if not 0 < budget <= 1:
        raise ValueError(f"{what} must be an int of at least 1, or a share of the parameters in (0, 1], got {budget}")
    if parameters(1) > budget * trained:
        raise _OverBudgetError(
            f"{what}={budget} is a share of the trained kernels' {trained:,} parameters, and already a rank of 1 "
            f"takes {parameters(1) / trained:.4g} of them"
        )
    rank = 1
    while parameters(rank + 1) <= budget * trained:
        rank += 1
    return rank


def _like(model: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    """Return a copy with fresh ConvTT-LSTMs in the places of the ConvLSTMs, the same ones every time."""
    converted = copied(model)
    layers = [module for module in converted.modules() if isinstance(module, ConvLSTM)]
    within = {id(layer.cell) for layer in layers}
    cells = [module for module in _cells_of(converted).values() if id(module) not in within]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_FITTING_SEED)
        for old in [*layers, *cells]:
            cell = cast(ConvLSTMCell, old.cell if isinstance(old, ConvLSTM) else old)
            kind = ConvTTLSTM if isinstance(old, ConvLSTM) else ConvTTLSTMCell
            weight = cell.conv.weight
            own = {"bias": cell.conv.bias is not None, "dim": cell.dim, "dtype": weight.dtype, **options}
            fresh = kind(cell.in_channels, cell.hidden_channels, **own)
            converted = replaced_in(converted, {old: fresh.to(weight.device).train(old.training)})
    return converted


def _dense_input(cell: ConvTTLSTMCell) -> PlainConvolution:
    conv = cell.input_conv
    assert not isinstance(conv, ConvTT)
    return conv
