"""What a path costs, as numbers and as a table."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from tt_conv.conv_einsum.plan import Path


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One pairwise step of a path.

    Attributes
    ----------
    positions : tuple of int
        The entry of the path.
    left, right, result : tuple of str
        Modes of the two tensors and of what they give, in the order of the axes.
    shape : tuple of int
        Shape of the result.
    operation : str
        The PyTorch operation that the step was lowered to.
    macs : int
        Multiply-adds, forward.
    bytes : int
        Bytes that the step reads and writes, forward.
    gradients : int
        How many of the two tensors need a gradient; each costs as much as the forward step.
    runs : str
        How often it runs: ``"call"``; ``"fold"``, once, when an expression is built; or ``"update"``, once
        per weight update.
    """

    positions: tuple[int, ...]
    left: tuple[str, ...]
    right: tuple[str, ...]
    result: tuple[str, ...]
    shape: tuple[int, ...]
    operation: str
    macs: int
    bytes: int
    gradients: int
    runs: str

    @property
    def elements(self) -> int:
        """Number of elements of the result."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class PathInfo:
    """What a path costs; ``print`` shows it as a table.

    Attributes
    ----------
    equation : str
    shapes : tuple of tuple of int
        Shapes of the operands.
    path : list of tuple of int
    steps : tuple of StepInfo
    opt_cost : int
        Multiply-adds of all steps, forward, each counted once, whatever the search minimized.
    naive_cost : int
        The same from left to right.
    largest_intermediate : int
        Elements of the largest tensor that a step makes: results, the output included, padded copies and windows.
    """

    equation: str
    shapes: tuple[tuple[int, ...], ...]
    path: Path
    steps: tuple[StepInfo, ...]
    opt_cost: int
    naive_cost: int
    largest_intermediate: int

    @property
    def speedup(self) -> float:
        """Naive cost over the path's; 1 if nothing is multiplied."""
        return self.naive_cost / self.opt_cost if self.opt_cost else 1.0

    @property
    def training_cost(self) -> int:
        """Multiply-adds of all steps, forward and for the gradients that are needed, each counted once."""
        return sum(step.macs * (1 + step.gradients) for step in self.steps)

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self._lines())

    def _lines(self) -> Iterator[str]:
        totals = {
            "Complete equation": self.equation,
            "Operands": ", ".join(_shape(shape) for shape in self.shapes),
            "Naive cost": f"{_number(self.naive_cost)} MACs",
            "Optimized cost": f"{_number(self.opt_cost)} MACs",
            "With gradients": f"{_number(self.training_cost)} MACs",
            "Theoretical speedup": f"{self.speedup:.3g}",
            "Bytes read and written": _number(sum(step.bytes for step in self.steps)),
            "Largest intermediate": f"{_number(self.largest_intermediate)} elements",
        }
        if self.training_cost == self.opt_cost:
            del totals["With gradients"]
        width = max(map(len, totals))
        yield from (f"{name:>{width}}:  {value}" for name, value in totals.items())
        if not self.steps:
            return
        rows = [
            ("step", "operands", "operation", "MACs", "bytes", "elements", "runs per"),
            *(self._row(step) for step in self.steps),
        ]
        if all(step.runs == "call" for step in self.steps):
            rows = [row[:-1] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        yield rule
        for i, row in enumerate(rows):
            yield "  ".join(
                f"{cell:>{w}}" if 3 <= column <= 5 else f"{cell:<{w}}"
                for column, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            if i == 0:
                yield rule
        yield rule

    @staticmethod
    def _row(step: StepInfo) -> tuple[str, ...]:
        operands = f"{''.join(step.left)},{''.join(step.right)}->{''.join(step.result)}"
        numbers = (_number(step.macs), _number(step.bytes), _number(step.elements))
        return str(step.positions), operands, step.operation, *numbers, step.runs


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _number(value: int) -> str:
    """Return a count exactly while it is short, and with four digits after that."""
    return f"{value:,}" if value < 10**9 else f"{value:.3e}"
