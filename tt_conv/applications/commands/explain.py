"""``tt-conv explain``: the path of a conv-einsum as a table, from text."""

import re
from ast import literal_eval
from collections.abc import Callable, Sequence
from typing import Any

LEFT_TO_RIGHT = "left-to-right"


def words_of_explain(words: Sequence[str]) -> list[str]:
    """Let the equation stand without ``--equation``, and the shapes after ``--sizes`` without quotes."""
    named: list[str] = []
    for i, word in enumerate(words):
        plain = not word.startswith("-")
        if i == 0 and (plain or word.startswith("->")):
            named.append(f"--equation={word}")
        elif plain and len(named) > 1 and named[-2] == "--sizes":
            named[-1] += f" {word}"
        else:
            named.append(word)
    return named


def explain(
    equation: str,
    sizes: str = "",
    stride: str = "1",
    padding: str = "0",
    dilation: str = "1",
    padding_mode: str = "zeros",
    optimize: str = "auto",
    memory_limit: int | str | None = None,
    constants: str = "",
    reuse: int = 1,
    train: bool = False,
) -> None:
    """Show how a conv-einsum is evaluated, and what it costs: tt-conv explain "ij,jk->ik" --sizes 2,3 3,4.

    Args:
        equation: Such as "bihw,oihw->bohw|hw"; the modes after | are convolved. It may stand first, unnamed.
        sizes: Required: one shape per operand, in their order: 8,32,64,64 16,32,3,3.
        stride: One value, or by mode: h=2,w=1.
        padding: An int, valid, same or full; by mode also left:right, as in h=1:2,w=same.
        dilation: One value, or by mode.
        padding_mode: zeros or circular.
        optimize: auto, optimal, greedy, measure, another name that opt_einsum knows,
            left-to-right, or a path: '[(0, 1), (0, 1)]'.
        memory_limit: Largest number of elements of any intermediate, or max_input.
        constants: Operands that never change, such as 1,2; what they give together is computed once.
        reuse: Calls per weight update.
        train: Choose the path for training: gradients of all operands that are not constants count.
    """
    print(
        explain_equation(
            equation,
            sizes,
            stride=stride,
            padding=padding,
            dilation=dilation,
            padding_mode=padding_mode,
            optimize=optimize,
            memory_limit=memory_limit,
            constants=constants,
            reuse=reuse,
            train=train,
        )
    )


def explain_equation(
    equation: str,
    sizes: str,
    *,
    stride: str = "1",
    padding: str = "0",
    dilation: str = "1",
    padding_mode: str = "zeros",
    optimize: str = "auto",
    memory_limit: int | str | None = None,
    constants: str = "",
    reuse: int = 1,
    train: bool = False,
) -> str:
    """Return the table of :func:`tt_conv.conv_einsum_path` for arguments as they are typed into a shell.

    Parameters
    ----------
    equation : str
    sizes : str
        Shapes in the order of the operands, such as ``"8,32,64,64 16,32,3,3"``; a scalar is ``"()"``.
    stride, padding, dilation : str
        One value, or values by mode such as ``"h=2,w=1"``; a pair of paddings is ``"h=1:2"``.
    padding_mode, memory_limit, reuse, train
        As for :func:`tt_conv.conv_einsum_path`.
    optimize : str
        A name, "left-to-right", or a path such as ``"[(0, 1), (0, 1)]"``.
    constants : str
        Operand numbers, such as ``"1,2"``.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        For text that is none of that, and as for :func:`tt_conv.conv_einsum_path`.

    Examples
    --------
    >>> print(explain_equation("bihw,oihw->bohw|hw", "8,3,32,32 16,3,5,5", padding="same"))
         Complete equation:  bihw,oihw->bohw|hw
                  Operands:  8x3x32x32, 16x3x5x5
                Naive cost:  9,830,400 MACs
            Optimized cost:  9,830,400 MACs
       Theoretical speedup:  1
    Bytes read and written:  627,392
      Largest intermediate:  131,072 elements
    ----------------------------------------------------------------
    step    operands         operation       MACs    bytes  elements
    ----------------------------------------------------------------
    (0, 1)  bihw,oihw->bohw  conv2d     9,830,400  627,392   131,072
    ----------------------------------------------------------------
    """
    from tt_conv.conv_einsum import conv_einsum_path

    _, info = conv_einsum_path(
        equation,
        *_shapes(sizes),
        shapes=True,
        stride=_by_mode("stride", stride, _int),
        padding=_by_mode("padding", padding, _typed_padding),
        dilation=_by_mode("dilation", dilation, _int),
        padding_mode=padding_mode,
        optimize=_optimize(optimize),
        memory_limit=memory_limit,
        constants=[_int("constants", number) for number in constants.replace(",", " ").split()],
        reuse=reuse,
        train=train,
    )
    return str(info)


def _shapes(text: str) -> list[list[int]]:
    """Return shapes from text, each with or without brackets around it."""
    if not text.strip():
        raise ValueError(
            "there are no sizes: give one shape per operand, such as --sizes 8,32,64,64 16,32,3,3 "
            "for 'bihw,oihw->bohw|hw'"
        )
    text = re.sub(r"\s*,\s*", ",", text.replace(";", " "))
    text = re.sub(r"([\])]),?([\[(])", r"\1 \2", text)
    shapes = []
    for word in text.split():
        sizes = word.strip("()[]").replace("x", ",").rstrip(",")
        shapes.append([_int("sizes", size) for size in sizes.split(",")] if sizes else [])
    return shapes


def _optimize(text: str) -> Any:
    """Return what the planner takes: a name, False, or a path such as ``"[(0, 1), (0, 1)]"``."""
    if text == LEFT_TO_RIGHT:
        return False
    if not text.startswith(("[", "(")):
        return text
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        raise ValueError(f"optimize: {text!r} is no path; one is written as '[(0, 1), (0, 1)]'") from None


def _by_mode(name: str, text: str, convert: Callable[[str, str], Any]) -> Any:
    """Return one value, or a dict from ``mode=value`` pairs."""
    if "=" not in text:
        return convert(name, text)
    pairs = [word.partition("=") for word in text.replace(",", " ").split()]
    if len({mode for mode, _, _ in pairs}) < len(pairs):
        raise ValueError(f"{name}: {text!r} names a mode twice")
    return {mode: convert(name, value) for mode, _, value in pairs}


def _typed_padding(name: str, text: str) -> Any:
    if ":" in text:
        return tuple(_int(name, side) for side in text.split(":"))
    return text if text.isalpha() else _int(name, text)


def _int(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name}: {text!r} is not a whole number") from None
