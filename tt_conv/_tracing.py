"""What ``torch.compile`` should know of functions that it meets."""

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


def assume_constant_result(function: Function) -> Function:
    """Mark a function as ``torch.compiler.assume_constant_result`` does, which would import the compiler first.

    That import takes as long as that of torch itself.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
