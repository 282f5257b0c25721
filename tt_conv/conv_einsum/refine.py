"""Better trees for equations that are too large for exact search: exact search on parts of the tree."""

from tt_conv.conv_einsum.cost import CostModel
from tt_conv.conv_einsum.search import Tree, cheapest, price_of, subset_of

PIECES = 6
"""Subtrees that are rearranged at once; exact search takes a few milliseconds for these."""


def refine(model: CostModel, tree: Tree, limit: int | None = None) -> Tree:
    """Rearrange the top of every subtree exactly, from the root down, until a pass brings nothing.

    Parameters
    ----------
    model : CostModel
    tree : Tree
        A start, from any optimizer.
    limit : int, optional
        Largest number of elements of any tensor that a step makes.

    Returns
    -------
    Tree
        Never dearer than the start.
    """
    while True:
        refined = _rearrange(model, tree, limit)
        if price_of(refined, model) >= price_of(tree, model):
            return tree
        tree = refined


def _rearrange(model: CostModel, tree: Tree, limit: int | None) -> Tree:
    """Rearrange the top of a tree, then its subtrees."""
    if isinstance(tree, int):
        return tree
    pieces: dict[int, Tree] = {subset_of(part): part for part in tree}
    while len(pieces) < PIECES:
        opened = max((s for s, part in pieces.items() if not isinstance(part, int)), key=model.elements, default=0)
        if not opened:
            break
        part = pieces.pop(opened)
        if not isinstance(part, int):
            pieces |= {subset_of(child): child for child in part}
    best = cheapest(model, list(pieces), limit)
    if best is None:
        return tree
    return _substitute(best, pieces, model, limit)


def _substitute(tree: Tree, pieces: dict[int, Tree], model: CostModel, limit: int | None) -> Tree:
    """Put subtrees in the place of their subsets, each rearranged in turn."""
    if isinstance(tree, int):
        return _rearrange(model, pieces[tree], limit)
    left, right = tree
    return _substitute(left, pieces, model, limit), _substitute(right, pieces, model, limit)
