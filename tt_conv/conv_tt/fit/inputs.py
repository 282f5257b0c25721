"""What users pass as a kernel and as kernel sizes, checked and brought to one form."""

from __future__ import annotations

import numbers
import operator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tt_conv.conv_tt.fit.fourier import Size

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


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
    check_values(kernel, "W")
    if not 4 <= kernel.ndim <= 6:
        raise ValueError(f"W must be [O, I, N, *K] with 1 to 3 spatial axes, got shape {tuple(kernel.shape)}")
    if kernel.numel() == 0:
        raise ValueError(f"W is empty: shape {tuple(kernel.shape)}")
    check_finite(kernel, "W")
    return kernel.detach()


def check_values(tensor: Tensor, name: str) -> None:
    """Refuse tensors that hold no real floating-point numbers to compute with."""
    if tensor.is_nested or tensor.layout != torch.strided:
        raise TypeError(f"{name} must be strided, got layout {tensor.layout}; use {name}.to_dense()")
    if tensor.dtype not in FLOATING:
        raise TypeError(f"{name} must be real and floating-point, got {tensor.dtype}")
    if tensor.device.type == "meta":
        raise ValueError(f"{name} is on the meta device: it has no values")


def check_finite(tensor: Tensor, name: str) -> None:
    """Refuse tensors with infinities or NaN."""
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} has entries that are not finite")


def _holds_arrays(factorized: Any) -> bool:
    """Whether NumPy arrays are somewhere among the factors."""
    parts = [factorized] if isinstance(factorized, np.ndarray) else list(vars(factorized).values())
    flat = [item for part in parts for item in (part if isinstance(part, (list, tuple)) else [part])]
    return any(isinstance(item, np.ndarray) for item in flat)


def level_kernel_sizes(kernel_size: object, order: int, dim: int) -> tuple[Size, ...]:
    """One kernel size per level.

    Parameters
    ----------
    kernel_size : int, sequence of d ints, or sequence of M sequences of d ints
        For all levels and axes, for all levels, or for each level.
    order, dim : int
        M and d.

    Returns
    -------
    tuple of tuple of int
    """
    sizes = list(kernel_size) if isinstance(kernel_size, (tuple, list)) else []
    if not any(isinstance(size, (tuple, list)) for size in sizes):
        return (one_kernel_size(kernel_size, dim),) * order
    if len(sizes) != order:
        raise ValueError(f"kernel_size needs one entry for each of the {order} levels, got {kernel_size!r}")
    return tuple(one_kernel_size(size, dim) for size in sizes)


def one_kernel_size(size: object, dim: int) -> Size:
    """One odd kernel size for each spatial axis, from an int or a sequence."""
    axes = tuple(size) if isinstance(size, (tuple, list)) else (size,) * dim
    sizes = tuple(_integer(k, size) for k in axes)
    if len(axes) != dim:
        raise ValueError(f"kernel_size needs one entry for each of the {dim} spatial axes, got {size!r}")
    if any(k < 1 or k % 2 == 0 for k in sizes):
        raise ValueError(f"kernel sizes must be odd, so that kernels have a centre; got {size!r}")
    return sizes


def _integer(k: object, size: object) -> int:
    if isinstance(k, bool) or not isinstance(k, numbers.Integral):
        raise TypeError(f"kernel_size must be made of integers, got {size!r}")
    return operator.index(k)


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
