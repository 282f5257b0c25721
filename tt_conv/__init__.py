"""Tensor decomposition for convolutional and recurrent video networks, on TensorLy and PyTorch."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from tt_conv._version import __version__

if TYPE_CHECKING:
    from tt_conv.conv_einsum import ConvEinsumError, conv_einsum, conv_einsum_expression, conv_einsum_path
    from tt_conv.conv_tt_layer import ConvTT
    from tt_conv.conv_tt_tensor import ConvTTTensor
    from tt_conv.decomposition import conv_tt
    from tt_conv.tensorized_conv import TensorizedConv

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
    "TensorizedConv": "tt_conv.tensorized_conv",
    "ConvTT": "tt_conv.conv_tt_layer",
    "ConvTTTensor": "tt_conv.conv_tt_tensor",
    "conv_tt": "tt_conv.decomposition",
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


def __getattr__(name: str) -> object:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'tt_conv' has no attribute {name!r}")
    value = getattr(import_module(_DEFINED_IN[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
