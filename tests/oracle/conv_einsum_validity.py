"""Which conv-einsums are valid, decided from the specification alone.

The specification is silent on a few things that a program may accept or refuse (white space, an implicit
output, a size 1 that could be broadcast, an empty batch, ...): these are "open". Whatever is accepted must
have the value of the formula, or that of `torch.einsum`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

from tests.oracle.conv_einsum import geometry, of_mode, parse

NAMED_PADDINGS = ("valid", "full", "same")


@dataclass
class Verdict:
    """Reasons to refuse, and reasons for which either answer is fine."""

    refused: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    # Open, and the oracle would not read it as the formula either.
    beyond_oracle: list[str] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        return not (self.refused or self.open or self.beyond_oracle)


def judge(
    equation: str,
    shapes: Sequence[Sequence[int]],
    *,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    padding_mode: object = "zeros",
) -> Verdict:
    """Say whether a conv-einsum must be accepted, must be refused, or may be either."""
    verdict = Verdict()
    _judge_characters(equation, verdict)
    if verdict.refused:
        return verdict
    bare = "".join(equation.split())
    left, arrow, right = bare.partition("->")
    output, bar, convolved = (right if arrow else left).partition("|")
    if not arrow:
        left = output
        verdict.beyond_oracle.append("implicit output")
    if "," in convolved:
        verdict.beyond_oracle.append("separated list of convolved modes")
        convolved = convolved.replace(",", "")
    if bar and not convolved:
        verdict.open.append("empty list of convolved modes")
    terms = left.split(",")
    _judge_terms(terms, output if arrow else None, convolved, shapes, verdict)
    if verdict.refused:
        return verdict
    _judge_sizes(terms, output if arrow else None, convolved, shapes, verdict)
    _judge_options(convolved, stride, padding, dilation, padding_mode, verdict)
    if verdict.refused or not convolved:
        return verdict
    equation = f"{left}->{output if arrow else convolved}|{convolved}"
    modes = geometry(parse(equation, [len(shape) for shape in shapes]), shapes, stride, padding, dilation)
    if any(mode.output_size < 1 for mode in modes.values()):
        verdict.refused.append("empty result")
    return verdict


def _judge_characters(equation: str, verdict: Verdict) -> None:
    if not equation.strip():
        verdict.refused.append("empty equation")
    if equation != "".join(equation.split()):
        verdict.open.append("white space")
        if re.search(r"-\s+>|\.\s+\.", equation):
            verdict.beyond_oracle.append("a broken arrow or ellipsis")
    bare = "".join(equation.split()).replace("->", "", 1).replace("...", "")
    for character in bare:
        if not (character.isalpha() or character in ",|"):
            verdict.refused.append(f"character {character!r}")
        elif not (character.isascii()):
            verdict.open.append("a letter outside ASCII")
    if bare.count("|") > 1:
        verdict.refused.append("two lists of convolved modes")
    if "|" in equation.partition("->")[0] and "->" in equation:
        verdict.refused.append("convolved modes before the output")


def _judge_terms(
    terms: list[str], output: str | None, convolved: str, shapes: Sequence[Sequence[int]], verdict: Verdict
) -> None:
    if len(terms) != len(shapes):
        verdict.refused.append(f"{len(terms)} terms for {len(shapes)} operands")
        return
    if not any(terms) and not output:
        verdict.open.append("no modes at all")
    if len(set(output or "")) < len((output or "").replace("...", ".")):
        verdict.refused.append(f"a letter twice in the output {output!r}")
    for term in (*terms, output or ""):
        letters = term.replace("...", "", 1)
        if "." in letters or "," in letters:
            verdict.refused.append(f"term {term!r}")
        if len(set(letters)) < len(letters) and convolved:
            verdict.refused.append(f"a letter twice in {term!r}")
        if "..." in term and not term.startswith("..."):
            verdict.open.append("an ellipsis that does not lead")
    carried = "".join(terms)
    for letter in (output or "").replace(".", ""):
        if letter not in carried:
            verdict.refused.append(f"{letter} of the output is in no operand")
    if "." in convolved:
        verdict.refused.append("a convolved ellipsis")
    if len(set(convolved)) < len(convolved):
        verdict.open.append("a convolved mode named twice")
    for letter in convolved:
        if sum(letter in term for term in terms) < 2:
            verdict.refused.append(f"convolved {letter} is not in two operands")
        if output is not None and letter not in output:
            verdict.refused.append(f"convolved {letter} is not in the output")
    dots = ["..." in term for term in terms]
    if output is not None and any(dots) != ("..." in output):
        verdict.beyond_oracle.append("an ellipsis that is in the output only or missing there")
    for term, shape in zip(terms, shapes, strict=True):
        letters = term.replace("...", "")
        if len(letters) > len(shape) or (len(letters) < len(shape) and "..." not in term):
            verdict.refused.append(f"{term!r} for {len(shape)} dimensions")


def _judge_sizes(
    terms: list[str], output: str | None, convolved: str, shapes: Sequence[Sequence[int]], verdict: Verdict
) -> None:
    parsed = parse(f"{','.join(terms)}->{output or ''}", [len(shape) for shape in shapes])
    seen: dict[str, set[int]] = {}
    for term, names, shape in zip(terms, parsed.inputs, shapes, strict=True):
        for name, size in zip(names, shape, strict=True):
            seen.setdefault(name, set()).add(size)
        if len(set(zip(names, shape, strict=True))) > len(set(names)):
            verdict.refused.append(f"a diagonal of unequal sides in {term!r}")
    for name, sizes in seen.items():
        if name in convolved:
            if 0 in sizes:
                verdict.beyond_oracle.append("a convolved mode of size 0")
        elif sizes == {0}:
            verdict.open.append(f"size 0 of {name}")
        elif len(sizes) > 1:
            if len(sizes - {1}) == 1:
                verdict.beyond_oracle.append(f"sizes 1 and another of {name}")
            else:
                verdict.refused.append(f"sizes {sizes} of {name}")
    if len({len(shape) - len(term) for term, shape in zip(terms, shapes, strict=True) if "..." in term}) > 1:
        verdict.beyond_oracle.append("ellipses of different length")


def _judge_options(
    convolved: str, stride: object, padding: object, dilation: object, padding_mode: object, verdict: Verdict
) -> None:
    if padding_mode not in ("zeros", "circular"):
        verdict.refused.append(f"padding_mode {padding_mode!r}")
    elif padding_mode == "circular" and not convolved:
        verdict.open.append("circular without convolved modes")
    for name, option, neutral in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        if isinstance(option, Mapping):
            unknown = [mode for mode in option if not (isinstance(mode, str) and mode and mode in convolved)]
            if unknown:
                verdict.refused.append(f"{name} of {unknown}")
            elif any(len(mode) > 1 for mode in option):
                verdict.beyond_oracle.append(f"{name} of several modes at once")
        elif not convolved and option != neutral:
            (verdict.open if option == "valid" else verdict.refused).append(f"{name} without convolved modes")
        values = option.values() if isinstance(option, Mapping) else [option]
        for value in values:
            if name == "padding":
                _judge_padding(value, isinstance(option, Mapping), verdict)
            elif not (isinstance(value, Integral) and not isinstance(value, bool) and value >= 1):
                verdict.refused.append(f"{name} {value!r}")
    for mode in convolved:
        if of_mode(padding, mode, 0) == "same" and of_mode(stride, mode, 1) != 1:
            verdict.refused.append("'same' with a stride")


def _judge_padding(value: object, in_dict: bool, verdict: Verdict) -> None:
    if isinstance(value, str):
        good = value in NAMED_PADDINGS
    elif isinstance(value, (tuple, list)):
        good = in_dict and len(value) == 2 and all(_is_count(side) for side in value)
        if good and isinstance(value, list):
            verdict.open.append("a pair as a list")
    else:
        good = _is_count(value)
    if not good:
        verdict.refused.append(f"padding {value!r}")


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 0
