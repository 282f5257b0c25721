"""An equation bound to the shapes of its operands."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from tt_conv.conv_einsum.errors import ConvEinsumError
from tt_conv.conv_einsum.geometry import ConvolvedMode, convolved_mode
from tt_conv.conv_einsum.options import Options, check_modes
from tt_conv.conv_einsum.parse import ELLIPSIS, Equation

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operand:
    """What one operand brings into the network.

    Parameters
    ----------
    shape : tuple of int
        As the caller gives it.
    modes : tuple of str
        The modes that it keeps, in its own order but for diagonals, which come last.
    dropped : tuple of int
        Axes that go before the first step, of what diagonals leave: modes that nothing else carries are summed
        over, and axes of size 1 that are broadcast are squeezed.
    summed : bool
        Whether any dropped axis is summed over.
    diagonals : tuple of (int, int)
        Pairs of axes of one mode, each of which becomes one last axis, one pair after the other.
    """

    shape: Shape
    modes: tuple[str, ...]
    dropped: tuple[int, ...] = ()
    summed: bool = False
    diagonals: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class Network:
    """An equation whose sizes are known: what planning and lowering work on.

    A *subset* is a bit mask of operands; it stands for the intermediate that they give together, which does
    not depend on the order in which they were combined.
    """

    equation: Equation
    options: Options
    operands: tuple[Operand, ...]
    output: tuple[str, ...]
    sizes: dict[str, int]
    convolved: dict[str, ConvolvedMode]

    @cached_property
    def everything(self) -> int:
        """The subset of all operands."""
        return (1 << len(self.operands)) - 1

    def kept(self, subset: int) -> frozenset[str]:
        """Return the modes of the intermediate of a subset."""
        inside: set[str] = set()
        outside = set(self.output)
        for i, operand in enumerate(self.operands):
            (inside if subset >> i & 1 else outside).update(operand.modes)
        return frozenset(inside & outside)

    def size(self, mode: str, subset: int) -> int:
        """Return the size of a mode in the intermediate of a subset."""
        if mode in self.convolved:
            return self.convolved[mode].size(subset)
        return self.sizes[mode]

    def shape(self, modes: Sequence[str], subset: int) -> Shape:
        """Return the shape of the intermediate of a subset whose axes are ``modes``."""
        return tuple(self.size(mode, subset) for mode in modes)

    @property
    def features(self) -> int:
        """The operands that are the feature of a convolved mode; without any, the first operand."""
        return sum({1 << mode.feature for mode in self.convolved.values()}) or 1


def bind(equation: Equation, shapes: Sequence[Shape], options: Options) -> Network:
    """Bind an equation to shapes.

    Raises
    ------
    ConvEinsumError
        For a wrong number of operands or of axes, sizes that disagree, or are zero beside convolved modes, options
        that do not fit, or an output of convolved modes without elements.
    """
    check_modes(equation, options)
    if len(shapes) != len(equation.operands):
        raise ConvEinsumError(
            f"the equation has {len(equation.operands)} operands, but {len(shapes)} were given", equation.text
        )
    shapes = [tuple(map(int, shape)) for shape in shapes]
    named = _name_axes(equation, shapes)
    sizes, sizes_by_operand = _sizes(equation, named)
    convolved = {
        mode: convolved_mode(equation, mode, tuple(sizes_by_operand[mode]), options) for mode in equation.convolved
    }
    output = tuple(_expand(equation.output.modes, _ellipsis_modes(equation, shapes)))
    needed = [*(mode for axes in named for mode in {mode for mode, _, keep in axes if keep}), *output]
    operands = tuple(_operand(tuple(shape), modes, needed) for shape, modes in zip(shapes, named, strict=True))
    return Network(equation, options, operands, output, sizes, convolved)


_Axis = tuple[str, int, bool]
"""Mode, size, and whether the operand keeps the axis rather than being broadcast along it."""


def _ellipsis_modes(equation: Equation, shapes: Sequence[Shape]) -> list[str]:
    """Return names that the equation does not use, one per mode that ``...`` stands for."""
    count = max(
        (
            len(shape) - len(term.modes) + 1
            for term, shape in zip(equation.operands, shapes, strict=True)
            if ELLIPSIS in term.modes
        ),
        default=0,
    )
    used = set(equation.text)
    unused = (letter for code in range(ord("α"), 0x10000) if (letter := chr(code)).isalpha() and letter not in used)
    return [next(unused) for _ in range(count)]


def _expand(modes: Sequence[str], ellipsis: Sequence[str]) -> Iterator[str]:
    """Yield ``modes`` with ``...`` replaced."""
    for mode in modes:
        if mode == ELLIPSIS:
            yield from ellipsis
        else:
            yield mode


def _name_axes(equation: Equation, shapes: Sequence[Shape]) -> list[list[_Axis]]:
    """Give every axis of every operand its mode.

    Axes of size 1 are broadcast along the modes of ``...``, and along every mode if nothing is convolved, as
    ``torch.einsum`` does.
    """
    for i, (term, shape) in enumerate(zip(equation.operands, shapes, strict=True)):
        has_ellipsis = ELLIPSIS in term.modes
        letters = len(term.modes) - has_ellipsis
        if len(shape) < letters if has_ellipsis else len(shape) != letters:
            raise ConvEinsumError(
                f"operand {i} is written with {letters} modes, {''.join(term.modes)!r}, "
                f"but has {len(shape)} axes, shape {tuple(shape)}",
                equation.text,
                term.places[0] if term.places else None,
            )
    ellipsis = _ellipsis_modes(equation, shapes)
    broadcast = dict.fromkeys(ellipsis, 1)
    if not equation.convolved:
        broadcast.update(dict.fromkeys((mode for term in equation.operands for mode in term.modes), 1))
    named = []
    for term, shape in zip(equation.operands, shapes, strict=True):
        missing = len(ellipsis) - (len(shape) - len(term.modes) + 1)
        modes = list(_expand(term.modes, ellipsis[missing:] if ELLIPSIS in term.modes else ()))
        named.append(list(zip(modes, shape, strict=True)))
        for mode, size in named[-1]:
            if mode in broadcast and size != 1:
                broadcast[mode] = size
    return [[(mode, size, size != 1 or broadcast.get(mode, 1) == 1) for mode, size in axes] for axes in named]


def _sizes(equation: Equation, named: Sequence[Sequence[_Axis]]) -> tuple[dict[str, int], dict[str, list[int]]]:
    """Check that sizes agree; return those of plain modes, and those of convolved modes by operand."""
    sizes: dict[str, int] = {}
    owner: dict[str, int] = {}
    convolved = {mode: [0] * len(named) for mode in equation.convolved}
    for i, axes in enumerate(named):
        for mode, size, keep in axes:
            if {other for name, other, _ in axes if name == mode} != {size}:
                raise ConvEinsumError(
                    f"operand {i} names {_name(equation, mode)} twice, which is its diagonal, for axes of different "
                    f"sizes: {[other for name, other, _ in axes if name == mode]}",
                    equation.text,
                    _place(equation, i, mode),
                )
            if size < 1 and equation.convolved:
                raise ConvEinsumError(
                    f"operand {i} has size {size} along {_name(equation, mode)}; every mode needs at least one element",
                    equation.text,
                    _place(equation, i, mode),
                )
            if mode in convolved:
                convolved[mode][i] = size
            elif keep and sizes.setdefault(mode, size) != size:
                raise ConvEinsumError(
                    f"operands {owner[mode]} and {i} disagree on {_name(equation, mode)}: "
                    f"sizes {sizes[mode]} and {size}",
                    equation.text,
                    _place(equation, i, mode),
                )
            else:
                owner.setdefault(mode, i)
    return sizes, convolved


def _place(equation: Equation, operand: int, mode: str) -> int:
    """Return where an operand names a mode, be it as part of ``...``."""
    term = equation.operands[operand]
    return term.place(mode if mode in term.modes else ELLIPSIS)


def _name(equation: Equation, mode: str) -> str:
    """Return what a message calls a mode."""
    return f"mode {mode!r}" if mode in equation.text else "a mode of '...'"


def _operand(shape: Shape, axes: Sequence[_Axis], needed: Sequence[str]) -> Operand:
    """Decide which axes an operand keeps; ``needed`` names the modes of all operands and of the output."""
    axes, diagonals = _diagonals(axes)
    alone = {mode for mode, _, keep in axes if keep and needed.count(mode) == 1}
    dropped = tuple(axis for axis, (mode, _, keep) in enumerate(axes) if not keep or mode in alone)
    modes = tuple(mode for axis, (mode, _, _) in enumerate(axes) if axis not in dropped)
    return Operand(shape, modes, dropped, bool(alone), diagonals)


def _diagonals(axes: Sequence[_Axis]) -> tuple[list[_Axis], tuple[tuple[int, int], ...]]:
    """Take diagonals until no mode is left twice; return the axes that are left, and the pairs."""
    axes = list(axes)
    pairs = []
    while repeated := [mode for mode, count in Counter(mode for mode, _, _ in axes).items() if count > 1]:
        first, second = [axis for axis, (mode, _, _) in enumerate(axes) if mode == repeated[0]][:2]
        pairs.append((first, second))
        axes.append(axes[first])
        del axes[second], axes[first]
    return axes, tuple(pairs)
