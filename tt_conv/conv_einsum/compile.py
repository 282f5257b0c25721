"""A plan -> the operations that run it, and what it costs."""

from dataclasses import dataclass
from typing import NamedTuple

from tt_conv.conv_einsum.cost import FOREVER, CostModel, Usage
from tt_conv.conv_einsum.info import PathInfo, StepInfo
from tt_conv.conv_einsum.lower import Laid, Lowered, lower
from tt_conv.conv_einsum.network import Network
from tt_conv.conv_einsum.operations import Drop, Operation
from tt_conv.conv_einsum.plan import Path, Steps, left_to_right, path_of_steps


class Instruction(NamedTuple):
    """Combine the tensors of two slots; the result takes the first slot and the second becomes free."""

    operation: Operation
    first: int
    second: int
    elements: int


@dataclass(frozen=True)
class Program:
    """Everything needed to evaluate one network along one path.

    Parameters
    ----------
    network : Network
    usage : Usage
    steps : tuple of (int, int)
        From :func:`tt_conv.conv_einsum.plan.plan`.
    drops : tuple of (int, Drop)
        Operands that lose axes before the first step.
    instructions : tuple of Instruction
        The operands start in the slots of their own numbers.
    last : int
        Slot of the final result.
    order : tuple of int or None
        Permutation of its axes that gives the output.
    """

    network: Network
    usage: Usage
    steps: Steps
    drops: tuple[tuple[int, Drop], ...]
    instructions: tuple[Instruction, ...]
    lowered: tuple[tuple[Laid, Laid, Lowered], ...]
    last: int
    order: tuple[int, ...] | None

    @property
    def path(self) -> Path:
        """The path in opt_einsum's form."""
        return path_of_steps(len(self.network.operands), self.steps)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the operands."""
        return tuple(operand.shape for operand in self.network.operands)

    def info(self, itemsize: int) -> PathInfo:
        """Return what the program costs with elements of ``itemsize`` bytes."""
        model = CostModel(self.network, self.usage)
        steps = []
        for positions, (left, right, lowered) in zip(self.path, self.lowered, strict=False):
            macs, traffic = model.step(left.subset, right.subset)
            steps.append(
                StepInfo(
                    positions,
                    left.modes,
                    right.modes,
                    lowered.result.modes,
                    tuple(lowered.result.sizes.values()),
                    lowered.operation.name,
                    macs,
                    traffic * itemsize,
                    bool(left.subset & self.usage.gradients) + bool(right.subset & self.usage.gradients),
                    _runs(model, left.subset, right.subset),
                )
            )
        naive = left_to_right(len(self.network.operands))
        largest = [model.largest(left, right) for left, right in self.steps]
        return PathInfo(
            self.network.equation.text,
            self.shapes,
            self.path,
            tuple(steps),
            sum(step.macs for step in steps),
            sum(model.step(left, right)[0] for left, right in naive),
            max(largest, default=model.elements(self.network.everything)),
        )


def _runs(model: CostModel, left: int, right: int) -> str:
    """Say how often a step runs."""
    times = model.times(left, right)
    if times < FOREVER:
        return "fold"
    return "update" if not (left | right) & ~model.usage.weights else "call"


def compile_steps(network: Network, usage: Usage, steps: Steps) -> Program:
    """Lower every step of a plan.

    Parameters
    ----------
    network : Network
    usage : Usage
    steps : tuple of (int, int)

    Returns
    -------
    Program
    """
    model = CostModel(network, usage)
    current = {
        1 << i: (i, Laid(1 << i, {mode: network.size(mode, 1 << i) for mode in operand.modes}))
        for i, operand in enumerate(network.operands)
    }
    instructions, lowered_steps = [], []
    for left_subset, right_subset in steps:
        (i, left), (j, right) = current.pop(left_subset), current.pop(right_subset)
        lowered = lower(model, left, right)
        first, second = (j, i) if lowered.reverse else (i, j)
        instructions.append(Instruction(lowered.operation, first, second, model.elements(left_subset | right_subset)))
        lowered_steps.append((left, right, lowered))
        current[left_subset | right_subset] = (first, lowered.result)
    last, result = current[network.everything]
    order = tuple(result.modes.index(mode) for mode in network.output)
    return Program(
        network,
        usage,
        steps,
        tuple(
            (i, Drop(o.diagonals, o.dropped, o.summed))
            for i, o in enumerate(network.operands)
            if o.diagonals or o.dropped
        ),
        tuple(instructions),
        tuple(lowered_steps),
        last,
        None if order == tuple(range(len(order))) else order,
    )
