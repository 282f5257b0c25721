"""The second moment of a layer's input, and what it makes of the error of a kernel.

If x is the patch [I, N, *K] of input that a kernel W sees at one position, the mean squared change of the
output that an error D of the kernel causes is trace(D S D^T) with S = mean of x x^T. Channels that carry
little of the input, or always carry the same thing, may then be approximated badly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tt_conv.checks import positive_int
from tt_conv.conv_tt.fit.inputs import check_finite, check_values, one_kernel_size

# Directions that carry less than this share of the strongest are treated as if they carried that much.
FLOOR = 1e-6
# What averaging in single precision may have cost, as a share of the whole.
ROUNDING = 1e-6


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
    check_values(sequence, "sequence")
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
    if isinstance(kernel_size, (tuple, list)) and len(kernel_size) != dim:
        raise ValueError(f"kernel_size {tuple(kernel_size)} does not fit the spatial axes {tuple(sequence.shape[3:])}")
    kernel_size = one_kernel_size(kernel_size, dim)
    if sequence.shape[1] < steps:
        raise ValueError(f"a kernel of {steps} steps needs as many frames, got {sequence.shape[1]}")
    size = sequence.shape[2] * steps * math.prod(kernel_size)
    moment, count = frames.new_zeros(size, size), 0
    for clip in F.pad(frames, [k // 2 for k in reversed(kernel_size) for _ in range(2)]).unbind():
        for start in range(len(clip) - steps + 1):
            patches = _patches(clip[start : start + steps], kernel_size)
            moment += patches @ patches.T
            count += patches.shape[1]
    return moment / count


def _patches(frames: Tensor, kernel_size: Sequence[int]) -> Tensor:
    """[N, I, *S] to [I * N * prod(K), positions]."""
    positions = [n - k + 1 for n, k in zip(frames.shape[2:], kernel_size, strict=True)]
    shifts = itertools.product(*(range(k) for k in kernel_size))
    windows = [tuple(slice(s, s + n) for s, n in zip(shift, positions, strict=True)) for shift in shifts]
    shifted = [frames[(slice(None), slice(None), *window)].flatten(2) for window in windows]
    return torch.stack(shifted, 2).transpose(0, 1).flatten(0, 2)


class SecondMoment:
    """A second moment, made ready for a decomposition.

    The channels are whitened, so that an error counts the same in each of them; that turns a train into a
    train. What a moment of whole patches says beyond the channels cannot be had that way and is left over.

    Parameters
    ----------
    moment : Tensor [I, I] or [I * N * prod(K), I * N * prod(K)]
    inputs : int
        I.
    entries : int
        N * prod(K).

    Attributes
    ----------
    rest : Tensor [I * N * prod(K), I * N * prod(K)] or None
        The moment of the whitened patches, if it was given for patches.
    """

    def __init__(self, moment: Tensor, inputs: int, entries: int) -> None:
        self._moment = moment
        whole = len(moment) != inputs
        blocks = moment.view(inputs, entries, inputs, entries) if whole else None
        channels = moment if blocks is None else torch.einsum("injn->ij", blocks) / entries
        values, vectors = torch.linalg.eigh(channels)
        values = values.clamp_min(FLOOR * float(values[-1]))
        self._root = vectors * values.sqrt()
        self._inverse = (vectors / values.sqrt()).T
        self.rest: Tensor | None = None
        if blocks is not None:
            white = torch.einsum("pi,injm,qj->pnqm", self._inverse, blocks, self._inverse)
            self.rest = white.reshape(len(moment), -1)

    def whiten(self, kernel: Tensor) -> Tensor:
        """[O, I, ...] to the kernel that acts on whitened channels."""
        return torch.einsum("oi...,iq->oq...", kernel, self._root)

    def restore(self, projection: Tensor) -> Tensor:
        """Undo `whiten` on the last axis of a projection [..., I]."""
        return projection @ self._inverse

    def squared(self, kernel: Tensor) -> float:
        """Mean squared output of a kernel [O, I, N, *K], up to the number of positions."""
        flat = kernel.flatten(2)
        if self.rest is None:
            return float(torch.einsum("oin,ij,ojn->", flat, self._moment, flat))
        flat = flat.flatten(1)
        return float(((flat @ self._moment) * flat).sum())


def check_second_moment(moment: object, inputs: int, shape: Sequence[int]) -> Tensor:
    """Refuse what is not a symmetric matrix over the channels or over the patches, [I, N, *K] = shape."""
    if not isinstance(moment, Tensor):
        raise TypeError(f"second_moment must be a torch.Tensor, got {type(moment).__name__}")
    if not moment.is_complex():
        check_values(moment.double(), "second_moment")
    entries = math.prod(shape)
    if tuple(moment.shape) not in ((inputs, inputs), (entries, entries)):
        raise ValueError(
            f"second_moment must be [I, I] = {(inputs, inputs)}, or relate the entries of a patch "
            f"[I, N, *K] = {tuple(shape)}, so {(entries, entries)}; got {tuple(moment.shape)}"
        )
    if moment.is_complex():
        raise TypeError(f"second_moment must be real, got {moment.dtype}")
    moment = moment.detach().double()
    if not bool(torch.isfinite(moment).all()):
        raise ValueError("second_moment has entries that are not finite")
    if not _is_second_moment(moment):
        raise ValueError("second_moment must be a nonzero, symmetric, positive semidefinite matrix: a mean of x x^T")
    return (moment + moment.T) / 2


def _is_second_moment(moment: Tensor) -> bool:
    """Whether a matrix is nonzero, symmetric and positive semidefinite, up to rounding in single precision."""
    size = float(moment.abs().max())
    if size == 0 or not torch.allclose(moment, moment.T, rtol=0, atol=ROUNDING * size):
        return False
    # A Cholesky factor exists for what is positive definite only, and costs far less than the eigenvalues.
    lifted = (moment + moment.T) / 2
    lifted.diagonal().add_(ROUNDING * float(moment.diagonal().abs().sum()))
    return int(torch.linalg.cholesky_ex(lifted).info) == 0
