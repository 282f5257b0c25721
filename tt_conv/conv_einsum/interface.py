"""The public functions: evaluate an equation, explain its path, or compile it."""

from collections.abc import Collection, Mapping
from operator import index
from typing import Any

import torch
from torch import Tensor

from tt_conv.conv_einsum import arguments
from tt_conv.conv_einsum.cache import (
    TRACED,
    MemoryLimit,
    call_memory,
    network_of,
    planned_program,
    traced,
)
from tt_conv.conv_einsum.cost import Usage
from tt_conv.conv_einsum.errors import ConvEinsumError
from tt_conv.conv_einsum.expression import ConvEinsumExpression
from tt_conv.conv_einsum.info import PathInfo
from tt_conv.conv_einsum.measure import MeasuredExpression, measured_expression, random_operands
from tt_conv.conv_einsum.options import checked_options
from tt_conv.conv_einsum.plan import Optimize, Path

StepOption = int | Mapping[str, int]
PaddingOption = int | str | Mapping[str, int | str | tuple[int, int]]


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
    multiplied. Per convolved mode, the first operand that carries it is the feature x and the others are
    kernels :math:`K_j`, applied as PyTorch applies them, with stride s, dilation e and left padding p:

    .. math::

        y[u] = \sum_{v_1 \dots v_q} x[s u + e (v_1 + \dots + v_q) - p] \, K_1[v_1] \cdots K_q[v_q] .

    Every path gives the same result up to rounding, borders included: the feature is padded as if once.

    Parameters
    ----------
    equation : str
        One letter per mode. A convolved mode may have another size in every operand, must be in the output
        and needs at least two operands that carry it. ``...`` stands for shared batch modes. Without ``|`` it
        is an ordinary einsum and means what it means for ``torch.einsum``, which takes diagonals (``ii->i``), axes of
        size 1 against longer ones, ``...`` that the output leaves out, and no output.
    *operands : Tensor
        Of one floating or complex dtype and on one device.
    stride, dilation : int or dict by mode
        At least 1.
    padding : int, str, or dict by mode
        An int pads both sides; ``"valid"`` is 0, ``"full"`` pads support - 1 on both sides, ``"same"`` keeps
        the size (with a stride above 1 it is refused); in a dict also a pair (left, right).
    padding_mode : {"zeros", "circular"}
        What lies beyond the border of a feature.
    optimize : str, bool, PathOptimizer or path
        What opt_einsum takes. ``"auto"`` and ``"optimal"`` search exactly, ``"auto"`` up to 8 operands; False
        is left to right; ``"measure"`` times the best few paths on these operands and remembers the winner.
    memory_limit : int, "max_input" or None
        Largest number of elements of any tensor that a step makes (results, the output included, padded copies
        and windows); None, or -1, for no limit.

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
    settings = (stride, padding, dilation, padding_mode, optimize, memory_limit)
    if torch.compiler.is_compiling():
        static = [[index(size) for size in operand.shape] for operand in operands]
        gradients = [operand.requires_grad for operand in operands]
        *numbers, padding_mode, optimize, memory_limit = settings
        numbers = [_static(number) for number in numbers]
        name = traced(equation, static, gradients, *numbers, padding_mode, optimize, memory_limit)
        return getattr(TRACED, name)(*operands)
    key = call_memory.key(equation, operands, settings)
    known = call_memory.get(key)
    if known is not None:
        return known.evaluate(operands)
    options = checked_options(equation, stride, padding, dilation, padding_mode)
    shapes = arguments.checked_tensor_shapes(equation, operands)
    network = network_of(equation, shapes, options)
    usage = Usage(arguments.requiring_gradients(operands))
    if isinstance(optimize, str) and optimize == "measure":
        return measured_expression(network, usage, memory_limit, operands)(*operands)
    path = arguments.hashable(equation, optimize)
    expression = ConvEinsumExpression(planned_program(network, usage, path, memory_limit))
    call_memory.remember(key, expression)
    return expression.evaluate(operands)


_INTS = (int, torch.SymInt)  # Dynamo of torch 2.6 knows no int | torch.SymInt


def _static(option: Any) -> Any:
    """Return a stride, padding or dilation without symbolic ints, which a traced call may be given."""
    if isinstance(option, Mapping):
        return {mode: _static(value) for mode, value in option.items()}
    if isinstance(option, tuple):
        return tuple([_static(value) for value in option])
    return index(option) if isinstance(option, _INTS) and not isinstance(option, bool) else option


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
        As for :func:`conv_einsum`. ``optimize="measure"`` with shapes times random operands of torch's
        default dtype on its default device.
    *operands : Tensor, or sequence of int with ``shapes=True``
        Operands, or their shapes.
    shapes : bool
        Whether shapes are given.
    constants : collection of int
        Operands that are the same in every call. What they give together is folded, so it is free, up to
        2^26 elements.
    reuse : int
        Calls per weight update. A step that combines only weights is paid once per update: weights are all
        operands but the features (but the first, if nothing is convolved).
    train : bool, collection of int, or None
        Whether the cost includes gradients, of all operands that are not constants or of those named. None
        asks the operands' ``requires_grad``; shapes have none.

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
         Complete equation:  bihw,or,ir,hr,wr->bohw|hw
                  Operands:  8x64x32x32, 128x16, 64x16, 3x16, 3x16
                Naive cost:  2.248e+09 MACs
            Optimized cost:  25,952,256 MACs
       Theoretical speedup:  86.6
    Bytes read and written:  9,449,856
      Largest intermediate:  1,048,576 elements
    -------------------------------------------------------------------------
    step    operands       operation               MACs      bytes   elements
    -------------------------------------------------------------------------
    (0, 2)  bihw,ir->brhw  1x1 conv2d         8,388,608  2,625,536    131,072
    (1, 3)  brhw,hr->brhw  depthwise conv2d     393,216  1,048,768    131,072
    (1, 2)  brhw,wr->brhw  depthwise conv2d     393,216  1,048,768    131,072
    (0, 1)  brhw,or->bohw  1x1 conv2d        16,777,216  4,726,784  1,048,576
    -------------------------------------------------------------------------
    """
    options = checked_options(equation, stride, padding, dilation, padding_mode)
    read_shapes = arguments.given_shapes if shapes else arguments.checked_tensor_shapes
    network = network_of(equation, read_shapes(equation, operands), options)
    if train is None and not shapes:
        fixed = arguments.mask(equation, "constants", constants, len(operands))
        gradients = arguments.requiring_gradients(operands) & ~fixed
    else:
        gradients = arguments.named_gradients(equation, train, constants, len(operands))
    usage = arguments.usage_of(network, gradients, constants, reuse)
    if isinstance(optimize, str) and optimize == "measure":
        tensors = dict(enumerate(random_operands(network) if shapes else operands))
        folded = {i: tensors.pop(i).detach() for i in sorted(set(constants))}
        program = measured_expression(network, usage, memory_limit, list(tensors.values()), folded).program
    else:
        program = planned_program(network, usage, arguments.hashable(equation, optimize), memory_limit)
    dtype = torch.get_default_dtype() if shapes else operands[0].dtype
    return program.path, program.info(dtype.itemsize)


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
        As for :func:`conv_einsum`. ``optimize="measure"`` measures in the first call with each kind of
        operands.
    *shapes_or_constants : sequence of int, or Tensor for those in ``constants``
        One per operand.
    constants : collection of int
        Operands given as tensors. What they give together is computed once, here; no gradient flows to them,
        and later changes of them are not seen. :meth:`ConvEinsumExpression.bind` fixes operands
        differentiably.
    reuse, train
        What the path is chosen for, as for :func:`conv_einsum_path`; shapes have no ``requires_grad``, so None is
        refused.

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
    if train is None:
        raise ConvEinsumError("train must be True, False or operand numbers: shapes have no requires_grad", equation)
    fixed = arguments.constant_tensors(equation, shapes_or_constants, constants, bool(train))
    given = [fixed[i].shape if i in fixed else shape for i, shape in enumerate(shapes_or_constants)]
    network = network_of(equation, arguments.given_shapes(equation, given), options)
    gradients = arguments.named_gradients(equation, train, constants, len(given))
    usage = arguments.usage_of(network, gradients, constants, reuse)
    if isinstance(optimize, str) and optimize == "measure":
        return MeasuredExpression(network, usage, memory_limit, fixed)
    program = planned_program(network, usage, arguments.hashable(equation, optimize), memory_limit)
    return ConvEinsumExpression(program, fixed)
