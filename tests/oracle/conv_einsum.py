"""The meaning of a conv-einsum, evaluated literally.

Every index in the formula gets its own axis of one large grid; each operand is read at the positions that
the formula names; the readings are multiplied and summed. Nothing is reordered and no convolution routine
is called, so the result depends on the formula alone. Autograd through it gives reference gradients.

For one convolved mode with feature x of size n, kernels K_1 .. K_q, stride s, dilation e, paddings p, p'::

    y[u] = sum over v_1 .. v_q of  x[s u + e (v_1 + ... + v_q) - p] K_1[v_1] ... K_q[v_q]
    0 <= u <= (n + p + p' - support) / s,    support = 1 + e * sum(k_j - 1)

The evaluator takes a valid equation; `tests.oracle.conv_einsum_validity` says which ones are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Padding = int | str | tuple[int, int]


@dataclass(frozen=True)
class Parsed:
    """An equation with every `...` written out: one name per dimension."""

    inputs: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]
    convolved: tuple[str, ...]


@dataclass(frozen=True)
class ConvolvedMode:
    """What the formula needs to know about one convolved mode."""

    feature: int
    kernels: tuple[int, ...]
    size: int
    stride: int
    dilation: int
    left: int
    output_size: int


def parse(equation: str, ranks: Sequence[int]) -> Parsed:
    """Split a valid equation into its parts; `ranks` are the operands' numbers of dimensions."""
    body, _, convolved = "".join(equation.split()).partition("|")
    left, _, output = body.partition("->")
    terms = left.split(",")
    shared = 0
    for term, rank in zip(terms, ranks, strict=True):
        if "..." in term:
            shared = max(shared, rank - len(term.replace("...", "")))

    def names(term: str, rank: int | None) -> tuple[str, ...]:
        before, dots, after = term.partition("...")
        count = (shared if rank is None else rank - len(before) - len(after)) if dots else 0
        return (*before, *(f".{i}" for i in range(shared - count, shared)), *after)

    inputs = tuple(names(term, rank) for term, rank in zip(terms, ranks, strict=True))
    return Parsed(inputs, names(output, None), tuple(convolved.replace(",", "")))


def of_mode(option: object, mode: str, default: object) -> object:
    """An option's value for one mode: the option itself, or the dict's entry."""
    return option.get(mode, default) if isinstance(option, dict) else option


def borders(padding: Padding, support: int) -> tuple[int, int]:
    """Left and right padding as two numbers."""
    if padding == "valid":
        return 0, 0
    if padding == "full":
        return support - 1, support - 1
    if padding == "same":
        return (support - 1) // 2, support - 1 - (support - 1) // 2
    return (padding, padding) if isinstance(padding, int) else tuple(padding)


def geometry(
    parsed: Parsed,
    shapes: Sequence[Sequence[int]],
    stride: int | dict[str, int] = 1,
    padding: Padding | dict[str, Padding] = 0,
    dilation: int | dict[str, int] = 1,
) -> dict[str, ConvolvedMode]:
    """Work out each convolved mode: who is the feature, and how large the output is."""
    modes = {}
    for mode in parsed.convolved:
        feature, *kernels = (number for number, names in enumerate(parsed.inputs) if mode in names)
        sizes = {number: shapes[number][parsed.inputs[number].index(mode)] for number in (feature, *kernels)}
        s, e = of_mode(stride, mode, 1), of_mode(dilation, mode, 1)
        support = 1 + e * sum(sizes[number] - 1 for number in kernels)
        left, right = borders(of_mode(padding, mode, 0), support)
        output_size = (sizes[feature] + left + right - support) // s + 1
        modes[mode] = ConvolvedMode(feature, tuple(kernels), sizes[feature], s, e, left, output_size)
    return modes


def conv_einsum(
    equation: str,
    *operands: Tensor,
    stride: int | dict[str, int] = 1,
    padding: Padding | dict[str, Padding] = 0,
    dilation: int | dict[str, int] = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """Evaluate the formula for a valid equation.

    Example
    -------
    >>> x, w = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 10.0])
    >>> conv_einsum("h,h->h|h", x, w)
    tensor([21., 32., 43.])
    """
    shapes = [tuple(operand.shape) for operand in operands]
    parsed = parse(equation, [len(shape) for shape in shapes])
    modes = geometry(parsed, shapes, stride, padding, dilation)

    # The axes of the grid: an ordinary mode m is (m,); a convolved mode has (m, "u") and (m, j) per kernel j.
    sizes: dict[tuple, int] = {}
    for number, (names, shape) in enumerate(zip(parsed.inputs, shapes, strict=True)):
        for name, size in zip(names, shape, strict=True):
            if name not in modes:
                sizes[name,] = size
            elif number == modes[name].feature:
                sizes[name, "u"] = modes[name].output_size
            else:
                sizes[name, number] = size
    axes = list(sizes)
    index = {axis: torch.arange(sizes[axis]).reshape([-1 if other == axis else 1 for other in axes]) for axis in axes}

    product: Tensor | None = None
    for number, (names, operand) in enumerate(zip(parsed.inputs, operands, strict=True)):
        where, inside = [], torch.ones([1] * len(axes), dtype=torch.bool)
        for name in names:
            if name not in modes:
                where.append(index[name,])
            elif number != modes[name].feature:
                where.append(index[name, number])
            else:
                mode = modes[name]
                position = mode.stride * index[name, "u"] - mode.left
                position = position + mode.dilation * sum(index[name, kernel] for kernel in mode.kernels)
                if padding_mode == "circular":
                    where.append(position % mode.size)
                else:
                    inside = inside & (position >= 0) & (position < mode.size)
                    where.append(position.clamp(0, mode.size - 1))
        reading = operand[tuple(where)] * inside
        product = reading if product is None else product * reading

    kept = [(name, "u") if name in modes else (name,) for name in parsed.output]
    summed = [axes.index(axis) for axis in axes if axis not in kept]
    if summed:
        product = product.sum(summed, keepdim=True)
    return product.permute([*(axes.index(axis) for axis in kept), *summed]).reshape([sizes[axis] for axis in kept])


def output_shape(equation: str, shapes: Sequence[Sequence[int]], **options: object) -> tuple[int, ...]:
    """The shape of the result, from the shapes of the operands."""
    options.pop("padding_mode", None)
    parsed = parse(equation, [len(shape) for shape in shapes])
    modes = geometry(parsed, shapes, **options)
    sizes = {
        name: size
        for names, shape in zip(parsed.inputs, shapes, strict=True)
        for name, size in zip(names, shape, strict=True)
    }
    return tuple(modes[name].output_size if name in modes else sizes[name] for name in parsed.output)
