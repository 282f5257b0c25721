"""What users pass as a kernel, checked and brought to one form."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tt_conv.checks import check_finite, check_floating
from tt_conv.conv_tt.fit.fourier import Size


def dense_kernel(kernel: Any) -> Tensor:
    """A dense tensor from a torch tensor, a NumPy array or a factorized tensor.

    Parameters
    ----------
    kernel : Tensor, ndarray, or a factorized tensor of TensorLy, TensorLy-Torch or tt_conv
        [O, I, N, *K].

    Returns
    -------
    Tensor [O, I, N, *K]
        Detached, in its own dtype.

    Raises
    ------
    TypeError
        If it is none of these, or not real and floating-point.
    ValueError
        If it has the wrong number of axes, is empty, or has entries that are not finite.
    """
    if not isinstance(kernel, (Tensor, np.ndarray)) and hasattr(kernel, "to_tensor"):
        import tensorly

        # TensorLy computes with whichever backend is set: use the one that the factors are made for.
        with tensorly.backend_context("numpy" if _holds_arrays(kernel) else "pytorch"):
            kernel = kernel.to_tensor()
    if isinstance(kernel, np.ndarray):
        kernel = torch.from_numpy(np.ascontiguousarray(kernel))
    if not isinstance(kernel, Tensor):
        raise TypeError(f"W must be a tensor [O, I, N, *K], got {type(kernel).__name__}")
    check_floating(kernel, "W")
    if not 4 <= kernel.ndim <= 6:
        raise ValueError(f"W must be [O, I, N, *K] with 1 to 3 spatial axes, got shape {tuple(kernel.shape)}")
    if kernel.numel() == 0:
        raise ValueError(f"W is empty: shape {tuple(kernel.shape)}")
    check_finite(kernel, "W")
    return kernel.detach()


def _holds_arrays(factorized: Any) -> bool:
    """Whether NumPy arrays are somewhere among the factors."""
    parts = [factorized] if isinstance(factorized, np.ndarray) else list(vars(factorized).values())
    flat = [item for part in parts for item in (part if isinstance(part, (list, tuple)) else [part])]
    return any(isinstance(item, np.ndarray) for item in flat)


def centred(kernel: Tensor, support: Size) -> Tensor:
    """The kernel [O, I, N, *K] in the middle of a support that is at least as wide.

    Raises
    ------
    ValueError
        If it is even or wider.
    """
    sizes = tuple(kernel.shape[3:])
    if any(k % 2 == 0 for k in sizes):
        raise ValueError(f"W must have an odd support, so that it has a centre; got {sizes}")
    if any(k > n for k, n in zip(sizes, support, strict=True)):
        raise ValueError(
            f"W has a support of {sizes}, but this order and kernel_size reach {support}: raise one of them"
        )
    spare = [n - k for n, k in zip(support, sizes, strict=True)]
    return F.pad(kernel, [n // 2 for n in reversed(spare) for _ in range(2)])
