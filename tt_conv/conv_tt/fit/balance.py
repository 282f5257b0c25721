"""Spread a train's scale over its factors, so that all their entries are of one size."""

from __future__ import annotations

import torch

from tt_conv.conv_tt.fit.matrix_free import Factors


def balance(factors: Factors) -> Factors:
    """The same kernel with the mean sizes of the entries of all factors as equal as they can be.

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
