"""Compiled equations: calling one runs prepared PyTorch operations and nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from tt_conv.conv_einsum.compile import Instruction, Program
from tt_conv.conv_einsum.cost import FOLDED_ELEMENTS
from tt_conv.conv_einsum.errors import ConvEinsumError
from tt_conv.conv_einsum.info import PathInfo
from tt_conv.conv_einsum.operations import Drop
from tt_conv.conv_einsum.plan import Path
from tt_conv.conv_einsum.tensors import check_tensors

LOOKS = attrgetter("shape", "dtype", "device", "layout")
"""What an operand is checked for, read in one go."""

_STATE = ("program", "_slots", "_open", "_drops", "_instructions", "_last", "_order", "_shapes", "_like")


class ConvEinsumExpression:
    """An equation compiled for the shapes of its operands; made by :func:`tt_conv.conv_einsum_expression`.

    It can be pickled, deep-copied, traced by ``torch.compile(fullgraph=True)`` and exported.

    Attributes
    ----------
    equation : str
    path : list of tuple of int
    info : PathInfo
        What the path costs; ``print(expression)`` shows it.
    """

    def __init__(self, program: Program, constants: Mapping[int, Tensor] | None = None) -> None:
        self.program = program
        self._slots: list[Any] = [None] * len(program.network.operands)
        self._open = tuple(range(len(self._slots)))
        self._drops = program.drops
        self._instructions = program.instructions
        self._last = program.last
        self._order = program.order
        self._shapes = program.shapes
        self._like: tuple[torch.dtype, torch.device] | None = None  # of the operands that are fixed
        self._latest_looks: list | None = None
        if constants:
            self._fix(constants, FOLDED_ELEMENTS)
            # What could not be folded must not follow later changes either.
            given = {id(value) for value in constants.values()}
            self._slots = [slot.clone() if id(slot) in given else slot for slot in self._slots]

    @property
    def equation(self) -> str:
        """The equation as it was written."""
        return self.program.network.equation.text

    @property
    def path(self) -> Path:
        """The path in opt_einsum's form."""
        return self.program.path

    @property
    def info(self) -> PathInfo:
        """What the path costs; bytes are those of the constants' type, or of torch's default type."""
        dtype = torch.get_default_dtype() if self._like is None else self._like[0]
        return self.program.info(dtype.itemsize)

    def __repr__(self) -> str:
        shapes = ", ".join(map(str, self._shapes))
        return f"<ConvEinsumExpression {self.equation!r} of shapes {shapes}>"

    def __str__(self) -> str:
        return f"{self!r}\n{self.info}"

    def __call__(self, *operands: Tensor) -> Tensor:
        """Evaluate the expression.

        Parameters
        ----------
        *operands : Tensor
            All operands that are not constants, in the order of the equation, of the compiled shapes, of one
            dtype (any floating or complex dtype; autocast may mix) and on one device.

        Returns
        -------
        Tensor
            In the order of the equation's output. A feature that is channels_last gives a result that is.

        Raises
        ------
        ConvEinsumError
            For a wrong number of operands, other shapes, mixed dtypes or devices; before any work.
        """
        self._check(operands)
        return self.evaluate(operands)

    def evaluate(self, operands: Sequence[Tensor]) -> Tensor:
        """Evaluate the expression for operands that were checked."""
        slots: list[Any] = [*operands]
        if self._like is not None:
            slots = self._slots.copy()
            for i, operand in zip(self._open, operands, strict=True):
                slots[i] = operand
        run(slots, self._drops, self._instructions)
        result = slots[self._last]
        return result if self._order is None else torch.permute(result, self._order)

    def bind(self, operands: Mapping[int, Tensor]) -> "ConvEinsumExpression":
        """Fix some operands, evaluate at once what they give together, and keep it differentiable.

        This is how weights are paid for once per update: bind them, then call the result for every step of a
        recurrence. Gradients of all these calls reach the weights. After an update, bind again.

        Parameters
        ----------
        operands : mapping from int to Tensor
            Operand number in the equation -> its value.

        Returns
        -------
        ConvEinsumExpression
            Of the remaining operands.

        Raises
        ------
        ConvEinsumError
            For an operand that the equation does not have or that is fixed already, or another shape.

        Examples
        --------
        >>> import torch
        >>> from tt_conv import conv_einsum_expression
        >>> step = conv_einsum_expression("bi,ir,ro->bo", (2, 8), (8, 4), (4, 8), reuse=100, train=True)
        >>> first, second = (torch.randn(shape, requires_grad=True) for shape in [(8, 4), (4, 8)])
        >>> bound = step.bind({1: first, 2: second})
        >>> h = torch.ones(2, 8)
        >>> for _ in range(3):
        ...     h = torch.tanh(bound(h))
        >>> h.sum().backward()
        >>> first.grad.shape
        torch.Size([8, 4])
        """
        bound = object.__new__(ConvEinsumExpression)
        bound.__dict__.update({name: self.__dict__[name] for name in _STATE})
        bound._latest_looks = None
        bound._fix(operands, None)
        return bound

    def _fix(self, operands: Mapping[int, Tensor], limit: int | None) -> None:
        """Put operands into their slots; run what depends on fixed slots only and is not above ``limit``."""
        for i in operands:
            if i not in self._open:
                raise ConvEinsumError(
                    f"operand {i!r} cannot be fixed: the operands that can are {list(self._open)}",
                    self.equation,
                )
        check_tensors(self.equation, {i: (operands[i], self.program.shapes[i]) for i in operands}, self._like)
        self._slots = [operands.get(i, slot) for i, slot in enumerate(self._slots)]
        self._open = tuple(i for i in self._open if i not in operands)
        self._shapes = tuple(self.program.shapes[i] for i in self._open)
        for operand in operands.values():
            self._like = (operand.dtype, operand.device)
        fixed = {i for i in range(len(self._slots)) if i not in self._open}
        now, later = [], []
        for step in self._instructions:
            if fixed.issuperset((step.first, step.second)) and (limit is None or step.elements <= limit):
                now.append(step)
            else:
                later.append(step)
                fixed.discard(step.first)
        run(self._slots, [drop for drop in self._drops if drop[0] not in self._open], now)
        self._drops = tuple(drop for drop in self._drops if drop[0] in self._open)
        self._instructions = tuple(later)

    def _check(self, operands: Sequence[Tensor]) -> None:
        """Refuse operands that do not fit; those that look like the latest ones need one comparison."""
        looks: list | None = None
        if not torch.compiler.is_compiling():
            with suppress(AttributeError):
                looks = [*map(LOOKS, operands)]
                if looks == self._latest_looks:
                    return
        self._check_each(operands)
        if looks and len({dtype for _, dtype, *_ in looks}) == 1:  # autocast may be off the next time
            self._latest_looks = looks

    def _check_each(self, operands: Sequence[Tensor]) -> None:
        """Refuse operands that do not fit."""
        if len(operands) != len(self._shapes):
            raise ConvEinsumError(
                f"expected {len(self._shapes)} operands, of shapes {list(self._shapes)}, got {len(operands)}",
                self.equation,
            )
        given = dict(zip(self._open, zip(operands, self._shapes, strict=True), strict=True))
        check_tensors(self.equation, given, self._like)


def run(slots: list[Any], drops: Iterable[tuple[int, Drop]], instructions: Iterable[Instruction]) -> None:
    """Run steps on slots that hold the operands; what is used up is let go."""
    for i, drop in drops:
        slots[i] = drop(slots[i])
    for operation, i, j, _ in instructions:
        slots[i] = operation(slots[i], slots[j])
        slots[j] = None
