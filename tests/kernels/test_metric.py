"""What errors of a kernel cost, by the second moment of its inputs."""

import torch
from torch import nn

from tt_conv.kernels.metric import smooth


def test_one_tap_says_nothing_of_neighbours() -> None:
    assert smooth(nn.Conv2d(3, 4, 1), 0.7) is None
    metric = smooth(nn.Conv1d(2, 4, 3), 0.5)
    assert metric is not None
    assert metric.axes[0].tolist() == [[1, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 1]]
    assert torch.equal(metric.channels, torch.eye(2).double())
