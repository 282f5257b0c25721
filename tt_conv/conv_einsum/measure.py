"""``optimize="measure"``: time the best few distinct paths where they will run, and remember the winner."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tt_conv.conv_einsum.compile import Program, compile_steps
from tt_conv.conv_einsum.cost import CostModel, Usage
from tt_conv.conv_einsum.errors import ConvEinsumError
from tt_conv.conv_einsum.expression import ConvEinsumExpression
from tt_conv.conv_einsum.info import PathInfo
from tt_conv.conv_einsum.network import Network
from tt_conv.conv_einsum.plan import Path, Steps, keeps, left_to_right, limit_in_elements, plan
from tt_conv.conv_einsum.search import cheapest, cheapest_few, steps_of
from tt_conv.conv_einsum.tensors import check_tensors
from tt_conv.runtime.formats import autocast_dtype
from tt_conv.runtime.machine import machine_of
from tt_conv.runtime.modes import is_fake, is_recorded, is_transformed
from tt_conv.runtime.race import fastest, promising, update_and_calls

ELEMENT = round(4 * machine_of("cpu").macs_per_byte)
"""Multiply-adds that could be done while one element is read or written, of four bytes."""

TRAFFIC_WEIGHTS = (0, ELEMENT // 4, ELEMENT)
"""Multiply-adds that moving an element may be worth: for arithmetic, for caches and for memory."""

BEST_FEW_UP_TO = 7
"""Operands up to which the best few paths are searched exactly."""

_chosen: dict[tuple, ConvEinsumExpression] = {}


def candidates(network: Network, usage: Usage, memory_limit: int | str | None) -> list[Steps]:
    """Return distinct paths that are worth timing, the one with the fewest multiply-adds first.

    Parameters
    ----------
    network : Network
    usage : Usage
    memory_limit : int, "max_input" or None
        All paths keep within it.

    Returns
    -------
    list
        Steps of at most ``CONTENDERS`` paths: the cheapest ones when moving data costs nothing, something or
        much; the kernels combined before they meet the feature; left to right.
    """
    model = CostModel(network, usage, ELEMENT)
    limit = limit_in_elements(model, memory_limit)
    ranked = [_ranked(CostModel(network, usage, weight), limit) for weight in TRAFFIC_WEIGHTS]
    found = [plan(network, usage, "auto", memory_limit)]
    found += [steps[0] for steps in ranked if steps]
    found += _feature_last(CostModel(network, usage), limit)
    found.append(left_to_right(len(network.operands)))
    found += [steps[place] for place in (1, 2) for steps in ranked if len(steps) > place]
    distinct: dict[frozenset, Steps] = {}
    for steps in found:
        if keeps(model, steps, limit):
            distinct.setdefault(frozenset(frozenset(pair) for pair in steps), steps)
    paths = list(distinct.values())
    return promising(paths, [sum(model.price(left, right)[0] for left, right in steps) for steps in paths])


def _ranked(model: CostModel, limit: int | None) -> list[Steps]:
    """Return the best few paths, best first; none for equations too large for exact search."""
    count = len(model.network.operands)
    if count > BEST_FEW_UP_TO:
        return []
    return [tuple(steps_of(tree)) for tree in cheapest_few(model, [1 << i for i in range(count)], 3, limit)]


def _feature_last(model: CostModel, limit: int | None) -> Iterator[Steps]:
    """Yield the path that combines all kernels first, if there is one feature and the search is feasible."""
    feature = model.network.features
    kernels = [1 << i for i in range(len(model.network.operands)) if not feature >> i & 1]
    if feature & (feature - 1) or not 1 < len(kernels) <= BEST_FEW_UP_TO:
        return
    tree = cheapest(model, kernels, limit)
    if tree is not None:
        yield tuple(steps_of((feature, tree)))


def measured_expression(
    network: Network,
    usage: Usage,
    memory_limit: int | str | None,
    operands: Sequence[Tensor],
    constants: Mapping[int, Tensor] | None = None,
) -> ConvEinsumExpression:
    """Return the expression that is fastest on such operands, from memory if they were measured before.

    Parameters
    ----------
    network : Network
    usage : Usage
    memory_limit : int, "max_input" or None
    operands : sequence of Tensor
        All operands that are not constants.
    constants : mapping from int to Tensor, optional
        The others; they are folded when a path is timed.

    Returns
    -------
    ConvEinsumExpression
        Of all operands, the constants included.

    Raises
    ------
    ConvEinsumError
        For mixed dtypes or devices.
    """
    constants = constants or {}
    device = operands[0].device if operands else next(iter(constants.values())).device
    key = (
        network.equation.text,
        tuple(operand.shape for operand in network.operands),
        network.options,
        usage,
        memory_limit,
        autocast_dtype(device),
        torch.get_num_threads(),
        tuple(tensor_key(tensor) for tensor in (*operands, *constants.values())),
    )
    found = _chosen.get(key)
    if found is None:
        check_tensors(network.equation.text, {i: (x, tuple(x.shape)) for i, x in enumerate(operands)})
        if not can_be_timed(operands):
            return ConvEinsumExpression(compile_steps(network, usage, plan(network, usage, "auto", memory_limit)))
        paths = candidates(network, usage, memory_limit)
        programs = [compile_steps(network, usage, steps) for steps in paths]
        winner = 0
        if len(programs) > 1 and device.type != "meta":
            with torch.inference_mode(False), torch.set_grad_enabled(bool(usage.gradients)):
                winner = fastest([_runner(p, usage, operands, constants) for p in programs], device)
        found = _chosen[key] = ConvEinsumExpression(programs[winner])
    return found


def can_be_timed(operands: Sequence[Tensor]) -> bool:
    """Say whether operands are what they seem: not under ``torch.func``, not fake, nobody recording or counting."""
    return not (is_transformed() or is_recorded() or any(map(is_fake, operands)))


def tensor_key(tensor: Tensor) -> tuple:
    """Return what a measurement depends on."""
    return tensor.device, tensor.dtype, tensor.stride()


def _runner(
    program: Program, usage: Usage, operands: Sequence[Tensor], constants: Mapping[int, Tensor]
) -> Callable[[], Any]:
    """Return a call that does what the program is used for, gradients and the reuse of weights included."""
    expression = ConvEinsumExpression(program, constants)
    positions = [i for i in range(len(program.network.operands)) if i not in constants]
    given = {i: x.clone() if x.is_inference() else x.detach() for i, x in zip(positions, operands, strict=True)}
    for i, operand in given.items():
        operand.requires_grad_(bool(usage.gradients >> i & 1))
    leaves = [operand for operand in given.values() if operand.requires_grad]
    weights = {i: operand for i, operand in given.items() if usage.reuse > 1 and usage.weights >> i & 1}
    rest = [operand for i, operand in given.items() if i not in weights]

    def bind() -> Callable[[], Tensor]:
        return partial(expression.bind(weights) if weights else expression, *rest)

    return update_and_calls(bind, usage.reuse, leaves)


def random_operands(network: Network) -> list[Tensor]:
    """Return operands of torch's default dtype on its default device, without touching its random state."""
    device = torch.get_default_device()
    if device.type == "meta":
        return [torch.empty(operand.shape, device=device) for operand in network.operands]
    generator = torch.Generator(device).manual_seed(0)
    try:
        return [torch.randn(operand.shape, generator=generator, device=device) for operand in network.operands]
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        elements = sum(math.prod(operand.shape) for operand in network.operands)
        raise ConvEinsumError(
            f'optimize="measure" needs operands to time, and {elements:,} elements do not fit into the memory of '
            f'{device}; give smaller sizes, or optimize="auto"',
            network.equation.text,
        ) from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """Say whether an error of PyTorch's means that memory ran out; the CPU has no type of its own for it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class MeasuredExpression(ConvEinsumExpression):
    """An expression that measures on its first call with each kind of operands, and then runs the winner.

    Until then ``path`` and ``info`` are those of the path with the fewest multiply-adds. Under
    ``torch.compile``, ``torch.export``, ``torch.func`` and modes that record or count what is called, nothing can
    be timed: call it once before.
    """

    def __init__(
        self, network: Network, usage: Usage, memory_limit: int | str | None, constants: Mapping[int, Tensor]
    ) -> None:
        super().__init__(compile_steps(network, usage, plan(network, usage, "auto", memory_limit)), constants)
        self._memory_limit = memory_limit
        self._constants = dict(constants)
        self._measured: dict[tuple, ConvEinsumExpression] = {}
        self._latest: ConvEinsumExpression | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave measurements out: another process, or machine, makes its own."""
        return super().__getstate__() | {"_measured": {}, "_latest": None}

    @property
    def path(self) -> Path:
        return super().path if self._latest is None else self._latest.path

    @property
    def info(self) -> PathInfo:
        return super().info if self._latest is None else self._latest.info

    def __call__(self, *operands: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return super().__call__(*operands) if self._latest is None else self._latest(*operands)
        self._check(operands)
        key = tuple(map(tensor_key, operands))
        if key not in self._measured:
            if not can_be_timed(operands):
                return super().__call__(*operands) if self._latest is None else self._latest(*operands)
            network, usage = self.program.network, self.program.usage
            fastest_one = measured_expression(network, usage, self._memory_limit, operands, self._constants)
            self._measured[key] = ConvEinsumExpression(fastest_one.program, self._constants)
        self._latest = self._measured[key]
        return self._latest(*operands)

    def bind(self, operands: Mapping[int, Tensor]) -> ConvEinsumExpression:
        return super().bind(operands) if self._latest is None else self._latest.bind(operands)
