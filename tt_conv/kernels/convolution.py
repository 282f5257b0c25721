"""The geometry of an ordinary convolution, checked once and in one form."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

from torch import nn

from tt_conv.checks import one_of, positive_int
from tt_conv.runtime.modes import has_forward_hooks

PlainConvolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
MODULES: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
MODULE_PADDING_MODES = ("zeros", "circular", "reflect", "replicate")


@dataclass(frozen=True)
class ConvolutionGeometry:
    """What ``torch.nn.ConvNd`` is told besides its weights, in PyTorch's own terms.

    Parameters
    ----------
    kernel_size, stride, dilation : tuple of int
        One per spatial axis.
    padding : str or tuple of int
        "same", "valid", or one per spatial axis.
    groups : int
    padding_mode : str
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str

    @property
    def sides(self) -> tuple[tuple[int, int], ...]:
        """Padding before and after, per spatial axis; "same" puts the odd one after, as in PyTorch."""
        if self.padding == "same":
            reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return tuple((r // 2, r - r // 2) for r in reach)
        if isinstance(self.padding, str):
            return ((0, 0),) * len(self.kernel_size)
        return tuple((p, p) for p in self.padding)

    def kernel_shape(self, in_channels: int, out_channels: int) -> tuple[int, ...]:
        """Return the shape of the dense kernel, ``[out_channels, in_channels / groups, *kernel_size]``."""
        return (out_channels, in_channels // self.groups, *self.kernel_size)


def convolution(
    kernel_size: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    channels: tuple[int, int],
    dim: int,
) -> ConvolutionGeometry:
    """Check and complete the arguments of a convolution from ``channels[0]`` to ``channels[1]``."""
    groups = positive_int(groups, "groups")
    for name, count in zip(("in_channels", "out_channels"), channels, strict=True):
        if count % groups:
            raise ValueError(f"{name} must be divisible by groups={groups}, got {count}")
    strides = _per_axis(stride, "stride", dim, 1)
    if isinstance(padding, str):
        paddings: str | tuple[int, ...] = one_of(padding, "padding", ("same", "valid"))
        if padding == "same" and any(s > 1 for s in strides):
            raise ValueError(f'padding="same" needs stride 1, as in PyTorch, got stride={stride!r}')
    else:
        paddings = _per_axis(padding, "padding", dim, 0)
    return ConvolutionGeometry(
        _per_axis(kernel_size, "kernel_size", dim, 1),
        strides,
        paddings,
        _per_axis(dilation, "dilation", dim, 1),
        groups,
        one_of(padding_mode, "padding_mode", MODULE_PADDING_MODES),
    )


def _per_axis(value: object, name: str, dim: int, smallest: int) -> tuple[int, ...]:
    """Return one int per spatial axis from an int or a sequence."""
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * dim
    if len(values) != dim:
        raise ValueError(f"{name} must be an int or {dim} ints, one per spatial axis, got {value!r}")
    checked = []
    for v in values:
        if isinstance(v, bool) or not isinstance(v, Integral):
            raise TypeError(f"{name} must be an int or {dim} ints, got {value!r}")
        if v < smallest:
            raise ValueError(f"{name} must be at least {smallest} on every axis, got {value!r}")
        checked.append(int(v))
    return tuple(checked)


def plain_convolution(conv: object) -> PlainConvolution:
    """Return ``conv`` if it is, and behaves as, a plain ``torch.nn.Conv1d``, ``Conv2d`` or ``Conv3d``."""
    if isinstance(conv, nn.modules.lazy.LazyModuleMixin):
        raise TypeError(f"{type(conv).__name__} has no kernel yet; call it once, then convert it")
    if isinstance(conv, nn.modules.conv._ConvTransposeNd):
        raise TypeError(
            f"{type(conv).__name__} is a transposed convolution, which is not one convolution of its input "
            "with a kernel; only nn.Conv1d, nn.Conv2d and nn.Conv3d can be converted"
        )
    if not isinstance(conv, PlainConvolution):
        raise TypeError(f"expected an nn.Conv1d, nn.Conv2d or nn.Conv3d, got {type(conv).__name__}")
    plain = MODULES[len(conv.kernel_size)]
    for method in ("forward", "_conv_forward"):
        if getattr(type(conv), method) is not getattr(plain, method):
            raise TypeError(
                f"{type(conv).__name__} overrides {plain.__name__}.{method}, so it may not compute a plain "
                f"convolution; convert an {plain.__name__} with its effective kernel instead"
            )
    patched = [method for method in ("forward", "_conv_forward") if method in vars(conv)]
    if patched:
        raise TypeError(
            f"the {patched[0]} of this {type(conv).__name__} was replaced, so it may not compute a plain convolution; "
            f"convert an {plain.__name__} with its effective kernel instead"
        )
    if "weight" not in conv._parameters and not nn.utils.parametrize.is_parametrized(conv, "weight"):
        raise TypeError(
            "the weight of the convolution is computed by a hook before every call (weight_norm, "
            "spectral_norm or pruning); make it permanent first, for example with "
            "torch.nn.utils.remove_weight_norm or torch.nn.utils.prune.remove"
        )
    if has_forward_hooks(conv):
        raise TypeError(
            f"this {type(conv).__name__} has forward hooks, which may change what it computes and would be lost; "
            "remove them, convert, and register them on the new layer"
        )
    return conv


def is_trained(conv: PlainConvolution) -> bool:
    """Say whether the kernel takes gradients, or the parameters that it is computed from."""
    if nn.utils.parametrize.is_parametrized(conv, "weight"):
        return any(parameter.requires_grad for parameter in conv.get_submodule("parametrizations.weight").parameters())
    return conv.weight.requires_grad
