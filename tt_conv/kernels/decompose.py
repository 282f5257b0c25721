"""Factors of a given kernel: TensorLy's decompositions, and PyTorch's SVD."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tt_conv.checks import one_of
from tt_conv.kernels import spectral_rank as spectral
from tt_conv.kernels.factorization import Factorization, Factors
from tt_conv.kernels.rank import Rank, RankArgument, choose_rank
from tt_conv.kernels.tensorly import pytorch_backend

_ITERATIONS = 100
_STALLED = 1e-8
_SEED = 0


def decompose(
    kind: Factorization, kernel: Tensor, rank: RankArgument | None = None, tol: float | None = None
) -> Factors:
    """Return factors whose product approximates a dense kernel, in float64 where the device has it.

    The result is the same every time: random starting values come from a generator of their own.

    Parameters
    ----------
    kind : Factorization
        The format, for kernels of this shape.
    kernel : Tensor
        ``[out_channels, in_channels, *kernel_size]``, of any floating dtype.
    rank, tol
        As in :func:`tt_conv.kernels.rank.choose_rank`.

    Returns
    -------
    dict
        The factors by name.

    Raises
    ------
    TypeError, ValueError
        If the kernel has no real, finite values, or ``rank`` and ``tol`` are not as expected.
    """
    if kernel.device.type == "meta":
        raise ValueError("the kernel is on the meta device: it has no values to decompose")
    if not kernel.is_floating_point():
        raise TypeError(f"the kernel must be real and floating, got dtype {kernel.dtype}")
    if not kernel.isfinite().all():
        raise ValueError("the kernel holds infinite or NaN values and can't be decomposed")
    # SVD does not exist in half precision, and MPS has no float64.
    kernel = kernel.detach().to(torch.float32 if kernel.device.type == "mps" else torch.float64)
    kernel = kernel.contiguous()
    solve, tolerance, vbmf = _METHODS[one_of(kind.form.name, "the format to decompose to", tuple(_METHODS))]
    complete = choose_rank(
        kind.form,
        rank,
        tol=tol,
        tolerance=partial(tolerance, kernel) if tolerance else partial(_cp_tolerance, kind, kernel),
        vbmf=partial(vbmf, kernel) if vbmf else None,
    )
    if not kernel.any():
        return {name: kernel.new_zeros(shape) for name, shape in kind.shapes(complete).items()}
    factors = solve(kind, kernel, complete)
    return {name: factors[name].contiguous() for name in kind.terms}


def relative_error(kind: Factorization, kernel: Tensor, factors: Factors) -> float:
    """Return the Frobenius norm of what the factors miss, relative to that of the kernel."""
    return float((kind.rebuild(factors) - kernel).norm() / kernel.norm())


def _cp(kind: Factorization, kernel: Tensor, rank: Rank) -> Factors:
    """Alternating least squares from singular vectors, with the norms shared out among the factors."""
    scale = kernel.square().mean().sqrt()
    start = _cp_start(kernel, rank[0])
    # Some regularization keeps the normal equations regular when the rank is more than the kernel has.
    for regularization in (1e-10, 1e-6, 1e-2):
        try:
            with pytorch_backend() as tensorly:
                _, factors = tensorly.parafac(
                    kernel / scale,
                    rank[0],
                    n_iter_max=_ITERATIONS,
                    init=(kernel.new_ones(rank[0]), [factor.clone() for factor in start]),
                    tol=_STALLED,
                    l2_reg=regularization,
                )
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            continue
        if all(factor.isfinite().all() for factor in factors):
            break
    else:
        raise RuntimeError(f"the CP decomposition of rank {rank[0]} of a kernel of shape {kind.form.shape} failed")
    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    shared = (scale * norms.prod(0)) ** (1 / len(factors))
    balanced = [
        f * (shared / norm.clamp_min(torch.finfo(norm.dtype).tiny)) for f, norm in zip(factors, norms, strict=True)
    ]
    names = [name for name in kind.terms if name != "weights"]
    return {"weights": kernel.new_ones(rank[0]), **dict(zip(names, balanced, strict=True))}


def _cp_start(kernel: Tensor, rank: int) -> list[Tensor]:
    """Return the leading left singular vectors of each unfolding, completed with random columns."""
    generator = torch.Generator().manual_seed(_SEED)
    start = []
    for mode, size in enumerate(kernel.shape):
        leading = torch.linalg.svd(kernel.movedim(mode, 0).flatten(1), full_matrices=False).U[:, :rank]
        extra = torch.randn(size, rank - leading.shape[1], generator=generator, dtype=torch.float64)
        start.append(torch.cat([leading, extra.to(leading) / size**0.5], dim=1))
    return start


def _cp_tolerance(kind: Factorization, kernel: Tensor, tol: float) -> Rank:
    """Search the smallest rank that reaches an error: no formula gives it."""
    if not kernel.any():
        return (1,)

    def error(rank: int) -> float:
        return relative_error(kind, kernel, _cp(kind, kernel, (rank,)))

    too_small, enough = 0, 1
    while (reached := error(enough)) > tol:
        if enough == kind.form.largest[0]:
            raise ValueError(
                f"no CP rank reaches a relative error of {tol}: rank {enough}, the largest, ended at "
                f"{reached:.3g}; give a larger tol or another factorization"
            )
        too_small, enough = enough, min(2 * enough, kind.form.largest[0])
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        too_small, enough = (too_small, middle) if error(middle) <= tol else (middle, enough)
    return (enough,)


def _tucker(kind: Factorization, kernel: Tensor, rank: Rank) -> Factors:
    """Higher-order orthogonal iteration over the modes that lose rank; the others keep their basis."""
    modes = [mode for mode, size in enumerate(kernel.shape) if rank[mode] < size]
    core, factors = kernel, [torch.eye(size).to(kernel) for size in kernel.shape]
    if modes:
        with pytorch_backend() as tensorly:
            (core, found), _ = tensorly.partial_tucker(
                kernel,
                rank=[rank[mode] for mode in modes],
                modes=modes,
                n_iter_max=_ITERATIONS,
                tol=_STALLED,
                random_state=_SEED,
            )
        for mode, factor in zip(modes, found, strict=True):
            factors[mode] = factor
    return dict(zip(kind.terms, [core, *factors], strict=True))


def _tt(kind: Factorization, kernel: Tensor, rank: Rank) -> Factors:
    with pytorch_backend() as tensorly:
        first, *middle, last = tensorly.tensor_train(kernel.movedim(0, -1).contiguous(), rank=[1, *rank, 1])
    return dict(zip(kind.terms, [first.squeeze(0), *middle, last.squeeze(-1).mT], strict=True))


def _svd(kind: Factorization, kernel: Tensor, rank: Rank) -> Factors:
    left, values, right = torch.linalg.svd(kernel.flatten(1), full_matrices=False)
    root = values[: rank[0]].sqrt()
    kernel = (root[:, None] * right[: rank[0]]).reshape(rank[0], *kernel.shape[1:])
    return {"output": left[:, : rank[0]] * root, "kernel": kernel}


_Solve = Callable[[Factorization, Tensor, Rank], Factors]
_METHODS: dict[str, tuple[_Solve, Callable[[Tensor, float], Rank] | None, Callable[[Tensor], Rank] | None]] = {
    "cp": (_cp, None, None),
    "tucker": (_tucker, spectral.tucker_tolerance, spectral.tucker_vbmf),
    "tt": (_tt, spectral.tt_tolerance, spectral.tt_vbmf),
    "svd": (_svd, spectral.svd_tolerance, spectral.svd_vbmf),
}
