"""Weights under the names of the published ConvTT-LSTM code, in either of its two layouts."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from tt_conv.conv_tt.layer import ConvTT
from tt_conv.layers.cell import RecurrentLayer
from tt_conv.layers.conv_lstm import ConvLSTMCell
from tt_conv.layers.conv_tt_lstm import ConvTTLSTMCell
from tt_conv.layers.frame_predictor import FramePredictor
from tt_conv.layers.wrapped import unwrapped

Cut: TypeAlias = Callable[[Tensor, list[Tensor]], list[Tensor]]
Destination: TypeAlias = tuple[list[Tensor], Cut]
"""The parameters that a published tensor fills, and how it is cut and brought into their layout."""


def load_published_state_dict(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Fill a cell, a layer or a :class:`FramePredictor` from weights under their published names.

    A projection may be stored as a kernel over time, ``[R, H, *k, L]``, or with its lags concatenated in the
    channels, ``[R, L * H, *k]``, oldest first. Either everything is loaded or nothing.

    Parameters
    ----------
    module : ConvLSTMCell, ConvTTLSTMCell, ConvLSTM, ConvTTLSTM or FramePredictor
        What to fill, built with the architecture that the weights were trained in.
    state_dict : mapping of str to Tensor
        The published state dict; what DataParallel, ``torch.compile`` and Lightning put before names
        (``"module."``, ``"_orig_mod."``, ``"model."``) is taken away.

    Raises
    ------
    TypeError
        If ``module`` has no published counterpart, or ``state_dict`` is no mapping from names to tensors.
    ValueError
        If names are missing or left over, or a shape does not fit; the message lists them.

    Examples
    --------
    >>> import torch
    >>> from tt_conv.layers import ConvLSTMCell, load_published_state_dict
    >>> cell = ConvLSTMCell(1, 2, kernel_size=3)
    >>> weights = {"module.conv.weight": torch.zeros(8, 3, 3, 3), "module.conv.bias": torch.ones(8)}
    >>> load_published_state_dict(cell, weights)
    >>> cell.conv.bias.sum().item()
    8.0
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must be a mapping from names to tensors, got {type(state_dict).__name__}")
    for name, value in state_dict.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise TypeError(f"state_dict must map names to tensors, got {name!r}: {type(value).__name__}")
    targets = dict(_targets(module))
    state_dict = unwrapped(state_dict, targets)
    missing = sorted(set(targets) - set(state_dict))
    unexpected = sorted(set(state_dict) - set(targets))
    problems = [f"missing: {', '.join(missing)}"] if missing else []
    problems += [f"not in this {type(module).__name__}: {', '.join(unexpected)}"] if unexpected else []
    pieces = {}
    for name in (name for name in targets if name in state_dict):
        try:
            parameters, split = targets[name]
            pieces[name] = split(state_dict[name], parameters)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ValueError("the weights do not fit. " + "; ".join(sorted(problems)))
    with torch.no_grad():
        for name, values in pieces.items():
            for parameter, value in zip(targets[name][0], values, strict=True):
                parameter.copy_(value)


def _targets(module: nn.Module) -> Iterator[tuple[str, Destination]]:
    """Yield each published name with what its tensor fills."""
    if isinstance(module, FramePredictor):
        for b, block in enumerate(module.blocks):
            for l, cell in enumerate(cast(nn.ModuleList, block)):
                yield from ((f"layers.b{b}l{l}.{name}", target) for name, target in _targets(cell))
        yield from _of_convolution("layers.output", module.output)
    elif isinstance(module, RecurrentLayer):
        yield from _targets(module.cell)
    elif isinstance(module, ConvLSTMCell):
        yield from _of_convolution("conv", module.conv)
    elif isinstance(module, ConvTTLSTMCell):
        yield from _conv_tt_lstm(module)
    else:
        raise TypeError(
            f"module must be a cell, a recurrent layer or a FramePredictor of tt_conv.layers, "
            f"got {type(module).__name__}"
        )


def _of_convolution(name: str, conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Iterator[tuple[str, Destination]]:
    yield f"{name}.weight", ([conv.weight], _whole)
    if conv.bias is not None:
        yield f"{name}.bias", ([conv.bias], _whole)


def _conv_tt_lstm(cell: ConvTTLSTMCell) -> Iterator[tuple[str, Destination]]:
    conv = cell.input_conv
    if isinstance(conv, ConvTT):
        raise TypeError(
            f"the published model has a dense input convolution; a cell with input_rank={cell.input_rank} has no "
            "published counterpart"
        )
    if cell.input_kernel_size != cell.kernel_size:
        raise TypeError(
            f"in the published model the input convolution has the kernel size of the newest level; a cell with "
            f"input_kernel_size={cell.input_kernel_size} has no published counterpart"
        )
    recurrent = cell.recurrent
    *inner, last = recurrent.cores
    for m, projection in enumerate(recurrent.projections):
        yield f"layers_.{m}.weight", ([projection], _published_projection)
    for m, bias in enumerate(recurrent.projection_biases):
        yield f"layers_.{m}.bias", ([bias], _whole)
    for m, core in enumerate(inner):
        yield f"layers.{m}.weight", ([core], _whole)
    for m, bias in enumerate(recurrent.core_biases):
        yield f"layers.{m}.bias", ([bias], _whole)
    yield f"layers.{len(inner)}.weight", ([conv.weight, last], _input_and_core)
    if recurrent.bias is not None:
        yield f"layers.{len(inner)}.bias", ([recurrent.bias], _whole)


def _whole(value: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    return [_expect(value, tuple(parameters[0].shape))]


def _input_and_core(value: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    channels = [parameter.shape[1] for parameter in parameters]
    output, _, *kernel = parameters[0].shape
    return list(_expect(value, (output, sum(channels), *kernel)).split(channels, dim=1))


def _published_projection(value: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    rank, channels, length, *kernel = parameters[0].shape
    if value.ndim == parameters[0].ndim:
        return [_expect(value, (rank, channels, *kernel, length)).movedim(-1, 2)]
    value = _expect(value, (rank, length * channels, *kernel))
    return [value.unflatten(1, (length, channels)).transpose(1, 2)]


def _expect(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    if value.shape != shape:
        raise ValueError(f"expected shape {shape}, got {tuple(value.shape)}")
    return value
