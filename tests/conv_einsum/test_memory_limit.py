"""A memory limit is kept by what is really allocated, and refused only where every path exceeds it."""

from itertools import pairwise
from random import Random

import opt_einsum
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.conv_einsum.paths import pairwise_paths
from tests.conv_einsum.random_problems import Problem
from tests.conv_einsum.strategies import problems
from tt_conv import ConvEinsumError, conv_einsum, conv_einsum_path

OPTIMIZERS = {
    **{name: lambda name=name: name for name in ("auto", "optimal", "dp", "greedy", "branch-all", "branch-1")},
    "combo": lambda: opt_einsum.DynamicProgramming(minimize="combo"),
    "size": lambda: opt_einsum.DynamicProgramming(minimize="size"),
}

hypothesis_settings = settings(
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class Allocations(TorchDispatchMode):
    """Counts the elements of the largest storage that PyTorch's operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs or {})) if isinstance(x, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and x.untyped_storage()._cdata not in given:
                self.largest = max(self.largest, x.untyped_storage().nbytes() // x.element_size())
        return result


def allocated(problem: Problem, path) -> int:
    """Return the elements of the largest tensor that a path makes, as PyTorch sees it."""
    operands = problem.operands()
    with Allocations() as seen:
        conv_einsum(problem.equation, *operands, **problem.options, optimize=path)
    return seen.largest


def counted(problem: Problem, path) -> int:
    info = conv_einsum_path(problem.equation, *problem.shapes, shapes=True, **problem.options, optimize=path)[1]
    return info.largest_intermediate


def largest_operand(problem: Problem) -> int:
    return max(torch.Size(shape).numel() for shape in problem.shapes)


@hypothesis_settings
@given(problems(), st.data())
def test_nothing_larger_is_allocated_than_a_path_says(problem, data):
    """Operands may be copied as they are: to drop or rearrange their axes."""
    path = data.draw(st.sampled_from(list(pairwise_paths(len(problem.shapes)))[:200]))
    assert allocated(problem, path) <= max(counted(problem, path), largest_operand(problem))


@hypothesis_settings
@given(problems(), st.sampled_from(sorted(OPTIMIZERS)), st.floats(0, 1))
def test_a_limit_is_refused_only_where_every_path_exceeds_it(problem, name, place):
    assume(1 < len(problem.shapes) <= 4)
    sizes = sorted({counted(problem, path) for path in pairwise_paths(len(problem.shapes))})
    smallest = sizes[0]
    limit = sizes[round(place * (len(sizes) - 1))]
    options = {"shapes": True, **problem.options, "optimize": OPTIMIZERS[name]()}
    for kept in (limit, smallest):
        path, info = conv_einsum_path(problem.equation, *problem.shapes, memory_limit=kept, **options)
        assert info.largest_intermediate <= kept
        assert allocated(problem, path) <= max(kept, largest_operand(problem))
    if smallest > 1:
        with pytest.raises(ConvEinsumError, match=f"smallest limit that a path keeps is {smallest}\\b"):
            conv_einsum_path(problem.equation, *problem.shapes, memory_limit=smallest - 1, **options)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_chains_of_eight_matrices(name):
    """The smallest limit by a dynamic program over intervals; the optimizers' own sizes are exact here."""
    random = Random(0)
    for _ in range(3):
        sizes = [random.choice((1, 2, 5, 9)) for _ in range(9)]
        least = {(i, i): 0 for i in range(8)}
        for length in range(1, 8):
            for i in range(8 - length):
                j = i + length
                own = sizes[i] * sizes[j + 1]
                least[i, j] = min(max(least[i, k], least[k + 1, j], own) for k in range(i, j))
        equation = ",".join(f"{a}{b}" for a, b in zip("abcdefgh", "bcdefghi", strict=True)) + "->ai"
        shapes = list(pairwise(sizes))
        options = {"shapes": True, "optimize": OPTIMIZERS[name]()}
        _, info = conv_einsum_path(equation, *shapes, memory_limit=least[0, 7], **options)
        assert info.largest_intermediate <= least[0, 7]


def test_windows_count():
    """Two tensors of which each is the feature of one mode: their windows are larger than the result."""
    problem = Problem("x,y,xy,xy->xy|xy", [(64,), (64,), (3, 5), (5, 3)], {})
    path = [(0, 2), (0, 1), (0, 1)]
    _, info = conv_einsum_path(problem.equation, *problem.shapes, shapes=True, optimize=path)
    # x meets a kernel of 3 and waits for one of 5: 62 x 5, windows [58, 5, 5]; y the same.
    assert info.steps[-1].operation.startswith("unfold")
    assert info.largest_intermediate == allocated(problem, path) == 58 * 58
    problem = Problem("x,y,xy,xy->xy|xy", [(9,), (9,), (3, 5), (5, 3)], {})
    _, info = conv_einsum_path(problem.equation, *problem.shapes, shapes=True, optimize=path)
    assert info.largest_intermediate == allocated(problem, path) == 3 * 5 * 5
    _, info = conv_einsum_path(problem.equation, *problem.shapes, shapes=True, memory_limit=74)
    assert info.largest_intermediate <= 74


@pytest.mark.parametrize("name", ["combo", "size", "greedy", "branch-1", "auto"])
def test_larger_networks_end_with_a_path_or_a_refusal(name):
    equation = ",".join(f"{a}{b}" for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)) + "->am"
    shapes = [(3, 9), (9, 2), (2, 8), (8, 4), (4, 7), (7, 2), (2, 9), (9, 5), (5, 3), (3, 8), (8, 2), (2, 6)]
    with pytest.raises(ConvEinsumError, match=r"memory_limit=17 .*the output alone has 18"):
        conv_einsum_path(equation, *shapes, shapes=True, memory_limit=17, optimize=OPTIMIZERS[name]())
    _, info = conv_einsum_path(equation, *shapes, shapes=True, memory_limit=27, optimize=OPTIMIZERS[name]())
    assert info.largest_intermediate <= 27
