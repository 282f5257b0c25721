"""Without convolved modes, what torch.einsum gives: diagonals, axes of size 1, ``...`` that is summed."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tt_conv import conv_einsum, conv_einsum_expression, conv_einsum_path
from tt_conv.conv_einsum.errors import ConvEinsumError

CASES = [
    ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]),
    ("iij->ij", [(3, 3, 2)]),
    ("iji->ji", [(3, 2, 3)]),
    ("iii->i", [(3, 3, 3)]),
    ("iijj->ij", [(3, 3, 2, 2)]),
    ("ii,i->i", [(3, 3), (3,)]),
    ("ii,jj", [(3, 3), (2, 2)]),
    ("i...->i", [(3, 2, 4)]),
    ("i...->", [(3, 2, 4)]),
    ("...i,...i->i", [(2, 4, 3), (4, 3)]),
    ("...i,...i->...i", [(2, 4, 3), (1, 3)]),
    ("ii...->i...", [(3, 3, 2)]),
    ("ii...", [(3, 3, 2)]),
    ("ij,jk->ik", [(3, 1), (4, 5)]),
    ("ij,ij->ij", [(1, 4), (3, 1)]),
    ("ij,ij->j", [(1, 4), (3, 4)]),
    ("ij,ij,ij->", [(1, 4), (3, 1), (3, 4)]),
    ("bij,bjk->bik", [(1, 3, 4), (5, 4, 2)]),
    ("ii,jk->ik", [(1, 1), (4, 5)]),
    ("Ba, ac", [(2, 3), (3, 4)]),
    ("ij->...ji", [(2, 3)]),
    ("i,i->i", [(0,), (1,)]),
    ("ij,jk,kl->il", [(2, 0), (0, 3), (3, 4)]),
]


def operands_of(shapes: list[tuple[int, ...]]) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def check(equation: str, shapes: list[tuple[int, ...]]) -> None:
    """Values and gradients of all ways to evaluate an equation are those of torch.einsum."""
    operands = operands_of(shapes)
    expected = torch.einsum(equation, *operands)
    weight = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weight).sum(), operands)
    compiled = conv_einsum_expression(equation, *shapes, train=True)
    bound = conv_einsum_expression(equation, *shapes, train=True).bind({0: operands[0]})
    folded = conv_einsum_expression(equation, operands[0].detach(), *shapes[1:], constants=[0])
    same(folded(*operands[1:]), expected)
    values = [conv_einsum(equation, *operands) for _ in range(2)]  # the second finds what the first one planned
    for value in [*values, compiled(*operands), bound(*operands[1:])]:
        same(value, expected)
        for found, right in zip(torch.autograd.grad((value * weight).sum(), operands), wanted, strict=True):
            same(found, right)
    path, info = conv_einsum_path(equation, *operands)
    same(conv_einsum(equation, *operands, optimize=path), expected)
    assert equation in str(info)


@pytest.mark.parametrize(("equation", "shapes"), CASES)
def test_it_is_what_torch_gives(equation: str, shapes: list[tuple[int, ...]]) -> None:
    check(equation, shapes)


@st.composite
def ordinary_einsums(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]]]:
    """An equation without convolved modes, often one that is wrong, and shapes."""
    sizes = {letter: draw(st.sampled_from([1, 2, 3, 2, 3, 0]), label=letter) for letter in "abBZ"}
    batch = draw(st.lists(st.sampled_from([1, 2, 3]), max_size=2))
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, 3))):
        letters = draw(st.lists(st.sampled_from("abBZ"), max_size=4))
        ones = draw(st.sets(st.sampled_from("abBZ"), max_size=1))
        shape = [1 if letter in ones else sizes[letter] for letter in letters]
        if draw(st.booleans()):
            place = draw(st.integers(0, len(letters)))
            hidden = [draw(st.sampled_from([size, size, 1])) for size in batch[draw(st.integers(0, 2)) :]]
            letters.insert(place, "...")
            shape[place:place] = hidden
        if shape and draw(st.integers(0, 11)) == 0:  # a size that fits nothing
            shape[draw(st.integers(0, len(shape) - 1))] = 4
        space = draw(st.sampled_from(["", "", " "]))
        terms.append(space.join(letters))
        shapes.append(tuple(shape))
    equation = ",".join(terms)
    if draw(st.booleans()):
        carried = sorted({letter for letter in equation if letter.isalpha()}) or ["a"]
        output = draw(st.lists(st.sampled_from(carried), unique=draw(st.integers(0, 7)) > 0, max_size=4))
        if draw(st.booleans()):
            output.insert(draw(st.integers(0, len(output))), "...")
        equation += f"->{''.join(output)}"
    return equation, shapes


@settings(max_examples=150, deadline=None)
@given(ordinary_einsums())
def test_any_equation_is_what_torch_gives(problem: tuple[str, list[tuple[int, ...]]]) -> None:
    """What torch.einsum refuses is refused by a ConvEinsumError, also where no tensors are given."""
    equation, shapes = problem
    if not equation:  # torch.einsum takes an empty equation for a scalar; here it is refused
        return
    try:
        torch.einsum(equation, *operands_of(shapes))
    except (RuntimeError, ValueError):  # torch, or opt_einsum in its place
        with pytest.raises(ConvEinsumError):
            conv_einsum(equation, *operands_of(shapes))
        with pytest.raises(ConvEinsumError):
            conv_einsum_expression(equation, *shapes)
    else:
        check(equation, shapes)


@pytest.mark.parametrize(
    ("equation", "shapes"), [("iij,ij->ij", [(3, 3, 2), (1, 2)]), ("i...,...->i", [(3, 2, 4), (1, 4)])]
)
def test_traced(equation: str, shapes: list[tuple[int, ...]]) -> None:
    operands = operands_of(shapes)
    torch.compiler.reset()
    compiled = torch.compile(lambda *tensors: conv_einsum(equation, *tensors), backend="eager", fullgraph=True)
    same(compiled(*operands), torch.einsum(equation, *operands))


def test_many_modes() -> None:
    """More letters than torch.einsum takes: a chain of matrices, by their product."""
    letters = [chr(0x400 + number) for number in range(101)]
    matrices = [torch.randn(2, 2, dtype=torch.float64) for _ in range(100)]
    equation = ",".join(map("".join, itertools.pairwise(letters))) + f"->{letters[0]}{letters[-1]}"
    expected = torch.linalg.multi_dot(matrices)
    torch.testing.assert_close(conv_einsum(equation, *matrices), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("equation", "shapes", "message"),
    [
        ("ii->i", [(3, 2)], r"twice.*diagonal.*\[3, 2\] \(equation 'ii->i'"),
        ("ii,ij->j", [(3, 3), (2, 4)], r"disagree on mode 'i': sizes 3 and 2 \(equation 'ii,ij->j'"),
        ("ij,jk->ik", [(3, 2), (4, 5)], "disagree on mode 'j': sizes 2 and 4"),
        ("ij->ii", [(3, 2)], "the output names the mode 'i' twice"),
        ("iihw,ohw->ohw|hw", [(3, 3, 5, 5), (2, 3, 3)], "twice"),
    ],
)
def test_what_stays_an_error(equation: str, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ConvEinsumError, match=message):
        conv_einsum(equation, *[torch.ones(shape) for shape in shapes])
