"""TensorLy and TensorLy-Torch, called without touching the backend that the user chose."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import tensorly


@contextmanager
def pytorch_backend() -> Iterator[None]:
    """Let TensorLy work on tensors of PyTorch, in this thread only."""
    with (
        tensorly.backend_context("pytorch", local_threadsafe=True),
        # Several times faster than explicit Khatri-Rao products on kernels.
        tensorly.tenalg.backend_context("einsum", local_threadsafe=True),
    ):
        yield


def tensorly_torch() -> ModuleType:
    """Return TensorLy-Torch, whose import switches the global backend of TensorLy.

    It is imported when one of its objects is asked for and not before, so that a program that imports it
    itself finds it as it would without this package.
    """
    with tensorly.backend_context(tensorly.get_backend()):
        import tltorch
    return tltorch
