"""A dense kernel together with what its errors cost."""

import math
from functools import cached_property

import torch
from torch import Tensor

from tt_conv.kernels.metric import Metric, along_modes, roots


class WeightedKernel:
    r"""A kernel to be approximated, in the metric of the layer's input if that is known.

    Parameters
    ----------
    kernel : Tensor
        ``[O, I, *K]``, of any floating dtype; the work is done in float64 where the device has it.
    metric : Metric, optional
        Without it, entries of the kernel count alike.

    Raises
    ------
    TypeError, ValueError
        If the kernel has no real, finite values.
    """

    def __init__(self, kernel: Tensor, metric: Metric | None = None) -> None:
        if kernel.device.type == "meta":
            raise ValueError("the kernel is on the meta device: it has no values to decompose")
        if not kernel.is_floating_point():
            raise TypeError(f"the kernel must be real and floating, got dtype {kernel.dtype}")
        if not kernel.isfinite().all():
            raise ValueError("the kernel holds infinite or NaN values and can't be decomposed")
        # SVD does not exist in half precision, and MPS has no float64.
        dtype = torch.float32 if kernel.device.type == "mps" else torch.float64
        self.dense = kernel.detach().to(dtype).contiguous()
        # Inputs that are always zero tell nothing.
        self.metric = metric.floored() if metric is not None and metric.channels.any() else None

    def error(self, approximation: Tensor) -> float:
        """Return the relative error of an approximation."""
        if self._size == 0:
            return 0.0
        return math.sqrt(self._squared(self.dense - approximation) / self._size)

    def plain_error(self, approximation: Tensor) -> float:
        """Return the relative error with all entries alike."""
        norm = float(self.dense.norm())
        return float((self.dense - approximation).norm()) / norm if norm else 0.0

    @cached_property
    def _size(self) -> float:
        return self._squared(self.dense)

    def _squared(self, kernel: Tensor) -> float:
        return float(kernel.square().sum()) if self.metric is None else self.metric.squared(kernel)

    @cached_property
    def _roots(self) -> list[tuple[Tensor, Tensor]]:
        """Roots of what the metric says of each mode from the input channels on, and their inverses."""
        if self.metric is None:
            return []
        return [roots(moment) for moment in (self.metric.channels, *self.metric.axes)]

    @cached_property
    def white(self) -> Tensor:
        """The kernel whose plain errors are, as far as channels and single axes go, those of the output."""
        return along_modes(self.dense, [root for root, _ in self._roots])

    @property
    def unwhitening(self) -> list[Tensor]:
        """Per mode from the input channels on, as far as it was changed, the matrix that leads back from ``white``."""
        return [inverse for _, inverse in self._roots]

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Left factor, singular values and right factor of the channels; exact for the metric of whole patches."""
        if self.metric is not None and self.metric.patches is not None:
            root, inverse = roots(self.metric.patches)
            left, values, right = torch.linalg.svd(self.dense.flatten(1) @ root, full_matrices=False)
            return left, values, right @ inverse
        left, values, right = torch.linalg.svd(self.white.flatten(1), full_matrices=False)
        return left, values, along_modes(right.reshape(-1, *self.dense.shape[1:]), self.unwhitening).flatten(1)
