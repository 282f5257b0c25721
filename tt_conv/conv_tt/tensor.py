"""The Conv-TT format of a causal convolution's kernel: projections and cores, and what they stand for."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from tt_conv.runtime.formats import CONVOLUTIONS

Window = Literal["sliding", "fixed"]
_WINDOWS: Final[tuple[Window, ...]] = get_args(Window)


def check_window(window: str) -> Window:
    """Refuse a window that is not one of the two."""
    for known in _WINDOWS:  # Dynamo of torch 2.6 cannot call get_args
        if window == known:
            return known
    raise ValueError(f"window must be 'sliding' or 'fixed', got {window!r}")


def window_frames(order: int, steps: int, window: Window) -> list[range]:
    """Frames, counted from 0 for the oldest, that each level sees, level 1 first.

    Parameters
    ----------
    order : int
        Number of levels M.
    steps : int
        Number of frames N.
    window : {"sliding", "fixed"}

    Returns
    -------
    list of range

    Example
    -------
    >>> window_frames(2, 3, "sliding")
    [range(0, 2), range(1, 3)]
    """
    if window == "fixed":
        return [range(steps)] * order
    lags = steps - order + 1
    return [range(level, level + lags) for level in range(order)]


class ConvTTTensor:
    """The kernel ``[O, I, N, *K]`` of a causal convolution over N frames, as a convolutional tensor-train.

    With ``*`` for spatial convolution, level 1 the oldest and ``window_m`` the frames that level m sees::

        u_m = P_m * window_m
        v_1 = u_1
        v_m = u_m + G_{m-1} * v_{m-1}
        y   = G_M * v_M

    The kernel is what this makes of an impulse in each frame and input channel. Kernels are stored as
    PyTorch's convolutions apply them (cross-correlation), so it has the layout of ``Conv2d.weight`` with the
    frames as the first kernel axis.

    Parameters
    ----------
    projections : sequence of Tensor
        P_1 .. P_M, ``[R_m, I, L, *k]``, each on the frames of its window, oldest first. L = N - M + 1 with a
        sliding window and N
        with a fixed one. Kernel sizes are odd and may differ between projections, cores and axes.
    cores : sequence of Tensor
        G_1 .. G_M, ``[R_{m+1}, R_m, *k]``; the last has O rows.
    window : {"sliding", "fixed"}
        Whether level m sees the frames m .. m + L - 1 or all of them.
    relative_error : float, optional
        How far the dense kernel is from the one that was decomposed, if it was.

    Attributes
    ----------
    projections, cores : list of Tensor
    window : str
    relative_error : float or None
    shape : tuple of int
        ``[O, I, N, *K]``, of the dense kernel. K is the widest support of any level.
    rank : tuple of int
        R_1 .. R_M.
    order, steps, lags, dim : int
        Levels M, frames N, frames in one window L, spatial axes d.

    Raises
    ------
    TypeError
        If the factors are not real floating-point tensors of one dtype.
    ValueError
        If their shapes don't fit together, a kernel size is even, or they are on different devices.

    Example
    -------
    >>> import torch
    >>> from tt_conv import ConvTTTensor
    >>> projections = [torch.randn(2, 3, 1, 5, 5) for _ in range(2)]
    >>> cores = [torch.randn(2, 2, 5, 5), torch.randn(8, 2, 5, 5)]
    >>> tensor = ConvTTTensor(projections, cores)
    >>> tensor
    ConvTTTensor(shape=(8, 3, 2, 13, 13), rank=(2, 2), order=2, window='sliding')
    >>> tensor.to_tensor().shape
    torch.Size([8, 3, 2, 13, 13])
    >>> tensor.n_parameters, tensor.to_tensor().numel()
    (800, 8112)
    >>> projections, cores = tensor

    References
    ----------
    J. Su, W. Byeon, J. Kossaifi, F. Huang, J. Kautz, A. Anandkumar, "Convolutional tensor-train LSTM for
    spatio-temporal learning", NeurIPS 2020, arXiv:2002.09131, equation 5.
    """

    def __init__(
        self,
        projections: Sequence[Tensor],
        cores: Sequence[Tensor],
        *,
        window: Window = "sliding",
        relative_error: float | None = None,
    ) -> None:
        for name, factors in (("projections", projections), ("cores", cores)):
            if not isinstance(factors, (Sequence, Tensor)):
                raise TypeError(f"{name} must be a sequence of tensors, one per level, got {type(factors).__name__}")
        self.projections = list(projections)
        self.cores = list(cores)
        self.window = check_window(window)
        self.relative_error = relative_error
        _check_kinds(self.projections, self.cores)
        _check_shapes(self.projections, self.cores)

    @property
    def order(self) -> int:
        """Number of levels M."""
        return len(self.cores)

    @property
    def lags(self) -> int:
        """Frames L in one level's window."""
        return self.projections[0].shape[2]

    @property
    def steps(self) -> int:
        """Frames N that the kernel sees."""
        return self.lags if self.window == "fixed" else self.lags + self.order - 1

    @property
    def dim(self) -> int:
        """Number of spatial axes d."""
        return self.cores[0].ndim - 2

    @property
    def rank(self) -> tuple[int, ...]:
        """R_1 .. R_M."""
        return tuple(p.shape[0] for p in self.projections)

    @property
    def shape(self) -> tuple[int, ...]:
        """``[O, I, N, *K]`` of the dense kernel."""
        support = dense_support(
            [tuple(p.shape[3:]) for p in self.projections], [tuple(g.shape[2:]) for g in self.cores]
        )
        return (self.cores[-1].shape[0], self.projections[0].shape[1], self.steps, *support)

    @property
    def ndim(self) -> int:
        """Number of axes of the dense kernel."""
        return 3 + self.dim

    @property
    def dtype(self) -> torch.dtype:
        """The factors' dtype."""
        return self.cores[0].dtype

    @property
    def device(self) -> torch.device:
        """The factors' device."""
        return self.cores[0].device

    @property
    def n_parameters(self) -> int:
        """Entries of all projections and cores."""
        return sum(factor.numel() for factor in [*self.projections, *self.cores])

    def to_tensor(self) -> Tensor:
        """The dense kernel, differentiable in the factors.

        Returns
        -------
        Tensor
            ``[O, I, N, *K]``, in the factors' dtype; float16 and bfloat16 are computed in float32.
        """
        half = self.dtype in (torch.float16, torch.bfloat16)
        projections, cores = (
            [factor.float() if half else factor for factor in factors] for factors in (self.projections, self.cores)
        )
        value: Tensor | None = None
        for projection, core, frames in zip(
            projections, cores, window_frames(self.order, self.steps, self.window), strict=True
        ):
            seen = F.pad(projection, [0, 0] * self.dim + [frames.start, self.steps - frames.stop])
            value = _compose(core, seen if value is None else _centred_sum(seen, value))
        if value is None:
            raise ValueError("a Conv-TT has at least one core")
        spare = [k - n for k, n in zip(self.shape[3:], value.shape[3:], strict=True)]
        value = F.pad(value, [n // 2 for n in reversed(spare) for _ in range(2)])
        return value.to(self.dtype)

    def to_unfolded(self, mode: int) -> Tensor:
        """The dense kernel with one mode as rows and the others, in order, as columns."""
        return self.to_tensor().movedim(mode, 0).flatten(1)

    def to_vec(self) -> Tensor:
        """The dense kernel as a vector."""
        return self.to_tensor().flatten()

    def norm(self) -> Tensor:
        """Frobenius norm of the dense kernel."""
        return torch.linalg.vector_norm(self.to_tensor())

    def to(self, *args: Any, **kwargs: Any) -> ConvTTTensor:
        """The same train on another device or in another dtype; takes what `torch.Tensor.to` takes."""
        return self._with(
            [f.to(*args, **kwargs) for f in self.projections], [f.to(*args, **kwargs) for f in self.cores]
        )

    def detach(self) -> ConvTTTensor:
        """The same train, cut off from the graph that computed it."""
        return self._with([f.detach() for f in self.projections], [f.detach() for f in self.cores])

    def clone(self) -> ConvTTTensor:
        """A train with copies of the factors."""
        return self._with([f.clone() for f in self.projections], [f.clone() for f in self.cores])

    def _with(self, projections: list[Tensor], cores: list[Tensor]) -> ConvTTTensor:
        return ConvTTTensor(projections, cores, window=self.window, relative_error=self.relative_error)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Files may come from anywhere: what they hold is checked like what a caller gives.
        projections, cores = state.pop("projections"), state.pop("cores")
        self.__init__(projections, cores, **state)  # type: ignore[misc]

    def __iter__(self) -> Iterator[list[Tensor]]:
        yield self.projections
        yield self.cores

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> list[Tensor]:
        return (self.projections, self.cores)[index]

    def __repr__(self) -> str:
        return (
            f"ConvTTTensor(shape={self.shape}, rank={self.rank}, order={self.order}, window={self.window!r}"
            + ("" if self.relative_error is None else f", relative_error={self.relative_error:.3g}")
            + ")"
        )


# torch.load(weights_only=True) makes objects of known classes only.
torch.serialization.add_safe_globals([ConvTTTensor])


def level_spans(
    projection_sizes: Sequence[Sequence[int]], core_sizes: Sequence[Sequence[int]]
) -> list[tuple[int, ...]]:
    """Support, per spatial axis, of what each level adds to the dense kernel: G_M ... G_m P_m.

    Parameters
    ----------
    projection_sizes, core_sizes : sequence of sequence of int
        Kernel sizes, level 1 first.

    Returns
    -------
    list of tuple of int

    Example
    -------
    >>> level_spans([(3,), (3,)], [(3,), (5,)])
    [(9,), (7,)]
    """
    spans = []
    for level, size in enumerate(projection_sizes):
        factors = [size, *core_sizes[level:]]
        spans.append(tuple(1 + sum(k - 1 for k in axis) for axis in zip(*factors, strict=True)))
    return spans


def dense_support(projection_sizes: Sequence[Sequence[int]], core_sizes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Spatial size of the dense kernel: the widest span of any level, axis by axis."""
    return tuple(max(axis) for axis in zip(*level_spans(projection_sizes, core_sizes), strict=True))


def _compose(core: Tensor, value: Tensor) -> Tensor:
    """The kernel of applying `value` [R, I, N, *K], then `core` [R', R, *k]: their full convolution."""
    dim = core.ndim - 2
    inputs, frames = value.shape[1:3]
    images = value.flatten(1, 2).movedim(1, 0)
    weight = core.flip(tuple(range(2, core.ndim)))
    with _exact_float32(value):
        composed = CONVOLUTIONS[dim](images, weight, padding=tuple(k - 1 for k in core.shape[2:]))
    return composed.movedim(0, 1).unflatten(1, (inputs, frames))


def _exact_float32(value: Tensor) -> contextlib.AbstractContextManager[Any]:
    """cuDNN may round float32 convolutions to TF32, which has three digits only."""
    if value.is_cuda:
        return torch.backends.cudnn.flags(enabled=False, allow_tf32=False)
    return contextlib.nullcontext()


def _centred_sum(one: Tensor, other: Tensor) -> Tensor:
    """Sum of kernels of odd sizes with their centres on each other."""
    shape = [max(a, b) for a, b in zip(one.shape[3:], other.shape[3:], strict=True)]
    padded = []
    for kernel in (one, other):
        spare = [n - k for n, k in zip(shape, kernel.shape[3:], strict=True)]
        padded.append(F.pad(kernel, [n // 2 for n in reversed(spare) for _ in range(2)]))
    return padded[0] + padded[1]


def _check_kinds(projections: list[Tensor], cores: list[Tensor]) -> None:
    if not cores or len(projections) != len(cores):
        raise ValueError(f"a Conv-TT has M >= 1 cores and as many projections, got {len(cores)} and {len(projections)}")
    for name, factors in (("projections", projections), ("cores", cores)):
        for n, factor in enumerate(factors):
            if not isinstance(factor, Tensor):
                raise TypeError(f"{name}[{n}] must be a torch.Tensor, got {type(factor).__name__}")
            if not factor.is_floating_point():
                raise TypeError(f"{name}[{n}] must be real and floating-point, got {factor.dtype}")
            if factor.is_nested or factor.layout != torch.strided:
                raise TypeError(f"{name}[{n}] must be strided, got layout {factor.layout}; use to_dense()")
    for factor in [*projections, *cores]:
        if factor.dtype != cores[0].dtype:
            raise TypeError(f"all factors must share one dtype, got {factor.dtype} and {cores[0].dtype}")
        if factor.device != cores[0].device:
            raise ValueError(f"all factors must be on one device, got {factor.device} and {cores[0].device}")


def _check_shapes(projections: list[Tensor], cores: list[Tensor]) -> None:
    dim = cores[0].ndim - 2
    if not 1 <= dim <= 3:
        raise ValueError(f"cores are [R_(m+1), R_m, *k] with 1 to 3 kernel axes, got shape {tuple(cores[0].shape)}")
    for name, factors, ndim in (("projections", projections, dim + 3), ("cores", cores, dim + 2)):
        for n, factor in enumerate(factors):
            shape = tuple(factor.shape)
            if factor.ndim != ndim:
                raise ValueError(f"{name}[{n}] must have {ndim} axes ({dim} of them spatial), got shape {shape}")
            if math.prod(shape) == 0:
                raise ValueError(f"{name}[{n}] is empty: shape {shape}")
            if any(k % 2 == 0 for k in shape[-dim:]):
                raise ValueError(f"kernel sizes must be odd, so that kernels have a centre; {name}[{n}] has {shape}")
    inputs, lags = projections[0].shape[1:3]
    for level, (projection, core) in enumerate(zip(projections, cores, strict=True)):
        if tuple(projection.shape[1:3]) != (inputs, lags):
            raise ValueError(
                f"all projections must see the same number of channels and frames: projections[{level}] has "
                f"{tuple(projection.shape[1:3])}, projections[0] has {(inputs, lags)}"
            )
        if core.shape[1] != projection.shape[0]:
            raise ValueError(
                f"cores[{level}] takes rank {core.shape[1]} (its axis 1), but projections[{level}] gives "
                f"rank {projection.shape[0]} (its axis 0)"
            )
        if level + 1 < len(cores) and core.shape[0] != cores[level + 1].shape[1]:
            raise ValueError(
                f"cores[{level}] gives rank {core.shape[0]} (its axis 0), but cores[{level + 1}] takes rank "
                f"{cores[level + 1].shape[1]} (its axis 1)"
            )
