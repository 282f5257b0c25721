"""How many past states help: what the states before the newest one tell of what a truncated kernel loses."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tt_conv.applications.compression.calibration import Calibration, at_work
from tt_conv.layers import ConvLSTMCell
from tt_conv.runtime.formats import CONVOLUTIONS

_MOST_ENTRIES = 2048  # of a regression; beyond, a state is seen at the place itself alone
_SAMPLES = 4096  # positions per call and half
_RIDGES = (1e-4, 1e-2, 1.0)
_PROBING_SEED = 0


def explained_by_past(
    model: Any, cells: Mapping[str, ConvLSTMCell], lost: Mapping[str, Tensor], calibration: Calibration, most: int
) -> list[float]:
    r"""Return the share of what truncation loses that n past states can explain, for n = 1, 2, ...

    What is lost in a frame, :math:`E * h_{t-1}`, is regressed on the states :math:`h_{t-2}, \dots, h_{t-n}` in 3 places
    per axis around the same place. Its mean is left out, since a bias can give it. The regression is fitted to one half
    of the samples and judged on the other, so that noise earns nothing. That is how the lag of an autoregressive
    model is usually chosen.

    Parameters
    ----------
    model : nn.Module
        The trained network.
    cells : mapping of str to ConvLSTMCell
        Its cells by name.
    lost : mapping of str to Tensor
        E by cell: trained minus truncated recurrent kernel, ``[4 * H, H, *K]`` with odd K.
    calibration : Calibration
    most : int
        Largest n.

    Returns
    -------
    list of float
        At most ``most`` shares in [0, 1], not falling, the first of them 0; fewer where sequences, as the first batch
        has them, are too short: n states take n + 1 frames, n + 2 of a single
        sample.
    """
    convs = {name: cell.conv for name, cell in cells.items()}
    calls = [seen.shapes for seen in calibration.shapes(model, convs).values()]
    frames = min((sum(shapes.values()) for shapes in calls), default=0)
    single = len(calibration.batches) == 1 and all(shape[0] == 1 for shapes in calls for shape in shapes)
    # In the first frame there is no state, and a single sample is divided in time.
    most = max(1, min(most, frames - 2 if single else frames - 1))
    if most == 1:
        return [0.0]
    fits = {name: _Regression(lost[name], most, frames - most if single else None) for name in cells}

    def see(name: str) -> Callable[[Any, tuple[Any, ...]], None]:
        return lambda _, given: fits[name].add(given[0].detach()[:, cells[name].in_channels :])

    with at_work(model, convs) as (watched, copies), torch.no_grad():
        for name, conv in copies.items():
            conv.register_forward_pre_hook(see(name))
        for number in range(len(calibration.batches)):
            for fit in fits.values():
                fit.begin()
            calibration.run(watched, number)
    unexplained = [0.0] * most
    for fit in fits.values():
        for n, left in enumerate(fit.unexplained()):
            unexplained[n] += left
    shares = [0.0]
    for left in unexplained[1:]:
        share = 1 - left / unexplained[0] if unexplained[0] > 0 else 0.0
        shares.append(min(1.0, max(share, shares[-1])))
    return shares


def steps_worth_having(shares: list[float], gain: float) -> int:
    """Return the number of past states up to which each explains at least ``gain`` more than those before it."""
    for n, (before, after) in enumerate(pairwise(shares), start=1):
        if after - before < gain:
            return n
    return len(shares)


class _Regression:
    """Sums for a regression of ``kernel`` on the newest state by a constant and the states before, in two halves."""

    def __init__(self, kernel: Tensor, most: int, windows: int | None) -> None:
        self.kernel, self.most, self.dim = kernel, most, kernel.ndim - 2
        outputs, hidden = kernel.shape[:2]
        around = 3**self.dim * hidden
        self.wide = around * (most - 1) < _MOST_ENTRIES
        self.per_state = around if self.wide else hidden
        self.entries = 1 + self.per_state * (most - 1)
        new: dict[str, Any] = {"dtype": torch.float64, "device": kernel.device}
        self.grams = torch.zeros(2, self.entries, self.entries, **new)
        self.products = torch.zeros(2, self.entries, outputs, **new)
        self.energies = torch.zeros(2, **new)
        self.states: deque[Tensor] = deque(maxlen=most)
        self.generator = torch.Generator().manual_seed(_PROBING_SEED)
        self.windows = windows  # of a single sample
        self.samples = self.called = self.batch = 0

    def begin(self) -> None:
        """Forget the states: a new batch comes."""
        self.states.clear()
        self.samples += self.batch
        self.called = self.batch = 0

    def add(self, state: Tensor) -> None:
        """Take the state that a frame sees, ``[batch, H, *S]``."""
        self.states.append(state)
        self.batch = len(state)
        if len(self.states) < self.most or not self.states[0].any():  # before the first frame, all states are zero
            return
        lost = CONVOLUTIONS[self.dim](state, self.kernel, padding="same")
        for half in (0, 1):
            rows = self._rows(half)
            if not len(rows):
                continue
            places = self._places(rows, state.shape[2:])
            y = _at(lost, places)
            x = torch.cat([y.new_ones(len(y), 1), *(self._around(h, places) for h in list(self.states)[-2::-1])], dim=1)
            x, y = x.double(), y.double()
            self.grams[half] += x.mT @ x
            self.products[half] += x.mT @ y
            self.energies[half] += y.square().sum()
        self.called += 1

    def unexplained(self) -> list[float]:
        """Return the squares that 1, 2, ... states, fitted to one half, leave of the other, over both halves."""
        if not bool((self.grams[:, 0, 0] > 0).all()):  # the constant's entry counts the samples
            return [0.0] * self.most
        left = [0.0] * self.most
        for fitted, judged in ((0, 1), (1, 0)):
            for n in range(self.most):
                left[n] += self._left(fitted, judged, 1 + self.per_state * n)
        return left

    def _left(self, fitted: int, judged: int, entries: int) -> float:
        some = slice(entries)
        gram, product = self.grams[fitted][some, some], self.products[fitted][some]
        penalty = gram.new_full((entries,), float(gram.diagonal()[1:].mean()) if entries > 1 else 0.0)
        penalty[0] = 0.0  # the constant is free
        best = math.inf
        for ridge in _RIDGES if entries > 1 else (0.0,):
            found = torch.linalg.solve(gram + ridge * penalty.diag(), product)
            explained = 2 * (found * self.products[judged][some]).sum()
            explained -= (found * (self.grams[judged][some, some] @ found)).sum()
            best = min(best, float(self.energies[judged] - explained))
        return max(0.0, best)

    def _rows(self, half: int) -> range:
        """Return the samples of the batch that belong to a half: every second of all; a single one is cut in time."""
        if self.windows is not None:
            return range(int((2 * self.called >= self.windows) == bool(half)))
        return range((half + self.samples) % 2, self.batch, 2)

    def _places(self, rows: range, positions: torch.Size) -> tuple[Tensor, ...]:
        """Return indices of samples and positions, all or a random choice of ``_SAMPLES``."""
        grid = (len(rows), *positions)
        available = math.prod(grid)
        flat = torch.arange(available)
        if available > _SAMPLES:
            flat = torch.randint(available, (_SAMPLES,), generator=self.generator)
        batch, *places = torch.unravel_index(flat.to(self.kernel.device), grid)
        return (rows.start + rows.step * batch, *places)

    def _around(self, state: Tensor, places: tuple[Tensor, ...]) -> Tensor:
        """Return ``[places, per_state]``: the state at and around each place."""
        if self.wide:
            state = F.pad(state, [1] * 2 * self.dim)
            for axis in range(self.dim):
                state = state.unfold(2 + axis, 3, 1)
        return _at(state, places).flatten(1)


def _at(values: Tensor, places: tuple[Tensor, ...]) -> Tensor:
    """Return ``[places, channels, ...]`` of ``[batch, channels, *S, ...]``."""
    return values.movedim(1, len(places))[places]
