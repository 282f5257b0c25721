"""The public functions: evaluate an equation, explain its path, or compile it."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from operator import index
from types import SimpleNamespace
from typing import Any

import torch
from opt_einsum.paths import PathOptimizer
from torch import Tensor

from tt_conv.conv_einsum.compile import compile_steps
from tt_conv.conv_einsum.cost import Usage
from tt_conv.conv_einsum.errors import ConvEinsumError
from tt_conv.conv_einsum.expression import ConvEinsumExpression, check_tensors
from tt_conv.conv_einsum.info import PathInfo
from tt_conv.conv_einsum.measure import MeasuredExpression, measured_program, random_operands
from tt_conv.conv_einsum.network import Network, Shape, bind
from tt_conv.conv_einsum.options import Options, checked_options, is_int
from tt_conv.conv_einsum.parse import parse
from tt_conv.conv_einsum.plan import Optimize, Path, checked_path, plan

StepOption = int | Mapping[str, int]
PaddingOption = int | str | Mapping[str, int | str | tuple[int, int]]
MemoryLimit = int | str | None


def conv_einsum(
    equation: str,
    *operands: Tensor,
    stride: StepOption = 1,
    padding: PaddingOption = 0,
    dilation: StepOption = 1,
    padding_mode: str = "zeros",
    optimize: Optimize = "auto",
    memory_limit: MemoryLimit = None,
) -> Tensor:
    r"""Evaluate an einsum in which some modes are convolved, along the best path.

    ``"bihw,oihw->bohw|hw"`` is an einsum equation, then ``|``, then the modes that are convolved instead of
    multiplied. Per convolved mode, the first operand that carries it is the feature x and the others are kernels
    :math:`K_j`, applied as PyTorch applies them, with stride s, dilation e and left padding p:

    .. math::

        y[u] = \sum_{v_1 \dots v_q} x[s u + e (v_1 + \dots + v_q) - p] \, K_1[v_1] \cdots K_q[v_q] .

    Every path gives the same result up to rounding, borders included: the feature is padded as if once.

    Parameters
    ----------
    equation : str
        One letter per mode. A convolved mode may have another size in every operand, must be in the output and
        needs at least two operands that carry it. ``...`` stands for shared batch modes. Without ``|`` it is an
        ordinary einsum, whose output may be left out.
    *operands : Tensor
        Of one floating or complex dtype and on one device.
    stride, dilation : int or dict by mode
        At least 1.
    padding : int, str, or dict by mode
        An int pads both sides; ``"valid"`` is 0, ``"full"`` pads support - 1 on both sides, ``"same"`` keeps the
        size (with a stride above 1 it is refused); in a dict also a pair (left, right).
    padding_mode : {"zeros", "circular"}
        What lies beyond the border of a feature.
    optimize : str, bool, PathOptimizer or path
        What opt_einsum takes. ``"auto"`` and ``"optimal"`` search exactly, ``"auto"`` up to 8 operands; False is
        left to right; ``"measure"`` times the best few paths on these operands and remembers the winner.
    memory_limit : int, "max_input" or None
        Largest number of elements of any intermediate, the output included.

    Returns
    -------
    Tensor
        With the modes of the output, in that order. A feature that is channels_last gives a result that is.

    Raises
    ------
    ConvEinsumError
        For anything wrong with the equation, the operands or the options; before any work.

    Examples
    --------
    A matrix product, a convolution, and a convolution whose kernel is given by its CP factors:

    >>> import torch
    >>> from tt_conv import conv_einsum
    >>> conv_einsum("ij,jk->ik", torch.ones(2, 3), torch.ones(3, 4)).shape
    torch.Size([2, 4])
    >>> x = torch.ones(8, 3, 32, 32)
    >>> conv_einsum("bihw,oihw->bohw|hw", x, torch.ones(16, 3, 5, 5), padding="same").shape
    torch.Size([8, 16, 32, 32])
    >>> factors = [torch.ones(shape) for shape in [(16, 4), (3, 4), (5, 4), (5, 4)]]
    >>> conv_einsum("bihw,or,ir,hr,wr->bohw|hw", x, *factors, stride=2, padding={"h": 2, "w": (1, 3)}).shape
    torch.Size([8, 16, 16, 16])

    References
    ----------
    Rabbani, Su, Liu, Chan, Sun, Huang, "conv_einsum: A Framework for Representation and Fast Evaluation of
    Multilinear Operations in Convolutional Tensorial Neural Networks", arXiv:2401.03384.
    """
    if torch.compiler.is_compiling():
        shapes = [[index(size) for size in operand.shape] for operand in operands]
        gradients = [operand.requires_grad for operand in operands]
        options = (stride, padding, dilation, padding_mode, optimize, memory_limit)
        return getattr(_TRACED, _traced(equation, shapes, gradients, *options))(*operands)
    checked = checked_options(equation, stride, padding, dilation, padding_mode)
    if not all([isinstance(operand, Tensor) for operand in operands]):  # noqa: C419  (a list is faster)
        check_tensors(equation, {i: (operand, ()) for i, operand in enumerate(operands)})
    shapes = tuple([operand.shape for operand in operands])
    usage = Usage(_requiring_gradients(operands))
    if isinstance(optimize, str) and optimize == "measure":
        network = _network(equation, shapes, checked)
        check_tensors(equation, dict(enumerate(zip(operands, shapes, strict=True))))
        program = measured_program(network, usage, memory_limit, operands)
        return ConvEinsumExpression(program)(*operands)
    return _compiled(equation, shapes, checked, usage, _hashable(equation, optimize), memory_limit)(*operands)


def conv_einsum_path(
    equation: str,
    *operands: Any,
    stride: StepOption = 1,
    padding: PaddingOption = 0,
    dilation: StepOption = 1,
    padding_mode: str = "zeros",
    optimize: Optimize = "auto",
    memory_limit: MemoryLimit = None,
    shapes: bool = False,
    constants: Collection[int] = (),
    reuse: int = 1,
    train: bool | Collection[int] | None = None,
) -> tuple[Path, PathInfo]:
    """Find the path along which :func:`conv_einsum` would evaluate an equation, and what it costs.

    Parameters
    ----------
    equation, stride, padding, dilation, padding_mode, optimize, memory_limit
        As for :func:`conv_einsum`. ``optimize="measure"`` with shapes times random operands of torch's default
        dtype on its default device.
    *operands : Tensor, or sequence of int with ``shapes=True``
        Operands, or their shapes.
    shapes : bool
        Whether shapes are given.
    constants : collection of int
        Operands that are the same in every call. What they give together is folded: it costs nothing here, but
        for results above 2^26 elements.
    reuse : int
        Calls per weight update. A step that combines only weights is paid once per update: weights are all
        operands but the features (but the first, if nothing is convolved).
    train : bool, collection of int, or None
        Whether the cost includes gradients, of all operands that are not constants or of those named. None asks
        the operands' ``requires_grad``; shapes have none.

    Returns
    -------
    path : list of tuple of int
        In opt_einsum's form: positions in the current list of operands; each result goes to its end.
    info : PathInfo
        Costs, and ``print(info)`` a table of the steps.

    Raises
    ------
    ConvEinsumError
        As for :func:`conv_einsum`.

    Examples
    --------
    >>> from tt_conv import conv_einsum_path
    >>> shapes = [(8, 64, 32, 32), (128, 16), (64, 16), (3, 16), (3, 16)]
    >>> path, info = conv_einsum_path("bihw,or,ir,hr,wr->bohw|hw", *shapes, shapes=True, padding="same")
    >>> path
    [(0, 2), (1, 3), (1, 2), (0, 1)]
    >>> print(info)
    """
    options = checked_options(equation, stride, padding, dilation, padding_mode)
    given = _given_shapes(equation, operands) if shapes else _operand_shapes(equation, operands)
    if train is None:
        gradients = 0 if shapes else _requiring_gradients(operands)
    else:
        gradients = _gradients(equation, train, constants, len(operands))
    network = _network(equation, given, options)
    usage = _usage(network, gradients, constants, reuse)
    itemsize = (torch.get_default_dtype() if shapes else operands[0].dtype).itemsize
    if isinstance(optimize, str) and optimize == "measure":
        tensors = dict(enumerate(random_operands(network) if shapes else operands))
        fixed = {i: tensors.pop(i).detach() for i in sorted(constants)}
        program = measured_program(network, usage, memory_limit, list(tensors.values()), fixed)
    else:
        program = _compiled(
            equation, given, options, usage, _hashable(equation, optimize), memory_limit
        )._program
    return program.path, program.info(itemsize)


def conv_einsum_expression(
    equation: str,
    *shapes_or_constants: Any,
    constants: Collection[int] = (),
    reuse: int = 1,
    train: bool | Collection[int] = False,
    stride: StepOption = 1,
    padding: PaddingOption = 0,
    dilation: StepOption = 1,
    padding_mode: str = "zeros",
    optimize: Optimize = "auto",
    memory_limit: MemoryLimit = None,
) -> ConvEinsumExpression:
    """Compile an equation for operands of given shapes, to be called many times.

    Parameters
    ----------
    equation, stride, padding, dilation, padding_mode, optimize, memory_limit
        As for :func:`conv_einsum`. ``optimize="measure"`` measures in the first call with each kind of operands.
    *shapes_or_constants : sequence of int, or Tensor for those in ``constants``
        One per operand.
    constants : collection of int
        Operands given as tensors. What they give together is computed once, here; no gradient flows to them, and
        later changes of them are not seen. :meth:`ConvEinsumExpression.bind` fixes operands differentiably.
    reuse, train
        What the path is chosen for, as for :func:`conv_einsum_path`.

    Returns
    -------
    ConvEinsumExpression
        Called with the operands that are not constants, in their order.

    Raises
    ------
    ConvEinsumError
        As for :func:`conv_einsum`; for a constant that requires a gradient if ``train`` is not False.

    Examples
    --------
    >>> import torch
    >>> from tt_conv import conv_einsum_expression
    >>> left, right = torch.ones(16, 2), torch.ones(2, 3, 5, 5)
    >>> layer = conv_einsum_expression(
    ...     "bihw,or,rihw->bohw|hw", (8, 3, 32, 32), left, right, constants=[1, 2], padding="same"
    ... )
    >>> layer(torch.ones(8, 3, 32, 32)).shape
    torch.Size([8, 16, 32, 32])
    """
    options = checked_options(equation, stride, padding, dilation, padding_mode)
    fixed = _constants(equation, shapes_or_constants, constants, bool(train))
    shapes = _given_shapes(
        equation, [fixed[i].shape if i in fixed else s for i, s in enumerate(shapes_or_constants)]
    )
    network = _network(equation, shapes, options)
    usage = _usage(network, _gradients(equation, train, constants, len(shapes)), constants, reuse)
    if isinstance(optimize, str) and optimize == "measure":
        return MeasuredExpression(network, usage, memory_limit, fixed)
    compiled = _compiled(equation, shapes, options, usage, _hashable(equation, optimize), memory_limit)
    return ConvEinsumExpression(compiled._program, fixed)


@lru_cache(maxsize=1024)
def _network(equation: str, shapes: tuple[Shape, ...], options: Options) -> Network:
    return bind(parse(equation), shapes, options)


def _compiled(
    equation: str,
    shapes: tuple[Shape, ...],
    options: Options,
    usage: Usage,
    optimize: Any,
    memory_limit: MemoryLimit,
) -> ConvEinsumExpression:
    """Return an expression without constants, from the cache if it is there."""
    if isinstance(optimize, PathOptimizer):  # it may answer differently each time
        return _compile.__wrapped__(equation, shapes, options, usage, optimize, memory_limit)
    return _compile(equation, shapes, options, usage, optimize, memory_limit)


@lru_cache(maxsize=1024, typed=True)
def _compile(
    equation: str,
    shapes: tuple[Shape, ...],
    options: Options,
    usage: Usage,
    optimize: Any,
    memory_limit: MemoryLimit,
) -> ConvEinsumExpression:
    network = _network(equation, shapes, options)
    steps = plan(network, usage, optimize, memory_limit)
    return ConvEinsumExpression(compile_steps(network, usage, steps))


# The expressions that traced calls run, under names: a graph can hold a name as a constant, but not an expression.
_TRACED = SimpleNamespace()


@torch.compiler.assume_constant_result
def _traced(equation: str, shapes: Sequence[Any], gradients: Sequence[bool], *options: Any) -> str:
    """Return the name of the expression that a traced call runs; its shapes and options are constants."""
    *geometry, optimize, memory_limit = options
    expression = _compiled(
        equation,
        _given_shapes(equation, shapes),
        checked_options(equation, *geometry),
        Usage(sum(1 << i for i, needed in enumerate(gradients) if needed)),
        _hashable(equation, "auto" if optimize == "measure" else optimize),  # a graph cannot be timed as it is traced
        memory_limit,
    )
    name = f"expression_{id(expression)}"
    setattr(_TRACED, name, expression)
    return name


def _hashable(equation: str, optimize: Any) -> Any:
    """Return ``optimize`` in a form that can be a key."""
    if isinstance(optimize, str | bool | PathOptimizer):
        return optimize
    return checked_path(equation, optimize)


def _requiring_gradients(operands: Sequence[Tensor]) -> int:
    """Return the operands that require a gradient now, as a bit mask."""
    if not torch.is_grad_enabled():
        return 0
    return sum([1 << i for i, operand in enumerate(operands) if operand.requires_grad])


def _gradients(equation: str, train: bool | Collection[int], constants: Collection[int], count: int) -> int:
    """Return the operands that ``train`` names, as a bit mask."""
    if train is True:
        return sum(1 << i for i in range(count) if i not in constants)
    gradients = _mask(equation, "train", train or (), count)
    if gradients & _mask(equation, "constants", constants, count):
        raise ConvEinsumError(
            f"train={train!r} names an operand that is among constants={constants!r}", equation
        )
    return gradients


def _usage(network: Network, gradients: int, constants: Collection[int], reuse: int) -> Usage:
    """Return what costs are for; the caller's numbers are checked here."""
    text = network.equation.text
    if not is_int(reuse) or reuse < 1:
        raise ConvEinsumError(f"reuse must be a number of calls of at least 1, got {reuse!r}", text)
    fixed = _mask(text, "constants", constants, len(network.operands))
    weights = (network.everything & ~network.features) | fixed if reuse > 1 else 0
    return Usage(gradients, fixed, weights, int(reuse))


def _mask(equation: str, name: str, positions: Collection[int], count: int) -> int:
    """Return operand numbers as a bit mask."""
    if isinstance(positions, str) or not isinstance(positions, Collection):
        raise ConvEinsumError(f"{name} must be a collection of operand numbers, got {positions!r}", equation)
    for position in positions:
        if not is_int(position) or not 0 <= position < count:
            raise ConvEinsumError(
                f"{name} names operand {position!r}; the operands are 0 to {count - 1}", equation
            )
    return sum({1 << int(position) for position in positions})


def _operand_shapes(equation: str, operands: Sequence[Any]) -> tuple[Shape, ...]:
    """Return the shapes of operands that agree in dtype and device."""
    for i, operand in enumerate(operands):
        if not isinstance(operand, Tensor):
            raise ConvEinsumError(
                f"operand {i} must be a torch.Tensor, got {type(operand).__name__}; for shapes pass shapes=True",
                equation,
            )
    shapes = tuple(operand.shape for operand in operands)
    check_tensors(equation, dict(enumerate(zip(operands, shapes, strict=True))))
    return shapes


def _given_shapes(equation: str, shapes: Sequence[Any]) -> tuple[Shape, ...]:
    """Return shapes that were given as such."""
    for i, shape in enumerate(shapes):
        if isinstance(shape, str) or not isinstance(shape, Sequence) or not all(map(is_int, shape)):
            what = "a tensor; name it in constants" if isinstance(shape, Tensor) else repr(shape)
            raise ConvEinsumError(
                f"operand {i} must be given by its shape, a sequence of ints; got {what}", equation
            )
    return tuple(tuple(map(int, shape)) for shape in shapes)


def _constants(
    equation: str, given: Sequence[Any], constants: Collection[int], train: bool
) -> dict[int, Tensor]:
    """Return the operands that are given as tensors, cut off from the graph."""
    _mask(equation, "constants", constants, len(given))
    fixed = {}
    for i in sorted(set(map(int, constants))):
        value = given[i]
        if not isinstance(value, Tensor):
            raise ConvEinsumError(
                f"operand {i} is among the constants, so it must be a torch.Tensor, got {type(value).__name__}",
                equation,
            )
        if train and value.requires_grad:
            raise ConvEinsumError(
                f"operand {i} is a constant but requires a gradient, which it would not get: detach it, or give its "
                "shape here and its value to bind()",
                equation,
            )
        fixed[i] = value.detach()
    return fixed
