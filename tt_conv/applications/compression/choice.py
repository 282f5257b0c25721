"""The choice of one candidate per layer: the least loss that a budget allows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_UNITS = 2000


@dataclass(frozen=True)
class Item:
    """A candidate as the choice sees it."""

    cost: float
    loss: float


def choose(options: Mapping[str, Sequence[Item]], allowed: float) -> dict[str, int]:
    """Pick one option per layer so that the costs stay within a sum and the losses are small.

    That is a multiple-choice knapsack problem. Two answers are made, and the better one is taken: on the lower
    convex hull of each layer's options, steps to larger ones in the order of the loss they save per cost, as a
    Lagrange multiplier would; and dynamic programming over a budget in small units. In both, what is left of
    the budget is filled step by step with whatever then saves most.

    Parameters
    ----------
    options : mapping of str to sequence of Item
        For each layer, at least one.
    allowed : float
        Largest sum of costs.

    Returns
    -------
    dict
        The index of the option, by layer.

    Raises
    ------
    ValueError
        If not even the cheapest options stay within ``allowed``.

    Examples
    --------
    >>> layers = {"a": [Item(1, 9.0), Item(4, 0.0)], "b": [Item(1, 1.0), Item(4, 0.0)]}
    >>> choose(layers, 5)
    {'a': 1, 'b': 0}
    """
    hulls = {name: _hull(layer) for name, layer in options.items()}
    cheapest = {name: hull[0] for name, hull in hulls.items()}
    if _total_cost(options, cheapest) > allowed * (1 + 1e-12):
        raise ValueError(f"the cheapest options cost {_total_cost(options, cheapest)}, and {allowed} is allowed")
    answers = [_along_hulls(options, hulls, allowed), _by_units(options, cheapest, allowed)]
    filled = [_spend_the_rest(options, answer, allowed - _total_cost(options, answer)) for answer in answers]
    return min(filled, key=lambda answer: sum(options[name][index].loss for name, index in answer.items()))


def _total_cost(options: Mapping[str, Sequence[Item]], chosen: Mapping[str, int]) -> float:
    return sum(options[name][index].cost for name, index in chosen.items())


def _along_hulls(
    options: Mapping[str, Sequence[Item]], hulls: Mapping[str, Sequence[int]], allowed: float
) -> dict[str, int]:
    chosen = {name: hull[0] for name, hull in hulls.items()}
    spent = _total_cost(options, chosen)
    steps = [
        (_saving(options[name][here], options[name][there]), name, here, there)
        for name, hull in hulls.items()
        for here, there in pairwise(hull)
    ]
    for _, name, here, there in sorted(steps, key=lambda step: -step[0]):
        extra = options[name][there].cost - options[name][here].cost
        if chosen[name] == here and spent + extra <= allowed:
            chosen[name], spent = there, spent + extra
    return chosen


def _by_units(options: Mapping[str, Sequence[Item]], cheapest: Mapping[str, int], allowed: float) -> dict[str, int]:
    """Choose exactly for costs that are rounded up to units of the budget beyond the cheapest options."""
    unit = (allowed - _total_cost(options, cheapest)) / _UNITS
    if unit <= 0:
        return dict(cheapest)
    best = np.zeros(_UNITS + 1)  # least loss by the units that may be spent
    taken = []
    for name, layer in options.items():
        least = layer[cheapest[name]].cost
        losses, picks = np.full(_UNITS + 1, np.inf), np.zeros(_UNITS + 1, dtype=int)
        for index, option in enumerate(layer):
            units = math.ceil((option.cost - least) / unit - 1e-9)
            if units > _UNITS:
                continue
            reached = best[: _UNITS + 1 - units] + option.loss
            better = reached < losses[units:]
            losses[units:][better], picks[units:][better] = reached[better], index
        best = losses
        taken.append((name, least, picks))
    left, chosen = _UNITS, {}
    for name, least, picks in reversed(taken):
        chosen[name] = int(picks[left])
        left -= math.ceil((options[name][chosen[name]].cost - least) / unit - 1e-9)
    return {name: chosen[name] for name in options}


def _spend_the_rest(options: Mapping[str, Sequence[Item]], chosen: dict[str, int], left: float) -> dict[str, int]:
    while True:
        best: tuple[float, str, int] | None = None
        for name, index in chosen.items():
            now = options[name][index]
            for other, option in enumerate(options[name]):
                if option.cost - now.cost <= left and option.loss < now.loss:
                    saved = now.loss - option.loss
                    if best is None or saved > best[0]:
                        best = (saved, name, other)
        if best is None:
            return chosen
        _, name, other = best
        left -= options[name][other].cost - options[name][chosen[name]].cost
        chosen[name] = other


def _saving(now: Item, then: Item) -> float:
    return (now.loss - then.loss) / (then.cost - now.cost)


def _hull(options: Sequence[Item]) -> list[int]:
    """Return the options on the lower convex hull, from the cheapest on, each with less loss than the one before."""
    hull: list[int] = []
    for index in sorted(range(len(options)), key=lambda n: (options[n].cost, options[n].loss)):
        option = options[index]
        if hull and option.loss >= options[hull[-1]].loss:
            continue
        while len(hull) > 1 and _saving(options[hull[-2]], options[hull[-1]]) <= _saving(options[hull[-1]], option):
            hull.pop()
        hull.append(index)
    return hull
