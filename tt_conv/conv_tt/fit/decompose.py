"""Decompose a dense kernel into a convolutional tensor-train."""

from __future__ import annotations

import math
import numbers
import operator
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, overload

import torch
from torch import Tensor

from tt_conv.checks import kernel_size_per_level, positive_int
from tt_conv.conv_tt.fit.fit import FitSettings, PoorFitWarning, fit_train
from tt_conv.conv_tt.fit.inputs import centred, dense_kernel
from tt_conv.conv_tt.fit.matrix_free import ApplyMoment, Factors, balance
from tt_conv.conv_tt.fit.rank_choice import is_ruled_out, smallest_rank
from tt_conv.conv_tt.fit.train import Target, Train
from tt_conv.conv_tt.rank import ConvTTFormat
from tt_conv.conv_tt.tensor import ConvTTTensor, Window, check_window
from tt_conv.kernels.metric import Metric, checked_moment, roots
from tt_conv.kernels.rank import choose_rank

RankRequest = int | float | Sequence[int]
KernelSize = int | Sequence[int] | Sequence[Sequence[int]]
# A relative error above which a decomposition is hardly one.
POOR_FIT = 0.5


@overload
def conv_tt(
    W: Any,
    rank: RankRequest | None = ...,
    *,
    order: int,
    kernel_size: KernelSize,
    window: Window = ...,
    tol: float | None = ...,
    return_errors: Literal[False] = ...,
    second_moment: Tensor | None = ...,
    random_state: int = ...,
    restarts: int = ...,
    n_iter_max: int = ...,
) -> ConvTTTensor: ...


@overload
def conv_tt(
    W: Any,
    rank: RankRequest | None = ...,
    *,
    order: int,
    kernel_size: KernelSize,
    window: Window = ...,
    tol: float | None = ...,
    return_errors: Literal[True],
    second_moment: Tensor | None = ...,
    random_state: int = ...,
    restarts: int = ...,
    n_iter_max: int = ...,
) -> tuple[ConvTTTensor, list[float]]: ...


def conv_tt(
    W: Any,
    rank: RankRequest | None = None,
    *,
    order: int,
    kernel_size: KernelSize,
    window: Window = "sliding",
    tol: float | None = None,
    return_errors: bool = False,
    second_moment: Tensor | None = None,
    random_state: int = 0,
    restarts: int = 4,
    n_iter_max: int = 100,
) -> ConvTTTensor | tuple[ConvTTTensor, list[float]]:
    """Decompose the dense kernel of a causal convolution into a convolutional tensor-train.

    The projections are a linear least-squares problem given the cores and are eliminated; the cores are
    refined by damped Gauss-Newton (Levenberg-Marquardt). They start from linear algebra where that identifies
    them (ranks below the numbers of channels), else from searches core by core: the newest frames show the
    last levels alone, and the last core is a left factor of every frame's kernel. Large kernels are searched
    in a few combinations of their channels and refined by conjugate gradients, without their Gauss-Newton
    matrix. Factors that end as large kernels cancelling each other are led to small ones by a penalty on their
    squares, where that costs at most 0.5 % of the error.

    Parameters
    ----------
    W : Tensor
        The dense kernel ``[O, I, N, *K]``, with 1 to 3 spatial axes. A NumPy array or a factorized tensor of
        TensorLy or TensorLy-Torch will do. A support smaller than 1 + (order + 1) * (kernel_size - 1) sits in
        the middle.
    rank : int, sequence of int, or float
        The rank of every level, of each level, or a parameter budget as a share of the parameters of W: the
        largest equal ranks that keep within it, and one more at the levels where that still fits. Ranks beyond
        what a level is fed with, or what the next core can tell apart, are lowered to that: more would add
        nothing. With `tol`, the largest rank to consider, None for as many parameters as W has.
    order : int
        Number of levels M, between 1 and N.
    kernel_size : int or tuple
        Odd size of the kernels: of all, one for each spatial axis, or one such tuple for each level.
    window : {"sliding", "fixed"}
        Which frames each level sees; see `ConvTTTensor`.
    tol : float, optional
        Relative error to reach with the smallest rank: first with equal ranks, then level by level.
    return_errors : bool
        Whether to return the relative errors of the last refinement as well.
    second_moment : Tensor, optional
        ``[I, I]`` or ``[I * N * prod(K), I * N * prod(K)]``: mean of x x^T over the channels, or over the
        patches ``[I, N, *K]`` of the full support, of the data that the kernel will see
        (`input_second_moment`). Then the error is that of the output on such data.
    random_state : int
        Seed of the random starts. Results are a function of the arguments.
    restarts : int
        Rounds of the search, each longer than the one before. It ends early when an exact train is found or
        independent searches agree.
    n_iter_max : int
        Limit of iterations of the last refinement.

    Returns
    -------
    ConvTTTensor
        In W's dtype and on its device; computed in float64. `relative_error` is what it reached.
    list of float
        With `return_errors`: the relative error at the start and after each iteration, never increasing.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Warns
    -----
    PoorFitWarning
        If the relative error ends above 0.5, or above `tol`. It says so if taps of W are the reason: with a sliding
        window the newer frames pass fewer kernels and reach less far than the oldest ones.

    Example
    -------
    >>> import torch
    >>> from tt_conv import ConvTTTensor, conv_tt
    >>> generator = torch.Generator().manual_seed(0)
    >>> normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    >>> planted = ConvTTTensor([normal(2, 3, 1, 3) for _ in range(2)], [normal(2, 2, 3), normal(6, 2, 3)])
    >>> found = conv_tt(planted.to_tensor(), rank=2, order=2, kernel_size=3)
    >>> found.relative_error < 1e-9
    True
    >>> conv_tt(planted.to_tensor(), tol=1e-6, order=2, kernel_size=3).rank
    (2, 2)

    References
    ----------
    J. Su et al., "Convolutional tensor-train LSTM for spatio-temporal learning", NeurIPS 2020,
    arXiv:2002.09131.
    G. H. Golub, V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems
    whose variables separate", SIAM J. Numer. Anal. 10 (1973).
    E. Moulines, P. Duhamel, J.-F. Cardoso, S. Mayrargue, "Subspace methods for the blind identification of
    multichannel FIR filters", IEEE Trans. Signal Process. 43 (1995).
    """
    kernel = dense_kernel(W)
    train = _train_of_rank_one(kernel, order, kernel_size, check_window(window))
    problem = _Problem(kernel, train, second_moment, _settings(random_state, restarts, n_iter_max))
    if tol is None and rank is None:
        raise TypeError("conv_tt needs a rank, or a relative error to reach (tol)")
    form = ConvTTFormat(kernel.shape, train.core_sizes, len(train.windows[0]))
    largest = choose_rank(form, rank) if rank is not None else _as_large_as_dense(form)
    tensor, errors = problem.at(largest) if tol is None else problem.reaching(_checked_tol(tol), largest)
    error, limit = tensor.relative_error, POOR_FIT if tol is None else tol
    if error is not None and error > limit:
        message = f"the Conv-TT of rank {tensor.rank} has a relative error of {error:.3g}"
        message += ", which is more than tol" if tol is not None else ""
        if problem.beyond > max(limit, error / 2):
            message += f"; {_beyond(problem)}"
        elif tol is None:
            message += "; kernels without such structure do not compress"
        warnings.warn(message, PoorFitWarning, stacklevel=2)
    return (tensor, errors) if return_errors else tensor


class _Problem:
    """One kernel and all that stays the same while the rank is chosen."""

    def __init__(self, kernel: Tensor, train: Train, second_moment: Tensor | None, settings: FitSettings) -> None:
        self.dtype = kernel.dtype
        self.train = train
        self.settings = settings
        wide = centred(kernel.double(), train.support)
        # By the largest entry first, since the squares of tiny or huge ones leave the range of float64.
        largest = float(wide.abs().max()) or 1.0
        self.size = largest * (float(torch.linalg.vector_norm(wide / largest)) or 1.0)
        self.dense = wide / self.size
        self.metric: Metric | None = None
        self.inverse_root: Tensor | None = None
        self.apply_moment: ApplyMoment | None = None
        self.white = self.dense
        if second_moment is not None:
            shape = (train.inputs, train.steps, *train.support)
            self._measure_by(checked_moment(second_moment, train.inputs, shape).to(kernel.device))

    def _measure_by(self, moment: Tensor) -> None:
        """Whiten the channels, so that an error counts the same in each: that turns a train into a train.

        What a moment of whole patches says beyond the channels cannot be had that way, and is left to the refinement.
        """
        train = self.train
        self.metric = Metric.of(moment, train.inputs)
        floored = self.metric.floored()
        root, self.inverse_root = roots(floored.channels)
        self.white = torch.einsum("oi...,iq->oq...", self.dense, root)
        if floored.patches is not None:
            blocks = floored.patches.unflatten(0, (train.inputs, -1)).unflatten(2, (train.inputs, -1))
            white = torch.einsum("pi,injm,qj->pnqm", self.inverse_root, blocks, self.inverse_root)
            self.apply_moment = _on_spectra(Target(train, self.white), white.flatten(2).flatten(0, 1))

    @cached_property
    def beyond(self) -> float:
        """The relative error that no rank can go below, since some taps of the kernel are out of reach."""
        if self.apply_moment is not None or not bool(self.dense.any()):
            return 0.0
        rest = self.train.out_of_reach(self.white)
        return float(torch.linalg.vector_norm(rest) / torch.linalg.vector_norm(self.white))

    def at(self, rank: tuple[int, ...]) -> tuple[ConvTTTensor, list[float]]:
        """The train of one rank, and the errors of its refinement."""
        train = replace(self.train, rank=rank)
        if not bool(self.dense.any()):
            return self._zero(train)
        factors, errors = fit_train(train, self.white, self.settings, self.apply_moment)
        if self.inverse_root is not None:
            factors = Factors(factors.cores, [p @ self.inverse_root for p in factors.projections])
        factors = balance(Factors(factors.cores, [self.size * p for p in factors.projections]))
        tensor = self._tensor(train, factors)
        tensor.relative_error = self._relative_error(tensor)
        # What counts is the error of the factors that are returned, rounded to W's dtype.
        errors = [max(error, tensor.relative_error) for error in errors]
        return tensor, [*errors[:-1], tensor.relative_error]

    def reaching(self, tol: float, largest: tuple[int, ...]) -> tuple[ConvTTTensor, list[float]]:
        """The smallest rank within a relative error; the largest one if none is."""
        found: dict[tuple[int, ...], tuple[ConvTTTensor, list[float]]] = {}

        def reaches(rank: tuple[int, ...]) -> bool:
            if rank not in found:
                # With a metric beyond the channels, the bound does not hold for the error that counts.
                target = Target(replace(self.train, rank=rank), self.white)
                if self.beyond > tol or (self.apply_moment is None and is_ruled_out(target, tol)):
                    return False
                found[rank] = self.at(rank)
            error = found[rank][0].relative_error
            return error is not None and error <= tol

        smallest = smallest_rank(reaches, largest)
        return found[smallest] if smallest in found else self.at(smallest)

    def _zero(self, train: Train) -> tuple[ConvTTTensor, list[float]]:
        device = self.dense.device
        projections = [
            torch.zeros(len(frames), math.prod(size), r, train.inputs, dtype=torch.float64, device=device)
            for frames, size, r in zip(train.windows, train.projection_sizes, train.rank, strict=True)
        ]
        cores = [torch.zeros(train.core_shape(m), dtype=torch.float64, device=device) for m in range(train.order)]
        tensor = self._tensor(train, Factors(cores, projections))
        tensor.relative_error = 0.0
        return tensor, [0.0]

    def _tensor(self, train: Train, factors: Factors) -> ConvTTTensor:
        projections = [
            projection.permute(2, 3, 0, 1).unflatten(-1, size)
            for projection, size in zip(factors.projections, train.projection_sizes, strict=True)
        ]
        cores = [
            core.permute(1, 2, 0).unflatten(-1, size)
            for core, size in zip(factors.cores, train.core_sizes, strict=True)
        ]
        projections, cores = (
            [kernel.to(self.dtype).contiguous() for kernel in kernels] for kernels in (projections, cores)
        )
        return ConvTTTensor(projections, cores, window=train.window)

    def _relative_error(self, tensor: ConvTTTensor) -> float:
        difference = self.dense - tensor.to(torch.float64).to_tensor() / self.size
        if self.metric is None:
            return float(torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(self.dense))
        # What the data never show has no error that counts.
        squared = self.metric.squared(self.dense)
        return math.sqrt(self.metric.squared(difference) / squared) if squared else 0.0


def _beyond(problem: _Problem) -> str:
    """Say where the kernel has taps that no rank can give, and what would reach them."""
    train = problem.train
    frame = int(train.out_of_reach(problem.white).square().sum((0, 1, *range(3, problem.white.ndim))).argmax())
    reach, support = (" x ".join(map(str, size)) for size in (train.reach(frame), train.support))
    how = "give the levels that see it a larger kernel_size"
    if train.window == "sliding":
        how += ", or let every level see all frames (window='fixed')"
    return (
        f"no rank goes below {problem.beyond:.3g}, since frame {frame + 1} of {train.steps} reaches "
        f"{reach} taps of {support} only: {how}"
    )


def _train_of_rank_one(kernel: Tensor, order: object, kernel_size: KernelSize, window: Window) -> Train:
    outputs, inputs, steps = kernel.shape[:3]
    levels = positive_int(order, "order")
    if levels > steps:
        raise ValueError(f"order must be between 1 and the number of frames of W, {steps}, got {levels}")
    sizes = kernel_size_per_level(kernel_size, levels, kernel.ndim - 3)
    return Train(outputs, inputs, steps, (1,) * levels, sizes, sizes, window)


def _as_large_as_dense(form: ConvTTFormat) -> tuple[int, ...]:
    """The largest ranks that take no more parameters than the dense kernel, or the smallest if all take more."""
    smallest = form.uniform(1)
    return choose_rank(form, 1.0) if form.parameters(smallest) <= form.dense_parameters else smallest


def _settings(random_state: object, restarts: object, n_iter_max: object) -> FitSettings:
    if isinstance(random_state, bool) or not isinstance(random_state, numbers.Integral):
        raise TypeError(f"random_state must be an int, got {random_state!r}")
    return FitSettings(
        operator.index(random_state), positive_int(restarts, "restarts"), positive_int(n_iter_max, "n_iter_max")
    )


def _checked_tol(tol: object) -> float:
    if isinstance(tol, bool) or not isinstance(tol, numbers.Real):
        raise TypeError(f"tol must be a number, got {tol!r}")
    if not 0 < float(tol) < 1:
        raise ValueError(f"tol is a relative error between 0 and 1, got {tol}")
    return float(tol)


def _on_spectra(target: Target, moment: Tensor) -> ApplyMoment:
    """How a moment of patches acts on a scaled spectrum [N, F, O, I]."""
    grid, train = target.grid, target.train
    scale = grid.scale[:, None, None]

    def apply(spectrum: Tensor) -> Tensor:
        taps = grid.adjoint(scale * spectrum, train.support)
        flat = taps.permute(2, 3, 0, 1).flatten(1)
        weighted = (flat @ moment).view(train.outputs, train.inputs, train.steps, -1).permute(2, 3, 0, 1)
        return scale * grid.spectrum(weighted, train.support)

    return apply
