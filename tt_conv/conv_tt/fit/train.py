"""Which level sees which frame through which kernel size: the structure that a decomposition fits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from tt_conv.conv_tt.fit.fourier import FourierGrid, Size
from tt_conv.conv_tt.fit.variable_projection import FrameGroup, SeenThrough, VariableProjection
from tt_conv.conv_tt.tensor import Window, dense_support, level_spans, window_frames


@dataclass(frozen=True)
class Train:
    """The shape of a Conv-TT, without its entries. Levels and frames are counted from 0.

    Attributes
    ----------
    outputs, inputs, steps : int
        O, I, N.
    rank : tuple of int
        R_1 .. R_M.
    projection_sizes, core_sizes : tuple of kernel sizes
    window : {"sliding", "fixed"}
    """

    outputs: int
    inputs: int
    steps: int
    rank: tuple[int, ...]
    projection_sizes: tuple[Size, ...]
    core_sizes: tuple[Size, ...]
    window: Window

    @property
    def order(self) -> int:
        """Number of levels M."""
        return len(self.rank)

    @cached_property
    def support(self) -> Size:
        """Spatial size of the dense kernel."""
        return dense_support(self.projection_sizes, self.core_sizes)

    @cached_property
    def windows(self) -> list[range]:
        """Frames that each level sees."""
        return window_frames(self.order, self.steps, self.window)

    def levels_of(self, frame: int) -> list[int]:
        """Levels that see a frame, in increasing order."""
        return [level for level, frames in enumerate(self.windows) if frame in frames]

    def reach(self, frame: int) -> Size:
        """Spatial size, in the middle, beyond which the dense kernel of a frame is zero."""
        spans = level_spans(self.projection_sizes, self.core_sizes)
        seen = [spans[level] for level in self.levels_of(frame)]
        return tuple(max(axis) for axis in zip(*seen, strict=True))

    def out_of_reach(self, kernel: Tensor) -> Tensor:
        """The part of a kernel [O, I, N, *K] of full support that no entries of the train can give."""
        rest = kernel.clone()
        for frame in range(self.steps):
            inside = rest[:, :, frame]
            for axis, (n, k) in enumerate(zip(self.support, self.reach(frame), strict=True), start=2):
                inside = inside.narrow(axis, (n - k) // 2, k)
            inside.zero_()
        return rest

    def core_shape(self, level: int) -> tuple[int, int, int]:
        """[taps, R_{m+1}, R_m]."""
        rows = self.outputs if level == self.order - 1 else self.rank[level + 1]
        return (math.prod(self.core_sizes[level]), rows, self.rank[level])

    def core_entries(self, level: int) -> int:
        """Number of entries of one core."""
        return math.prod(self.core_shape(level))

    def n_parameters(self) -> int:
        """Entries of all projections and cores."""
        cores = sum(self.core_entries(level) for level in range(self.order))
        lags = len(self.windows[0])
        return cores + sum(
            r * self.inputs * lags * math.prod(size) for r, size in zip(self.rank, self.projection_sizes, strict=True)
        )

    def random_core(self, level: int, batch: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Standard-normal cores [batch, taps, R_{m+1}, R_m]."""
        shape = (batch, *self.core_shape(level))
        # Drawn where the generator is, so that all devices start alike.
        core = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
        return core.to(device)

    def resized(self, outputs: int, inputs: int) -> Train:
        """The same train between other numbers of channels."""
        return replace(self, outputs=outputs, inputs=inputs)


class Target:
    """A dense kernel's spectrum, and the least-squares problems that fit parts of it.

    Parameters
    ----------
    train : Train
    kernel : Tensor [O, I, N, *K]
        In float64, its support that of the train.
    """

    def __init__(self, train: Train, kernel: Tensor) -> None:
        self.train = train
        self.grid = FourierGrid(train.support, kernel.device)
        spectrum = self.grid.spectrum(kernel.flatten(3).permute(2, 3, 0, 1), train.support)
        self.spectrum = spectrum * self.grid.scale[:, None, None]
        norms = self.spectrum.abs().square().sum((1, 2, 3)).sqrt()
        # The cores of planted kernels multiply up, so that the oldest frame may outweigh all others.
        self.equal_weights = [1 / float(n) if n > 0 else 0.0 for n in norms]

    def whole(self) -> VariableProjection:
        """The whole problem, each entry of the kernel with the same weight."""
        return self._problem(0, self._terms(0), [1.0] * self.train.steps)

    def levels_from(self, level: int, frames: list[int]) -> VariableProjection:
        """The levels from one on, fitted to frames that no earlier level sees, all frames of equal weight."""
        terms = [t if j in frames else () for j, t in enumerate(self._terms(level))]
        return self._problem(level, terms, self.equal_weights)

    def relaxed(self, level: int) -> VariableProjection:
        """The levels from one on, fitted to all frames of equal weight.

        What the earlier levels would do is left to free kernels as wide as theirs, at this level: a necessary
        condition for the cores from this level on.
        """
        train = self.train
        spans = level_spans(train.projection_sizes[: level + 1], [*train.core_sizes[:level], (1,) * len(train.support)])
        terms = []
        for frame, known in enumerate(self._terms(level)):
            seen = [spans[m] for m in train.levels_of(frame) if m <= level]
            later = tuple(term for term in known if term[0] > 0)
            widest = ((0, tuple(max(axis) for axis in zip(*seen, strict=True))),) if seen else ()
            terms.append(widest + later)
        return self._problem(level, terms, self.equal_weights)

    def best_projections(self, cores: list[Tensor]) -> list[Tensor]:
        """Projections [frames of the window, taps, R_m, I] that fit best, given cores [taps, R_{m+1}, R_m]."""
        train = self.train
        problem = self.whole()
        found: dict[tuple[int, int], Tensor] = {}
        for group, state in zip(problem.frames, problem.fit([core[None] for core in cores]).frames, strict=True):
            for projection, (level, _) in zip(state.projections, group.terms, strict=True):
                for frame, part in zip(group.numbers, projection[0].split(train.inputs, -1), strict=True):
                    found[level, frame] = part
        return [torch.stack([found[level, frame] for frame in frames]) for level, frames in enumerate(train.windows)]

    def _terms(self, first: int) -> list[tuple[SeenThrough, ...]]:
        train = self.train
        return [
            tuple((m - first, train.projection_sizes[m]) for m in train.levels_of(frame) if m >= first)
            for frame in range(train.steps)
        ]

    def _problem(self, first: int, terms: list[tuple[SeenThrough, ...]], weights: list[float]) -> VariableProjection:
        alike: dict[tuple[SeenThrough, ...], list[int]] = {}
        for frame, seen in enumerate(terms):
            if seen:
                alike.setdefault(seen, []).append(frame)
        frames = [
            FrameGroup(torch.cat([weights[n] * self.spectrum[n] for n in numbers], 2), seen, tuple(numbers))
            for seen, numbers in alike.items()
        ]
        return VariableProjection(self.grid, frames, list(self.train.core_sizes[first:]))
