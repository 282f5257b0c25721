"""Compressed networks as ordinary layers."""

from typing import Any

import pytest
import torch
from torch import nn

from tt_conv.applications.compression import compress, to_plain
from tt_conv.kernels.layer import TensorizedConv
from tt_conv.layers import FramePredictor

PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@pytest.mark.parametrize("name", ["svd", "tucker", "tt", "cp", "conv_tt"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 2, "stride": 2},
        {"padding": (4, 0), "dilation": (2, 1), "stride": (1, 3)},
        {"padding": 2, "groups": 2},
        {"padding": 2, "padding_mode": "circular"},
        {"padding": 2, "padding_mode": "reflect", "stride": 2, "bias": False},
        {"padding": "same", "dilation": 2},
    ],
)
def test_chains_of_ordinary_convolutions_compute_the_dense_convolution(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = TensorizedConv(8, 12, 5, factorization=name, rank=0.3, dtype=torch.float64, **options)
    plain, x = layer.to_plain(), torch.randn(2, 8, 13, 14, dtype=torch.float64)
    assert all(type(conv) in PLAIN for conv in plain)
    torch.testing.assert_close(plain(x), layer.to_conv()(x), rtol=1e-10, atol=1e-10)


def test_a_network_of_ordinary_layers_traces_exports_and_quantizes() -> None:
    model = nn.Sequential(nn.Conv2d(6, 24, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 16, 40)).eval()
    smaller, _ = compress(model, budget=0.3, force={"0": ("tucker", (6, 4)), "3": ("svd", 8)})
    plain, x = to_plain(smaller), torch.randn(3, 6, 4, 4)
    expected = smaller(x).detach()
    torch.testing.assert_close(plain(x), expected)
    torch.testing.assert_close(torch.fx.symbolic_trace(plain)(x), expected)
    exported = torch.export.export(plain, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(exported.module()(torch.cat([x, x])), torch.cat([expected, expected]))
    assert not any(isinstance(module, TensorizedConv) for module in plain.modules())
    assert any(isinstance(module, TensorizedConv) for module in smaller.modules())


def test_a_predictor_of_ordinary_layers_predicts_the_same() -> None:
    model = FramePredictor(1, (6,), (2,), cell="conv_lstm", kernel_size=5, patch_size=2).eval()
    smaller, _ = compress(model, budget=1.0, force={"*conv": ("svd", 4)})
    plain, x = to_plain(smaller), torch.rand(1, 3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(plain(x, 2), smaller(x, 2), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, TensorizedConv) for module in plain.modules())
