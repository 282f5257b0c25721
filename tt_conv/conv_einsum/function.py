"""Steps -> the source of a Python function that runs them, and the function."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from tt_conv.conv_einsum.compile import Instruction
from tt_conv.conv_einsum.operations import NAMES, Drop


def source_of(
    inputs: Sequence[int],
    drops: Iterable[tuple[int, Drop]],
    instructions: Iterable[Instruction],
    result: str,
) -> str:
    """Return the source of a function that runs steps on slots.

    Parameters
    ----------
    inputs : sequence of int
        Slots that are the function's arguments, in order; slot 2 is called x2.
    drops : iterable of (int, Drop)
        Axes that slots lose first.
    instructions : iterable of Instruction
    result : str
        What the function returns, an expression of slots.

    Returns
    -------
    str
    """
    lines = [f"def evaluate({', '.join(f'x{slot}' for slot in inputs)}):"]
    lines += [f"    x{slot} = {drop.code(f'x{slot}')}" for slot, drop in drops]
    results: set[int] = set()
    for operation, first, second, _ in instructions:
        lines.append(f"    x{first} = {operation.code(f'x{first}', f'x{second}')}")
        if second in results:  # an intermediate is let go; operands are the caller's
            lines.append(f"    del x{second}")
        results.add(first)
    return "\n".join([*lines, f"    return {result}\n"])


@lru_cache(maxsize=4096)
def function_of(source: str) -> Callable[..., Any]:
    """Return the function of a source from :func:`source_of`."""
    names = dict(NAMES)
    exec(compile(source, "<conv_einsum>", "exec"), names)
    return names["evaluate"]
