"""Gauss-Newton over projections and cores together, for kernels whose system is too large to write down.

Products with the Jacobian and its transpose run along the train, at every frequency at once; conjugate
gradients solve the damped system. The preconditioner treats every factor by itself, as one sweep of
alternating least squares would; it also serves as the damping, so that nothing depends on how the factors are
scaled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tt_conv.conv_tt.fit.fourier import Size, unfold_gram
from tt_conv.conv_tt.fit.train import Target

ApplyMoment = Callable[[Tensor], Tensor]
"""Applies the second moment of the input to a scaled spectrum [N, F, O, I]."""

# Relative error below which there is nothing but rounding.
FINISHED = 1e-13

# Normal matrices may be singular (ranks larger than what the kernel shows).
_SMALLEST_RIDGE = 1e-12

CONJUGATE_GRADIENT_STEPS = 40
CONJUGATE_GRADIENT_DECREASE = 1e-2


@dataclass
class Factors:
    """Entries of a train, taps first, or a direction in which they change.

    Attributes
    ----------
    cores : list of Tensor [taps, R_{m+1}, R_m]
    projections : list of Tensor [frames of the window, taps, R_m, I]
    """

    cores: list[Tensor]
    projections: list[Tensor]

    def all(self) -> list[Tensor]:
        """Cores, then projections."""
        return [*self.cores, *self.projections]

    def plus(self, step: Factors, size: float = 1.0) -> Factors:
        """A step from here."""
        moved = [a + size * b for a, b in zip(self.all(), step.all(), strict=True)]
        return Factors(moved[: len(self.cores)], moved[len(self.cores) :])

    def dot(self, other: Factors) -> float:
        """Inner product."""
        return float(sum((a * b).sum() for a, b in zip(self.all(), other.all(), strict=True)))


def balance(factors: Factors) -> Factors:
    """Spread the scale: the same kernel with the mean sizes of the entries of all factors as equal as they can be.

    Parameters
    ----------
    factors : Factors

    Returns
    -------
    Factors
        G_m times s_m, and P_m divided by s_m ... s_M.
    """
    order = len(factors.cores)
    sizes = [float(f.abs().mean()) for f in factors.all()]
    if min(sizes) == 0:
        return factors
    # Unknowns: log s_1 .. log s_M and the common logarithm c; each row says "its logarithm is c".
    rows = torch.zeros(2 * order, order + 1, dtype=torch.float64)
    rows[:order, :order] = torch.eye(order)
    rows[order:, :order] = -torch.ones(order, order).triu()
    rows[:, order] = -1
    logs = -torch.tensor(sizes, dtype=torch.float64).log()
    solution = torch.linalg.lstsq(rows, logs[:, None]).solution[:order, 0]
    scale = solution.exp().tolist()
    total = solution.flip(0).cumsum(0).flip(0).exp().tolist()
    return Factors(
        [core * s for core, s in zip(factors.cores, scale, strict=True)],
        [p / t for p, t in zip(factors.projections, total, strict=True)],
    )


class Linearisation:
    """The train at one point: its output, and products with its Jacobian.

    Parameters
    ----------
    target : Target
    factors : Factors
    """

    def __init__(self, target: Target, factors: Factors) -> None:
        self.train = target.train
        self.grid = target.grid
        self.cores = self._spectra(factors.cores, self.train.core_sizes)
        self.projections = self._spectra(factors.projections, self.train.projection_sizes)
        self.scale = self.grid.scale[:, None, None]
        self.values: list[Tensor] = []
        for level in range(self.train.order):
            below = self.cores[level - 1] @ self.values[-1] if level else None
            self.values.append(self._joined(level, self.projections[level], below))

    def output(self) -> Tensor:
        """Scaled spectrum [N, F, O, I] of the dense kernel."""
        return self.scale * (self.cores[-1] @ self.values[-1])

    def forward(self, step: Factors) -> Tensor:
        """How the output changes with the factors."""
        cores = self._spectra(step.cores, self.train.core_sizes)
        projections = self._spectra(step.projections, self.train.projection_sizes)
        change = self._joined(0, projections[0], None)
        for level in range(1, self.train.order):
            below = cores[level - 1] @ self.values[level - 1] + self.cores[level - 1] @ change
            change = self._joined(level, projections[level], below)
        return self.scale * (cores[-1] @ self.values[-1] + self.cores[-1] @ change)

    def adjoint(self, residual: Tensor) -> Factors:
        """The transpose of `forward`."""
        train, grid = self.train, self.grid
        cores: list[Tensor] = []
        projections: list[Tensor] = []
        back = self.scale * residual
        for level in reversed(range(train.order)):
            value = self.values[level]
            back = back[: len(value)]
            cores.append(grid.adjoint((back @ value.mH).sum(0), train.core_sizes[level]))
            back = self.cores[level].mH @ back
            frames = train.windows[level]
            projections.append(grid.adjoint(back[frames.start : frames.stop], train.projection_sizes[level]))
        return Factors(cores[::-1], projections[::-1])

    def _spectra(self, kernels: list[Tensor], sizes: tuple[Size, ...]) -> list[Tensor]:
        return [self.grid.spectrum(kernel, size) for kernel, size in zip(kernels, sizes, strict=True)]

    def _joined(self, level: int, seen: Tensor, below: Tensor | None) -> Tensor:
        """u_m on its window plus what comes from below, over the frames 0 .. end of the window."""
        frames = self.train.windows[level]
        value = seen.new_zeros((frames.stop, *seen.shape[1:]))
        value[frames.start :] = seen
        if below is not None:
            value[: len(below)] += below
        return value


class Preconditioner:
    """Solves each factor's own least-squares problem (an inner core's with its left factor averaged)."""

    def __init__(self, target: Target, at: Linearisation, penalty: float = 0.0) -> None:
        grid, train = target.grid, target.train
        chain = torch.eye(train.outputs, dtype=torch.complex128, device=grid.device) * at.scale
        self.core_blocks: list[tuple[Tensor, Tensor]] = []
        self.projection_blocks: list[Tensor] = []
        for level in reversed(range(train.order)):
            left = (chain.mH @ chain).real.sum(0)
            value = at.values[level]
            right = (value.conj() @ value.mT).sum(0)
            # The scale is in the chain; here the frequencies are averaged.
            right = right * grid.scale.square()[:, None, None] if level == train.order - 1 else right / len(grid)
            if level == train.order - 1:
                left = torch.eye(train.outputs, dtype=torch.float64, device=grid.device)
            size = train.core_sizes[level]
            right = unfold_gram(grid.gram(right[None], size, size)[0])
            # A Kronecker product takes the penalty on one side only, in the units of the other's mean.
            share = penalty / float(left.diagonal().mean())
            self.core_blocks.append((ridged_cholesky(left), ridged_cholesky(_raised(right, share))))
            chain = chain @ at.cores[level]
            size = train.projection_sizes[level]
            own = unfold_gram(grid.gram((chain.mH @ chain)[None], size, size)[0])
            self.projection_blocks.append(ridged_cholesky(_raised(own, penalty)))
        self.core_blocks.reverse()
        self.projection_blocks.reverse()

    def solve(self, rhs: Factors) -> Factors:
        """Apply the inverse of the block diagonal."""
        cores = []
        for core, (left, right) in zip(rhs.cores, self.core_blocks, strict=True):
            taps, rows, columns = core.shape
            flat = core.permute(0, 2, 1).reshape(taps * columns, rows)
            solved = torch.cholesky_solve(torch.cholesky_solve(flat, right).T, left).T
            cores.append(solved.reshape(taps, columns, rows).permute(0, 2, 1))
        projections = [
            torch.cholesky_solve(p.flatten(1, 2), block).view_as(p)
            for p, block in zip(rhs.projections, self.projection_blocks, strict=True)
        ]
        return Factors(cores, projections)


def train_error(target: Target, factors: Factors, apply_moment: ApplyMoment | None) -> float:
    """The error of a train, as a share of what the metric makes of the kernel."""
    apply = apply_moment if apply_moment is not None else _identity
    missed = _squared(target.spectrum - Linearisation(target, factors).output(), apply)
    return (max(missed, 0.0) / (_squared(target.spectrum, apply) or 1.0)) ** 0.5


def _raised(matrix: Tensor, amount: float) -> Tensor:
    return matrix + torch.diag_embed(torch.full_like(matrix[0], amount))


def refine_factors(
    target: Target,
    factors: Factors,
    *,
    apply_moment: ApplyMoment | None,
    iterations: int,
    min_decrease: float = 1e-4,
    penalty: float = 0.0,
) -> tuple[Factors, list[float]]:
    """Levenberg-Marquardt with conjugate gradients.

    Parameters
    ----------
    target : Target
    factors : Factors
        The start.
    apply_moment : callable, optional
        Second moment of the input; without it all inputs count the same.
    iterations : int
        Upper limit.
    min_decrease : float
        Ends when a step that did what it promised decreased the error by less than this share.
    penalty : float
        Times the sum of the squares of all factors' entries, added to the squared relative error.

    Returns
    -------
    Factors, list of float
        And the relative error, penalty included, at the start and after each iteration, never increasing.
    """
    apply = apply_moment if apply_moment is not None else _identity
    norm = _squared(target.spectrum, apply) or 1.0
    at = Linearisation(target, factors)
    residual = target.spectrum - at.output()
    weight = penalty * norm
    error = _squared(residual, apply) + weight * factors.dot(factors)
    damping, growth = 1e-3, 2.0
    history = [(max(error, 0.0) / norm) ** 0.5]
    gradient, blocks = at.adjoint(apply(residual)).plus(factors, -weight), Preconditioner(target, at, weight)
    for _ in range(iterations):
        gain = 0.0
        step, predicted = _conjugate_gradients(at, gradient, blocks, apply, damping, weight)
        trial = factors.plus(step)
        trial_at = Linearisation(target, trial)
        trial_residual = target.spectrum - trial_at.output()
        trial_error = _squared(trial_residual, apply) + weight * trial.dot(trial)
        if trial_error < error:
            gain = (error - trial_error) / max(predicted, 1e-300)
            damping *= min(2.0, max(0.1, 1 - (2 * gain - 1) ** 3))
            growth = 2.0
            factors, at, residual, error = trial, trial_at, trial_residual, trial_error
            gradient = at.adjoint(apply(residual)).plus(factors, -weight)
            blocks = Preconditioner(target, at, weight)
        else:
            damping *= growth
            growth *= 2
        history.append((max(error, 0.0) / norm) ** 0.5)
        stalled = gain > 0.25 and history[-1] > (1 - min_decrease) * history[-2]
        if stalled or history[-1] < FINISHED or growth > 1e8:
            break
    return factors, history


def _conjugate_gradients(
    at: Linearisation, gradient: Factors, blocks: Preconditioner, apply: ApplyMoment, damping: float, weight: float
) -> tuple[Factors, float]:
    """Preconditioned conjugate gradients for (JᵀΣJ + weight I + damping M) step = gradient, M the preconditioner.

    M times the search direction follows from the recurrence of the residuals, so M is never applied.
    """
    zero = [torch.zeros_like(x) for x in gradient.all()]
    step = Factors(zero[: len(gradient.cores)], zero[len(gradient.cores) :])
    residual, direction = gradient, blocks.solve(gradient)
    metric_direction = gradient
    squared = first = residual.dot(direction)
    for _ in range(CONJUGATE_GRADIENT_STEPS):
        product = at.adjoint(apply(at.forward(direction))).plus(direction, weight).plus(metric_direction, damping)
        curvature = direction.dot(product)
        if curvature <= 0:
            break
        length = squared / curvature
        step = step.plus(direction, length)
        residual = residual.plus(product, -length)
        preconditioned = blocks.solve(residual)
        previous, squared = squared, residual.dot(preconditioned)
        if squared <= CONJUGATE_GRADIENT_DECREASE**2 * first:
            break
        direction = preconditioned.plus(direction, squared / previous)
        metric_direction = residual.plus(metric_direction, squared / previous)
    # At most what the quadratic model promises.
    return step, step.dot(gradient) + step.dot(residual)


def _identity(spectrum: Tensor) -> Tensor:
    return spectrum


def _squared(spectrum: Tensor, apply: ApplyMoment) -> float:
    return float((spectrum.conj() * apply(spectrum)).real.sum())


def ridged_cholesky(matrix: Tensor) -> Tensor:
    """Cholesky factor of a semidefinite matrix [n, n], with as small a ridge as rounding allows."""
    ridge = _SMALLEST_RIDGE * float(matrix.diagonal().mean()) + torch.finfo(matrix.dtype).tiny
    while True:
        factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag_embed(torch.full_like(matrix[0], ridge)))
        if not int(failed):
            return factor
        ridge *= 10
