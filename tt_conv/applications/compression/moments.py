"""What a layer's input tells about its kernel: second moments, the error they measure, and whitening."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tt_conv.kernels.chain import stacked_kernel
from tt_conv.kernels.convolution import PlainConvolution

_FLOOR = 1e-5
"""Directions that carry less than this share of the mean are treated as if they carried that much."""


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


def refitted_core(kernel: Tensor, projection: Tensor, core: Tensor, metric: Metric) -> Tensor:
    """Fit the second of two stacked kernels anew, which is linear, in a metric of whole patches.

    Parameters
    ----------
    kernel : Tensor
        ``[O, I, *K]``, what the two are to give.
    projection, core : Tensor
        ``[R, I, *k]`` and ``[O, R, *k]``.
    metric : Metric
        If it takes taps as unrelated, the core is returned as it is.

    Returns
    -------
    Tensor
        ``[O, R, *k]``.
    """
    if metric.patches is None and not metric.axes:
        return core
    entries = core[0].numel()
    # What each single entry of a core makes of the projection.
    basis = stacked_kernel(projection, torch.eye(entries).to(core).view(entries, *core.shape[1:])).flatten(1)
    weighted = metric.times(basis)
    gram = weighted @ basis.mT
    ridge = 1e-10 * gram.diagonal().mean() * torch.eye(entries).to(gram)
    found = torch.linalg.lstsq(gram + ridge, weighted @ kernel.flatten(1).mT).solution.mT.reshape(core.shape)
    if not found.isfinite().all():
        return core
    errors = [metric.squared(stacked_kernel(projection, c) - kernel) for c in (found, core)]
    return found.contiguous() if errors[0] <= errors[1] else core
