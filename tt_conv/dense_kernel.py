"""The dense kernel that projections and cores stand for."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from tt_conv._boundary import extend
from tt_conv.conv_einsum import conv_einsum

_SPACE = "xyz"


def dense_kernel(projections: Sequence[Tensor], cores: Sequence[Tensor], steps: int, window: str) -> Tensor:
    r"""Return the dense kernel W of a Conv-TT, ``[O, I, steps, *K]``.

    The kernel of a frame is the sum over the levels that see it of
    :math:`G_M * \dots * G_m * P_m[\text{frame}]`, each in the middle of :math:`K`, the largest support.

    Parameters
    ----------
    projections : sequence of Tensor
        ``[R_m, I, frames of a window, *k_m]``, oldest level first.
    cores : sequence of Tensor
        ``[R_{m+1}, R_m, *k_m]``, the last ``[O, R_M, *k_M]``.
    steps : int
        Frames of the whole window.
    window : {"sliding", "fixed"}
    """
    levels = []
    chain = cores[-1]
    for level in reversed(range(len(cores))):
        levels.append((level, _compose(chain, projections[level].flatten(1, 2))))
        if level:
            chain = _compose(chain, cores[level - 1])
    size = [max(sizes) for sizes in zip(*(kernel.shape[2:] for _, kernel in levels), strict=True)]
    dense = None
    for level, kernel in levels:
        kernel = extend(kernel, [(n - k) // 2 for n, k in zip(size, kernel.shape[2:], strict=True)], "zeros")
        kernel = kernel.unflatten(1, projections[level].shape[1:3])
        first = level if window == "sliding" else 0
        after = steps - first - kernel.shape[2]
        kernel = F.pad(kernel, [0, 0] * len(size) + [first, after])
        dense = kernel if dense is None else dense + kernel
    assert dense is not None
    return dense


def _compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Return the kernel ``[O, C, *(K + k - 1)]`` that does the work of ``inner``, then ``outer``."""
    space = _SPACE[: outer.ndim - 2]
    flipped = inner.flip(tuple(range(2, inner.ndim)))
    return conv_einsum(f"or{space},rc{space}->oc{space}|{space}", outer, flipped, padding="full")
