"""Weights of other people's ConvLSTM cells in ours."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tt_conv.kernels.convolution import PlainConvolution, plain_convolution
from tt_conv.layers import ConvLSTM, ConvLSTMCell

_GATES = "ifog"


def load_conv_lstm_weights(
    cell: ConvLSTMCell | ConvLSTM,
    weight: Tensor | nn.Module,
    bias: Tensor | None = None,
    *,
    gates: str | Sequence[str] = _GATES,
    input_first: bool = True,
    forget_bias: float = 0.0,
) -> None:
    """Fill a ConvLSTM from a cell that applies one convolution to its frame and its hidden state, joined.

    Nearly everyone's ConvLSTM does. What must be known is in which order it splits the result into gates, and in
    which order it joins its inputs. Either everything is loaded or nothing.

    Parameters
    ----------
    cell : ConvLSTMCell or ConvLSTM
        Built with the same channels and kernel size. A :class:`tt_conv.layers.FramePredictor` is filled cell by cell:
        ``model.cells()`` has them in order.
    weight : Tensor or nn.Conv1d, nn.Conv2d, nn.Conv3d
        The kernel ``[4 * hidden, in_channels + hidden, *kernel_size]``; or the convolution itself, with its bias.
    bias : Tensor, optional
        ``[4 * hidden]``. Without one, that of ``cell`` becomes zero.
    gates : str or sequence of str
        The order of the gates: a permutation of "i" (input), "f" (forget), "o" (output) and "g" (the candidate,
        which passes the hyperbolic tangent; also called c, a, or the cell gate).
    input_first : bool
        Whether the frame comes before the hidden state, as in ``cat([x, h])``.
    forget_bias : float
        What the other cell adds to its forget gate when it runs.

    Raises
    ------
    TypeError
        If ``cell`` or ``weight`` is of another kind.
    ValueError
        If anything does not fit; the message says what would.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from tt_conv.applications.compression import load_conv_lstm_weights
    >>> from tt_conv.layers import ConvLSTMCell
    >>> theirs = nn.Conv2d(8 + 1, 4 * 8, kernel_size=3, padding=1)  # of cat([h, x]), to i, f, g, o
    >>> cell = ConvLSTMCell(1, 8, kernel_size=3)
    >>> load_conv_lstm_weights(cell, theirs, gates="ifgo", input_first=False)
    >>> torch.equal(cell.conv.weight[16:24, 1:], theirs.weight[24:, :8])  # the output gate, of the hidden state
    True
    """
    cell = cell.cell if isinstance(cell, ConvLSTM) else cell
    if not isinstance(cell, ConvLSTMCell) or not isinstance(cell.conv, nn.modules.conv._ConvNd):
        raise TypeError(
            f"cell must be a ConvLSTMCell or ConvLSTM with ordinary convolutions, got {type(cell).__name__}"
        )
    if isinstance(weight, nn.Module):
        if bias is not None:
            raise ValueError("bias goes with a tensor; a convolution brings its own")
        conv = _checked_gates(weight, cell)
        weight, bias = conv.weight, conv.bias
    order = _order(gates)
    kernel, offset = _fitting(cell, weight, bias)
    kernel = torch.cat([kernel.chunk(4)[n] for n in order])
    if not input_first:
        kernel = kernel.roll(cell.in_channels, dims=1)
    if isinstance(forget_bias, bool) or not isinstance(forget_bias, int | float):
        raise TypeError(f"forget_bias must be a number, got {forget_bias!r}")
    own = cell.conv.bias
    if own is None and (offset is not None or forget_bias):
        raise ValueError("the weights have a bias and the cell was built with bias=False")
    with torch.no_grad():
        cell.conv.weight.copy_(kernel)
        if own is not None:
            own.zero_()
            if offset is not None:
                own.copy_(torch.cat([offset.chunk(4)[n] for n in order]))
            own[cell.hidden_channels : 2 * cell.hidden_channels] += float(forget_bias)


def _order(gates: object) -> list[int]:
    """Return where our gates stand among the others'."""
    names = list(gates) if isinstance(gates, str | Sequence) else []
    if sorted(map(str, names)) != sorted(_GATES):
        raise ValueError(f'gates must be the letters i, f, o and g in some order, such as "ifgo", got {gates!r}')
    return [names.index(gate) for gate in _GATES]


def _checked_gates(module: nn.Module, cell: ConvLSTMCell) -> PlainConvolution:
    """Refuse a convolution that does something else than that of a cell."""
    conv: Any = plain_convolution(module)
    half = tuple((k - 1) // 2 for k in conv.kernel_size)
    padding = half if conv.padding == "same" else (0,) * len(half) if conv.padding == "valid" else conv.padding
    wanted = {"stride": 1, "dilation": 1}
    wrong = [f"{name}={getattr(conv, name)}" for name, n in wanted.items() if any(v != n for v in getattr(conv, name))]
    wrong += [f"groups={conv.groups}"] if conv.groups != 1 else []
    wrong += [f"padding={conv.padding}"] if tuple(padding) != half else []
    wrong += [f"padding_mode={conv.padding_mode!r}"] if conv.padding_mode != "zeros" else []
    if wrong:
        raise ValueError(
            f"a ConvLSTM's convolution keeps the size of a frame, with zeros beyond the border; this one has "
            f"{', '.join(wrong)}, at a kernel size of {tuple(conv.kernel_size)}"
        )
    return cast(PlainConvolution, conv)


def _fitting(cell: ConvLSTMCell, weight: object, bias: object) -> tuple[Tensor, Tensor | None]:
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor | None):
        kinds = f"{type(weight).__name__} and {type(bias).__name__}"
        raise TypeError(f"weight must be a tensor or a convolution, and bias a tensor or None, got {kinds}")
    expected = tuple(cell.conv.weight.shape)
    if tuple(weight.shape) != expected:
        raise ValueError(
            f"weight must be [4 * hidden, in_channels + hidden, *kernel_size] = {expected} for this cell of "
            f"{cell.in_channels} + {cell.hidden_channels} channels, got {tuple(weight.shape)}{_hint(weight, cell)}"
        )
    if bias is not None and tuple(bias.shape) != expected[:1]:
        raise ValueError(f"bias must be [4 * hidden] = {expected[:1]}, got {tuple(bias.shape)}")
    return weight.detach(), None if bias is None else bias.detach()


def _hint(weight: Tensor, cell: ConvLSTMCell) -> str:
    """Say which cell would fit, if one does."""
    if weight.ndim != cell.dim + 2 or len(weight) % 4 or weight.shape[1] <= len(weight) // 4:
        return ""
    hidden = len(weight) // 4
    if any(size % 2 == 0 for size in weight.shape[2:]):
        return ""
    size = ", ".join(map(str, weight.shape[2:]))
    return f"; these are the weights of ConvLSTMCell({weight.shape[1] - hidden}, {hidden}, ({size}))"
