"""What modules keep of their weights is never stale: every kind of change, for every module that could keep something.

The right values are those of a copy in training mode, which keeps nothing; that they are right is tested elsewhere,
against dense convolutions and the oracles.
"""

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tt_conv import ConvTT, TensorizedConv
from tt_conv.applications.compression.low_rank_linear import LowRankLinear
from tt_conv.layers import ConvLSTM, ConvLSTMCell, ConvTTLSTM, ConvTTLSTMCell, FramePredictor
from tt_conv.runtime.kept import Kept, Memo, forget_weights

FRAMES = (2, 3, 2, 5, 5)


def _cell(cell: nn.Module, frames: Tensor) -> Tensor:
    _, state = cell(frames[:, 0])
    return cell(frames[:, 1], state)[0]


def _step(model: FramePredictor, frames: Tensor) -> Tensor:
    _, states = model.step(frames[:, 0])
    return model.step(frames[:, 1], states)[0]


# Name -> the module, how it is called, and where a weight and a bias of it are.
MODULES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, Tensor], Tensor], str, str]] = {
    **{
        f"TensorizedConv, {name}": (
            lambda name=name: TensorizedConv(2, 6, 3, factorization=name, rank=2, padding=1),
            lambda conv, frames: conv(frames[:, 0]),
            f"factors.{factor}",
            "bias",
        )
        for name, factor in {"cp": "output", "tucker": "core", "tt": "input", "svd": "kernel"}.items()
    },
    **{
        f"ConvTT, {boundary}": (
            lambda boundary=boundary: ConvTT(2, 3, 3, order=2, rank=2, boundary=boundary, core_bias=True),
            lambda layer, frames: layer(frames),
            "projections.1",
            "bias",
        )
        for boundary in ("zeros", "circular", "stagewise")
    },
    "LowRankLinear": (
        lambda: LowRankLinear(torch.randn(3, 2), torch.randn(2, 5), torch.randn(3)),
        lambda layer, frames: layer(frames),
        "input",
        "bias",
    ),
    "ConvLSTMCell": (lambda: ConvLSTMCell(2, 3, 3), _cell, "conv.weight", "conv.bias"),
    "ConvTTLSTMCell": (lambda: ConvTTLSTMCell(2, 3, 3, order=2, rank=2), _cell, "recurrent.cores.0", "recurrent.bias"),
    "ConvTTLSTMCell, its input": (
        lambda: ConvTTLSTMCell(2, 3, 3, order=2, rank=2, input_rank=2),
        _cell,
        "input_conv.projections.0",
        "recurrent.bias",
    ),
    "ConvTTLSTMCell, zeros": (
        lambda: ConvTTLSTMCell(2, 3, 3, order=2, rank=2, boundary="zeros"),
        _cell,
        "input_conv.weight",
        "recurrent.bias",
    ),
    "ConvLSTM": (lambda: ConvLSTM(2, 3, 3), lambda layer, x: layer(x)[0], "cell.conv.weight", "cell.conv.bias"),
    "ConvTTLSTM": (
        lambda: ConvTTLSTM(2, 3, 3, order=2, rank=2),
        lambda layer, frames: layer(frames)[0],
        "cell.recurrent.projections.0",
        "cell.recurrent.bias",
    ),
    "ConvTTLSTM, fixed window": (
        lambda: ConvTTLSTM(2, 3, 3, order=2, rank=2, window="fixed"),
        lambda layer, frames: layer(frames)[0],
        "cell.recurrent.cores.1",
        "cell.recurrent.bias",
    ),
    "FramePredictor.step": (
        lambda: FramePredictor(2, (3,), (1,), kernel_size=3, rank=2, skip_stride=None),
        _step,
        "blocks.0.0.input_conv.weight",
        "blocks.0.0.recurrent.bias",
    ),
    "FramePredictor": (
        lambda: FramePredictor(2, (3,), (1,), kernel_size=3, rank=2, skip_stride=None),
        lambda model, frames: model(frames, 2),
        "output.weight",
        "output.bias",
    ),
}


class Masked(nn.Module):
    """A pruning mask as a buffer, and a factor as an attribute."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight))
        self.factor = 1.0

    def forward(self, weight: Tensor) -> Tensor:
        return self.factor * weight * self.mask


def holder_of(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    *parts, name = path.split(".")
    return module.get_submodule(".".join(parts)), name


def mask(module: nn.Module, weight: str) -> Masked:
    holder, name = holder_of(module, weight)
    masked = Masked(getattr(holder, name))
    # Its own check of the shape would call the module's parameters by name.
    parametrize.register_parametrization(holder, name, masked, unsafe=True)
    return masked


def a_mask_in_place(module: nn.Module, weight: str, bias: str) -> Callable[[], object]:
    masked = mask(module, weight)
    return lambda: masked.mask.view(-1)[::2].zero_()


def a_mask_exchanged(module: nn.Module, weight: str, bias: str) -> Callable[[], object]:
    masked = mask(module, weight)
    return lambda: setattr(masked, "mask", torch.zeros_like(masked.mask))


def an_attribute(module: nn.Module, weight: str, bias: str) -> Callable[[], object]:
    masked = mask(module, weight)
    return lambda: setattr(masked, "factor", 3.0)


def a_new_parametrization(module: nn.Module, weight: str, bias: str) -> Callable[[], object]:
    return lambda: setattr(mask(module, weight), "factor", 3.0)


def a_parametrization_removed(module: nn.Module, weight: str, bias: str) -> Callable[[], object]:
    mask(module, weight).factor = 3.0
    holder, name = holder_of(module, weight)

    def change() -> None:
        parametrize.remove_parametrizations(holder, name, leave_parametrized=False)

    return change


def a_bias_removed(module: nn.Module, weight: str, bias: str) -> Callable[[], object]:
    holder, name = holder_of(module, bias)
    return lambda: setattr(holder, name, None)


def a_bias_added(module: nn.Module, weight: str, bias: str) -> Callable[[], object]:
    holder, name = holder_of(module, bias)
    value = getattr(holder, name)
    setattr(holder, name, None)
    return lambda: setattr(holder, name, nn.Parameter(torch.ones_like(value)))


def a_bias_replaced(module: nn.Module, weight: str, bias: str) -> Callable[[], object]:
    holder, name = holder_of(module, bias)
    return lambda: setattr(holder, name, nn.Parameter(1 + getattr(holder, name).detach()))


def a_weight_replaced(module: nn.Module, weight: str, bias: str) -> Callable[[], object]:
    holder, name = holder_of(module, weight)
    return lambda: setattr(holder, name, nn.Parameter(1 + getattr(holder, name).detach()))


def a_weight_through_numpy(module: nn.Module, weight: str, bias: str) -> Callable[[], object]:
    holder, name = holder_of(module, weight)
    return lambda: getattr(holder, name).detach().numpy().__iadd__(1)


CHANGES = [
    a_mask_in_place,
    a_mask_exchanged,
    an_attribute,
    a_new_parametrization,
    a_parametrization_removed,
    a_bias_removed,
    a_bias_added,
    a_bias_replaced,
    a_weight_replaced,
    a_weight_through_numpy,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", MODULES)
def test_every_change_is_seen_by_the_next_call(name: str, change: Callable) -> None:
    torch.manual_seed(0)
    make, call, weight, bias = MODULES[name]
    module, frames = make(), torch.randn(FRAMES)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
        now = change(module.eval(), weight, bias)
        before = [call(module, frames) for _ in range(2)][-1]
        now()
        after = call(module, frames)
    expected = call(copy.deepcopy(module).train(), frames)
    torch.testing.assert_close(after, expected.detach())
    assert not torch.allclose(after, before, atol=1e-4)


@pytest.mark.parametrize("name", ["TensorizedConv, cp", "ConvTT, zeros", "ConvTTLSTMCell", "ConvTTLSTMCell, zeros"])
def test_threads_may_share_a_module(name: str) -> None:
    torch.manual_seed(0)
    make, call, *_ = MODULES[name]
    module = make().eval()
    frames = [torch.randn(2, 3, 2, size, 4) for size in range(3, 11)]
    with torch.no_grad():
        expected = [call(module, value) for value in frames]
    failures: list[BaseException] = []

    def run(first: int) -> None:
        try:
            with torch.no_grad():
                for turn in range(60):
                    n = (first + turn) % len(frames)
                    torch.testing.assert_close(call(module, frames[n]), expected[n])
                    if turn % 7 == first:
                        # What a training loop does between its evaluations.
                        forget_weights(module)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_value_forgotten_between_the_question_and_the_answer_is_made_again() -> None:
    memo: Memo[int] = Memo()

    class Slow:
        """A key whose comparison lets others fill the memory."""

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            for n in range(200):
                memo.get(("other", n), lambda n=n: n)
            return self is other

    key = Slow()
    assert memo.get(key, lambda: 5) == 5
    assert memo.get(Slow(), lambda: 7) == 7
    assert len(memo) <= 64


def test_what_is_made_of_older_weights_is_not_kept_for_newer_ones() -> None:
    layer, kept = nn.Linear(1, 1, bias=False).eval(), Kept()

    def value() -> float:
        return layer.weight.item()

    with torch.no_grad():
        layer.weight.fill_(1)

        def change_while_it_is_made() -> float:
            old = value()
            layer.weight.fill_(2)
            return old

        assert kept.get(layer, "key", change_while_it_is_made) == 1
        assert kept.get(layer, "key", value) == 2
        assert kept.get(layer, "key", value) == 2
