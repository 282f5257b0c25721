"""Damped Gauss-Newton (Levenberg-Marquardt) over the cores, many starts side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tt_conv.conv_tt.fit.variable_projection import VariableProjection


@dataclass
class Descent:
    """What a batch of descents ended with.

    Attributes
    ----------
    cores : list of Tensor [batch, taps, R_{m+1}, R_m]
    error : Tensor [batch]
        Relative errors.
    history : list of float
        Smallest relative error in the batch after each iteration, the start included.
    """

    cores: list[Tensor]
    error: Tensor
    history: list[float]

    def best(self) -> list[Tensor]:
        """The cores with the smallest error, as a batch of one."""
        winner = int(self.error.argmin())
        return [core[winner : winner + 1] for core in self.cores]


def orthonormalise(cores: list[Tensor]) -> list[Tensor]:
    """The same train with orthonormal columns in its cores, as far as their shapes allow.

    Between two levels any invertible matrix may be moved; this choice makes the damping mean the same for all
    entries. What is left over at the bottom belongs to the projections, which are solved for.
    """
    result = list(cores)
    for level in reversed(range(len(cores))):
        _, taps, rows, columns = cores[level].shape
        if taps * rows < columns:
            continue
        q, r = torch.linalg.qr(result[level].flatten(1, 2))
        result[level] = q.unflatten(1, (taps, rows))
        if level:
            result[level - 1] = r[:, None] @ result[level - 1]
    return result


def descend(
    problem: VariableProjection,
    cores: list[Tensor],
    *,
    free: list[int] | None = None,
    iterations: int = 100,
    target: float = 1e-10,
    patience: int = 12,
    min_decrease: float = 5e-3,
) -> Descent:
    """Decrease the error from every start in a batch.

    Parameters
    ----------
    problem : VariableProjection
    cores : list of Tensor [batch, taps, R_{m+1}, R_m]
        The starts.
    free : list of int, optional
        The cores that may change; all of them by default.
    iterations : int
        Upper limit.
    target : float
        Relative error at which the whole batch stops, since one of it has arrived.
    patience, min_decrease : int, float
        A start stops once it decreased by less than this share in so many iterations.

    Returns
    -------
    Descent
        With no error larger than at its start.
    """
    everything = free is None
    free = list(range(len(cores))) if free is None else free
    cores = [core.clone() for core in (orthonormalise(cores) if everything else cores)]
    fit = problem.fit(cores)
    error = fit.squared_error.clone()
    # Where the frames of a stage are zero, any cores fit them.
    norm = math.sqrt(problem.squared_norm) or 1.0
    if float(error.min().sqrt()) <= target * norm:
        return Descent(cores, error.sqrt() / norm, [float(error.min().sqrt()) / norm])
    matrix, rhs = problem.normal_equations(cores, fit, free)
    damping = 1e-3 * matrix.diagonal(dim1=1, dim2=2).amax(1).clamp_min(1e-300)
    growth = torch.full_like(damping, 2.0)
    trace = [error.clone()]
    active = torch.arange(len(error), device=error.device)
    for _ in range(iterations):
        if len(active) == 0 or float(error.min().sqrt()) <= target * norm:
            break
        step, predicted = _damped_step(matrix[active], rhs[active], damping[active])
        trial = _moved([core[active] for core in cores], step, free)
        trial = orthonormalise(trial) if everything else trial
        trial_fit = problem.fit(trial)
        gain = (error[active] - trial_fit.squared_error) / predicted.clamp_min(1e-300)
        accepted = torch.isfinite(gain) & (trial_fit.squared_error < error[active])
        won = active[accepted]
        lost = active[~accepted]
        if len(won):
            chosen = accepted.nonzero()[:, 0]
            better = [core[chosen] for core in trial]
            for core, new in zip(cores, better, strict=True):
                core[won] = new
            better_fit = trial_fit.at(chosen)
            error[won] = better_fit.squared_error
            matrix[won], rhs[won] = problem.normal_equations(better, better_fit, free)
            # Nielsen's rule: the better the prediction, the less damping.
            damping[won] = damping[won] * (1 - (2 * gain[chosen] - 1) ** 3).clamp(0.1, 2.0)
            growth[won] = 2.0
        damping[lost] *= growth[lost]
        growth[lost] *= 2.0
        trace.append(error.clone())
        active = _unfinished(trace, growth, patience, min_decrease)
    history = [float(e.min().sqrt()) / norm for e in trace]
    return Descent(cores, error.sqrt() / norm, history)


def _damped_step(matrix: Tensor, rhs: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    damped = matrix + torch.diag_embed(damping[:, None].expand_as(rhs))
    factor, failed = torch.linalg.cholesky_ex(damped)
    step = torch.cholesky_solve(rhs[..., None], factor)[..., 0]
    step = torch.where((failed > 0)[:, None], torch.nan, step)
    return step, (step * (damping[:, None] * step + rhs)).sum(1)


def _moved(cores: list[Tensor], step: Tensor, free: list[int]) -> list[Tensor]:
    moved, used = list(cores), 0
    for level in free:
        count = cores[level][0].numel()
        moved[level] = cores[level] + step[:, used : used + count].view_as(cores[level])
        used += count
    return moved


def _unfinished(trace: list[Tensor], growth: Tensor, patience: int, min_decrease: float) -> Tensor:
    going = growth < 1e8
    if len(trace) > patience:
        going &= trace[-1].sqrt() < (1 - min_decrease) * trace[-1 - patience].sqrt()
    return going.nonzero()[:, 0]
