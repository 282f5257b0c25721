"""Text of a conv-einsum equation -> its modes, checked."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from tt_conv.conv_einsum.errors import ConvEinsumError

ELLIPSIS = "..."


@dataclass(frozen=True, slots=True)
class Term:
    """The modes of one operand or of the output, and the index of each in the text."""

    modes: tuple[str, ...]
    places: tuple[int, ...]

    def place(self, mode: str) -> int:
        """Return where in the text the term names ``mode``."""
        return self.places[self.modes.index(mode)]


@dataclass(frozen=True, slots=True)
class Equation:
    """A parsed equation: one term per operand, the output, and the convolved modes."""

    text: str
    operands: tuple[Term, ...]
    output: Term
    convolved: tuple[str, ...]

    def carriers(self, mode: str) -> tuple[int, ...]:
        """Return the numbers of the operands that carry ``mode``."""
        return tuple(i for i, term in enumerate(self.operands) if mode in term.modes)


@lru_cache(maxsize=4096)
def parse(text: str) -> Equation:
    """Parse and check an equation such as ``"bihw,oihw->bohw|hw"``.

    Parameters
    ----------
    text : str
        Modes of each operand, one letter each, separated by commas; ``->`` and the modes of the output;
        ``|`` and the convolved modes. Spaces are ignored. Without ``|`` nothing is convolved, and then the
        output may be left out: it is the modes that occur once, in alphabetical order; a mode may be named twice
        in one operand, which is its diagonal; and ``...``, which stands for shared batch modes, may be left out of
        the output, which sums over them.

    Returns
    -------
    Equation

    Raises
    ------
    ConvEinsumError
        With the place in ``text`` that is wrong.
    """
    sections = _sections(text)
    operands = _terms(sections[0])
    convolved = _convolved(text, sections[2], operands)
    if sections[1] is not None:
        output = _output(text, sections[1], operands, ordinary=sections[2] is None)
    elif sections[2] is None:
        output = _implicit_output(operands)
    else:
        raise ConvEinsumError("an equation with convolved modes must name its output, with '->'", text)
    equation = Equation(text, operands, output, convolved)
    _check_terms(equation)
    _check_convolved(equation, sections[2])
    return equation


_Tokens = list[tuple[str, int]]


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Yield the tokens of an equation with their places."""
    i = 0
    while i < len(text):
        for token in ("->", ELLIPSIS):
            if text.startswith(token, i):
                yield token, i
                i += len(token)
                break
        else:
            if text[i] in ",|" or text[i].isalpha():
                yield text[i], i
            elif not text[i].isspace():
                raise ConvEinsumError(
                    f"{text[i]!r} is not a mode: modes are letters, beside ',', '->', '|' and '...'", text, i
                )
            i += 1


def _sections(text: str) -> tuple[_Tokens, _Tokens | None, _Tokens | None]:
    """Split an equation into its operands, its output and its convolved modes, as far as they are there."""
    found: dict[str, _Tokens] = {"": []}
    section = ""
    for token, place in _tokens(text):
        if token in ("->", "|"):
            if token in found:
                raise ConvEinsumError(f"{token!r} occurs twice", text, place)
            if token == "->" and "|" in found:
                raise ConvEinsumError("'->' and the output come before '|', not after it", text, place)
            section = token
            found[section] = []
        else:
            found[section].append((token, place))
    if found == {"": []}:
        raise ConvEinsumError("the equation is empty; an example of one is 'bihw,oihw->bohw|hw'", text)
    return found[""], found.get("->"), found.get("|")


def _term(tokens: _Tokens) -> Term:
    return Term(tuple(token for token, _ in tokens), tuple(place for _, place in tokens))


def _terms(tokens: _Tokens) -> tuple[Term, ...]:
    """Split tokens at the commas."""
    terms: list[_Tokens] = [[]]
    for token, place in tokens:
        if token == ",":
            terms.append([])
        else:
            terms[-1].append((token, place))
    return tuple(map(_term, terms))


def _output(text: str, tokens: _Tokens, operands: tuple[Term, ...], ordinary: bool) -> Term:
    """Check that the output is one term, of modes that operands carry; in an ordinary einsum '...' may be empty."""
    for token, place in tokens:
        if token == ",":
            raise ConvEinsumError("there is one output, so no comma can follow '->'", text, place)
        if not any(token in term.modes for term in operands) and not (ordinary and token == ELLIPSIS):
            what = "'...'" if token == ELLIPSIS else f"the mode {token!r}"
            raise ConvEinsumError(f"the output names {what}, which no operand carries", text, place)
    return _term(tokens)


def _implicit_output(operands: tuple[Term, ...]) -> Term:
    """Return what an einsum without ``->`` means: the modes that occur once, in alphabetical order."""
    counts = Counter(mode for term in operands for mode in term.modes)
    once = sorted(mode for mode, count in counts.items() if count == 1 and mode != ELLIPSIS)
    modes = [ELLIPSIS, *once] if ELLIPSIS in counts else once
    places = [next(term.place(mode) for term in operands if mode in term.modes) for mode in modes]
    return Term(tuple(modes), tuple(places))


def _convolved(text: str, tokens: _Tokens | None, operands: tuple[Term, ...]) -> tuple[str, ...]:
    """Check that the convolved modes are distinct letters that operands carry."""
    if tokens is None:
        return ()
    if not tokens:
        raise ConvEinsumError("no mode follows '|': name the convolved modes, or leave '|' out", text)
    modes: list[str] = []
    for token, place in tokens:
        if token in (",", ELLIPSIS):
            raise ConvEinsumError(f"only letters follow '|', one per convolved mode, not {token!r}", text, place)
        if token in modes:
            raise ConvEinsumError(f"the convolved mode {token!r} is named twice", text, place)
        if not any(token in term.modes for term in operands):
            raise ConvEinsumError(f"no operand carries the convolved mode {token!r}", text, place)
        modes.append(token)
    return tuple(modes)


def _check_terms(equation: Equation) -> None:
    """Check that no term names a mode twice and that '...' reaches the output; without convolved modes operands may."""
    names = [f"operand {i}" for i in range(len(equation.operands))] + ["the output"]
    for name, term in zip(names, (*equation.operands, equation.output), strict=True):
        for i, mode in enumerate(term.modes):
            allowed = not equation.convolved and term is not equation.output and mode != ELLIPSIS
            if mode in term.modes[:i] and not allowed:
                what = "'...'" if mode == ELLIPSIS else f"the mode {mode!r}"
                raise ConvEinsumError(f"{name} names {what} twice", equation.text, term.places[i])
        if equation.convolved and ELLIPSIS in term.modes and ELLIPSIS not in equation.output.modes:
            raise ConvEinsumError(
                f"{name} has '...', so the output needs it too: its modes are kept as batch modes",
                equation.text,
                term.place(ELLIPSIS),
            )


def _check_convolved(equation: Equation, tokens: _Tokens | None) -> None:
    """Check that two operands and the output carry every convolved mode."""
    for mode, place in tokens or ():
        carriers = equation.carriers(mode)
        if len(carriers) == 1:
            raise ConvEinsumError(
                f"only operand {carriers[0]} carries the convolved mode {mode!r}; "
                "a convolution needs a feature and a kernel",
                equation.text,
                place,
            )
        if mode not in equation.output.modes:
            raise ConvEinsumError(f"the convolved mode {mode!r} is missing from the output", equation.text, place)
