"""Small helpers for normal equations."""

from __future__ import annotations

import torch
from torch import Tensor

# Normal matrices may be singular (ranks larger than what the kernel shows).
RIDGE = 1e-12


def unfold_gram(gram: Tensor) -> Tensor:
    """Inner products [s, s', r, r'] of taps and channels as a matrix [(s, r), (s', r')]."""
    return gram.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)


def ridged_cholesky(matrix: Tensor) -> Tensor:
    """Cholesky factor of a semidefinite matrix [n, n], with as small a ridge as rounding allows."""
    ridge = RIDGE * float(matrix.diagonal().mean()) + torch.finfo(matrix.dtype).tiny
    while True:
        factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag_embed(torch.full_like(matrix[0], ridge)))
        if not int(failed):
            return factor
        ridge *= 10
