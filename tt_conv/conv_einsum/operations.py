"""The PyTorch operations that steps are lowered to, as the Python expressions that run them.

A step is written out once, with everything that depends on shapes as constants, so that running it costs what the
same line written by hand costs.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Ints = tuple[int, ...]


class Operation(Protocol):
    """One pairwise step."""

    @property
    def name(self) -> str:
        """What a table calls the operation."""

    def code(self, left: str, right: str, /) -> str:
        """Return the expression that combines two tensors, which have names."""


@dataclass(frozen=True, slots=True)
class View:
    """Bring the axes of a tensor into an order, then merge or split them; a copy only where PyTorch needs it.

    ``None`` leaves the order, or the shape, as it is.
    """

    order: Ints | None
    shape: Ints | None

    def code(self, x: str) -> str:
        """Return the expression that views ``x``."""
        if self.order is not None:
            x = f"permute({x}, {self.order})"
        return reshaped(x, self.shape)


def viewed(x: str, view: View | None) -> str:
    """Return the expression that views ``x``, or leaves it if there is no view."""
    return x if view is None else view.code(x)


def reshaped(x: str, shape: Ints | None) -> str:
    """Return the expression that gives ``x`` a shape, or leaves it if there is none."""
    return x if shape is None else f"reshape({x}, {shape})"


@dataclass(frozen=True, slots=True)
class Drop:
    """Drop axes of an operand: take diagonals, then sum over axes, or squeeze them if all have size 1.

    Parameters
    ----------
    diagonals : tuple of (int, int)
        Pairs of axes, taken one pair after the other; the diagonal becomes the last axis.
    axes : tuple of int
        Of what the diagonals leave.
    summed : bool
        Whether the axes are summed over.
    """

    diagonals: tuple[tuple[int, int], ...]
    axes: Ints
    summed: bool

    def code(self, x: str) -> str:
        """Return the expression that drops axes of ``x``."""
        x += "".join(f".diagonal(0, {first}, {second})" for first, second in self.diagonals)
        if not self.axes:
            return x
        return f"{x}.sum({self.axes})" if self.summed else f"{x}.squeeze({self.axes})"


@dataclass(frozen=True, slots=True)
class Pad:
    """Extend the last axes by zeros or periodically; ``sides`` holds (left, right) of each, in order."""

    sides: tuple[tuple[int, int], ...]
    circular: bool

    def code(self, x: str) -> str:
        """Return the expression that pads ``x``."""
        if self.circular:
            return f"wrap({x}, {self.sides})"
        return f"pad({x}, {tuple(side for pair in reversed(self.sides) for side in pair)})"


def wrap(x: Tensor, sides: tuple[tuple[int, int], ...]) -> Tensor:
    """Extend the last axes periodically; PyTorch's own padding stops at one period and at three axes."""
    for axis, (left, right) in enumerate(sides, start=x.ndim - len(sides)):
        if left or right:
            size = x.shape[axis]
            last = x.narrow(axis, size - left % size, left % size)
            first = x.narrow(axis, 0, right % size)
            pieces = [last, *[x] * (1 + left // size + right // size), first]
            x = torch.cat([piece for piece in pieces if piece.shape[axis]], axis)
    return x


@dataclass(frozen=True, slots=True)
class Multiply:
    """Elementwise product of two tensors that are viewed so that they broadcast."""

    left: View | None
    right: View | None

    name = "multiply"

    def code(self, left: str, right: str, /) -> str:
        """Return the product."""
        return f"{viewed(left, self.left)} * {viewed(right, self.right)}"


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

    def code(self, left: str, right: str, /) -> str:
        """Return the product."""
        return reshaped(f"{self.name}({viewed(left, self.left)}, {viewed(right, self.right)})", self.shape)


@dataclass(frozen=True, slots=True)
class Convolution:
    """Convolution of a feature [N, groups * C, *S] with a kernel [groups * O, C, *K].

    ``pad`` is the padding that PyTorch's convolutions do not do themselves, ``skip`` the strides that they do not,
    ``flip`` the kernel axes on which the convolution is a full one, of two kernels; ``shape`` splits the axes of the
    result. ``compact`` and ``clone`` give the kernel and the feature ordinary strides, see :func:`compact`;
    ``layouts`` are the strides that the feature and the kernel may have, see :func:`canonical`; ``contiguous`` makes
    both contiguous first.
    """

    name: str
    feature: View | None
    kernel: View | None
    pad: Pad | None
    flip: Ints
    skip: Ints | None
    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int
    shape: Ints | None
    compact: bool
    clone: bool
    layouts: tuple[tuple[Ints, ...], tuple[Ints, ...]]
    contiguous: bool

    def code(self, left: str, right: str, /) -> str:
        """Return the convolution of the feature ``left`` with the kernel ``right``."""
        feature, kernel = viewed(left, self.feature), viewed(right, self.kernel)
        if self.pad is not None:
            feature = self.pad.code(feature)
        if self.skip is not None:
            feature = f"{feature}[:, :, {', '.join(f'::{step}' for step in self.skip)}]"
        if self.flip:
            kernel = f"{kernel}.flip({self.flip})"
        if self.compact:
            kernel = f"compact({kernel}, {right})"
        if self.clone:
            feature = f"fresh({feature}, {right})"
        if self.contiguous:
            feature, kernel = f"{feature}.contiguous()", f"{kernel}.contiguous()"
        feature, kernel = self._laid(feature, right, self.layouts[0]), self._laid(kernel, right, self.layouts[1])
        settings = f"{self.stride}, {self.padding}, {self.dilation}, {self.groups}"
        return reshaped(f"conv{len(self.stride)}d({feature}, {kernel}, None, {settings})", self.shape)

    def _laid(self, tensor: str, right: str, layouts: tuple[Ints, ...]) -> str:
        """Return the tensor with one of the layouts, where strides matter: without groups, to the kernel's gradient."""
        if not layouts:
            return tensor
        laid = f"canonical({tensor}, {layouts})"
        return laid if self.groups > 1 or self.contiguous else f"({laid} if {right}.requires_grad else {tensor})"


def compact(x: Tensor, kernel: Tensor) -> Tensor:
    """Make a tensor contiguous if the kernel that it is convolved with, or is, needs a gradient.

    PyTorch's own convolution on the CPU, as for float64, refuses to compute that gradient for some strides that
    could be called channels_last: "grad_weight must be contiguous" (torch 2.13).
    """
    return x.contiguous() if kernel.requires_grad else x


def canonical(x: Tensor, layouts: tuple[Ints, ...]) -> Tensor:
    """Give dimensions of size 1 the strides that they have in one of PyTorch's memory formats.

    Any stride is allowed there, but with odd ones PyTorch's convolutions on the CPU err (torch 2.13): grouped ones
    return wrong values in float32 and bfloat16 and a wrong gradient of the kernel in every type, silently; others
    refuse to compute that gradient.
    """
    strides = x.stride()
    if strides not in layouts:
        for layout in layouts:
            if all([size == 1 or a == b for size, a, b in zip(x.shape, layout, strides, strict=True)]):  # noqa: C419
                return x.as_strided(x.shape, layout)
    return x


def strides_of_size_one(shape: Ints, contiguous: bool = False) -> tuple[Ints, ...]:
    """Return the strides of a shape in PyTorch's memory formats, or nothing if no dimension has size 1."""
    if 1 not in shape:
        return ()
    axes = tuple(range(len(shape)))
    orders = [axes] if len(axes) == 3 or contiguous else [axes, (0, *axes[2:], 1)]  # outermost first
    return tuple(tuple(prod(shape[b] for b in order[order.index(a) + 1 :]) for a in axes) for order in orders)


def fresh(x: Tensor, kernel: Tensor) -> Tensor:
    """Copy a tensor, for the same reason: a contiguous one may still have odd strides where its size is 1."""
    return x.clone(memory_format=torch.contiguous_format) if kernel.requires_grad else x


@dataclass(frozen=True, slots=True)
class TransposedConvolution:
    """Full convolution of two kernels, [N, groups * C, *K] and [groups * C, O, *K']."""

    left: View | None
    right: View | None
    dim: int
    groups: int
    shape: Ints | None

    @property
    def name(self) -> str:
        return f"conv_transpose{self.dim}d"

    def code(self, left: str, right: str, /) -> str:
        """Return the full convolution."""
        first = f"compact({viewed(left, self.left)}, {right})"
        second = f"compact({viewed(right, self.right)}, {right})"
        return reshaped(f"{self.name}({first}, {second}, None, 1, 0, 0, {self.groups})", self.shape)


@dataclass(frozen=True, slots=True)
class Unfold:
    """Sliding windows of a tensor along some axes, each window on a new last axis; and flips of others.

    ``windows`` holds (axis, support, stride, dilation) in the order of the new axes.
    """

    pads: tuple[Pad, ...]
    windows: tuple[tuple[int, int, int, int], ...]
    flip: Ints

    def code(self, x: str) -> str:
        """Return the windows of ``x``."""
        for pad in self.pads:
            x = pad.code(x)
        if self.flip:
            x = f"{x}.flip({self.flip})"
        for axis, support, stride, dilation in self.windows:
            x = f"{x}.unfold({axis}, {support}, {stride})[..., ::{dilation}]"
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

    def code(self, left: str, right: str, /) -> str:
        """Return the product of the windows."""
        return self.product.code(self.left.code(left), self.right.code(right))


NAMES: dict[str, Any] = {
    "permute": torch.permute,  # the functions parse their arguments faster than the methods do
    "reshape": torch.reshape,
    "pad": F.pad,
    "wrap": wrap,
    "compact": compact,
    "fresh": fresh,
    "canonical": canonical,
    "mm": torch.mm,
    "bmm": torch.bmm,
    "conv1d": F.conv1d,
    "conv2d": F.conv2d,
    "conv3d": F.conv3d,
    "conv_transpose1d": F.conv_transpose1d,
    "conv_transpose2d": F.conv_transpose2d,
    "conv_transpose3d": F.conv_transpose3d,
}
"""What the names in the expressions mean."""
