"""Compiled equations: calling one runs a function of PyTorch operations that was written for its shapes."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from tt_conv.conv_einsum.compile import Instruction, Program
from tt_conv.conv_einsum.cost import FOLDED_ELEMENTS
from tt_conv.conv_einsum.errors import ConvEinsumError
from tt_conv.conv_einsum.function import function_of, source_of
from tt_conv.conv_einsum.info import PathInfo
from tt_conv.conv_einsum.plan import Path
from tt_conv.conv_einsum.tensors import check_tensors

LOOKS = attrgetter("shape", "dtype", "device", "layout")
"""What an operand is checked for, read in one go."""

_STATE = ("program", "_open", "_shapes", "_fixed", "_like", "_drops", "_instructions")


class ConvEinsumExpression:
    """An equation compiled for the shapes of its operands; made by :func:`tt_conv.conv_einsum_expression`.

    It can be pickled, deep-copied, traced by ``torch.compile(fullgraph=True)`` and exported.

    Attributes
    ----------
    equation : str
    path : list of tuple of int
    info : PathInfo
        What the path costs; ``print(expression)`` shows it.
    source : str
        The Python function that a call runs: one line per step.
    """

    def __init__(self, program: Program, constants: Mapping[int, Tensor] | None = None) -> None:
        self.program = program
        self._open = tuple(range(len(program.shapes)))
        self._shapes = program.shapes
        self._fixed: dict[int, Tensor] = {}
        self._like: tuple[tuple[torch.dtype, torch.device], ...] = ()  # of what is fixed
        self._drops = program.drops
        self._instructions = program.instructions
        self._write()
        if constants:
            device = next(iter(constants.values())).device.type
            # What is kept must serve calls outside inference mode and outside autocast as well.
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
                self._fix({i: x.clone() if x.is_inference() else x for i, x in constants.items()}, FOLDED_ELEMENTS)
                # What could not be folded must not follow later changes either.
                given = {id(value) for value in constants.values()}
                self._fixed = {i: x.clone() if id(x) in given else x for i, x in self._fixed.items()}
            self._values = tuple(self._fixed.values())

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
        dtype = self._like[0][0] if self._like else torch.get_default_dtype()
        return self.program.info(dtype.itemsize)

    def __repr__(self) -> str:
        shapes = ", ".join(map(str, self._shapes))
        return f"<ConvEinsumExpression {self.equation!r} of shapes {shapes}>"

    def __str__(self) -> str:
        return f"{self!r}\n{self.info}"

    def __getstate__(self) -> dict[str, Any]:
        """Leave the function out: it is written again."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_function", "_looks")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._function = function_of(self.source)
        self._looks: list | None = None

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
        try:
            looks = None if is_compiling() else [*map(LOOKS, operands)]
        except (AttributeError, RuntimeError):  # not a tensor, or a nested one
            looks = None
        if looks is None or looks != self._looks:
            self._check(operands, looks)
        return self._function(*operands, *self._values)

    def evaluate(self, operands: Sequence[Tensor]) -> Tensor:
        """Evaluate the expression for operands that are known to fit."""
        return self._function(*operands, *self._values)

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
        if not isinstance(operands, Mapping):
            raise ConvEinsumError(
                f"bind takes a mapping from operand numbers to tensors, got {type(operands).__name__}", self.equation
            )
        bound = object.__new__(ConvEinsumExpression)
        bound.__dict__.update({name: self.__dict__[name] for name in _STATE})
        bound._fix(operands, None)
        return bound

    def _write(self) -> None:
        """Write the function that runs what is left to do."""
        last = f"x{self.program.last}"
        order = self.program.order
        self._values = tuple(self._fixed.values())
        self.source = source_of(
            [*self._open, *self._fixed],
            self._drops,
            self._instructions,
            # What constants alone give is kept for the next call; the caller gets a copy.
            (last if order is None else f"permute({last}, {order})") + ("" if self._open else ".clone()"),
        )
        self._function = function_of(self.source)
        self._looks = None

    def _fix(self, operands: Mapping[int, Tensor], limit: int | None) -> None:
        """Fix operands; run what depends on fixed ones only and does not give more than ``limit`` elements."""
        for i in operands:
            if i not in self._open:
                raise ConvEinsumError(
                    f"operand {i!r} cannot be fixed: the operands that can are {list(self._open)}", self.equation
                )
        check_tensors(self.equation, {i: (operands[i], self.program.shapes[i]) for i in operands}, self._like)
        self._open = tuple(i for i in self._open if i not in operands)
        self._shapes = tuple(self.program.shapes[i] for i in self._open)
        fixed = {**self._fixed, **operands}
        results = set(fixed)
        now, later = [], []
        for step in self._instructions:
            if results.issuperset((step.first, step.second)) and (limit is None or step.elements <= limit):
                now.append(step)
                results.discard(step.second)
            else:
                later.append(step)
                results.discard(step.first)
        self._fixed = self._run(fixed, now)
        # Autocast may have changed types on the way.
        self._like = tuple(dict.fromkeys((value.dtype, value.device) for value in self._fixed.values()))
        self._drops = tuple(drop for drop in self._drops if drop[0] in self._open)
        self._instructions = tuple(later)
        self._write()

    def _run(self, fixed: dict[int, Tensor], steps: Sequence[Instruction]) -> dict[int, Tensor]:
        """Run steps on fixed slots; return what the slots that are still in use hold then."""
        left = [slot for slot in fixed if slot not in {step.second for step in steps}]
        drops = [drop for drop in self._drops if drop[0] in fixed]
        function = function_of(source_of(list(fixed), drops, steps, f"[{', '.join(f'x{i}' for i in left)}]"))
        return dict(zip(left, function(*fixed.values()), strict=True))

    def _check(self, operands: Sequence[Tensor], looks: list | None = None) -> None:
        """Refuse operands that do not fit; remember the looks of those that do."""
        if len(operands) != len(self._shapes):
            raise ConvEinsumError(
                f"expected {len(self._shapes)} operands, of shapes {list(self._shapes)}, got {len(operands)}",
                self.equation,
            )
        given = dict(zip(self._open, zip(operands, self._shapes, strict=True), strict=True))
        check_tensors(self.equation, given, self._like)
        dtypes = {dtype for _, dtype, *_ in looks or ()} | {dtype for dtype, _ in self._like}
        if looks is not None and len(dtypes) <= 1:  # autocast may be off next time
            self._looks = looks
