"""TensorLy and TensorLy-Torch, called without touching the backend that the user chose.

They are imported when something of theirs is asked for: that takes longer than the rest of this package together.

In exchange, CP and Tucker tensors have the modes (out_channels, in_channels, \\*kernel_size), trains the modes
(in_channels, \\*kernel_size, out_channels), as in TensorLy-Torch's own convolutions.
"""

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor, nn

_DEFINED_IN = {
    "CPTensor": "tensorly.cp_tensor",
    "TuckerTensor": "tensorly.tucker_tensor",
    "TTTensor": "tensorly.tt_tensor",
}


@contextmanager
def pytorch_backend() -> Iterator[ModuleType]:
    """Let TensorLy work on tensors of PyTorch, in this thread only; gives its decompositions."""
    import tensorly
    import tensorly.decomposition

    with (
        tensorly.backend_context("pytorch", local_threadsafe=True),
        # Several times faster than explicit Khatri-Rao products on kernels.
        tensorly.tenalg.backend_context("einsum", local_threadsafe=True),
    ):
        yield tensorly.decomposition


def tensorly_torch() -> ModuleType:
    """Return TensorLy-Torch, whose import switches the global backend of TensorLy.

    It is imported when one of its objects is asked for and not before, so that a program that imports it
    itself finds it as it would without this package.
    """
    import tensorly

    with tensorly.backend_context(tensorly.get_backend()):
        import tltorch
    return tltorch


def is_tensor(weight: object, kind: str) -> bool:
    """Whether something is a "CPTensor", "TuckerTensor" or "TTTensor" of TensorLy or TensorLy-Torch."""
    accepted = [getattr(importlib.import_module(_DEFINED_IN[kind]), kind)]
    # Whoever holds a tensor of TensorLy-Torch has imported it.
    if (tltorch := sys.modules.get("tltorch")) is not None:
        accepted.append(getattr(tltorch, kind))
    return isinstance(weight, tuple(accepted))


def copies_of(factors: Sequence[object]) -> list[Tensor]:
    """Return copies of factors that PyTorch or NumPy holds; what took no gradient as a parameter takes none.

    The first factor may be None, the weights of a CP tensor that are all one.
    """
    first, *rest = factors
    if first is None:
        first = torch.ones_like(torch.as_tensor(rest[0])[0])
    tensors = [torch.as_tensor(factor) for factor in (first, *rest)]
    for tensor in tensors:
        if not tensor.is_floating_point():
            raise TypeError(f"the factors must be real and floating, got dtype {tensor.dtype}")
    frozen = [isinstance(factor, nn.Parameter) and not factor.requires_grad for factor in (first, *rest)]
    return [tensor.detach().clone().requires_grad_(not f) for tensor, f in zip(tensors, frozen, strict=True)]
