"""What the speeds are measured against computes the same."""

import pytest
import torch

from benchmarks.recurrence.baseline import BaselinePredictor
from tt_conv.layers import FramePredictor


@pytest.mark.parametrize("options", [{"cell": "conv_lstm"}, {"steps": 5, "rank": 3}, {"patch_size": 2}], ids=str)
def test_baseline_equals_the_predictor(options: dict) -> None:
    model = FramePredictor(1, (4, 6), (2, 1), kernel_size=3, skip_stride=1, sigmoid=True, **options).double()
    frames = torch.rand(2, 4, 1, 6, 8, dtype=torch.float64, requires_grad=True)
    outputs, expected = model(frames, 3), BaselinePredictor(model)(frames, 3)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(value.sin().sum(), frames) for value in (outputs, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    with torch.no_grad():  # where memory is reused
        torch.testing.assert_close(model(frames, 3), expected, rtol=0, atol=1e-12)
