"""Errors in the metric of the inputs, for every format, against the inputs themselves."""

import pytest
import torch
from torch import nn

from tt_conv.kernels.metric import Metric, smooth
from tt_conv.kernels.rank import Rank
from tt_conv.kernels.table import FORMATS, kernel_format
from tt_conv.kernels.weighted import WeightedKernel


def ranks(name: str, dim: int) -> Rank:
    return {"tucker": (3, 3, *(2,) * dim), "tt": (3,) * (dim + 1)}.get(name, (3,))


@pytest.mark.parametrize("name", FORMATS)
def test_errors_in_the_metric_are_those_of_the_output(name: str) -> None:
    weight = torch.randn(8, 6, 5).double()
    root = torch.randn(30, 30).double()
    patches = root @ root.T
    channels = patches.view(6, 5, 6, 5).diagonal(dim1=1, dim2=3).mean(-1)
    kernel, form, rank = (
        WeightedKernel(weight, Metric(channels, patches)),
        kernel_format(name, (8, 6, 5)),
        ranks(name, 1),
    )
    difference = (weight - form.rebuild(form.approximate(kernel, rank))).flatten(1)
    expected = ((difference @ root).norm() / (weight.flatten(1) @ root).norm()).item()
    assert form.truncation(kernel, rank).error == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", FORMATS)
def test_errors_without_data_are_those_on_smooth_inputs(name: str) -> None:
    conv = nn.Conv2d(3, 6, 5, dilation=(1, 2)).double()
    taps = torch.cartesian_prod(torch.arange(5), torch.arange(0, 10, 2))
    distance = (taps[:, None] - taps).abs().sum(-1)
    patches = torch.kron(torch.eye(3).double(), torch.tensor(0.6).double() ** distance)
    metric = smooth(conv, 0.6)
    assert metric is not None
    form, rank, weight = kernel_format(name, conv.weight.shape), ranks(name, 2), conv.weight.detach()
    kernel, exact, plain = WeightedKernel(weight, metric), Metric(metric.channels, patches), WeightedKernel(weight)
    dense = form.rebuild(form.approximate(kernel, rank))
    squared = [torch.einsum("oi,ij,oj->", k, patches, k) for k in ((weight - dense).flatten(1), weight.flatten(1))]
    error = form.truncation(kernel, rank).error
    assert error == pytest.approx(float(squared[0] / squared[1]) ** 0.5, rel=1e-3)
    if name == "svd":  # the best there is
        assert error == pytest.approx(form.truncation(WeightedKernel(weight, exact), rank).error, rel=1e-3)
    if name != "conv_tt":
        assert error < kernel.error(form.rebuild(form.approximate(plain, rank)))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("with_metric", [False, True])
def test_truncations_are_what_their_ranks_give(name: str, with_metric: bool) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 5).double()
    root = torch.randn(20, 20).double()
    patches = root @ root.T
    metric = Metric(patches.view(4, 5, 4, 5).diagonal(dim1=1, dim2=3).mean(-1), patches) if with_metric else None
    kernel, form = WeightedKernel(weight, metric), kernel_format(name, weight.shape)
    moment = patches if with_metric else torch.eye(20).double()
    truncations = list(form.truncations(kernel))
    assert len(truncations) >= 3
    for truncation in truncations:
        factors = form.approximate(kernel, truncation.rank)
        assert truncation.parameters == sum(factor.numel() for factor in factors.values())
        off = (weight - form.rebuild(factors)).flatten(1)
        squared = [torch.einsum("oi,ij,oj->", k, moment, k) for k in (off, weight.flatten(1))]
        error = float(squared[0] / squared[1]) ** 0.5
        # The metric has a small floor, which the moment here has not.
        if name in ("svd", "tt"):
            assert truncation.error == pytest.approx(error, rel=1e-4)
        elif name == "tucker":  # that of the higher-order SVD, from which an iteration starts
            assert 0.9 * error <= truncation.error <= 1.3 * error + 1e-9
        elif truncation.rank in ((1,), form.largest):  # in between, errors are estimates
            assert truncation.error == pytest.approx(error, rel=1e-4)
