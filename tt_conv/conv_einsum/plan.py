"""Which order of evaluation: exact search, opt_einsum's optimizers, or the caller's own path."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias, cast

from opt_einsum import paths
from opt_einsum.paths import DynamicProgramming, PathOptimizer

from tt_conv.conv_einsum.cost import CostModel, Usage
from tt_conv.conv_einsum.errors import ConvEinsumError
from tt_conv.conv_einsum.network import Network
from tt_conv.conv_einsum.options import is_int
from tt_conv.conv_einsum.refine import refine
from tt_conv.conv_einsum.search import cheapest, fits, smallest_limit, steps_of, tree_of

Path = list[tuple[int, ...]]
"""opt_einsum's: each entry names positions in the current list; the result goes to its end."""

Optimize: TypeAlias = Any

Steps = tuple[tuple[int, int], ...]
"""The subsets that each step combines, in the order in which they run."""

EXACT_UP_TO = {"auto": 8, "auto-hq": 10, "optimal": 64}
"""Operands up to which a name means the exact search, which takes 4 times as long for each one more."""


def plan(network: Network, usage: Usage, optimize: Optimize, memory_limit: int | str | None) -> Steps:
    """Choose the order in which the operands of a network are combined.

    Parameters
    ----------
    network : Network
    usage : Usage
        What the costs are for.
    optimize : str, bool, PathOptimizer or path
        ``"auto"`` and ``"optimal"`` search exactly, ``"auto"`` up to 8 operands; other names are
        opt_einsum's; False is left to right.
    memory_limit : int, "max_input" or None
        Largest number of elements of any tensor that a step makes: results, the output included, padded
        copies and windows; -1 and None mean no limit, "max_input" the largest operand or output.

    Returns
    -------
    tuple of (int, int)
        The subsets that each step combines.

    Raises
    ------
    ConvEinsumError
        For an ``optimize`` or ``memory_limit`` that means nothing, or if no path keeps within the limit.
    """
    model = CostModel(network, usage)
    limit = limit_in_elements(model, memory_limit)
    if limit is not None and model.elements(network.everything) > limit:
        raise _over_the_limit(model, limit)
    count = len(network.operands)
    if optimize is True:
        optimize = "auto"
    if optimize is False:
        steps = left_to_right(count)
    elif isinstance(optimize, str):
        steps = _by_name(model, optimize, limit)
    elif isinstance(optimize, PathOptimizer):
        steps = _by_optimizer(model, optimize, limit)
    else:
        steps = steps_of_path(model, checked_path(network.equation.text, optimize), limit)
    if not keeps(model, steps, limit):
        raise _over_the_limit(model, cast(int, limit))
    return steps


def keeps(model: CostModel, steps: Steps, limit: int | None) -> bool:
    """Say whether every tensor that the steps make has at most ``limit`` elements."""
    return limit is None or not steps or fits(tree_of(steps), model, limit)


def left_to_right(count: int) -> Steps:
    """Return the steps that combine operands in the order in which they were written."""
    return tuple(((1 << i) - 1, 1 << i) for i in range(1, count))


def limit_in_elements(model: CostModel, memory_limit: int | str | None) -> int | None:
    """Return a memory limit in elements, None if there is none."""
    everything = model.network.everything
    if memory_limit is None or (is_int(memory_limit) and memory_limit == -1):
        return None
    if isinstance(memory_limit, str) and memory_limit == "max_input":
        return max(model.elements(everything), *(model.elements(1 << i) for i in range(everything.bit_length())))
    if not is_int(memory_limit) or cast(int, memory_limit) < 1:
        raise ConvEinsumError(
            "memory_limit must be a number of elements of at least 1, 'max_input', or -1 or None for no "
            f"limit; got {memory_limit!r}",
            model.network.equation.text,
        )
    return int(memory_limit)


def path_of_steps(count: int, steps: Steps) -> Path:
    """Return steps as opt_einsum's path."""
    if count == 1:
        return [(0,)]
    current = [1 << i for i in range(count)]
    path: Path = []
    for left, right in steps:
        places = sorted((current.index(left), current.index(right)))
        path.append(tuple(places))
        for place in reversed(places):
            del current[place]
        current.append(left | right)
    return path


def checked_path(text: str, path: object) -> tuple[tuple[int, ...], ...]:
    """Return a path in opt_einsum's form as tuples of ints."""
    entries = path if isinstance(path, Collection) and not isinstance(path, str) else [path]
    if not all(isinstance(entry, Collection) and all(map(is_int, entry)) for entry in entries):
        raise ConvEinsumError(
            f"optimize must be a name, a path such as [(0, 1), (0, 1)], a PathOptimizer or a bool; got {path!r}",
            text,
        )
    return tuple(tuple(map(int, cast(Collection, entry))) for entry in entries)


def steps_of_path(model: CostModel, path: Collection[Sequence[int]], limit: int | None) -> Steps:
    """Return the steps of a path; those of an entry with more than two operands are searched."""
    text = model.network.equation.text
    current = [1 << i for i in range(len(model.network.operands))]
    steps: list[tuple[int, int]] = []
    for entry in path:
        if not entry or len(set(entry)) != len(entry) or not all(0 <= place < len(current) for place in entry):
            raise ConvEinsumError(
                f"the path {path!r} combines {tuple(entry)} where {len(current)} operands are left: expected "
                f"distinct positions from 0 to {len(current) - 1}",
                text,
            )
        pieces = [current[place] for place in entry]
        steps += _combine(model, pieces, limit)
        current = [piece for piece in current if piece not in pieces] + [sum(pieces)]
    if len(current) != 1:
        raise ConvEinsumError(f"the path {path!r} leaves {len(current)} operands uncombined", text)
    return tuple(steps)


def _combine(model: CostModel, pieces: list[int], limit: int | None) -> Steps:
    """Return the steps of one entry of a path."""
    if len(pieces) <= 2:
        return ((pieces[0], pieces[1]),) if len(pieces) == 2 else ()
    if len(pieces) <= EXACT_UP_TO["auto-hq"]:
        tree = cheapest(model, pieces, limit)
        if tree is None:
            raise _over_the_limit(model, cast(int, limit))
        return tuple(steps_of(tree))
    return tuple((sum(pieces[:i]), pieces[i]) for i in range(1, len(pieces)))


def _by_name(model: CostModel, name: str, limit: int | None) -> Steps:
    """Return the steps that a named optimizer finds."""
    leaves = [1 << i for i in range(len(model.network.operands))]
    if len(leaves) <= EXACT_UP_TO.get(name, 0):
        return _combine_exactly(model, leaves, limit)
    try:
        optimizer = paths.get_path_fn(name)
    except KeyError:
        names = ", ".join(sorted(map(repr, [*paths._PATH_OPTIONS, "measure"])))
        raise ConvEinsumError(
            f"optimize={name!r} is not known; the names are {names}", model.network.equation.text
        ) from None
    steps = _by_optimizer(model, optimizer, limit)
    return _refined(model, steps, limit) if name in EXACT_UP_TO else steps


def _combine_exactly(model: CostModel, leaves: Sequence[int], limit: int | None) -> Steps:
    tree = cheapest(model, leaves, limit)
    if tree is None:
        raise _over_the_limit(model, cast(int, limit))
    return tuple(steps_of(tree))


def _by_optimizer(model: CostModel, optimizer: Callable, limit: int | None) -> Steps:
    """Ask an optimizer of opt_einsum's interface.

    It knows one size per label. A kernel's convolved mode becomes a label of its own: it multiplies the cost
    of the step in which the kernel goes and is gone after that, which is right whenever the kernel meets the
    feature, and forgets the size of kernels that were combined.
    """
    network = model.network
    if len(network.operands) <= 2:
        return left_to_right(len(network.operands))
    sizes = dict(network.sizes)
    inputs = []
    for i, operand in enumerate(network.operands):
        labels = set()
        for mode in operand.modes:
            geometry = network.convolved.get(mode)
            label = mode if geometry is None or geometry.feature == i else f"{mode}{i}"
            if geometry is not None:
                sizes[label] = max(geometry.sizes[i], geometry.output_size) if label == mode else geometry.sizes[i]
            labels.add(label)
        inputs.append(frozenset(labels))
    try:
        path = optimizer(inputs, frozenset(network.output), sizes, _limit_for(optimizer, limit))
    except RuntimeError as error:
        if limit is None:
            name = getattr(optimizer, "__name__", type(optimizer).__name__)
            raise ConvEinsumError(f"the optimizer {name} failed: {error}", network.equation.text) from error
        return _within(model, None, limit)  # it found none, by sizes that are not quite ours
    steps = steps_of_path(model, checked_path(network.equation.text, path), None)
    return steps if keeps(model, steps, limit) else _within(model, steps, cast(int, limit))


def _limit_for(optimizer: Callable, limit: int | None) -> int | None:
    """Return the limit that an optimizer is told.

    opt_einsum's dynamic programming gives up when its cost exceeds that of the naive path, which is finite for
    flops only: for other aims it would raise its cap for ever (opt_einsum 3.4).
    """
    if isinstance(optimizer, DynamicProgramming) and optimizer.minimize != "flops":
        return None
    return limit


def _within(model: CostModel, steps: Steps | None, limit: int) -> Steps:
    """Return steps that keep within a limit where an optimizer found none: by exact search, if that is feasible.

    Beyond that, what was found is rearranged, or else the path whose largest result is smallest by opt_einsum's sizes.
    """
    count = len(model.network.operands)
    if count <= EXACT_UP_TO["auto-hq"]:
        return _combine_exactly(model, [1 << i for i in range(count)], limit)
    if steps is None:
        steps = _by_optimizer(model, DynamicProgramming(minimize="size"), None)
    refined = _refined(model, steps, limit)
    if not keeps(model, refined, limit):
        raise _over_the_limit(model, limit)
    return refined


def _refined(model: CostModel, steps: Steps, limit: int | None) -> Steps:
    return tuple(steps_of(refine(model, tree_of(steps), limit)))


def _over_the_limit(model: CostModel, limit: int) -> ConvEinsumError:
    count = len(model.network.operands)
    if count <= EXACT_UP_TO["auto-hq"]:
        needed = smallest_limit(model, [1 << i for i in range(count)]) or model.elements(model.network.everything)
        remedy = f"the smallest limit that a path keeps is {needed}"
    else:
        remedy = f"the output alone has {model.elements(model.network.everything)}"
    return ConvEinsumError(
        f"no path was found whose tensors all keep within memory_limit={limit} elements ({remedy})",
        model.network.equation.text,
    )
