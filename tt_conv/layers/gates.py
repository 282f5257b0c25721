r"""The pointwise part of an LSTM step, with a backward pass that recomputes instead of storing.

A hyperbolic tangent costs several times a sigmoid, and :math:`\tanh(x) = 2 \sigma(2 x) - 1`. So the gates come as
[i, f, o, 2g], and one sigmoid serves all four. Doubling is exact in floating point, and whoever has the weights at
hand doubles them once instead of the gates at every step.
"""

from typing import Any

import torch
from torch import Tensor

from tt_conv.runtime.formats import channels_last
from tt_conv.runtime.modes import is_batch_of_gradients, is_transformed


def double_candidate(value: Tensor, dim: int) -> Tensor:
    """Return ``value`` with the last of its four parts along ``dim`` doubled: [i, f, o, g] to [i, f, o, 2g].

    A kernel or a bias that gives gates is treated along its axis of output channels, gates along their channels.
    """
    scale = value.new_ones(4)
    scale[3:].fill_(2)
    shape = [1] * value.ndim
    shape[dim] = value.shape[dim]
    return value * scale[:, None].expand(4, value.shape[dim] // 4).reshape(shape)


def lstm_update(gates: Tensor, cell: Tensor, *, disposable: bool = False) -> tuple[Tensor, Tensor]:
    r"""Return :math:`h_t` and :math:`c_t` from the gates i, f, o, 2g before their nonlinearities.

    Parameters
    ----------
    gates : Tensor
        ``[batch, 4 * hidden, *spatial]``, in the order i, f, o, 2g; see :func:`double_candidate`.
    cell : Tensor
        :math:`c_{t-1}`, ``[batch, hidden, *spatial]``.
    disposable : bool
        Nobody else holds the gates, so that without gradients their memory may be reused.

    Returns
    -------
    hidden, cell : Tensor
        ``[batch, hidden, *spatial]`` each; the hidden state has the dtype of the gates, the cell state keeps its
        own. Under autocast the gates are in low precision and the cell state, a sum over all steps, is not; all
        arithmetic here is in the dtype of the cell state.
    """
    if torch.compiler.is_compiling() or is_transformed():
        # A compiler decides for itself what to recompute, and a transform takes its own derivatives.
        return _update(gates, cell)
    learns = torch.is_grad_enabled() and (gates.requires_grad or cell.requires_grad)
    if disposable and not learns:
        return _update_in_place(gates, cell)
    hidden, cell = _LSTMUpdate.apply(gates, cell)
    return hidden, cell


def _update(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    i, f, o, s = torch.sigmoid(gates.to(cell.dtype)).chunk(4, dim=1)
    new = torch.addcmul(f * cell, i, s, value=2) - i
    return (o * _tanh(new)).to(gates.dtype), new


def _update_in_place(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Compute :func:`_update` in the memory of the gates, but for what it returns."""
    if gates.dtype != cell.dtype:
        return _update_gate_by_gate(gates, cell)
    i, f, o, s = gates.sigmoid_().chunk(4, dim=1)
    new = (f * cell).addcmul_(i, s, value=2).sub_(i)
    return o * _tanh_into(s, new), new


def _update_gate_by_gate(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Compute :func:`_update` with one gate at a time in the dtype of the cell state, to take less memory."""
    i, f, o, s = gates.chunk(4, dim=1)
    new = f.to(cell.dtype).sigmoid_().mul_(cell)
    i, s = i.to(cell.dtype).sigmoid_(), s.to(cell.dtype).sigmoid_()
    new.addcmul_(i, s, value=2).sub_(i)
    del i
    return o.to(cell.dtype).sigmoid_().mul_(_tanh_into(s, new)).to(gates.dtype), new


def _tanh_into(out: Tensor, x: Tensor) -> Tensor:
    return torch.mul(x, 2, out=out).sigmoid_().mul_(2).sub_(1)


def _tanh(x: Tensor) -> Tensor:
    return 2 * torch.sigmoid(2 * x) - 1


def _gradient_like(value: Tensor, gradient: Tensor | None) -> Tensor:
    """Return a gradient in the dtype of ``value`` and in the memory format of the engine."""
    if gradient is None:
        return torch.zeros_like(value)
    gradient = gradient.to(value.dtype)
    return gradient if is_batch_of_gradients(gradient) else channels_last(gradient)


class _LSTMUpdate(torch.autograd.Function):
    """Keeps the gates and both cell states for the backward pass: 5 new values per element instead of 7."""

    @staticmethod
    def forward(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        return _update(gates, cell)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[1])
        # Zeros in the place of a missing gradient would bring their own memory format into all earlier steps.
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_hidden: Tensor | None, grad_cell: Tensor | None) -> tuple[Tensor, Tensor]:
        gates, cell, new = ctx.saved_tensors
        activated = torch.sigmoid(gates.to(cell.dtype))
        i, f, o, s = activated.chunk(4, dim=1)
        squashed = _tanh(new)
        grad_hidden = _gradient_like(new, grad_hidden)
        grad_new = torch.ops.aten.tanh_backward(grad_hidden * o, squashed)
        if grad_cell is not None:
            grad_new = grad_new + _gradient_like(new, grad_cell)
        grad_activated = torch.cat(
            [grad_new * (2 * s - 1), grad_new * cell, grad_hidden * squashed, grad_new * (2 * i)], dim=1
        )
        grad_gates = torch.ops.aten.sigmoid_backward(grad_activated, activated)
        return grad_gates.to(gates.dtype), grad_new * f
