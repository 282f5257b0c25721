"""An ordinary convolution whose wide kernel is a Conv-TT of order 1: two stacked narrow ones."""

from typing import Any

from torch import Tensor, nn

from tt_conv.conv_einsum import PathInfo, conv_einsum, conv_einsum_path
from tt_conv.kernels.chain import Chain, merged, stacked_kernel
from tt_conv.kernels.convolution import Convolution, PlainConvolution, convolution


def inner_kernel_size(conv: PlainConvolution) -> tuple[int, ...] | None:
    """Return the size k of two kernels that span this one, K = 1 + 2 (k - 1); None if there is no such odd k > 1."""
    sizes = tuple(conv.kernel_size)
    fits = all(size % 4 == 1 for size in sizes) and any(size > 1 for size in sizes)
    if not fits or conv.groups > 1 or conv.padding_mode not in ("zeros", "circular"):
        return None
    return tuple((size + 1) // 2 for size in sizes)


class ConvTTConv(nn.Module):
    r"""Convolution with the kernel that two stacked kernels give together, borders included.

    Stride, padding, dilation and padding mode are those of the convolution it replaces.

    Parameters
    ----------
    conv : torch.nn.Conv1d, Conv2d or Conv3d
        Gives the geometry and the bias, which is copied.
    projection : Tensor
        ``[R, in_channels, \*k]``.
    core : Tensor
        ``[out_channels, R, \*k]``.

    Examples
    --------
    >>> import torch
    >>> conv = torch.nn.Conv2d(3, 8, 5, padding=2)
    >>> layer = ConvTTConv(conv, torch.randn(4, 3, 3, 3), torch.randn(8, 4, 3, 3))
    >>> layer(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(self, conv: PlainConvolution, projection: Tensor, core: Tensor) -> None:
        super().__init__()
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.kernel_size, self.rank = tuple(conv.kernel_size), projection.shape[0]
        dim = len(self.kernel_size)
        self._geometry: Convolution = convolution(
            self.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            1,
            conv.padding_mode,
            (self.in_channels, self.out_channels),
            dim,
        )
        axes = "dhw"[3 - dim :]
        self._equation = f"bi{axes},ri{axes},or{axes}->bo{axes}|{axes}"
        self._options: dict[str, Any] = {
            "stride": dict(zip(axes, self._geometry.stride, strict=True)),
            "padding": dict(zip(axes, self._geometry.sides, strict=True)),
            "dilation": dict(zip(axes, self._geometry.dilation, strict=True)),
            "padding_mode": conv.padding_mode,
        }
        self.projection = nn.Parameter(projection)
        self.core = nn.Parameter(core)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())

    def to_tensor(self) -> Tensor:
        """Return the dense kernel ``[out_channels, in_channels, *kernel_size]``."""
        return stacked_kernel(self.projection, self.core)

    @property
    def weight(self) -> Tensor:
        """The dense kernel, for modules that read it instead of calling the layer."""
        return self.to_tensor()

    def chains(self) -> list[Chain]:
        """Return the ways to apply the kernel as convolutions one after the other; see ``tt_conv.kernels.chain``."""
        return merged([self.projection, self.core])

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``[batch, in_channels, *spatial]``, or one sample without the batch."""
        if input.ndim == len(self.kernel_size) + 1:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        y = conv_einsum(self._equation, input, self.projection, self.core, **self._options)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(-1, *(1,) * len(self.kernel_size))

    def explain(self, input_shape: tuple[int, ...], *, train: bool | None = None) -> PathInfo:
        """Return what the evaluation of an input costs, as :meth:`tt_conv.TensorizedConv.explain` does."""
        shapes = (tuple(input_shape), tuple(self.projection.shape), tuple(self.core.shape))
        train = self.training if train is None else train
        return conv_einsum_path(self._equation, *shapes, shapes=True, train=train, **self._options)[1]

    def extra_repr(self) -> str:
        """Describe the layer."""
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, rank={self.rank}"
