"""The pointwise part of a step, against its formulas."""

import pytest
import torch
from torch import Tensor

from tests.oracle.conv_tt import lstm
from tt_conv.layers.gates import double_candidate, lstm_update

SHAPES = [(2, 3, 5), (2, 3, 4, 5), (1, 2, 3, 2, 4)]


def gates_and_cell(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    gates = 3 * torch.randn(shape[0], 4 * shape[1], *shape[2:], dtype=torch.float64)
    return gates.requires_grad_(), torch.randn(shape, dtype=torch.float64, requires_grad=True)


def update(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    return lstm_update(double_candidate(gates, dim=1), cell)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_equal_the_formulas(shape: tuple[int, ...]) -> None:
    gates, cell = gates_and_cell(shape)
    ours, theirs = update(gates, cell), lstm(gates, cell)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)
    for count in (slice(0, 1), slice(1, 2), slice(0, 2)):
        gradients, expected = (
            torch.autograd.grad(sum(value.sin().sum() for value in values[count]), [gates, cell], retain_graph=True)
            for values in (ours, theirs)
        )
        torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-13)


def test_gradients_of_gradients() -> None:
    gates, cell = gates_and_cell((1, 1, 3))
    assert torch.autograd.gradcheck(update, (gates, cell))
    assert torch.autograd.gradgradcheck(update, (gates, cell))


def test_saturated_gates_give_finite_values_and_gradients() -> None:
    gates = torch.tensor([1e4, -1e4, 1e4, -1e4]).reshape(1, 4, 1, 1).requires_grad_()
    cell = torch.full((1, 1, 1, 1), 50.0, requires_grad=True)
    hidden, new = update(gates, cell)
    assert new.item() == -1
    torch.testing.assert_close(hidden, torch.full_like(hidden, -1).tanh())
    (hidden + new).sum().backward()
    assert gates.grad is not None
    assert gates.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_in_the_memory_of_the_gates_the_values_are_the_same(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    gates, cell = (value.detach() for value in gates_and_cell(shape))
    gates = double_candidate(gates, dim=1).to(dtype)
    before, expected = cell.clone(), lstm_update(gates.clone(), cell)
    found = lstm_update(gates, cell, disposable=True)
    assert [value.dtype for value in found] == [dtype, torch.float64]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    assert torch.equal(cell, before)
    # With gradients it is the other memory that must stay.
    gates, cell = gates_and_cell(shape)
    lstm_update(gates, cell, disposable=True)[0].sum().backward()
    assert gates.grad is not None


def test_gradients_by_torch_func() -> None:
    gates, cell = gates_and_cell((2, 3, 4, 5))
    found = torch.func.grad(lambda g, c: lstm_update(g, c, disposable=True)[0].sin().sum(), argnums=(0, 1))(
        gates.detach(), cell.detach()
    )
    expected = torch.autograd.grad(lstm_update(gates, cell)[0].sin().sum(), (gates, cell))
    torch.testing.assert_close(found, expected)
