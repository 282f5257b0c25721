"""The error of the best projections as a function of the cores, and its Gauss-Newton system.

Given the cores, the projections solve one linear least-squares problem per frame. Eliminating them leaves a
problem in the cores only (variable projection; Golub and Pereyra 1973), whose Gauss-Newton matrix is a Schur
complement (Kaufman 1975). Several sets of cores are treated at once, along a leading batch axis.

At one frequency, with C_m = G_M ... G_m and v_m = u_m + G_{m-1} v_{m-1},

    W_j = sum over the terms m of frame j of C_m P_{m,j},        dW_j / dG_m = C_{m+1} dG_m v_m,
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tt_conv.conv_tt.fit.fourier import FourierGrid, Size

SeenThrough = tuple[int, Size]
"""A level (counted from 0) and the size of the projection kernel by which it sees a frame."""

# The least-squares problem may be singular (ranks larger than what the frame shows).
RIDGE = 1e-14


@dataclass(frozen=True)
class FrameGroup:
    """Frames that are seen by the same terms, side by side.

    Attributes
    ----------
    target : Tensor [F, O, columns], complex
        What the train must produce, multiplied by the grid's scale.
    terms : tuple of (level, projection kernel size)
    numbers : tuple of int
        The frames, in the order of their columns.
    """

    target: Tensor
    terms: tuple[SeenThrough, ...]
    numbers: tuple[int, ...]

    def entries(self, rank: tuple[int, ...]) -> int:
        """Unknowns per column: taps and channels of all projections."""
        return sum(rank[level] * math.prod(size) for level, size in self.terms)


@dataclass
class Projection:
    """The best projections for given cores: one of these per frame.

    Attributes
    ----------
    factor : Tensor [batch, Q, Q]
        Cholesky factor of the normal matrix; Q counts the taps and channels of all terms.
    projections : list of Tensor [batch, taps, R_m, columns], one for each term
    residual : Tensor [batch, F, O, columns], complex
    """

    factor: Tensor
    projections: list[Tensor]
    residual: Tensor


@dataclass
class Fit:
    """The state of the problem at given cores (`chains[m]` is C_m, with C_M the identity)."""

    squared_error: Tensor
    chains: list[Tensor]
    frames: list[Projection]

    def at(self, index: Tensor) -> Fit:
        """The chosen members of the batch."""
        frames = [
            Projection(f.factor[index], [p[index] for p in f.projections], f.residual[index]) for f in self.frames
        ]
        # The last chain is the identity, one for all.
        chains = [c[index] for c in self.chains[:-1]] + self.chains[-1:]
        return Fit(self.squared_error[index], chains, frames)


class VariableProjection:
    """Least squares over the cores of one train, its projections eliminated.

    Parameters
    ----------
    grid : FourierGrid
        The frequencies.
    frames : list of FrameGroup
        What the train must produce.
    core_sizes : list of tuple of int
        Kernel size of each core, level 1 first.
    """

    def __init__(self, grid: FourierGrid, frames: list[FrameGroup], core_sizes: list[Size]) -> None:
        self.grid = grid
        self.frames = frames
        self.core_sizes = core_sizes
        self.squared_norm = float(sum(f.target.abs().square().sum() for f in frames))

    def fit(self, cores: list[Tensor]) -> Fit:
        """Projections, residuals and squared errors for the cores [batch, taps, R_{m+1}, R_m]."""
        chains = self._chains(cores)
        frames = [self._project(frame, chains) for frame in self.frames]
        squared = sum((f.residual.abs().square().sum((1, 2, 3)) for f in frames), cores[0].new_zeros(()))
        return Fit(squared, chains, frames)

    def normal_equations(self, cores: list[Tensor], fit: Fit, free: list[int]) -> tuple[Tensor, Tensor]:
        """The Gauss-Newton matrix and right-hand side for the free cores.

        Parameters
        ----------
        cores : list of Tensor [batch, taps, R_{m+1}, R_m]
        fit : Fit
            What `fit(cores)` gave.
        free : list of int
            The cores that may change, in increasing order.

        Returns
        -------
        Tensor [batch, n, n], Tensor [batch, n]
            Unknowns are ordered by core, tap, row, column.
        """
        partial_sums = [self._partial_sums(cores, f.terms, p) for f, p in zip(self.frames, fit.frames, strict=True)]
        matrix = self._core_blocks(cores, fit, partial_sums, free)
        rhs = torch.zeros_like(matrix[..., 0])
        for frame, state, sums in zip(self.frames, fit.frames, partial_sums, strict=True):
            rhs += self._gradient(cores, fit, state, sums, free)
            coupling = self._coupling(cores, fit, frame.terms, sums, free)
            batch, rows, columns, unknowns = coupling.shape
            reduced = torch.linalg.solve_triangular(
                state.factor, coupling.reshape(batch, rows, columns * unknowns), upper=False
            ).reshape(batch, rows * columns, unknowns)
            matrix -= reduced.mT @ reduced
        return matrix, rhs

    def _chains(self, cores: list[Tensor]) -> list[Tensor]:
        outputs = cores[-1].shape[-2]
        identity = torch.eye(outputs, dtype=torch.complex128, device=self.grid.device)
        # The scale enters here once, and through the chains everywhere else.
        chains = [identity * self.grid.scale[:, None, None]]
        for core, size in zip(reversed(cores), reversed(self.core_sizes), strict=True):
            chains.append(chains[-1] @ self.grid.spectrum(core, size))
        return chains[::-1]

    def _project(self, frame: FrameGroup, chains: list[Tensor]) -> Projection:
        grid = self.grid
        rows, rhs = [], []
        for level, size in frame.terms:
            blocks = [
                grid.gram(chains[level].mH @ chains[other], size, other_size).transpose(2, 3).flatten(3).flatten(1, 2)
                for other, other_size in frame.terms
            ]
            rows.append(torch.cat(blocks, 2))
            rhs.append(grid.adjoint(chains[level].mH @ frame.target, size).flatten(1, 2))
        normal, right = torch.cat(rows, 1), torch.cat(rhs, 1)
        diagonal = normal.diagonal(dim1=1, dim2=2)
        ridge = RIDGE * diagonal.mean(1, keepdim=True) + torch.finfo(torch.float64).tiny
        factor = torch.linalg.cholesky_ex(normal + torch.diag_embed(ridge.expand_as(diagonal)))[0]
        solution = torch.cholesky_solve(right, factor)
        # One step of refinement: the normal equations squared the condition number.
        solution = solution + torch.cholesky_solve(right - normal @ solution, factor)
        counts = [p.shape[1] for p in rhs]
        projections = [
            part.unflatten(1, (-1, chains[level].shape[-1]))
            for part, (level, _) in zip(solution.split(counts, 1), frame.terms, strict=True)
        ]
        residual = frame.target - sum(
            (chains[level] @ grid.spectrum(p, size) for p, (level, size) in zip(projections, frame.terms, strict=True)),
            chains[-1].new_zeros(()),
        )
        return Projection(factor, projections, residual)

    def _partial_sums(
        self, cores: list[Tensor], terms: tuple[SeenThrough, ...], state: Projection
    ) -> list[Tensor | None]:
        """v_m of one frame at the frequencies; None below the frame's lowest term."""
        sums: list[Tensor | None] = []
        value: Tensor | None = None
        for level in range(len(cores)):
            if value is not None:
                value = self.grid.spectrum(cores[level - 1], self.core_sizes[level - 1]) @ value
            for projection, (at, size) in zip(state.projections, terms, strict=True):
                if at == level:
                    seen = self.grid.spectrum(projection, size)
                    value = seen if value is None else value + seen
            sums.append(value)
        return sums

    def _core_blocks(
        self, cores: list[Tensor], fit: Fit, partial_sums: list[list[Tensor | None]], free: list[int]
    ) -> Tensor:
        rows: list[list[Tensor]] = [[] for _ in free]
        for x, one in enumerate(free):
            for y, other in enumerate(free):
                if y < x:
                    rows[x].append(rows[y][x].mT)
                    continue
                right = self._sum_of_products(cores, partial_sums, one, other)
                rows[x].append(self._core_block(cores, fit, right, one, other))
        return torch.cat([torch.cat(row, 2) for row in rows], 1)

    @staticmethod
    def _sum_of_products(
        cores: list[Tensor], partial_sums: list[list[Tensor | None]], one: int, other: int
    ) -> Tensor | None:
        total: Tensor | None = None
        for sums in partial_sums:
            first, second = sums[one], sums[other]
            if first is not None and second is not None:
                product = first.conj() @ second.mT
                total = product if total is None else total + product
        return total

    def _core_block(self, cores: list[Tensor], fit: Fit, right: Tensor | None, one: int, other: int) -> Tensor:
        batch, last = cores[0].shape[0], len(cores) - 1
        shape = (batch, cores[one][0].numel(), cores[other][0].numel())
        if right is None:
            return cores[0].new_zeros(shape)
        sizes = (self.core_sizes[one], self.core_sizes[other])
        if one == other == last:
            # C_{M+1} is the identity: the output channels don't mix.
            block = self.grid.gram(right * self.grid.scale.square()[:, None, None], *sizes)
            outputs = torch.eye(cores[last].shape[-2], dtype=block.dtype, device=block.device)
            return torch.einsum("nstbd,ac->nsabtcd", block, outputs).reshape(shape)
        left = fit.chains[one + 1].mH @ fit.chains[other + 1]
        product = left[..., :, :, None, None] * right[..., None, None, :, :]
        return torch.einsum("nstacbd->nsabtcd", self.grid.gram(product, *sizes)).reshape(shape)

    def _gradient(
        self, cores: list[Tensor], fit: Fit, state: Projection, sums: list[Tensor | None], free: list[int]
    ) -> Tensor:
        parts = []
        for level in free:
            value = sums[level]
            if value is None:
                parts.append(torch.zeros_like(cores[level]).flatten(1))
                continue
            spectrum = fit.chains[level + 1].mH @ state.residual @ value.mH
            parts.append(self.grid.adjoint(spectrum, self.core_sizes[level]).flatten(1))
        return torch.cat(parts, 1)

    def _coupling(
        self,
        cores: list[Tensor],
        fit: Fit,
        terms: tuple[SeenThrough, ...],
        sums: list[Tensor | None],
        free: list[int],
    ) -> Tensor:
        """Inner products of projections and cores, [batch, Q, columns, n]."""
        columns = next(v for v in reversed(sums) if v is not None).shape[-1]
        rows = []
        for term, size in terms:
            row = []
            for level in free:
                value = sums[level]
                batch, unknowns = cores[level].shape[0], cores[level][0].numel()
                if value is None:
                    entries = fit.chains[term].shape[-1] * self.grid.waves(size)[0].shape[1]
                    row.append(cores[level].new_zeros(batch, entries, columns, unknowns))
                    continue
                left = fit.chains[term].mH @ fit.chains[level + 1]
                product = left[..., :, :, None, None] * value[..., None, None, :, :]
                gram = self.grid.gram(product, size, self.core_sizes[level])
                row.append(torch.einsum("nstrabi->nsritab", gram).flatten(4).flatten(1, 2))
            rows.append(torch.cat(row, 3))
        return torch.cat(rows, 1)
