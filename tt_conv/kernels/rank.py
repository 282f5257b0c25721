"""Choosing the rank of a factorized kernel: one interface for every format."""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Literal, TypeAlias

import numpy as np

from tt_conv.checks import positive_int

Rank: TypeAlias = tuple[int, ...]
RankArgument: TypeAlias = int | float | Sequence[int] | Literal["vbmf"]

_ACCEPTED = 'an int, a sequence of ints, a float parameter budget or "vbmf"'


class Format(ABC):
    """What the rank of a factorized format means for a kernel of one shape.

    Parameters
    ----------
    shape : sequence of int
        Shape of the dense kernel, ``[out_channels, in_channels, *kernel_size]`` unless a subclass says
        otherwise.

    Attributes
    ----------
    name : str
        As it reads in messages.
    largest : tuple of int
        Per entry, the rank beyond which a larger one adds nothing; its length is that of a complete rank.
    """

    name: str
    largest: Rank

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(positive_int(size, "a size in shape") for size in shape)

    @property
    def dense_parameters(self) -> int:
        """Parameters of the dense kernel."""
        return math.prod(self.shape)

    @abstractmethod
    def parameters(self, rank: Rank) -> int:
        """Return the parameters of the factors of a complete rank."""

    def clip(self, rank: Rank) -> Rank:
        """Return a complete rank lowered to what the format can use."""
        return tuple(min(r, largest) for r, largest in zip(rank, self.largest, strict=True))

    def uniform(self, rank: int) -> Rank:
        """Return the complete rank that one int stands for."""
        return self.clip((rank,) * len(self.largest))

    def complete(self, rank: Sequence[int]) -> Rank:
        """Return the complete rank that a sequence of ints stands for."""
        if len(rank) != len(self.largest):
            raise ValueError(f"rank must be {self.accepted}, got {len(rank)} ints: {tuple(rank)}")
        return self.clip(tuple(rank))

    @property
    def accepted(self) -> str:
        """The lengths of sequence that ``complete`` takes, in words."""
        count = len(self.largest)
        return f"an int or {count} int{'s' if count > 1 else ''} for {self.name} of shape {self.shape}"


def choose_rank(
    form: Format,
    rank: RankArgument | None = None,
    *,
    tol: float | None = None,
    tolerance: Callable[[float], Rank] | None = None,
    vbmf: Callable[[], Rank] | None = None,
) -> Rank:
    """Return the complete rank of a format that a ``rank`` or ``tol`` argument asks for.

    Parameters
    ----------
    form : Format
        What a rank means for the kernel at hand.
    rank : int, float, sequence of int or "vbmf", optional
        An int is used for every entry of the rank. A float in (0, 1] is a parameter budget, a fraction of
        the dense parameters: the largest int that keeps within it, and one more in the entries where that
        still fits. A sequence gives every entry. "vbmf"
        estimates the rank as the part of the kernel that stands out of noise. Ranks larger than the format
        can use are lowered to what it can.
    tol : float, optional
        Relative error in (0, 1) to reach with the smallest rank, in place of ``rank``.
    tolerance, vbmf : callable, optional
        Return the rank that reaches a relative error, and that of variational Bayes. Without them those
        arguments are refused: they need a kernel, and not every format has them.

    Returns
    -------
    tuple of int
        As long as ``form.largest``.

    Raises
    ------
    TypeError, ValueError
        If the argument is none of the above, or no rank fits the budget.

    Example
    -------
    >>> from tt_conv.kernels.table import kernel_format
    >>> form = kernel_format("cp", (64, 32, 3, 3))
    >>> choose_rank(form, 16), choose_rank(form, [16]), choose_rank(form, 0.25)
    ((16,), (16,), (44,))
    >>> choose_rank(kernel_format("tucker", (64, 32, 3, 3)), 16)
    (16, 16, 3, 3)
    """
    if (rank is None) == (tol is None):
        given = "neither" if rank is None else f"rank={rank!r} and tol={tol!r}"
        raise TypeError(f"give either rank or tol, got {given}")
    if rank is None:
        checked = _fraction(tol, "tol", "a relative error between 0 and 1")
        if checked == 1:
            raise ValueError("tol must be below 1: a kernel of zeros has a relative error of 1")
        if tolerance is None:
            raise ValueError("tol needs a kernel to approximate; give rank to build fresh factors")
        return tolerance(checked)
    return _parsed(form, rank, vbmf)


def _parsed(form: Format, rank: object, vbmf: Callable[[], Rank] | None) -> Rank:
    if isinstance(rank, str):
        return _by_vbmf(form, rank, vbmf)
    if isinstance(rank, np.ndarray) and rank.ndim == 1:
        rank = rank.tolist()
    if isinstance(rank, Sequence):
        return form.complete([positive_int(r, "rank") for r in rank])
    if isinstance(rank, bool):
        raise TypeError(f"rank must be {_ACCEPTED}, got {rank}")
    if isinstance(rank, Integral):
        return form.uniform(positive_int(rank, "rank"))
    if isinstance(rank, Real):
        expected = "a float rank is a parameter budget, a fraction of the dense parameters in (0, 1]"
        return _rank_within(form, _fraction(rank, "rank", f"an int of at least 1; {expected}"))
    raise TypeError(f"rank must be {_ACCEPTED}, got {rank!r}")


def _fraction(value: object, name: str, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {expected}, got {value!r}")
    fraction = float(value)
    if not 0 < fraction <= 1:
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return fraction


def _by_vbmf(form: Format, rank: str, vbmf: Callable[[], Rank] | None) -> Rank:
    if rank != "vbmf":
        raise ValueError(f"rank must be {_ACCEPTED}, got {rank!r}")
    if vbmf is None:
        raise ValueError(f'rank="vbmf" needs a kernel and the format tucker, tt or svd, not {form.name}')
    return form.clip(vbmf())


def _rank_within(form: Format, budget: float) -> Rank:
    """Return the largest int within a fraction of the dense parameters, and one more where that fits."""
    allowed = budget * form.dense_parameters
    smallest = form.parameters(form.uniform(1))
    if smallest > allowed:
        raise ValueError(
            f"rank={budget} allows {int(allowed)} of the {form.dense_parameters} parameters of a kernel of "
            f"shape {form.shape}, but {form.name} of rank 1 needs {smallest}; the smallest budget that fits "
            f"is {smallest / form.dense_parameters:.4g}"
        )
    ranks = range(1, max(form.largest) + 1)
    rank = form.uniform(bisect_right(ranks, allowed, key=lambda r: form.parameters(form.uniform(r))))
    for entry, r in enumerate(rank):
        raised = form.clip((*rank[:entry], r + 1, *rank[entry + 1 :]))
        rank = raised if form.parameters(raised) <= allowed else rank
    return rank
