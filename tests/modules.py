"""The public modules, small, each with an input: what must hold for all of them is tested over this table."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tt_conv import ConvTT, TensorizedConv
from tt_conv.layers import ConvLSTM, ConvLSTMCell, ConvTTLSTM, ConvTTLSTMCell, FramePredictor

_SMALL = {"hidden_channels": (3, 3), "layers_per_block": (1, 1), "kernel_size": 3, "skip_stride": 1}

# Name -> a constructor and the shape of an input without its batch.
MODULES: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "ConvTT": (lambda **on: ConvTT(2, 4, 3, order=2, rank=3, **on), (4, 2, 6, 6)),
    "ConvTT with core biases": (
        lambda **on: ConvTT(2, 4, 3, order=2, rank=3, boundary="stagewise", core_bias=True, window="fixed", **on),
        (4, 2, 6, 6),
    ),
    "TensorizedConv cp": (lambda **on: TensorizedConv(2, 4, 3, padding=1, rank=3, **on), (2, 6, 6)),
    "TensorizedConv tucker": (lambda **on: TensorizedConv(2, 4, 3, factorization="tucker", rank=0.5, **on), (2, 6, 6)),
    "TensorizedConv tt": (lambda **on: TensorizedConv(2, 4, 3, factorization="tt", rank=0.5, **on), (2, 6, 6)),
    "TensorizedConv svd": (lambda **on: TensorizedConv(2, 4, 3, factorization="svd", rank=2, **on), (2, 6, 6)),
    "TensorizedConv conv_tt": (
        lambda **on: TensorizedConv(2, 4, 5, factorization="conv_tt", padding=2, rank=2, **on),
        (2, 6, 6),
    ),
    "ConvLSTMCell": (lambda **on: ConvLSTMCell(2, 4, 3, **on), (2, 6, 6)),
    "ConvLSTM": (lambda **on: ConvLSTM(2, 4, 3, **on), (4, 2, 6, 6)),
    "ConvTTLSTMCell": (lambda **on: ConvTTLSTMCell(2, 4, 3, order=2, steps=3, rank=2, **on), (2, 6, 6)),
    "ConvTTLSTM": (lambda **on: ConvTTLSTM(2, 4, 3, order=2, steps=3, rank=2, **on), (4, 2, 6, 6)),
    "ConvTTLSTM, one frame": (lambda **on: ConvTTLSTM(2, 4, 3, rank=2, **on), (1, 2, 6, 6)),
    "ConvTTLSTM, fixed window": (
        lambda **on: ConvTTLSTM(2, 4, 3, order=2, rank=2, window="fixed", input_rank=2, **on),
        (4, 2, 6, 6),
    ),
    "FramePredictor of ConvLSTM": (lambda **on: FramePredictor(1, **_SMALL, cell="conv_lstm", **on), (3, 1, 6, 6)),
    "FramePredictor of ConvTT-LSTM": (lambda **on: FramePredictor(1, **_SMALL, rank=2, **on), (3, 1, 6, 6)),
}


def example(name: str, batch: int = 2) -> tuple[nn.Module, Tensor]:
    """Return a module and an input for it."""
    make, shape = MODULES[name]
    return make(), torch.rand(batch, *shape)


def output_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return what a module gives for an input, without the state."""
    inner = getattr(module, "module", module)  # of DistributedDataParallel
    arguments = {"future": 2} if isinstance(inner, FramePredictor) else {}
    output = module(inputs, **arguments)
    return output[0] if isinstance(output, tuple) else output


def loss_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return a scalar to train on."""
    return output_of(module, inputs).square().mean()
