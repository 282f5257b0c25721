"""Factors that cancel each other: the error of a decomposition beside an independent optimizer's, and its norms."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.oracle.conv_tt_dense import conv_tt_dense
from tests.oracle.fit import penalized_fit
from tt_conv import conv_tt

pytestmark = pytest.mark.filterwarnings("ignore::tt_conv.conv_tt.fit.PoorFitWarning")


def random_kernel(outputs: int, inputs: int, steps: int, *sizes: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(outputs, inputs, steps, *sizes, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("order", "sizes", "window"), [(1, (5, 5), "sliding"), (2, (7,), "sliding"), (2, (7,), "fixed")]
)
def test_factors_stay_small_at_the_error_of_an_independent_fit(order, sizes, window) -> None:
    # Fits of these kernels without a penalty have factors whose norms multiply up to thousands of times the kernel's.
    kernel, rank = random_kernel(8, 3, order, *sizes), 4
    found = conv_tt(kernel, rank, order=order, kernel_size=3, window=window, restarts=1, n_iter_max=40)
    factors = [*found.projections, *found.cores]
    reference = penalized_fit(kernel, rank, order, window, seed=0)
    assert found.relative_error < 1.03 * reference
    # Cores with R orthonormal columns have the norm sqrt(R), and projections then about that of the kernel.
    usual = (rank**order * float(kernel.norm()) ** 2) ** (1 / (order + 1))
    assert math.fsum(float(f.square().sum()) for f in factors) / len(factors) < 10 * usual


@pytest.mark.parametrize(
    ("order", "window", "inputs"),
    [(1, "sliding", 3), (2, "sliding", 3), (2, "sliding", 1), (2, "fixed", 3), (3, "sliding", 1), (4, "sliding", 1)],
)
def test_kernels_that_use_one_frame_only(order, window, inputs) -> None:
    for frame in {0, order - 1}:
        kernel = torch.zeros(4, inputs, order, 3, dtype=torch.float64)
        kernel[:, :, frame, 1] = random_kernel(4, inputs, 1, 1)[:, :, 0, 0]
        found = conv_tt(kernel, inputs, order=order, kernel_size=3, window=window, restarts=1, n_iter_max=10)
        factors = [[f.numpy() for f in kernels] for kernels in found]
        dense = conv_tt_dense(*factors, window)
        wide = torch.nn.functional.pad(kernel, [(dense.shape[-1] - 3) // 2] * 2).numpy()
        error = np.linalg.norm(dense - wide) / np.linalg.norm(wide)
        assert error == pytest.approx(found.relative_error, abs=1e-9)
        # A kernel of one tap is a product of two matrices, so this rank is enough for all of it.
        assert error < 0.1


@pytest.mark.parametrize("sizes", [(3, 3), (3, 3, 3)])
def test_one_frame_in_every_dimension(sizes) -> None:
    kernel = torch.zeros(4, 3, 2, *sizes, dtype=torch.float64)
    kernel[:, :, 1] = random_kernel(4, 3, 1, *sizes)[:, :, 0]
    found = conv_tt(kernel, 3, order=2, kernel_size=3, restarts=1, n_iter_max=5)
    assert 0 <= found.relative_error < 1


def test_a_kernel_that_the_data_never_show_has_no_error() -> None:
    kernel = torch.zeros(2, 2, 1, 3, dtype=torch.float64)
    kernel[:, 1] = 1.0
    seen = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert conv_tt(kernel, 1, order=1, kernel_size=3, second_moment=seen).relative_error == 0
