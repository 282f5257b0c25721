"""Conv-TT, ConvLSTM and ConvTT-LSTM evaluated literally, from the formulas, in loops over taps.

Nothing of the package is used here. A frame is placed on a canvas that is large enough for everything
that can reach it, and a convolution is a sum over taps of shifted canvases.
"""

import itertools

import torch
from torch import Tensor


def shift(x: Tensor, offset: tuple[int, ...], periodic: bool) -> Tensor:
    """Return y with y[u] = x[u + offset] on the last axes, zero (or periodic) outside."""
    for axis, amount in enumerate(offset, start=x.ndim - len(offset)):
        x = x.roll(-amount, dims=axis)
        if not periodic and amount:
            index = torch.arange(x.shape[axis]) + amount
            inside = (index >= 0) & (index < x.shape[axis])
            x = x * inside.reshape([-1] + [1] * (x.ndim - axis - 1))
    return x


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None = None, periodic: bool = False) -> Tensor:
    """Return the centred cross-correlation of x [B, I, *S] with a kernel [O, I, *K], of the size of x."""
    sizes = kernel.shape[2:]
    result = x.new_zeros(x.shape[0], kernel.shape[0], *x.shape[2:])
    for tap in itertools.product(*map(range, sizes)):
        offset = tuple(t - (k - 1) // 2 for t, k in zip(tap, sizes, strict=True))
        weights = kernel[(slice(None), slice(None), *tap)]
        result = result + torch.einsum("oi,bi...->bo...", weights, shift(x, offset, periodic))
    if bias is not None:
        result = result + bias.reshape(1, -1, *[1] * len(sizes))
    return result


def conv_tt(frames: list[Tensor], weights: dict, *, window: str, boundary: str) -> Tensor:
    """Return y for the N frames [B, I, *S] of a window, oldest first.

    ``weights`` holds lists ``projections`` [R_m, I, len, *k], ``cores`` [R_{m+1}, R_m, *k],
    ``projection_biases``, ``core_biases`` (possibly empty) and ``bias`` (or None).
    """
    projections, cores = weights["projections"], weights["cores"]
    order, steps = len(cores), len(frames)
    lags = steps - order + 1
    size, kernel = frames[0].shape[2:], projections[0].shape[3:]
    margin = [order * k if boundary == "zeros" else 0 for k in kernel]
    frames = [on_canvas(frame, margin) for frame in frames]
    periodic = boundary == "circular"
    level = None
    for m in range(1, order + 1):
        seen = frames[m - 1 : m - 1 + lags] if window == "sliding" else frames
        projection = projections[m - 1]
        u = sum(convolve(frame, projection[:, :, j], None, periodic) for j, frame in enumerate(seen))
        if weights["projection_biases"]:
            u = u + weights["projection_biases"][m - 1].reshape(1, -1, *[1] * len(kernel))
        if level is not None:
            bias = weights["core_biases"][m - 2] if weights["core_biases"] else None
            u = u + convolve(level, cores[m - 2], bias, periodic)
        level = u
    y = convolve(level, cores[-1], weights["bias"], periodic)
    return y[(slice(None), slice(None), *(slice(p, p + s) for p, s in zip(margin, size, strict=True)))]


def on_canvas(frame: Tensor, margin: list[int]) -> Tensor:
    size = [s + 2 * p for s, p in zip(frame.shape[2:], margin, strict=True)]
    canvas = frame.new_zeros(*frame.shape[:2], *size)
    inside = tuple(slice(p, p + s) for p, s in zip(margin, frame.shape[2:], strict=True))
    canvas[(slice(None), slice(None), *inside)] = frame
    return canvas


def lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return h_t and c_t from the gates i, f, o, g and c_{t-1}."""
    hidden = cell.shape[1]
    i, f, o, g = (gates[:, n * hidden : (n + 1) * hidden] for n in range(4))
    cell = cell / (1 + torch.exp(-f)) + torch.tanh(g) / (1 + torch.exp(-i))
    return torch.tanh(cell) / (1 + torch.exp(-o)), cell


def conv_lstm_sequence(
    sequence: Tensor, weight: Tensor, bias: Tensor | None, hidden: Tensor, cell: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Return every h_t and the last c of a ConvLSTM with W [4H, I + H, *k]."""
    outputs = []
    for t in range(sequence.shape[1]):
        gates = convolve(torch.cat([sequence[:, t], hidden], dim=1), weight, bias)
        hidden, cell = lstm(gates, cell)
        outputs.append(hidden)
    return outputs, cell


def conv_tt_lstm_sequence(
    sequence: Tensor, input_weight: Tensor | dict, weights: dict, past: list[Tensor], cell: Tensor, **options: str
) -> tuple[list[Tensor], Tensor]:
    """Return every h_t and the last c of a ConvTT-LSTM, from the N states before it, oldest first.

    ``input_weight`` is the dense kernel W_x, or holds what :func:`conv_tt` takes, for a Conv-TT that sees x_t alone.
    """
    hidden, outputs = list(past), []
    for t in range(sequence.shape[1]):
        if isinstance(input_weight, dict):
            of_input = conv_tt([sequence[:, t]], input_weight, **options)
        else:
            of_input = convolve(sequence[:, t], input_weight, None, options["boundary"] == "circular")
        gates = of_input + conv_tt(hidden, weights, **options)
        newest, cell = lstm(gates, cell)
        hidden = [*hidden[1:], newest]
        outputs.append(newest)
    return outputs, cell
