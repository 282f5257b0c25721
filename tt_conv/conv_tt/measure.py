"""``optimize="measure"`` of a Conv-TT: time its programs where they will run, and remember the fastest."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tt_conv.conv_tt.program import (
    ChainProgram,
    ConvTTShape,
    DenseProgram,
    Evaluate,
    Frames,
    ProgramUsage,
    price,
    program_weights,
    ranked_programs,
    winners,
)
from tt_conv.conv_tt.tensor import ConvTTTensor
from tt_conv.runtime.formats import autocast_dtype
from tt_conv.runtime.modes import is_jit_traced, is_transformed
from tt_conv.runtime.race import fastest, promising, update_and_calls

Programs = tuple[ChainProgram | DenseProgram, ...]

_measured: dict[tuple[Any, ...], Programs] = {}


def can_measure() -> bool:
    """Say whether operations run when they are called, neither traced nor transformed by torch.func."""
    return not (is_jit_traced() or is_transformed())


def measured_programs(
    shape: ConvTTShape,
    usage: ProgramUsage,
    frame: Tensor,
    windows: Callable[[Sequence[Tensor]], Frames],
    train: Callable[[], ConvTTTensor],
) -> Programs:
    """Return all programs, the fastest first, from memory if they were measured before.

    Parameters
    ----------
    shape : ConvTTShape
    usage : ProgramUsage
    frame : Tensor
        One frame ``[batch, in_channels, *spatial]``, as others will be.
    windows : callable
        From the frames of a window to what a program asks for.
    train : callable
        Gives the projections and cores.
    """
    key = (
        shape,
        usage,
        frame.device,
        frame.dtype,
        _layout(frame),
        frame.requires_grad,
        autocast_dtype(frame.device),
        torch.get_num_threads(),
    )
    if key not in _measured:
        programs = ranked_programs(shape, usage)
        winner = _winner(promising(programs, [*map(price, programs)]), train(), frame, windows)
        _measured[key] = (winner, *(program for program in programs if program is not winner))
    winners[shape, usage] = _measured[key][0]
    return _measured[key]


def _layout(frame: Tensor) -> tuple[int, ...]:
    """Return the axes from the slowest to the fastest in memory."""
    strides = frame.stride()
    return tuple(sorted(range(frame.ndim), key=lambda axis: -strides[axis]))


def _winner(
    programs: Sequence[ChainProgram | DenseProgram],
    tensor: ConvTTTensor,
    frame: Tensor,
    windows: Callable[[Sequence[Tensor]], Frames],
) -> ChainProgram | DenseProgram:
    """Return the fastest of some programs."""
    if len(programs) == 1 or frame.device.type == "meta":
        return programs[0]
    with torch.set_grad_enabled(programs[0].usage.train):
        runs = [_timed_run(program, tensor, frame, windows) for program in programs]
        return programs[fastest(runs, frame.device)]


def _timed_run(
    program: ChainProgram | DenseProgram,
    tensor: ConvTTTensor,
    frame: Tensor,
    windows: Callable[[Sequence[Tensor]], Frames],
) -> Callable[[], Any]:
    """Return a call that does what a program is used for, gradients and the reuse of weights included."""
    usage, compiled = program.usage, program.compile()
    learns = usage.train and not usage.frozen
    projections, cores = (
        [kernel.detach().requires_grad_(learns) for kernel in kernels] for kernels in (tensor.projections, tensor.cores)
    )
    given = frame.detach().requires_grad_(usage.train and frame.requires_grad)
    leaves = [x for x in (given, *projections, *cores) if x.requires_grad]
    seen = windows([given] * program.shape.steps)

    def bind() -> Evaluate:
        return compiled.bind(program_weights(projections, cores, tensor.window))

    with torch.autocast(frame.device.type, enabled=False):
        frozen = bind() if usage.frozen else None

    def bound() -> Callable[[], Tensor]:
        return partial(bind() if frozen is None else frozen, seen)

    return update_and_calls(bound, usage.reuse, leaves)
