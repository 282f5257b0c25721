"""ConvLSTM cells whose convolution was factorized: every chain of convolutions gives what the dense kernel gives."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tt_conv.layers.conv_lstm as conv_lstm
from tt_conv import TensorizedConv
from tt_conv.kernels.chain import KernelChain, Link, fastest_chain, merged, paddings, seconds
from tt_conv.layers import ConvLSTM, ConvLSTMCell

FORMATS = ("svd", "tucker", "tt", "cp", "conv_tt")


def factorized(name: str, dim: int) -> ConvLSTMCell:
    cell = ConvLSTMCell(3, 4, 5 if dim < 3 or name == "conv_tt" else 3, dim=dim, dtype=torch.float64)
    if name == "conv_tt":
        normal = torch.Generator().manual_seed(0)
        kernels = [torch.randn(5, 7, *(3,) * dim, generator=normal), torch.randn(16, 5, *(3,) * dim, generator=normal)]
        factors = dict(zip(("projection", "core"), (0.1 * kernel for kernel in kernels), strict=True))
        cell.conv = TensorizedConv.with_factors(cell.conv, "conv_tt", factors)
    else:
        cell.conv = TensorizedConv.from_conv(cell.conv, name, rank=3)
    return cell


def dense(cell: ConvLSTMCell) -> ConvLSTMCell:
    plain = ConvLSTMCell(cell.in_channels, cell.hidden_channels, cell.kernel_size, dim=cell.dim, dtype=torch.float64)
    with torch.no_grad():
        plain.conv.weight.copy_(cell.conv.to_tensor())
        plain.conv.bias.copy_(cell.conv.bias)
    return plain


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("name", FORMATS)
def test_every_chain_gives_the_gates_of_the_dense_kernel(name: str, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(dim)
    cell = factorized(name, dim)
    x, state = torch.rand(2, 3, *(4,) * dim).double(), [torch.rand(2, 4, *(4,) * dim).double() for _ in range(2)]
    expected = dense(cell).prepare(x, state[0]).of(x, state[:1])
    lengths = set()
    for chain in cell.conv.chains():
        monkeypatch.setattr(conv_lstm, "fastest_chain", lambda *_, chain=chain: chain)
        gates = cell.prepare(x, state[0])
        assert isinstance(gates, conv_lstm.ChainGates)
        torch.testing.assert_close(gates.of(x, state[:1]), expected, rtol=0, atol=1e-10)
        lengths.add(len(chain))
    assert {1, 2} <= lengths


@pytest.mark.parametrize("name", FORMATS)
def test_two_segments_and_gradients_are_those_of_calls_of_the_cell(name: str) -> None:
    torch.manual_seed(0)
    layer = ConvLSTM(3, 4, 5, dtype=torch.float64)
    layer.cell = factorized(name, 2)
    frames = torch.rand(2, 5, 3, 6, 6, dtype=torch.float64)
    first, state = layer(frames[:, :3])
    second, state = layer(frames[:, 3:], state)
    outputs = torch.cat([first, second], dim=1)

    walked, expected = None, []
    for x in frames.unbind(1):
        hidden, walked = layer.cell(x, walked)
        expected.append(hidden)
    stacked = torch.stack(expected, 1)
    torch.testing.assert_close(outputs, stacked, rtol=0, atol=1e-12)
    torch.testing.assert_close(state, walked, rtol=0, atol=1e-12)

    weights = list(layer.parameters())
    probe = torch.randn_like(outputs)
    got = torch.autograd.grad((outputs * probe).sum(), weights)
    wanted = torch.autograd.grad((stacked * probe).sum(), weights)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


def test_a_change_of_a_weight_is_seen_by_the_next_sequence() -> None:
    layer = ConvLSTM(3, 4, 5, dtype=torch.float64)
    layer.cell = factorized("tucker", 2)
    layer.eval()
    frames = torch.rand(1, 2, 3, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        before = layer(frames)[0]
        layer.cell.conv.factors["core"].data.mul_(0.5)
        after = layer(frames)[0]
    assert not torch.allclose(before, after)


def chains_of(ranks: tuple[int, int], inputs: int = 64, outputs: int = 128, size: int = 5) -> list[KernelChain]:
    one, two = ranks
    return merged([torch.ones(one, inputs, 1, 1), torch.ones(two, one, size, size), torch.ones(outputs, two, 1, 1)])


def test_small_ranks_are_applied_one_by_one_and_small_kernels_at_once() -> None:
    shapes = [link.shape for link in fastest_chain(chains_of((16, 16)), 256, torch.device("cpu"))]
    assert shapes == [(16, 64, 1, 1), (16, 16, 5, 5), (128, 16, 1, 1)]
    # A factor that is nearly as large as what it is merged with saves nothing.
    assert len(fastest_chain(chains_of((64, 128)), 256, torch.device("cpu"))) == 1
    assert len(fastest_chain(chains_of((2, 2), inputs=3, outputs=8, size=3), 16, torch.device("cpu"))) == 1


def test_a_convolution_channel_by_channel_counts_as_slow() -> None:
    together = [Link([torch.ones(64, 64, 5, 5)])]
    apart = [Link([torch.ones(64, 1, 5, 5)], groups=64)]
    assert seconds(together, 1000) / 64 < seconds(apart, 1000) < seconds(together, 1000)


def test_frames_are_extended_once_along_each_axis() -> None:
    chain = [Link([torch.ones(2, 2, 3, 1)]), Link([torch.ones(2, 2, 3, 5)]), Link([torch.ones(2, 2, 1, 1)])]
    assert paddings(chain) == [[2, 0], [0, 2], [0, 0]]

    def apply(x: Tensor) -> Tensor:
        for link, padding in zip(chain, paddings(chain), strict=True):
            x = F.conv2d(x, link.kernel, padding=padding)
        return x

    x = torch.randn(1, 2, 7, 7)
    whole = Link([link.kernel for link in chain])
    assert whole.shape == tuple(whole.kernel.shape) == (2, 2, 5, 5)
    torch.testing.assert_close(apply(x), F.conv2d(x, whole.kernel, padding=2), rtol=1e-4, atol=1e-3)


def test_hooks_on_a_factorized_convolution_are_called() -> None:
    layer, calls = ConvLSTM(3, 4, 5, dtype=torch.float64), []
    layer.cell = factorized("svd", 2)
    frames = torch.rand(1, 3, 3, 6, 6, dtype=torch.float64)
    expected = layer(frames)[0]
    layer.cell.conv.register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(layer(frames)[0], expected)
    assert len(calls) == 3


def test_a_convolution_of_another_kind_is_called() -> None:
    class Doubled(nn.Module):
        def __init__(self, conv: nn.Module) -> None:
            super().__init__()
            self.conv = conv

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.conv(x)

    layer = ConvLSTM(3, 4, 3)
    plain = layer.cell.conv
    layer.cell.conv = Doubled(plain)
    x = torch.rand(1, 1, 3, 6, 6)
    got = layer(x)[0]
    with torch.no_grad():
        plain.weight.mul_(2)
        plain.bias.mul_(2)
    layer.cell.conv = plain
    torch.testing.assert_close(got, layer(x)[0])
