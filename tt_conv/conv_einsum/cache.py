"""Expressions that were compiled before, so that a call pays for planning once."""

from collections.abc import Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import torch
from opt_einsum.paths import PathOptimizer

from tt_conv.conv_einsum.arguments import given_shapes, hashable
from tt_conv.conv_einsum.compile import Program, compile_steps
from tt_conv.conv_einsum.cost import Usage
from tt_conv.conv_einsum.expression import ConvEinsumExpression
from tt_conv.conv_einsum.network import Network, Shape, bind
from tt_conv.conv_einsum.options import Options, checked_options
from tt_conv.conv_einsum.parse import parse
from tt_conv.conv_einsum.plan import plan

MemoryLimit = int | str | None


@lru_cache(maxsize=1024)
def network_of(equation: str, shapes: tuple[Shape, ...], options: Options) -> Network:
    """Return an equation bound to shapes, from the cache if it is there."""
    return bind(parse(equation), shapes, options)


def planned_program(network: Network, usage: Usage, optimize: Any, memory_limit: MemoryLimit) -> Program:
    """Plan a network and lower the plan."""
    return compile_steps(network, usage, plan(network, usage, optimize, memory_limit))


def compiled(
    equation: str,
    shapes: tuple[Shape, ...],
    options: Options,
    usage: Usage,
    optimize: Any,
    memory_limit: MemoryLimit,
) -> ConvEinsumExpression:
    """Return an expression without constants, from the cache if it is there."""
    if isinstance(optimize, PathOptimizer):  # it may answer differently each time
        return _compile.__wrapped__(equation, shapes, options, usage, optimize, memory_limit)
    return _compile(equation, shapes, options, usage, optimize, memory_limit)


@lru_cache(maxsize=1024, typed=True)
def _compile(
    equation: str,
    shapes: tuple[Shape, ...],
    options: Options,
    usage: Usage,
    optimize: Any,
    memory_limit: MemoryLimit,
) -> ConvEinsumExpression:
    network = network_of(equation, shapes, options)
    return ConvEinsumExpression(planned_program(network, usage, optimize, memory_limit))


# The expressions that traced calls run, by name: a graph holds a name as a constant, but no expression.
TRACED = SimpleNamespace()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def traced(equation: str, shapes: Sequence[Any], gradients: Sequence[bool], *options: Any) -> str:
    """Return the name of the expression that a traced call runs; its shapes and options are constants."""
    *geometry, optimize, memory_limit = options
    expression = compiled(
        equation,
        given_shapes(equation, shapes),
        checked_options(equation, *geometry),
        Usage(sum(1 << i for i, needed in enumerate(gradients) if needed)),
        "auto" if optimize == "measure" else hashable(equation, optimize),  # tracing has nothing to time
        memory_limit,
    )
    name = f"expression_{id(expression)}"
    setattr(TRACED, name, expression)
    return name
