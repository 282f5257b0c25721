"""How a Conv-TT is evaluated: a small graph of conv-einsum expressions and additions, chosen by its cost."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations, pairwise
from operator import index
from typing import Any

import torch
from torch import Tensor

from tt_conv.conv_einsum import (
    ConvEinsumExpression,
    PathInfo,
    conv_einsum,
    conv_einsum_expression,
    conv_einsum_path,
)
from tt_conv.conv_tt.tensor import ConvTTTensor, Window
from tt_conv.runtime.machine import machine_of
from tt_conv.runtime.modes import assume_constant_result

_SPACE_MODES = "xyz"
# Any letter is a mode. Beyond those of ASCII there are enough for an order of 20,000: the unified CJK ideographs.
_CHANNEL_MODES = "cdefghijklmnopqrstuvw" + string.ascii_uppercase + "".join(map(chr, range(0x4E00, 0x9FA6)))
# There are 2^(M - 1) ways to merge runs of M cores, and M^2 / 2 with one merged run: 211 programs of order 21 take
# minutes to plan.
_EVERY_PARTITION_UP_TO = 6
_EVERY_RUN_UP_TO = 12

Runs = tuple[tuple[int, int], ...]
"""Runs of adjacent cores that are merged, as (first, last) levels counted from 0; together they are all."""


@dataclass(frozen=True)
class ConvTTShape:
    """The sizes of a Conv-TT and of the windows that are evaluated together.

    Parameters
    ----------
    batch : int
        Windows that are evaluated together.
    spatial_size : tuple of int
    in_channels, out_channels : int
    rank : tuple of int
        Of every level, oldest first.
    kernel_size : tuple of tuple of int
        Of every level's projection and core, per spatial axis.
    window_length, steps : int
        Frames that one level sees, and that the whole window has.
    boundary : {"zeros", "circular", "stagewise"}
    """

    batch: int
    spatial_size: tuple[int, ...]
    in_channels: int
    out_channels: int
    rank: tuple[int, ...]
    kernel_size: tuple[tuple[int, ...], ...]
    window_length: int
    steps: int
    boundary: str

    @property
    def order(self) -> int:
        """Number of cores."""
        return len(self.rank)

    def projection(self, level: int) -> tuple[int, ...]:
        """Return the shape of a projection, its frames joined to channels."""
        return (self.rank[level], self.window_length * self.in_channels, *self.kernel_size[level])

    def core(self, level: int) -> tuple[int, ...]:
        """Return the shape of a core."""
        return ((*self.rank, self.out_channels)[level + 1], self.rank[level], *self.kernel_size[level])

    def half(self, *levels: int) -> tuple[int, ...]:
        """Return how far the kernels of some levels reach together, to either side, per spatial axis."""
        axes = range(len(self.spatial_size))
        return tuple(sum((self.kernel_size[level][axis] - 1) // 2 for level in levels) for axis in axes)

    def margin(self, level: int) -> tuple[int, ...]:
        """Return the margin on which the value that enters a core is needed; that of ``order`` is none."""
        if self.boundary != "zeros":
            return (0,) * len(self.spatial_size)
        return self.half(*range(level, self.order))


@dataclass(frozen=True)
class ProgramUsage:
    """What a program is run for.

    Parameters
    ----------
    train : bool
        Count the gradients too.
    frozen : bool
        The weights are bound once and for all, so what they give together costs nothing.
    reuse : int
        Calls per change of the weights.
    """

    train: bool = False
    frozen: bool = False
    reuse: int = 1

    def cost(self, infos: Sequence[PathInfo]) -> tuple[float, float]:
        """Return multiply-adds and bytes per call, gradients included, of terms."""
        share = {"call": 1.0, "update": 1 / self.reuse, "fold": 0.0}
        passes = 3 if self.train else 1
        steps = [step for info in infos for step in info.steps]
        return (
            passes * sum(step.macs * share[step.runs] for step in steps),
            passes * sum(step.bytes * share[step.runs] for step in steps),
        )


@dataclass(frozen=True)
class ChainTerm:
    """A source convolved with a chain of kernels, compiled along its best path.

    Parameters
    ----------
    what : str
        For people: the formula.
    shapes : tuple of tuple of int
        Of the source ``[batch, channels, *spatial]`` and of the kernels ``[out, in, *kernel]`` in turn.
    padding : tuple of int
        Zeros on either side of the source, per spatial axis.
    circular : bool
        The source is periodic instead.
    usage : ProgramUsage
    """

    what: str
    shapes: tuple[tuple[int, ...], ...]
    padding: tuple[int, ...]
    circular: bool
    usage: ProgramUsage

    @cached_property
    def equation(self) -> str:
        """The term in the conv-einsum language."""
        space = _SPACE_MODES[: len(self.padding)]
        chain = [f"{new}{old}{space}" for old, new in pairwise(_CHANNEL_MODES[: len(self.shapes)])]
        return f"b{_CHANNEL_MODES[0]}{space},{','.join(chain)}->b{_CHANNEL_MODES[len(chain)]}{space}|{space}"

    @cached_property
    def info(self) -> PathInfo:
        """What the term costs."""
        return self._planned[1]

    @cached_property
    def _planned(self) -> tuple[list[tuple[int, ...]], PathInfo]:
        constants = range(1, len(self.shapes)) if self.usage.frozen else ()
        return conv_einsum_path(
            self.equation,
            *self.shapes,
            shapes=True,
            constants=tuple(constants),
            reuse=self.usage.reuse,
            train=self.usage.train,
            **self._options(),
        )

    def expression(self) -> ConvEinsumExpression:
        """Compile the term, a function of the source and the kernels."""
        return conv_einsum_expression(
            self.equation,
            *self.shapes,
            reuse=self.usage.reuse,
            train=self.usage.train,
            optimize=self._planned[0],
            **self._options(),
        )

    def plain(self) -> tuple[Any, ...]:
        """Return what :func:`trace` needs of the term, as plain values."""
        options = self._options()
        path = tuple(tuple(pair) for pair in self._planned[0])
        return self.equation, tuple(options["padding"].items()), options["padding_mode"], path

    def _options(self) -> dict:
        padding = {mode: (p, p) for mode, p in zip(_SPACE_MODES, self.padding, strict=False)}
        return {"padding": padding, "padding_mode": "circular" if self.circular else "zeros"}


class ChainProgram:
    """One way to evaluate a Conv-TT: runs of merged cores, each run as a few terms that are added.

    A run of levels a .. b takes the value v_a and the windows of its other levels,

        v_{b+1} = u_{b+1} + (G_b * ... * G_a) * v_a + sum over a < j <= b of (G_b * ... * G_j * P_j) * window_j ,

    and each chain is one conv-einsum expression, whose path decides which kernels meet first.
    """

    def __init__(self, shape: ConvTTShape, runs: Runs, usage: ProgramUsage) -> None:
        self.shape, self.runs, self.usage = shape, runs, usage
        self.projected = {first: self._term(first, first - 1, entering=False) for first, _ in runs}
        self.advanced = {first: self._term(first, last, entering=True) for first, last in runs}
        self.merged = {
            level: self._term(level, last, entering=False)
            for first, last in runs
            for level in range(first + 1, last + 1)
        }

    @property
    def name(self) -> str:
        """Which cores are merged."""
        merged = [f"{first + 1}-{last + 1}" for first, last in self.runs if last > first]
        return f"cores {', '.join(merged)} merged" if merged else "level by level"

    @property
    def infos(self) -> list[PathInfo]:
        """What each term costs."""
        return [term.info for term in self.terms]

    @property
    def terms(self) -> list[ChainTerm]:
        """The terms in the order in which they are evaluated."""
        ordered = []
        for first, last in self.runs:
            ordered += [self.projected[first], self.advanced[first]]
            ordered += [self.merged[level] for level in range(first + 1, last + 1)]
        return ordered

    def cost(self) -> tuple[float, float]:
        """Return multiply-adds and bytes per call, gradients included."""
        return self.usage.cost(self.infos)

    def compile(self) -> CompiledProgram:
        """Compile every term."""
        return CompiledProgram(
            self.runs,
            {level: term.expression() for level, term in self.projected.items()},
            {level: term.expression() for level, term in self.advanced.items()},
            {level: term.expression() for level, term in self.merged.items()},
        )

    def _term(self, level: int, last: int, *, entering: bool) -> ChainTerm:
        """Return the chain from a level's window, or the value that enters its core, past core ``last``."""
        shape, stagewise = self.shape, self.shape.boundary == "stagewise"
        cores = range(level, last + 1)
        source = shape.margin(level) if entering else (0,) * len(shape.spatial_size)
        channels = shape.rank[level] if entering else shape.projection(level)[1]
        reach = shape.half(*([] if entering else [level]), *cores)
        # "zeros": extend the source so far that what is left after the kernels is the margin asked for.
        asked = shape.margin(last + 1)
        padding = tuple(a + r - s for a, r, s in zip(asked, reach, source, strict=True))
        if stagewise or shape.boundary == "circular":
            padding = reach
        size = tuple(n + 2 * s for n, s in zip(shape.spatial_size, source, strict=True))
        kernels = [shape.core(core) for core in cores]
        names = [f"G{core + 1}" for core in reversed(cores)]
        return ChainTerm(
            " * ".join([*names, *([f"v{level + 1}"] if entering else [f"P{level + 1}", f"window{level + 1}"])]),
            ((shape.batch, channels, *size), *([] if entering else [shape.projection(level)]), *kernels),
            padding,
            shape.boundary == "circular",
            self.usage,
        )


class DenseProgram:
    """The dense kernel rebuilt from projections and cores, and one convolution of all frames."""

    runs: Runs = ()
    name = "dense kernel"

    def __init__(self, shape: ConvTTShape, usage: ProgramUsage) -> None:
        self.shape, self.usage = shape, usage
        chains = [shape.half(level, *range(level, shape.order)) for level in range(shape.order)]
        reach = tuple(map(max, zip(*chains, strict=True)))
        channels = shape.steps * shape.in_channels
        kernel = (shape.out_channels, channels, *(2 * r + 1 for r in reach))
        self.convolution = ChainTerm(
            "W * frames",
            ((shape.batch, channels, *shape.spatial_size), kernel),
            reach,
            shape.boundary == "circular",
            usage,
        )

    @property
    def terms(self) -> list[ChainTerm]:
        """The one term that is evaluated per call."""
        return [self.convolution]

    @property
    def infos(self) -> list[PathInfo]:
        """What the convolution costs."""
        return [self.convolution.info]

    def rebuilding(self) -> tuple[float, float]:
        """Return the multiply-adds and bytes of rebuilding the kernel from the oldest level to the newest."""
        shape = self.shape
        frames, macs, elements = shape.in_channels * shape.steps, 0, 0
        size = shape.kernel_size[0]
        for level in range(shape.order):
            size = tuple(map(max, zip(size, shape.kernel_size[level], strict=True)))
            newer, older, *kernel = shape.core(level)
            composed = tuple(n + k - 1 for n, k in zip(size, kernel, strict=True))
            macs += newer * older * math.prod(kernel) * frames * math.prod(composed)
            elements += frames * (older * math.prod(size) + newer * math.prod(composed))
            size = composed
        passes = 3 if self.usage.train else 1
        return float(passes * macs), float(passes * elements * torch.get_default_dtype().itemsize)

    def cost(self) -> tuple[float, float]:
        """Return multiply-adds and bytes per call, gradients included."""
        macs, traffic = self.usage.cost(self.infos)
        if self.usage.frozen:
            return macs, traffic
        more_macs, more_traffic = self.rebuilding()
        return macs + more_macs / self.usage.reuse, traffic + more_traffic / self.usage.reuse

    def compile(self) -> CompiledDense:
        """Compile the convolution."""
        return CompiledDense(self.convolution.expression())


@dataclass(frozen=True)
class Weights:
    """What a program is evaluated with.

    Parameters
    ----------
    projections : sequence of Tensor
        Frames joined to channels, ``[R_m, frames * I, *k]``.
    cores : sequence of Tensor
        ``[R_{m+1}, R_m, *k]``.
    dense : callable
        Rebuilds ``[O, N * I, *K]``; called only by the dense program.
    level_biases : sequence of Tensor
        For stagewise borders: what is added to v_m, ``[R_m]`` each; else empty.
    bias : Tensor, optional
        What is added to the output, ``[O]``.
    """

    projections: Sequence[Tensor]
    cores: Sequence[Tensor]
    dense: Callable[[], Tensor]
    level_biases: Sequence[Tensor]
    bias: Tensor | None


def program_weights(
    projections: Sequence[Tensor],
    cores: Sequence[Tensor],
    window: Window,
    level_biases: Sequence[Tensor] = (),
    bias: Tensor | None = None,
) -> Weights:
    """Return the factors of a :class:`tt_conv.ConvTTTensor`, and biases, in the form that programs take."""
    return Weights(
        projections=[projection.transpose(1, 2).flatten(1, 2) for projection in projections],
        cores=cores,
        dense=lambda: ConvTTTensor(projections, cores, window=window).to_tensor().transpose(1, 2).flatten(1, 2),
        level_biases=level_biases,
        bias=bias,
    )


Frames = Callable[[int | None], Tensor]
"""Gives the window of a level, or with None all frames, as ``[batch, frames * I, *spatial]``."""

Evaluate = Callable[[Frames], Tensor]

Chain = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CompiledProgram:
    """The compiled terms of a :class:`ChainProgram`."""

    runs: Runs
    projected: dict[int, ConvEinsumExpression]
    advanced: dict[int, ConvEinsumExpression]
    merged: dict[int, ConvEinsumExpression]

    def bind(self, weights: Weights) -> Evaluate:
        """Pay now for what weights give together, and return a function of the frames alone."""
        return _evaluation(self.runs, self.projected, self.advanced, self.merged, weights, _bound)


@dataclass(frozen=True)
class CompiledDense:
    """The compiled convolution of a :class:`DenseProgram`."""

    convolution: ConvEinsumExpression

    def bind(self, weights: Weights) -> Evaluate:
        """Rebuild the kernel now, and return a function of the frames alone."""
        convolve = _bound(self.convolution, [weights.dense()])
        return lambda frames: _add_bias(convolve(frames(None)), weights.bias)


def _evaluation(
    runs: Runs,
    projected: dict[int, Any],
    advanced: dict[int, Any],
    merged: dict[int, Any],
    weights: Weights,
    fix: Callable[[Any, Sequence[Tensor]], Chain],
) -> Evaluate:
    """Give every term its kernels by ``fix``, and return a function of the frames alone."""
    project, advance, merge = {}, {}, {}
    for first, last in runs:
        project[first] = fix(projected[first], [weights.projections[first]])
        advance[first] = fix(advanced[first], [*weights.cores[first : last + 1]])
        for level in range(first + 1, last + 1):
            merge[level] = fix(merged[level], [weights.projections[level], *weights.cores[level : last + 1]])

    def evaluate(frames: Frames) -> Tensor:
        value: Tensor | None = None
        for first, last in runs:
            level = project[first](frames(first))
            level = level if value is None else level + value
            if weights.level_biases:
                level = _add_bias(level, weights.level_biases[first])
            value = advance[first](level)
            for other in range(first + 1, last + 1):
                value = value + merge[other](frames(other))
        assert value is not None
        return _add_bias(value, weights.bias)

    return evaluate


def _bound(expression: ConvEinsumExpression, kernels: Sequence[Tensor]) -> Chain:
    """Return an expression as a function of its source, with what the kernels give together computed already."""
    # The method, not the object: Dynamo of torch 2.6 compiles again for every object that is called itself.
    return expression.bind(dict(enumerate(kernels, start=1))).__call__


def trace(sizes: tuple[Any, ...], train: bool, reuse: int, weights: Weights, *, measured: bool = False) -> Evaluate:
    """Return the program to run in a graph that torch.compile traces, in which the choice is a constant.

    ``sizes`` are the fields of a :class:`ConvTTShape`; ``measured`` asks for a winner of earlier measurements.
    """
    runs, terms = _choice(sizes, train, index(reuse), measured)
    if not runs:
        convolve = _traced(terms[0], [weights.dense()])
        return lambda frames: _add_bias(convolve(frames(None)), weights.bias)
    projected, advanced, merged = (dict(items) for items in terms)
    return _evaluation(runs, projected, advanced, merged, weights, _traced)


def _traced(term: tuple[Any, ...], kernels: Sequence[Tensor]) -> Chain:
    equation, padding, padding_mode, path = term
    return lambda source: conv_einsum(
        equation, source, *kernels, padding=dict(padding), padding_mode=padding_mode, optimize=path
    )


@assume_constant_result
def _choice(sizes: tuple[Any, ...], train: bool, reuse: int, measured: bool) -> tuple[Any, ...]:
    """Return a program as plain values, which a graph can hold."""
    shape, usage = ConvTTShape(*sizes), ProgramUsage(train, False, reuse)
    program = winners.get((shape, usage)) if measured else None
    if program is None:
        program = ranked_programs(shape, usage)[0]
    if isinstance(program, DenseProgram):
        return (), (program.convolution.plain(),)
    stages = (program.projected, program.advanced, program.merged)
    return program.runs, tuple(tuple((level, term.plain()) for level, term in stage.items()) for stage in stages)


def _add_bias(value: Tensor, bias: Tensor | None) -> Tensor:
    return value if bias is None else value + bias.to(value.dtype).reshape(-1, *(1,) * (value.ndim - 2))


winners: dict[tuple[ConvTTShape, ProgramUsage], ChainProgram | DenseProgram] = {}
"""What was fastest when it was last measured, for graphs, in which nothing can be timed."""


@lru_cache(maxsize=256)
def ranked_programs(shape: ConvTTShape, usage: ProgramUsage) -> tuple[ChainProgram | DenseProgram, ...]:
    """Return every program for a shape, the one with the lowest :func:`price` first.

    With stagewise borders merging cores would change the borders, so there is one program only.
    """
    if shape.boundary == "stagewise":
        return (ChainProgram(shape, tuple((m, m) for m in range(shape.order)), usage),)
    programs: list[ChainProgram | DenseProgram] = [ChainProgram(shape, runs, usage) for runs in partitions(shape.order)]
    programs.append(DenseProgram(shape, usage))
    return tuple(sorted(programs, key=price))


def price(program: ChainProgram | DenseProgram) -> float:
    """Return the seconds that a call should take: multiply-adds, moving data, and calling operations."""
    macs, traffic = program.cost()
    passes = 3 if program.usage.train else 1
    calls = passes * sum(step.runs == "call" for info in program.infos for step in info.steps)
    return machine_of("cpu").seconds(macs, traffic, calls)


@lru_cache(maxsize=256)
def compiled(program: ChainProgram | DenseProgram) -> CompiledProgram | CompiledDense:
    """Return a program compiled, from memory if it was before."""
    return program.compile()


def partitions(order: int) -> Iterator[Runs]:
    """Yield the ways to merge runs of adjacent cores; for a high order with one merged run at most, or one pair."""
    if order <= _EVERY_PARTITION_UP_TO:
        for count in range(order):
            for cuts in combinations(range(1, order), count):
                yield tuple((first, last - 1) for first, last in pairwise((0, *cuts, order)))
        return
    single = [(m, m) for m in range(order)]
    yield tuple(single)
    for first, last in combinations(range(order), 2) if order <= _EVERY_RUN_UP_TO else pairwise(range(order)):
        yield (*single[:first], (first, last), *single[last + 1 :])


def explanation(programs: Sequence[ChainProgram | DenseProgram]) -> str:
    """Return a table of programs, of which the first is run, and the steps of that one."""
    chosen, shape = programs[0], programs[0].shape
    usage = "training" if chosen.usage.train else "inference"
    lines = [
        f"Conv-TT of order {shape.order}, {shape.batch} windows of {shape.steps} frames, borders {shape.boundary!r}, "
        f"{usage}{', frozen weights' if chosen.usage.frozen else ''}",
        "",
        f"{'program':<28}{'MACs':>12}{'bytes':>12}{'price':>10}",
    ]
    lowest = min(map(price, programs))
    for program in programs:
        macs, traffic = program.cost()
        mark = "  <- chosen" if program is chosen else ""
        lines.append(f"{program.name:<28}{macs:>12.4g}{traffic:>12.4g}{price(program) / lowest:>10.3g}{mark}")
    lines.append("price: the modelled time of a call, over the lowest")
    if len(programs) == 1:
        lines.append("Stagewise borders allow no merging of cores: it would change what lies beyond the border.")
    lines += ["", f"{chosen.name}, term by term:", f"{'term':<28}{'MACs':>12}{'bytes':>12}  operations"]
    for term in chosen.terms:
        macs, traffic = chosen.usage.cost([term.info])
        operations = ", ".join(step.operation for step in term.info.steps)
        lines.append(f"{term.what:<28}{macs:>12.4g}{traffic:>12.4g}  {operations}")
    return "\n".join(lines)
