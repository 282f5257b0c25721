"""What was planned before, so that a call pays for planning once."""

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import torch
from opt_einsum.paths import PathOptimizer
from torch import Tensor

from tt_conv.conv_einsum.arguments import given_shapes, hashable
from tt_conv.conv_einsum.compile import Program, compile_steps
from tt_conv.conv_einsum.cost import Usage
from tt_conv.conv_einsum.expression import ConvEinsumExpression
from tt_conv.conv_einsum.network import Network, Shape, bind
from tt_conv.conv_einsum.options import Options, checked_options
from tt_conv.conv_einsum.parse import parse
from tt_conv.conv_einsum.plan import plan
from tt_conv.runtime.modes import assume_constant_result

MemoryLimit = int | str | None

REMEMBERED = 4096
"""Calls that are remembered; then all are forgotten."""


@lru_cache(maxsize=1024)
def network_of(equation: str, shapes: tuple[Shape, ...], options: Options) -> Network:
    """Return an equation bound to shapes, from the cache if it is there."""
    return bind(parse(equation), shapes, options)


def planned_program(network: Network, usage: Usage, optimize: Any, memory_limit: MemoryLimit) -> Program:
    """Plan a network and lower the plan."""
    return compile_steps(network, usage, plan(network, usage, optimize, memory_limit))


class CallMemory:
    """The expressions of earlier calls of ``conv_einsum``, by everything that the call was given."""

    def __init__(self) -> None:
        self._expressions: dict[tuple, ConvEinsumExpression] = {}

    def key(self, equation: str, operands: Sequence[Tensor], settings: tuple) -> tuple | None:
        """Return the key of a call; None if something is of a kind that no valid call has.

        Types are part of it, since 1, 1.0 and True are equal, but not all are right.
        """
        try:
            looks = tuple(map(_LOOKS, operands))
            key: tuple = (equation, settings, tuple(map(type, settings)), torch.is_grad_enabled(), looks)
            try:
                hash(key)
            except TypeError:
                key = (equation, _hashable(settings), (), torch.is_grad_enabled(), looks)
                hash(key)
        except (TypeError, AttributeError, RuntimeError):
            return None
        return key

    def get(self, key: tuple | None) -> ConvEinsumExpression | None:
        """Return the expression of a call that was made before."""
        return None if key is None else self._expressions.get(key)

    def remember(self, key: tuple | None, expression: ConvEinsumExpression) -> None:
        """Remember the expression of a call whose operands were found to fit, if the next one must fit too.

        Mixed types fit only as long as autocast is on; an optimizer object may answer otherwise the next time.
        """
        if key is None or len({dtype for _, dtype, *_ in key[-1]}) > 1:
            return
        if any(isinstance(setting, PathOptimizer) for setting in key[1]):
            return
        if len(self._expressions) >= REMEMBERED:
            self._expressions.clear()
        self._expressions[key] = expression


def _hashable(value: object) -> object:
    """Return dicts and lists as tuples, and each value with its type."""
    if isinstance(value, dict):
        return dict, tuple((name, _hashable(item)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_hashable, value))
    return type(value), value


_LOOKS = attrgetter("shape", "dtype", "device", "layout", "requires_grad")

call_memory = CallMemory()


# The expressions that traced calls run, by name: a graph holds a name as a constant, but no expression.
TRACED = SimpleNamespace()


@assume_constant_result
def traced(equation: str, shapes: Sequence[Any], gradients: Sequence[bool], *settings: Any) -> str:
    """Return the name of the expression that a traced call runs; its shapes and options are constants."""
    *geometry, optimize, memory_limit = settings
    network = network_of(equation, given_shapes(equation, shapes), checked_options(equation, *geometry))
    usage = Usage(sum(1 << i for i, needed in enumerate(gradients) if needed))
    path = "auto" if optimize == "measure" else hashable(equation, optimize)  # tracing has nothing to time
    name = f"expression_{len(vars(TRACED))}"
    setattr(TRACED, name, ConvEinsumExpression(planned_program(network, usage, path, memory_limit)))
    return name
