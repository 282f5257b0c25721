"""Two stacked kernels fitted to a dense one, against what a fit without a penalty finds."""

import pytest
import torch
from torch import nn

from tt_conv.kernels.chain import stacked_kernel
from tt_conv.kernels.metric import Metric
from tt_conv.kernels.stacked_fit import plain_pair, stable_pair
from tt_conv.kernels.weighted import WeightedKernel

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def metric_of(inputs: int, taps: int) -> Metric:
    samples = torch.randn(4 * inputs * taps, inputs * taps, dtype=torch.float64)
    samples = samples * torch.linspace(0.1, 2, inputs * taps, dtype=torch.float64)
    patches = samples.mT @ samples / len(samples)
    blocks = patches.view(inputs, taps, inputs, taps)
    return Metric(blocks.diagonal(dim1=1, dim2=3).mean(-1), patches)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("measured", [False, True])
def test_the_fit_is_hardly_worse_than_without_a_penalty_and_does_not_cancel(dim: int, measured: bool) -> None:
    torch.manual_seed(0)
    inputs, outputs, rank = 3, 8, 4
    layer = CONVOLUTIONS[dim](inputs, outputs, 5, padding=2, dtype=torch.float64)
    kernel = WeightedKernel(layer.weight, metric_of(inputs, 5**dim) if measured else None)
    pair = stable_pair(kernel.dense, rank, (3,) * dim, kernel.metric)
    assert pair is not None
    assert [tuple(value.shape) for value in pair] == [(rank, inputs, *(3,) * dim), (outputs, rank, *(3,) * dim)]
    other = plain_pair(kernel.dense, rank, (3,) * dim, kernel.metric)
    assert kernel.error(stacked_kernel(*pair)) < 1.1 * kernel.error(stacked_kernel(*other))
    assert pair[0].norm() * pair[1].norm() < 12 * kernel.dense.norm()  # without a penalty up to 40,000 times
    again = stable_pair(kernel.dense, rank, (3,) * dim, kernel.metric)
    assert again is not None
    assert all(torch.equal(a, b) for a, b in zip(pair, again, strict=True))


def test_what_has_such_a_pair_is_left_to_a_fit_without_a_penalty() -> None:
    torch.manual_seed(0)
    exact = stacked_kernel(*(torch.randn(shape, dtype=torch.float64) for shape in ((2, 3, 3, 3), (8, 2, 3, 3))))
    assert stable_pair(exact, 2, (3, 3), None) is None
    assert stable_pair(torch.zeros_like(exact), 2, (3, 3), None) is None
