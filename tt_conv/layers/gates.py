"""The pointwise part of an LSTM step, with a backward pass that recomputes instead of storing."""

from typing import Any

import torch
from torch import Tensor


def lstm_update(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`h_t` and :math:`c_t` from the gates i, f, o, g before their nonlinearities.

    Parameters
    ----------
    gates : Tensor
        ``[batch, 4 * hidden, *spatial]``, in the order i, f, o, g.
    cell : Tensor
        :math:`c_{t-1}`, ``[batch, hidden, *spatial]``.

    Returns
    -------
    hidden, cell : Tensor
        ``[batch, hidden, *spatial]`` each; the hidden state has the dtype of the gates, the cell state keeps its
        own. Under autocast the gates are in low precision and the cell state, a sum over all steps, is not.
    """
    if torch.compiler.is_compiling():
        # A compiler decides for itself what to recompute.
        return _update(gates, cell)
    hidden, cell = _LSTMUpdate.apply(gates, cell)
    return hidden, cell


def _update(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    i, f, o, g = _parts(gates)
    new = f * cell + i * g
    return (o * torch.tanh(new)).to(gates.dtype), new


def _parts(gates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden = gates.shape[1] // 4
    i, f, o = torch.sigmoid(gates[:, : 3 * hidden]).chunk(3, dim=1)
    return i, f, o, torch.tanh(gates[:, 3 * hidden :])


class _LSTMUpdate(torch.autograd.Function):
    """Keeps the gates and the old cell state for the backward pass: 5 values per element instead of 7."""

    @staticmethod
    def forward(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        return _update(gates, cell)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, grad_hidden: Tensor, grad_cell: Tensor) -> tuple[Tensor, Tensor]:
        gates, cell, new = ctx.saved_tensors
        i, f, o, g = _parts(gates)
        squashed = torch.tanh(new)
        grad_cell = grad_cell + grad_hidden * o * (1 - squashed * squashed)
        grad_gates = torch.cat(
            [
                grad_cell * g * i * (1 - i),
                grad_cell * cell * f * (1 - f),
                grad_hidden * squashed * o * (1 - o),
                grad_cell * i * (1 - g * g),
            ],
            dim=1,
        )
        return grad_gates.to(gates.dtype), (grad_cell * f).to(cell.dtype)
