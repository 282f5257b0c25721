"""Tensor decomposition for convolutional and recurrent video networks, on TensorLy and PyTorch."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from tt_conv._version import __version__
from tt_conv.lazy import exports
from tt_conv.runtime.versions import check_torch

if TYPE_CHECKING:
    from tt_conv.conv_einsum import ConvEinsumError, conv_einsum, conv_einsum_expression, conv_einsum_path
    from tt_conv.conv_tt.fit import conv_tt
    from tt_conv.conv_tt.layer import ConvTT
    from tt_conv.conv_tt.tensor import ConvTTTensor
    from tt_conv.kernels.layer import TensorizedConv

check_torch()

__all__ = [
    "conv_einsum",
    "conv_einsum_path",
    "conv_einsum_expression",
    "ConvEinsumError",
    "TensorizedConv",
    "ConvTT",
    "ConvTTTensor",
    "conv_tt",
    "__version__",
]

# Public name -> the module that defines it, imported at first use: `tt-conv --help` does not wait for torch.
_DEFINED_IN = {
    "conv_einsum": "tt_conv.conv_einsum",
    "conv_einsum_path": "tt_conv.conv_einsum",
    "conv_einsum_expression": "tt_conv.conv_einsum",
    "ConvEinsumError": "tt_conv.conv_einsum",
    "TensorizedConv": "tt_conv.kernels.layer",
    "ConvTT": "tt_conv.conv_tt.layer",
    "ConvTTTensor": "tt_conv.conv_tt.tensor",
    "conv_tt": "tt_conv.conv_tt.fit",
}


class _Package(ModuleType):
    """Keeps a public function reachable whose subpackage has the same name.

    Importing ``tt_conv.conv_einsum`` makes Python bind the subpackage as an attribute of this module,
    which would shadow the function ``tt_conv.conv_einsum``.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and name in _DEFINED_IN:
            value = getattr(value, name)
        super().__setattr__(name, value)


__getattr__ = exports(__name__, _DEFINED_IN)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
