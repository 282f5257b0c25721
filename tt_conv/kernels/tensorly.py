"""TensorLy and TensorLy-Torch, called without touching the backend that the user chose.

They are imported when something of theirs is asked for: that takes longer than the rest of this package together.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


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
