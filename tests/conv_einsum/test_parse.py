"""Text of an equation -> its modes, and the place of what is wrong in it."""

import pickle

import pytest

from tt_conv import ConvEinsumError
from tt_conv.conv_einsum.parse import parse


def modes(text: str) -> tuple:
    equation = parse(text)
    terms = (*equation.operands, equation.output)
    return *("".join(term.modes) for term in terms), "".join(equation.convolved)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ij,jk->ik", ("ij", "jk", "ik", "")),
        ("bihw,oihw->bohw|hw", ("bihw", "oihw", "bohw", "hw")),
        (" b i h , o\ti h -> b o h | h ", ("bih", "oih", "boh", "h")),
        ("bihw,oihw->bohw|wh", ("bihw", "oihw", "bohw", "wh")),
        ("...ij,jk->...ik", ("...ij", "jk", "...ik", "")),
        ("b...i,oi->b...o", ("b...i", "oi", "b...o", "")),
        ("ij->", ("ij", "", "")),
        ("->", ("", "", "")),
        (",i->i", ("", "i", "i", "")),
        # Without an output: the modes that occur once, in alphabetical order, as in NumPy.
        ("kj,ji", ("kj", "ji", "ik", "")),
        ("...b,a", ("...b", "a", "...ab", "")),
        ("aB,Bc", ("aB", "Bc", "ac", "")),
        ("αβ,βγ->αγ", ("αβ", "βγ", "αγ", "")),
    ],
)
def test_what_is_read(text: str, expected: tuple) -> None:
    assert modes(text) == expected


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", None, "empty"),
        ("  ", None, "empty"),
        ("i1,jk->ik", 1, "'1'"),
        ("ij,jk->ik->k", 9, "twice"),
        ("ij,jk|->ik", 6, "before"),
        ("ij,j|k|j->ik", 6, "twice"),
        ("ij,jk->ix", 8, "'x'"),
        ("ij,jk->i,k", 8, "comma"),
        ("ijjh,jkh->ikh|h", 2, "operand 0"),
        ("ijh,jkkh->ikh|h", 6, "operand 1"),
        ("ij,jk->iki", 9, "the output"),
        ("ih,oh->ioh|", None, "leave '|' out"),
        ("ih,oh->ioh|h,i", 12, "','"),
        ("ih,oh->ioh|hh", 12, "twice"),
        ("ih,oh->ioh|x", 11, "'x'"),
        ("ih,oh->ioh|o", 11, "operand 1"),
        ("ih,oh->io|h", 10, "missing from the output"),
        ("ih,oh|h", None, "'->'"),
        ("...h,h->h|h", 0, "'...'"),
        ("h,h->...h|h", 5, "'...'"),
        ("...i...,i->...i", 4, "twice"),
        ("..i,i->i", 0, "'.'"),
        ("ij,jk>ik", 5, "'>'"),
    ],
)
def test_what_is_refused_and_where(text: str, place: int | None, words: str) -> None:
    with pytest.raises(ConvEinsumError) as caught:
        parse(text)
    assert (caught.value.equation, caught.value.place) == (text, place)
    assert words in caught.value.reason
    assert repr(text) in str(caught.value)


def test_the_error_pickles() -> None:
    error = ConvEinsumError("a reason", "ij->", 1)
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "a reason (equation 'ij->', character 2: 'j')"
    assert isinstance(copy, ValueError)
