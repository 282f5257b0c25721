"""The exact search against every tree, with costs worked out from the definition."""

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import prod

import opt_einsum
import pytest
import torch

from tt_conv import ConvEinsumError, conv_einsum, conv_einsum_path
from tt_conv.conv_einsum.cost import CostModel, Usage
from tt_conv.conv_einsum.network import bind
from tt_conv.conv_einsum.options import Options
from tt_conv.conv_einsum.parse import parse

Tree = int | tuple["Tree", "Tree"]


def all_trees(leaves: list[int]) -> Iterator[Tree]:
    """Yield every order of pairwise steps once; the first leaf is always on the left."""
    if len(leaves) == 1:
        yield leaves[0]
    first, *rest = leaves
    for size in range(len(rest)):
        for chosen in combinations(rest, size):
            others = [leaf for leaf in rest if leaf not in chosen]
            for left in all_trees([first, *chosen]):
                for right in all_trees(others):
                    yield left, right


class Costs:
    """Multiply-adds of steps, without any table: a dict of sizes per intermediate.

    Padding is "same" with odd kernels and stride 1, so a feature keeps its size unless it waits for kernels.
    """

    def __init__(self, equation: str, shapes: list[tuple[int, ...]]) -> None:
        body, _, self.convolved = equation.partition("|")
        terms, _, self.output = body.partition("->")
        self.operands = [
            dict(zip(term, shape, strict=True)) for term, shape in zip(terms.split(","), shapes, strict=True)
        ]

    def sizes(self, operands: frozenset[int]) -> dict[str, int]:
        outside = set(self.output).union(*(o for i, o in enumerate(self.operands) if i not in operands))
        kept = {m: n for i in operands for m, n in self.operands[i].items() if m in outside}
        for mode in self.convolved:
            carriers = [i for i, operand in enumerate(self.operands) if mode in operand]
            inside = [i for i in carriers if i in operands]
            kernels = [self.operands[i][mode] - 1 for i in inside if i != carriers[0]]
            if inside and carriers[0] not in inside:
                kept[mode] = 1 + sum(kernels)
            elif inside:
                waiting = sum(self.operands[i][mode] - 1 for i in carriers if i not in operands)
                kept[mode] = self.operands[carriers[0]][mode] + (waiting if kernels else 0)
        return kept

    def step(self, left: frozenset[int], right: frozenset[int]) -> int:
        a, b, result = self.sizes(left), self.sizes(right), self.sizes(left | right)
        factors = {mode: size for mode, size in (a | b).items() if mode not in self.convolved}
        for mode in self.convolved:
            if mode in a and mode in b:
                feature = next(i for i, operand in enumerate(self.operands) if mode in operand)
                if feature in left:
                    factors[mode] = result[mode] * b[mode]
                elif feature in right:
                    factors[mode] = result[mode] * a[mode]
                else:
                    factors[mode] = a[mode] * b[mode]
            elif mode in a or mode in b:
                factors[mode] = (a | b)[mode]
        return prod(factors.values())

    def of(self, tree: Tree, gradients: set[int] = frozenset(), weights: set[int] = frozenset(), reuse: int = 1):
        """Return the operands of a tree, the cost of all its calls, and the forward cost of its steps."""
        if isinstance(tree, int):
            return frozenset([tree]), 0, 0
        left, cost_left, macs_left = self.of(tree[0], gradients, weights, reuse)
        right, cost_right, macs_right = self.of(tree[1], gradients, weights, reuse)
        macs = self.step(left, right)
        passes = 1 + bool(left & gradients) + bool(right & gradients)
        calls = 1 if left | right <= weights else reuse
        return left | right, cost_left + cost_right + macs * passes * calls, macs_left + macs_right + macs


def tree_of(path: list[tuple[int, ...]], count: int) -> Tree:
    current: list[Tree] = list(range(count))
    for i, j in path:
        right, left = current.pop(max(i, j)), current.pop(min(i, j))
        current.append((left, right))
    return current[0]


NETWORKS = {
    "matrices": ("ab,bc,cd,de,ef,fa->", [(7, 2), (2, 9), (9, 3), (3, 8), (8, 2), (2, 7)]),
    "outer products pay": ("a,b,abcd,ce,de->", [(2,), (3,), (2, 3, 9, 9), (9, 5), (9, 5)]),
    "cp": ("bihw,r,or,ir,hr,wr->bohw|hw", [(2, 5, 8, 9), (4,), (6, 4), (5, 4), (3, 4), (5, 4)]),
    "tucker": ("bihw,pqrs,op,iq,hr,ws->bohw|hw", [(2, 9, 8, 8), (4, 3, 2, 2), (9, 4), (9, 3), (3, 2), (3, 2)]),
    "ring": ("bihw,aoc,cid,dhe,ewa->bohw|hw", [(1, 6, 9, 9), (2, 7, 3), (3, 6, 4), (4, 3, 2), (2, 5, 2)]),
    "three kernels": ("bih,rih,srh,tsh,ot,o->boh|h", [(3, 4, 9), (2, 4, 3), (3, 2, 5), (5, 3, 3), (6, 5), (6,)]),
}


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"gradients": {0, 1, 2, 3, 4, 5}},
        {"gradients": {1, 3}},
        {"gradients": {1, 2, 3, 4, 5}, "reuse": 7},
        {"reuse": 3},
    ],
    ids=["inference", "training", "two gradients", "recurrence in training", "recurrence"],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_search_finds_what_trying_every_tree_finds(name: str, usage: dict) -> None:
    equation, shapes = NETWORKS[name]
    count = len(shapes)
    gradients = {i for i in usage.get("gradients", ()) if i < count}
    reuse = usage.get("reuse", 1)
    costs = Costs(equation, shapes)
    priced = [costs.of(tree, gradients, set(range(1, count)), reuse) for tree in all_trees(list(range(count)))]
    options = {"padding": "same"} if costs.convolved else {}
    path, info = conv_einsum_path(
        equation, *shapes, shapes=True, optimize="optimal", train=gradients, reuse=reuse, **options
    )
    _, cost, macs = costs.of(tree_of(path, count), gradients, set(range(1, count)), reuse)
    assert cost == min(cost for _, cost, _ in priced)
    assert info.opt_cost == macs
    if reuse == 1:
        assert info.training_cost == cost


def test_trees_are_counted_right() -> None:
    # (2n - 3)!! trees for n leaves.
    assert [len(list(all_trees(list(range(n))))) for n in range(1, 7)] == [1, 1, 3, 15, 105, 945]


@pytest.mark.parametrize("name", NETWORKS)
def test_naive_cost_is_left_to_right(name: str) -> None:
    equation, shapes = NETWORKS[name]
    tree: Tree = 0
    for i in range(1, len(shapes)):
        tree = (tree, i)
    padding = "same" if "|" in equation else 0
    path, info = conv_einsum_path(equation, *shapes, shapes=True, optimize=False, padding=padding)
    assert info.naive_cost == info.opt_cost == Costs(equation, shapes).of(tree)[2]
    assert info.speedup == 1
    assert tree_of(path, len(shapes)) == tree or path[0] == (0, 1)


def test_weights_that_are_reused_are_combined_first() -> None:
    shapes = [(4, 64), (64, 48), (48, 64)]
    once, _ = conv_einsum_path("bi,ir,ro->bo", *shapes, shapes=True)
    often, info = conv_einsum_path("bi,ir,ro->bo", *shapes, shapes=True, reuse=1000, constants=[1, 2], train=True)
    assert once == [(0, 1), (0, 1)]
    assert often == [(1, 2), (0, 1)]
    assert [step.runs for step in info.steps] == ["fold", "call"]
    _, info = conv_einsum_path("bi,ir,ro->bo", *shapes, shapes=True, reuse=1000, train=True)
    assert [step.runs for step in info.steps] == ["update", "call"]
    assert info.opt_cost == 64 * 48 * 64 + 4 * 64 * 64


def test_constants_are_free_up_to_the_cap() -> None:
    # Together the two vectors have 10^8 elements, more than an expression keeps.
    small, info = conv_einsum_path("a,a,b->ab", (99,), (99,), (99,), shapes=True, constants=[1, 2])
    assert small == [(1, 2), (0, 1)]
    shapes = [(10**4,), (10**4,), (10**4,)]
    large, info = conv_einsum_path("a,a,b->ab", *shapes, shapes=True, constants=[1, 2])
    assert large == [(0, 1), (0, 1)]
    assert [step.runs for step in info.steps] == ["call", "call"]


def test_ties_are_broken_by_bytes() -> None:
    # Both orders take 2 * 8 multiply-adds; x, (y, z) writes a scalar where (x, y), z writes a vector.
    path, info = conv_einsum_path("a,,->a", (8,), (), (), shapes=True)
    assert info.opt_cost == 9
    assert path == [(1, 2), (0, 1)]
    # A (BC) and (AB) C both cost 2 * 4^3, whatever the order; AB is the smaller intermediate.
    path, info = conv_einsum_path("ij,jk,kl->il", (1, 4), (4, 4), (4, 16), shapes=True)
    assert path == [(0, 1), (0, 1)]


class Recorder(opt_einsum.paths.PathOptimizer):
    """A path optimizer that says what it was asked."""

    def __call__(self, inputs, output, size_dict, memory_limit=None):
        self.asked = inputs, output, size_dict, memory_limit
        return [(1, 2), (0, 1)]


def test_a_path_optimizer_is_asked_through_its_interface() -> None:
    optimizer = Recorder()
    path, _ = conv_einsum_path(
        "bih,rih,or->boh|h", (2, 3, 9), (4, 3, 3), (5, 4), shapes=True, optimize=optimizer, memory_limit=10**6
    )
    assert path == [(1, 2), (0, 1)]
    inputs, output, sizes, limit = optimizer.asked
    assert [len(term) for term in inputs] == [3, 3, 2]
    assert all(label in sizes for term in inputs for label in term)
    assert output == frozenset("boh")
    assert limit == 10**6


@pytest.mark.parametrize("name", ["auto", "auto-hq", "greedy", "branch-1", "dp", "random-greedy"])
def test_many_operands(name: str) -> None:
    """A chain of twelve: 0.2 seconds at most, and the cost is no more than twice the best."""
    equation = ",".join(f"{a}{b}" for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)) + "->am"
    sizes = [3, 9, 2, 8, 4, 7, 2, 9, 5, 3, 8, 2, 6]
    shapes = list(pairwise(sizes))
    _, info = conv_einsum_path(equation, *shapes, shapes=True, optimize=name)
    # The best product of a chain of matrices, by the textbook's recurrence.
    best = {(i, i): 0 for i in range(12)}
    for length in range(1, 12):
        for i in range(12 - length):
            j = i + length
            best[i, j] = min(best[i, k] + best[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1] for k in range(i, j))
    assert best[0, 11] <= info.opt_cost <= 2 * best[0, 11]
    if name in ("auto-hq", "dp"):
        assert info.opt_cost == best[0, 11]


@pytest.mark.parametrize("path", [[(0, 1, 2)], [(1, 2), (0, 1)], [(0,), (0, 1), (1, 0)], ((0, 2), (1, 0))])
def test_paths_of_the_caller(path) -> None:
    operands = [torch.randn(shape, dtype=torch.float64) for shape in [(2, 3, 9), (4, 3, 3), (5, 4)]]
    kernel = torch.einsum("rih,or->oih", *operands[1:])
    value = conv_einsum("bih,rih,or->boh|h", *operands, optimize=path)
    torch.testing.assert_close(value, torch.conv1d(operands[0], kernel), rtol=1e-12, atol=1e-12)
    found, _ = conv_einsum_path("bih,rih,or->boh|h", *operands, optimize=path)
    assert all(len(pair) == 2 for pair in found)


def test_a_path_of_pairs_is_returned_as_it_was_given() -> None:
    shapes = [(2, 3), (3, 4), (4, 5), (5, 6)]
    for path in ([(0, 1), (0, 1), (0, 1)], [(2, 3), (0, 2), (0, 1)], [(0, 3), (0, 1), (0, 1)]):
        assert conv_einsum_path("ab,bc,cd,de->ae", *shapes, shapes=True, optimize=path)[0] == path
    assert conv_einsum_path("ab->ba", (2, 3), shapes=True)[0] == [(0,)]


@pytest.mark.parametrize("limit", ["max_input", -1, None, 100])
def test_memory_limits(limit) -> None:
    # From the left: an intermediate of 90 elements.
    shapes = [(9, 1), (10, 1), (10, 9), (9, 9)]
    _, info = conv_einsum_path("ax,bx,bc,cd->ad", *shapes, shapes=True, memory_limit=limit)
    assert info.largest_intermediate <= 100
    with pytest.raises(ConvEinsumError, match="memory_limit=89"):
        conv_einsum_path("ax,bx,bc,cd->ad", *shapes, shapes=True, memory_limit=89, optimize=False)
    _, info = conv_einsum_path("ax,bx,bc,cd->ad", *shapes, shapes=True, memory_limit=89)
    assert info.largest_intermediate <= 89


def test_a_gradient_comes_from_requires_grad() -> None:
    x, a, b = torch.randn(2, 3), torch.randn(3, 4, requires_grad=True), torch.randn(4, 5)
    _, info = conv_einsum_path("ij,jk,kl->il", x, a, b, optimize=False)
    assert [step.gradients for step in info.steps] == [1, 1]
    with torch.no_grad():
        _, info = conv_einsum_path("ij,jk,kl->il", x, a, b, optimize=False)
    assert [step.gradients for step in info.steps] == [0, 0]
    _, info = conv_einsum_path("ij,jk,kl->il", x, a, b, optimize=False, train=True)
    assert [step.gradients for step in info.steps] == [2, 2]
    _, info = conv_einsum_path("ij,jk,kl->il", x, a, b, optimize=False, train=[0, 2])
    assert [step.gradients for step in info.steps] == [1, 2]


@pytest.mark.parametrize("train", [[3], ["0"], "01", [0.5], [-1]])
def test_train_must_name_operands(train) -> None:
    with pytest.raises(ConvEinsumError, match="train"):
        conv_einsum_path("ij,jk->ik", (2, 3), (3, 4), shapes=True, train=train)


def test_an_operand_cannot_be_constant_and_need_a_gradient() -> None:
    with pytest.raises(ConvEinsumError, match="constants"):
        conv_einsum_path("ij,jk->ik", (2, 3), (3, 4), shapes=True, train=[1], constants=[1])


def test_a_convolution_of_single_channels_counts_as_slow_where_traffic_counts() -> None:
    """The same multiply-adds: 64 images of one channel, and one image of 64 channels with a kernel each."""
    single = bind(parse("bhw,hw->bhw|hw"), ((64, 16, 16), (3, 3)), Options(padding="same"))
    grouped = bind(parse("bhw,bhw->bhw|hw"), ((64, 16, 16), (64, 3, 3)), Options(padding="same"))
    prices = [CostModel(network, Usage(), traffic_weight=32).price(1, 2)[0] for network in (single, grouped)]
    assert prices[0] > 5 * prices[1]
    assert CostModel(single, Usage()).price(1, 2)[0] == CostModel(grouped, Usage()).price(1, 2)[0]


class Failing(opt_einsum.paths.PathOptimizer):
    def __call__(self, *arguments: object) -> list:
        raise RuntimeError("out of ideas")


def test_the_error_of_an_optimizer_is_told_as_its_own() -> None:
    with pytest.raises(ConvEinsumError, match="the optimizer Failing failed: out of ideas"):
        conv_einsum_path("ab,bc,cd->ad", (2, 3), (3, 4), (4, 5), shapes=True, optimize=Failing())
