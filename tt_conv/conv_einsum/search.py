"""Exact search for the cheapest order of evaluation, by dynamic programming over subsets."""

from collections.abc import Iterator, Sequence
from heapq import nsmallest

from tt_conv.conv_einsum.cost import CostModel

Tree = int | tuple["Tree", "Tree"]
"""An order of evaluation: a leaf is a subset that is taken as it is, a pair is a step."""

Price = tuple[int, int]


def subset_of(tree: Tree) -> int:
    """Return the operands of a tree, as a bit mask."""
    return tree if isinstance(tree, int) else subset_of(tree[0]) | subset_of(tree[1])


def steps_of(tree: Tree) -> Iterator[tuple[int, int]]:
    """Yield the subsets that each step of a tree combines, in an order in which they can run."""
    if not isinstance(tree, int):
        yield from steps_of(tree[0])
        yield from steps_of(tree[1])
        yield subset_of(tree[0]), subset_of(tree[1])


def price_of(tree: Tree, model: CostModel) -> Price:
    """Return the price of a whole tree."""
    prices = [model.price(left, right) for left, right in steps_of(tree)]
    return sum(price for price, _ in prices), sum(ties for _, ties in prices)


def fits(tree: Tree, model: CostModel, limit: int | None) -> bool:
    """Say whether every tensor that the steps of a tree make has at most ``limit`` elements."""
    return all(_keeps(model, left, right, limit) for left, right in steps_of(tree))


def cheapest(model: CostModel, pieces: Sequence[int], limit: int | None = None) -> Tree | None:
    """Return the cheapest tree over disjoint subsets, outer products included.

    The intermediate that a subset gives does not depend on the order within it and prices add up, so the
    best tree of a subset consists of best trees: 3^n / 2 pairs are priced for n pieces.

    Parameters
    ----------
    model : CostModel
    pieces : sequence of int
        Bit masks of operands, disjoint.
    limit : int, optional
        Largest number of elements of any tensor that a step makes.

    Returns
    -------
    Tree or None
        None when no tree keeps within ``limit``.
    """
    if len(pieces) == 1:
        return pieces[0]
    members = _members(pieces)
    prices: dict[int, Price] = {1 << i: (0, 0) for i in range(len(pieces))}
    splits: dict[int, int] = {}
    for group in range(3, len(members)):
        if not group & (group - 1) or (limit is not None and model.elements(members[group]) > limit):
            continue
        best: Price | None = None
        rest = group & (group - 1)
        right = rest
        while right:  # every subset of rest; the lowest piece stays on the left, so each pair comes once
            left = group ^ right
            if left in prices and right in prices and _keeps(model, members[left], members[right], limit):
                (a, a_ties), (b, b_ties) = prices[left], prices[right]
                if best is None or a + b <= best[0]:
                    price, ties = model.price(members[left], members[right])
                    total = (a + b + price, a_ties + b_ties + ties)
                    if best is None or total < best:
                        best, splits[group] = total, right
            right = (right - 1) & rest
        if best is not None:
            prices[group] = best
    everything = len(members) - 1
    return _tree(everything, splits, pieces) if everything in prices else None


def cheapest_few(model: CostModel, pieces: Sequence[int], count: int, limit: int | None = None) -> list[Tree]:
    """Return the ``count`` cheapest trees, cheapest first; arguments as in :func:`cheapest`."""
    members = _members(pieces)
    best: dict[int, list[tuple[Price, Tree]]] = {1 << i: [((0, 0), piece)] for i, piece in enumerate(pieces)}
    for group in range(3, len(members)):
        if not group & (group - 1) or (limit is not None and model.elements(members[group]) > limit):
            continue
        found: list[tuple[Price, Tree]] = []
        rest = group & (group - 1)
        right = rest
        while right:
            left = group ^ right
            if best.get(left) and best.get(right) and _keeps(model, members[left], members[right], limit):
                price, ties = model.price(members[left], members[right])
                found += [
                    ((a[0] + b[0] + price, a[1] + b[1] + ties), (left_tree, right_tree))
                    for a, left_tree in best[left]
                    for b, right_tree in best[right]
                ]
            right = (right - 1) & rest
        best[group] = nsmallest(count, found, key=lambda entry: entry[0])
    return [tree for _, tree in best.get(len(members) - 1, [])]


def smallest_limit(model: CostModel, pieces: Sequence[int]) -> int:
    """Return the smallest limit that some tree over disjoint subsets keeps, by the same search."""
    members = _members(pieces)
    least = {1 << i: 0 for i in range(len(pieces))}
    for group in range(3, len(members)):
        if not group & (group - 1):
            continue
        rest = right = group & (group - 1)
        found = []
        while right:
            left = group ^ right
            found.append(max(least[left], least[right], model.largest(members[left], members[right])))
            right = (right - 1) & rest
        least[group] = min(found)
    return least[len(members) - 1]


def _keeps(model: CostModel, left: int, right: int, limit: int | None) -> bool:
    """Say whether a step makes no tensor with more elements than the limit."""
    return limit is None or model.largest(left, right) <= limit


def _members(pieces: Sequence[int]) -> list[int]:
    """Return the operands of every group of pieces; group g holds piece i when bit i of g is set."""
    members = [0]
    for piece in pieces:
        members += [piece | other for other in members]
    return members


def _tree(group: int, splits: dict[int, int], pieces: Sequence[int]) -> Tree:
    if not group & (group - 1):
        return pieces[group.bit_length() - 1]
    right = splits[group]
    return _tree(group ^ right, splits, pieces), _tree(right, splits, pieces)


def tree_of(steps: Sequence[tuple[int, int]]) -> Tree:
    """Return the tree of a sequence of at least one step."""
    trees: dict[int, Tree] = {}
    for left, right in steps:
        trees[left | right] = (trees.get(left, left), trees.get(right, right))
    return trees[steps[-1][0] | steps[-1][1]]
