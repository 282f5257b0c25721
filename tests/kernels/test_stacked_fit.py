"""Two stacked kernels fitted to a dense one, against SciPy's least squares and planted pairs."""

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor

from tt_conv.kernels.metric import Metric
from tt_conv.kernels.stacked_fit import fitted_pair
from tt_conv.runtime.formats import CONVOLUTIONS


def in_sequence(projection: Tensor, core: Tensor) -> Tensor:
    """Return the kernel of both: what an impulse gives, mirrored."""
    dim, inputs = projection.ndim - 2, projection.shape[1]
    reach = [2 * (k - 1) for k in projection.shape[2:]]
    impulse = torch.zeros(inputs, inputs, *(1 + 2 * r for r in reach), dtype=projection.dtype)
    impulse[(range(inputs), range(inputs), *reach)] = 1
    response = CONVOLUTIONS[dim](CONVOLUTIONS[dim](impulse, projection), core)
    return response.transpose(0, 1).flip(tuple(range(2, 2 + dim)))


def least_error(kernel: Tensor, rank: int, size: tuple[int, ...], root: Tensor) -> float:
    """Return the least relative error that a search without a penalty finds from a few starts."""
    outputs, inputs = kernel.shape[:2]
    shapes = [(rank, inputs, *size), (outputs, rank, *size)]
    counts = [int(np.prod(shape)) for shape in shapes]
    scale = (kernel.flatten(1) @ root).norm()

    def residual(values: Tensor) -> Tensor:
        projection, core = (part.view(shape) for part, shape in zip(values.split(counts), shapes, strict=True))
        return ((in_sequence(projection, core) - kernel).flatten(1) @ root).flatten() / scale

    def jacobian(values: np.ndarray) -> np.ndarray:
        return torch.func.jacrev(residual)(torch.from_numpy(values)).numpy()

    found = []
    for seed in range(3 if rank > 1 else 1):
        start = np.random.default_rng(seed).normal(size=sum(counts)) * 0.3
        answer = least_squares(
            lambda values: residual(torch.from_numpy(values)).numpy(), start, jacobian, max_nfev=60, x_scale="jac"
        )
        found.append((2 * answer.cost) ** 0.5)
    return min(found)


@pytest.mark.parametrize(("dim", "rank"), [(1, 3), (2, 2), (3, 1)])
@pytest.mark.parametrize("measured", [False, True])
def test_the_error_is_hardly_more_than_the_least_and_nothing_cancels(dim: int, rank: int, measured: bool) -> None:
    torch.manual_seed(0)
    inputs, outputs, size = 2, 5 if dim < 3 else 3, (3,) * dim
    kernel = torch.randn(outputs, inputs, *(5,) * dim, dtype=torch.float64)
    metric, root = None, torch.eye(kernel[0].numel(), dtype=torch.float64)
    if measured:
        root = torch.randn_like(root) * torch.linspace(0.1, 2, len(root), dtype=torch.float64)
        patches = root @ root.T
        metric = Metric.of(patches, inputs)
    projection, core = fitted_pair(kernel, rank, size, metric)
    assert projection.shape == (rank, inputs, *size)
    assert core.shape == (outputs, rank, *size)
    off = (in_sequence(projection, core) - kernel).flatten(1) @ root
    error = float(off.norm() / (kernel.flatten(1) @ root).norm())
    assert error < 1.1 * least_error(kernel, rank, size, root)
    assert projection.norm() * core.norm() < 12 * kernel.norm()  # without a penalty up to 40,000 times
    again = in_sequence(*fitted_pair(kernel, rank, size, metric))
    torch.testing.assert_close(again, in_sequence(projection, core), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("outputs", "inputs", "rank", "size"), [(4, 3, 2, (3, 3)), (16, 8, 6, (3,)), (8, 6, 4, (5, 1))]
)
def test_planted_pairs_are_found(outputs: int, inputs: int, rank: int, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    planted = [torch.randn(shape, dtype=torch.float64) for shape in ((rank, inputs, *size), (outputs, rank, *size))]
    kernel = in_sequence(*planted)
    found = in_sequence(*fitted_pair(kernel, rank, size, None))
    assert (found - kernel).norm() < 1e-8 * kernel.norm()


def test_large_problems_are_searched_without_elimination(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    kernel = torch.randn(6, 4, 5, 5, dtype=torch.float64)
    eliminated = in_sequence(*fitted_pair(kernel, 3, (3, 3), None))
    monkeypatch.setattr("tt_conv.kernels.stacked_fit._MOST_PRODUCTS", 1)
    together = in_sequence(*fitted_pair(kernel, 3, (3, 3), None))
    assert not torch.equal(eliminated, together)
    assert (together - kernel).norm() < 1.05 * (eliminated - kernel).norm()


def test_a_kernel_of_zeros_has_a_pair_of_zeros() -> None:
    assert not any(part.any() for part in fitted_pair(torch.zeros(4, 3, 5, 5).double(), 2, (3, 3), None))
