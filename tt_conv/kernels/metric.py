"""The second moment of a layer's input, and what it makes of the error of a kernel.

If x is the patch of input that a kernel W ``[O, I, *K]`` sees at one position, an error D of the kernel changes the
output by trace(D S D^T) in the mean of squares, with S = mean of x x^T and D flattened to ``[O, I * prod(K)]``.
Channels that carry little of the input, or always carry the same thing, may then be approximated badly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tt_conv.checks import check_finite, check_floating, odd_kernel_size, positive_int
from tt_conv.kernels.convolution import PlainConvolution

_FLOOR = 1e-5
"""Directions that carry less than this share of the mean are treated as if they carried that much."""

_ROUNDING = 1e-6
"""What averaging in single precision may have cost a moment, as a share of the whole."""


@dataclass(frozen=True)
class Metric:
    r"""Squared errors of a kernel ``[O, I, \*K]`` as squared errors of the layer's output.

    An error D of the kernel, flattened to ``[O, I * prod(K)]``, changes the output by trace(D S D^T) in the
    mean, with S the second moment of the patches of input that the kernel sees.

    Parameters
    ----------
    channels : Tensor
        ``[I, I]``: mean of x x^T over channels.
    patches : Tensor, optional
        ``[I * prod(K), I * prod(K)]``; without it, taps are taken as unrelated, or as ``axes`` says.
    axes : tuple of Tensor
        ``[K, K]`` for each axis, in the place of ``patches``: S is their Kronecker product with ``channels``.
    """

    channels: Tensor
    patches: Tensor | None = None
    axes: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, moment: Tensor, inputs: int) -> "Metric":
        """Return the metric of a moment of ``inputs`` channels, or of patches with so many channels."""
        if len(moment) == inputs:
            return cls(moment)
        blocks = moment.unflatten(0, (inputs, -1)).unflatten(2, (inputs, -1))
        return cls(blocks.diagonal(dim1=1, dim2=3).mean(-1), moment)

    def floored(self) -> "Metric":
        """Return the metric with a floor, so that what the data never show does not become arbitrary."""
        patches = None if self.patches is None else _floored(self.patches)
        return Metric(_floored(self.channels), patches, self.axes)

    def times(self, matrix: Tensor) -> Tensor:
        r"""Return ``matrix @ S`` for ``[*, I * prod(K)]``."""
        if self.patches is not None:
            return matrix @ self.patches
        kernel = matrix.unflatten(-1, (len(self.channels), *(map(len, self.axes) if self.axes else (-1,))))
        return along_modes(kernel, [self.channels, *self.axes]).flatten(1)

    def squared(self, kernel: Tensor) -> float:
        """Return trace(W S W^T)."""
        matrix = kernel.flatten(1)
        return max(0.0, float((self.times(matrix) * matrix).sum()))


def along_modes(kernel: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply the modes of ``[O, I, ...]`` from the second one on by a symmetric matrix each."""
    for mode, matrix in enumerate(matrices, 1):
        kernel = torch.tensordot(kernel, matrix, ([mode], [0])).movedim(-1, mode)
    return kernel


def smooth(conv: PlainConvolution, correlation: float) -> Metric | None:
    r"""Return what is assumed of a convolution's input without data: neighbouring positions are alike.

    Every channel is a first-order autoregressive field, positions n apart on an axis having the correlation
    :math:`\rho^n`, which is the textbook model of a picture; channels are unrelated. None where a kernel has one tap.

    Parameters
    ----------
    conv : nn.Conv1d, nn.Conv2d or nn.Conv3d
    correlation : float
        Of neighbours, in [0, 1).
    """
    kernel, dilation = conv.weight, conv.dilation
    if kernel[0, 0].numel() == 1:
        return None
    axes = []
    for taps, step in zip(kernel.shape[2:], dilation, strict=True):
        places = torch.arange(taps, device=kernel.device) * step
        distance = (places[:, None] - places).abs()
        axes.append(torch.tensor(correlation, dtype=_dtype(kernel), device=kernel.device) ** distance)
    return Metric(torch.eye(kernel.shape[1], dtype=_dtype(kernel), device=kernel.device), None, tuple(axes))


def _dtype(kernel: Tensor) -> torch.dtype:
    return torch.float32 if kernel.device.type == "mps" else torch.float64


def _floored(moment: Tensor) -> Tensor:
    floor = _FLOOR * moment.diagonal().mean().clamp_min(torch.finfo(moment.dtype).tiny)
    return moment + floor * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)


def roots(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symmetric square root of a moment and its inverse."""
    values, vectors = torch.linalg.eigh(moment)
    root = values.clamp_min(float(values[-1]) * 1e-12).sqrt()
    return (vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT


def input_second_moment(sequence: Tensor, steps: int = 1, kernel_size: int | Sequence[int] | None = None) -> Tensor:
    """Measure the second moment of calibration data, for `conv_tt`.

    Parameters
    ----------
    sequence : Tensor
        ``[B, T, I, *S]``, what the layer sees, oldest frame first. Average the results of several calls to use
        more of it.
    steps : int
        Frames N that the kernel sees. Used with `kernel_size` only.
    kernel_size : int or sequence of int, optional
        Odd spatial size of the dense kernel. Without it only the channels are related to each other, which is
        much cheaper, but does not see that errors add up over the taps where neighbouring positions look alike, as
        they do in a plain background.

    Returns
    -------
    Tensor
        ``[I, I]`` or ``[I * N * prod(K), I * N * prod(K)]``, in float64; rows and columns in the order of
        `W.flatten(1)`. Frames are extended by zeros.

    Raises
    ------
    TypeError, ValueError
        If the sequence is no real floating-point tensor, is empty, has entries that are not finite, is shorter than
        `steps`, or its axes don't fit `kernel_size`.

    Example
    -------
    >>> import torch
    >>> from tt_conv.conv_tt.fit import input_second_moment
    >>> frames = torch.randn(2, 5, 3, 8, 8)
    >>> input_second_moment(frames).shape, input_second_moment(frames, 2, (3, 3)).shape
    (torch.Size([3, 3]), torch.Size([54, 54]))
    """
    if not isinstance(sequence, Tensor):
        raise TypeError(f"sequence must be a torch.Tensor, got {type(sequence).__name__}")
    check_floating(sequence, "sequence")
    steps, dim = positive_int(steps, "steps"), sequence.ndim - 3
    if not 1 <= dim <= 3:
        raise ValueError(f"sequence must be [batch, time, channels, *spatial], got shape {tuple(sequence.shape)}")
    if sequence.numel() == 0:
        raise ValueError(f"sequence is empty: shape {tuple(sequence.shape)}")
    check_finite(sequence, "sequence")
    frames = sequence.detach().double()
    if kernel_size is None:
        samples = frames.movedim(2, -1).flatten(0, -2)
        return samples.T @ samples / len(samples)
    sizes = odd_kernel_size(kernel_size, dim)
    if sequence.shape[1] < steps:
        raise ValueError(f"a kernel of {steps} steps needs as many frames, got {sequence.shape[1]}")
    entries = sequence.shape[2] * steps * math.prod(sizes)
    moment, count = frames.new_zeros(entries, entries), 0
    # One window at a time: the patches of all of them would be prod(K) copies of the data.
    for clip in F.pad(frames, [k // 2 for k in reversed(sizes) for _ in range(2)]).unbind():
        for window in clip.unfold(0, steps, 1).movedim(-1, 1).unbind():
            samples = patches(window.transpose(0, 1).unsqueeze(0), (steps, *sizes)).movedim(1, 2 + dim).flatten(2 + dim)
            samples = samples.flatten(0, 1 + dim)
            moment += samples.mT @ samples
            count += len(samples)
    return moment / count


def patches(
    x: Tensor, kernel_size: Sequence[int], stride: Sequence[int] | None = None, dilation: Sequence[int] | None = None
) -> Tensor:
    """Return a view ``[batch, channels, *positions, *kernel_size]`` of ``[batch, channels, *S]``, padded already."""
    ones = (1,) * len(kernel_size)
    for axis, (k, s, d) in enumerate(zip(kernel_size, stride or ones, dilation or ones, strict=True), start=2):
        x = x.unfold(axis, 1 + d * (k - 1), s)[..., ::d]
    return x


def checked_moment(moment: object, inputs: int, shape: Sequence[int]) -> Tensor:
    """Return a symmetric matrix over the channels or over the patches, ``[I, N, *K]`` = shape, or refuse it."""
    if not isinstance(moment, Tensor):
        raise TypeError(f"second_moment must be a torch.Tensor, got {type(moment).__name__}")
    if moment.is_complex():
        raise TypeError(f"second_moment must be real, got {moment.dtype}")
    check_floating(moment.double(), "second_moment")
    entries = math.prod(shape)
    if tuple(moment.shape) not in ((inputs, inputs), (entries, entries)):
        raise ValueError(
            f"second_moment must be [I, I] = {(inputs, inputs)}, or relate the entries of a patch "
            f"[I, N, *K] = {tuple(shape)}, so {(entries, entries)}; got {tuple(moment.shape)}"
        )
    moment = moment.detach().double()
    check_finite(moment, "second_moment")
    if not _is_second_moment(moment):
        raise ValueError("second_moment must be a nonzero, symmetric, positive semidefinite matrix: a mean of x x^T")
    return (moment + moment.T) / 2


def _is_second_moment(moment: Tensor) -> bool:
    """Whether a matrix is nonzero, symmetric and positive semidefinite, up to rounding in single precision."""
    size = float(moment.abs().max())
    if size == 0 or not torch.allclose(moment, moment.T, rtol=0, atol=_ROUNDING * size):
        return False
    # A Cholesky factor exists for what is positive definite only, and costs far less than the eigenvalues.
    lifted = (moment + moment.T) / 2
    lifted.diagonal().add_(_ROUNDING * float(moment.diagonal().abs().sum()))
    return int(torch.linalg.cholesky_ex(lifted).info) == 0
