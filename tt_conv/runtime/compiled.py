"""Compiling one step of a recurrence, on demand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor

from tt_conv.runtime.formats import autocast_dtype, channels_last

MOST_COMPILED = 8
_numbers = itertools.count()


class Compiled:
    """A function of an owner and a frame, compiled by :func:`torch.compile` anew for every kind of frames.

    Parameters
    ----------
    function : function
        It takes the owner, the frame, and anything else.
    options : dict
        Of :func:`torch.compile`.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self._function = cast(FunctionType, function)
        self._options = {"fullgraph": True, "dynamic": False, **options}
        self._compiled: dict[Hashable, Callable[..., Any]] = {}

    def __call__(self, owner: object, frame: Tensor, *others: Any) -> Any:
        frame = _apart(frame)
        kind = _kind_of_frame(frame)
        if kind not in self._compiled:
            if len(self._compiled) == MOST_COMPILED:
                # Whoever has that many kinds of frames would wait for compilers most of the time.
                return self._function(owner, frame, *others)
            self._compiled[kind] = torch.compile(_with_its_own_code(self._function), **self._options)
        return self._compiled[kind](owner, frame, *others)


def _apart(frame: Tensor) -> Tensor:
    """Return a frame whose strides say nothing of the sequence that it is a part of: compilers look at them."""
    frame = channels_last(frame)
    # PyTorch calls a batch of one contiguous whatever its stride.
    return frame.squeeze(0).unsqueeze(0) if frame.shape[0] == 1 else frame


def _kind_of_frame(frame: Tensor) -> Hashable:
    return tuple(frame.shape), frame.dtype, frame.device, autocast_dtype(frame.device), torch.is_grad_enabled()


def _with_its_own_code(function: FunctionType) -> FunctionType:
    """Return the function under a code of its own.

    PyTorch counts compilations by code, and gives up after a few. The layers of a stack share their code and differ
    in their channels.
    """
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_numbers)}")
    return FunctionType(code, function.__globals__, code.co_name, function.__defaults__, function.__closure__)
