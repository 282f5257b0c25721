"""The PyTorch operations that steps are lowered to, with everything that depends on shapes prepared.

All are plain objects with slots: they pickle, copy, and are traced by ``torch.compile`` and ``torch.export``.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Ints = tuple[int, ...]

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Operation(Protocol):
    """One pairwise step."""

    @property
    def name(self) -> str:
        """What a table calls the operation."""

    def __call__(self, left: Tensor, right: Tensor, /) -> Tensor:
        """Combine two tensors."""


@dataclass(frozen=True, slots=True)
class View:
    """Bring the axes of a tensor into an order, then merge or split them; a copy only where PyTorch needs it.

    ``None`` leaves the order, or the shape, as it is.
    """

    order: Ints | None
    shape: Ints | None

    def __call__(self, x: Tensor) -> Tensor:
        # The functions parse their arguments faster than the methods do.
        if self.order is not None:
            x = torch.permute(x, self.order)
        return x if self.shape is None else torch.reshape(x, self.shape)


@dataclass(frozen=True, slots=True)
class Drop:
    """Drop axes of an operand: sum over them, or squeeze them if all have size 1."""

    axes: Ints
    summed: bool

    def __call__(self, x: Tensor) -> Tensor:
        return x.sum(self.axes) if self.summed else x.squeeze(self.axes)


@dataclass(frozen=True, slots=True)
class Pad:
    """Extend the last axes by zeros or periodically; ``sides`` holds (left, right) of each, in order."""

    sides: tuple[tuple[int, int], ...]
    circular: bool

    def __call__(self, x: Tensor) -> Tensor:
        if not self.circular:
            return F.pad(x, [side for pair in reversed(self.sides) for side in pair])
        for axis, (left, right) in enumerate(self.sides, start=x.ndim - len(self.sides)):
            if left or right:
                x = _wrap(x, axis, left, right)
        return x


def _wrap(x: Tensor, axis: int, left: int, right: int) -> Tensor:
    """Extend one axis periodically; PyTorch's own padding stops at one period and at three axes."""
    size = x.shape[axis]
    periods = 1 + left // size + right // size
    pieces = [
        x.narrow(axis, size - left % size, left % size),
        *[x] * periods,
        x.narrow(axis, 0, right % size),
    ]
    return torch.cat([piece for piece in pieces if piece.shape[axis]], axis)


@dataclass(frozen=True, slots=True)
class Multiply:
    """Elementwise product of two tensors that are viewed so that they broadcast."""

    left: View | None
    right: View | None

    name = "multiply"

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        if self.left is not None:
            left = self.left(left)
        return left * (right if self.right is None else self.right(right))


@dataclass(frozen=True, slots=True)
class MatMul:
    """Matrix product [M, K] @ [K, N], or a batch of them; ``shape`` splits the axes of the result."""

    left: View | None
    right: View | None
    batched: bool
    shape: Ints | None

    @property
    def name(self) -> str:
        return "bmm" if self.batched else "mm"

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        if self.left is not None:
            left = self.left(left)
        if self.right is not None:
            right = self.right(right)
        product = torch.bmm(left, right) if self.batched else torch.mm(left, right)
        return product if self.shape is None else torch.reshape(product, self.shape)


@dataclass(frozen=True, slots=True)
class Convolution:
    """Convolution of a feature [N, groups * C, *S] with a kernel [groups * O, C, *K].

    ``pad`` is the padding that PyTorch's convolutions do not do themselves, ``flip`` the kernel axes on which
    the convolution is a full one, of two kernels; ``shape`` splits the axes of the result.

    ``compact`` and ``clone`` give the kernel and the feature ordinary strides if the kernel needs a gradient:
    PyTorch's own convolution on the CPU, as for float64, refuses to compute it for some strides that could be
    called channels_last ("grad_weight must be contiguous", torch 2.13).
    """

    name: str
    feature: View | None
    kernel: View | None
    pad: Pad | None
    flip: Ints
    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int
    shape: Ints | None
    compact: bool
    clone: bool

    def __call__(self, feature: Tensor, kernel: Tensor) -> Tensor:
        if self.feature is not None:
            feature = self.feature(feature)
        if self.kernel is not None:
            kernel = self.kernel(kernel)
        if self.pad is not None:
            feature = self.pad(feature)
        if self.flip:
            kernel = kernel.flip(self.flip)
        if self.compact and kernel.requires_grad:
            kernel = kernel.contiguous()
        if self.clone and kernel.requires_grad:
            feature = feature.clone(memory_format=torch.contiguous_format)
        convolution = _CONVOLUTIONS[len(self.stride)]
        result = convolution(feature, kernel, None, self.stride, self.padding, self.dilation, self.groups)
        return result if self.shape is None else torch.reshape(result, self.shape)


@dataclass(frozen=True, slots=True)
class TransposedConvolution:
    """Full convolution of two kernels, [N, groups * C, *K] and [groups * C, O, *K'].

    They are made contiguous for the reason that :class:`Convolution` gives.
    """

    left: View | None
    right: View | None
    dim: int
    groups: int
    shape: Ints | None

    @property
    def name(self) -> str:
        return f"conv_transpose{self.dim}d"

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        if self.left is not None:
            left = self.left(left)
        if self.right is not None:
            right = self.right(right)
        if right.requires_grad:
            left, right = left.contiguous(), right.contiguous()
        result = _TRANSPOSED[self.dim](left, right, None, 1, 0, 0, self.groups)
        return result if self.shape is None else torch.reshape(result, self.shape)


@dataclass(frozen=True, slots=True)
class Unfold:
    """Sliding windows of a tensor along some axes, each window on a new last axis; and flips of others.

    ``windows`` holds (axis, support, stride, dilation) in the order of the new axes.
    """

    pads: tuple[Pad, ...]
    windows: tuple[tuple[int, int, int, int], ...]
    flip: Ints

    def __call__(self, x: Tensor) -> Tensor:
        for pad in self.pads:
            x = pad(x)
        if self.flip:
            x = x.flip(self.flip)
        for axis, support, stride, dilation in self.windows:
            x = x.unfold(axis, support, stride)[..., ::dilation]
        return x


@dataclass(frozen=True, slots=True)
class Windows:
    """The general route for any roles and any number of convolved modes: windows, then a matrix product."""

    left: Unfold
    right: Unfold
    product: MatMul

    @property
    def name(self) -> str:
        return f"unfold + {self.product.name}"

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        return self.product(self.left(left), self.right(right))
