"""The rank argument, for every format."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from tt_conv.kernels.cp import CPFormat
from tt_conv.kernels.rank import choose_rank
from tt_conv.kernels.svd import SVDFormat
from tt_conv.kernels.table import FORMATS
from tt_conv.kernels.tt import TTFormat
from tt_conv.kernels.tucker import TuckerFormat

# Two stacked kernels span sizes of 5, 9, ... only.
EVERYWHERE = [name for name in FORMATS if name != "conv_tt"]
SHAPES = [(64, 32, 3, 3), (8, 6, 5), (6, 5, 3, 2, 3), (16, 1, 3, 3), (128, 64, 1, 1), (3, 3, 7, 7)]


@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.parametrize("kind", [int, np.int64, np.int32, np.uint8])
def test_every_kind_of_int(name: str, kind: type) -> None:
    form = FORMATS[name]((64, 32, 3, 3))
    rank = choose_rank(form, kind(5))
    assert rank == choose_rank(form, 5)
    assert all(type(r) is int for r in rank)


def test_one_int_is_used_for_every_entry_up_to_its_largest() -> None:
    shape = (64, 32, 3, 3)
    assert choose_rank(CPFormat(shape), 16) == (16,)
    assert choose_rank(SVDFormat(shape), 16) == (16,)
    assert choose_rank(TuckerFormat(shape), 16) == (16, 16, 3, 3)
    assert choose_rank(TTFormat(shape), 16) == (16, 16, 16)
    assert choose_rank(TTFormat(shape), 50) == (32, 50, 50)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", EVERYWHERE)
def test_over_large_ranks_are_lowered_to_one_that_still_holds_any_kernel(name: str, shape: tuple) -> None:
    form = FORMATS[name](shape)
    assert choose_rank(form, 10**6) == form.largest
    assert choose_rank(form, [10**6] * len(form.largest)) == form.largest
    assert form.clip(form.largest) == form.largest


def test_ranks_are_lowered_to_what_their_neighbours_carry() -> None:
    # A bond of 2 and a mode of 3 feed at most 6; 6 and 3 feed 18.
    assert choose_rank(TTFormat((64, 32, 3, 3)), [2, 50, 50]) == (2, 6, 18)
    assert choose_rank(TTFormat((64, 32, 3, 3)), [32, 50, 2]) == (18, 6, 2)
    assert choose_rank(TuckerFormat((64, 32, 3, 3)), [64, 2, 1, 3]) == (6, 2, 1, 3)


def test_sequences_in_every_spelling() -> None:
    shape = (64, 32, 3, 3)
    assert choose_rank(CPFormat(shape), [7]) == (7,)
    assert choose_rank(SVDFormat(shape), (7,)) == (7,)
    assert choose_rank(TuckerFormat(shape), (9, 8, 2, 3)) == (9, 8, 2, 3)
    assert choose_rank(TuckerFormat(shape), (9, 8)) == (9, 8, 3, 3)
    assert choose_rank(TuckerFormat(shape), torch.Size([9, 8])) == (9, 8, 3, 3)
    assert choose_rank(TTFormat(shape), np.array([4, 5, 6])) == (4, 5, 6)
    assert choose_rank(TTFormat(shape), [1, 4, 5, 6, 1]) == (4, 5, 6)


def dense_count(name: str, shape: tuple, rank: tuple) -> int:
    """Count the entries of factors built by hand."""
    if name == "cp":
        return rank[0] + sum(np.empty((n, rank[0])).size for n in shape)
    if name == "svd":
        return np.empty((shape[0], rank[0])).size + np.empty((rank[0], *shape[1:])).size
    if name == "tucker":
        return np.empty(rank).size + sum(np.empty((n, r)).size for n, r in zip(shape, rank, strict=True))
    modes, bonds = (*shape[1:], shape[0]), (1, *rank, 1)
    return sum(np.empty((bonds[k], n, bonds[k + 1])).size for k, n in enumerate(modes))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.parametrize("budget", [1.0, 0.5, np.float32(0.25), Fraction(1, 10)])
def test_a_budget_is_kept_and_used(name: str, shape: tuple, budget: float) -> None:
    form = FORMATS[name](shape)
    allowed = float(budget) * math.prod(shape)
    if form.parameters(form.uniform(1)) > allowed:
        with pytest.raises(ValueError, match="smallest budget that fits"):
            choose_rank(form, budget)
        return
    rank = choose_rank(form, budget)
    assert dense_count(name, shape, rank) == form.parameters(rank) <= allowed
    uniform = [choose_rank(form, r) for r in range(1, max(form.largest) + 1)]
    fitting = [r for r in uniform if dense_count(name, shape, r) <= allowed]
    assert all(ours - theirs in (0, 1) for ours, theirs in zip(rank, fitting[-1], strict=True))


def test_the_budget_error_names_one_that_works() -> None:
    form = CPFormat((8, 6, 3, 3))
    with pytest.raises(ValueError, match=r"smallest budget that fits is 0\.04861"):
        choose_rank(form, 0.01)
    assert choose_rank(form, 0.04862) == (1,)


@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.parametrize(
    ("rank", "error"),
    [
        (0, ValueError),
        (-3, ValueError),
        (np.int64(0), ValueError),
        (0.0, ValueError),
        (-0.5, ValueError),
        (8.0, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("same", ValueError),
        ([0, 1, 1, 1], ValueError),
        ([], ValueError),
        ([1] * 9, ValueError),
        (None, TypeError),
        (True, TypeError),
        ([2.0], TypeError),
        ([None], TypeError),
        (3 + 1j, TypeError),
        ({3}, TypeError),
        (torch.tensor(3), TypeError),
        (np.ones((2, 2)), TypeError),
    ],
)
def test_bad_ranks_are_refused(name: str, rank: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="rank"):
        choose_rank(FORMATS[name]((8, 6, 3, 3)), rank)


@pytest.mark.parametrize(
    ("tol", "error"),
    [(0, ValueError), (1, ValueError), (-0.1, ValueError), (2.0, ValueError), ("0.1", TypeError)],
)
def test_bad_tolerances_are_refused(tol: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="tol must be"):
        choose_rank(CPFormat((8, 6, 3, 3)), tol=tol, tolerance=lambda tol: (1,))


def test_rank_and_tol_exclude_each_other() -> None:
    with pytest.raises(TypeError, match="either rank or tol"):
        choose_rank(CPFormat((8, 6, 3, 3)), 3, tol=0.1)


def test_what_needs_a_kernel_says_so() -> None:
    form = TuckerFormat((8, 6, 3, 3))
    with pytest.raises(ValueError, match="tol needs a kernel"):
        choose_rank(form, tol=0.1)
    with pytest.raises(ValueError, match="needs a kernel"):
        choose_rank(form, "vbmf")


def test_a_train_begins_and_ends_with_one() -> None:
    with pytest.raises(ValueError, match="begins and ends with 1"):
        choose_rank(TTFormat((8, 6, 3, 3)), [2, 4, 5, 6, 1])


def test_wrong_lengths_name_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"3 ints for tt of shape .*, one per bond, or 5 ints"):
        choose_rank(TTFormat((8, 6, 3, 3)), [2, 2])
    with pytest.raises(ValueError, match=r"4 ints for tucker of shape .*, one per mode, or 2 ints"):
        choose_rank(TuckerFormat((8, 6, 3, 3)), [2, 2, 2])
