"""Parts of a cell that were replaced: sequences and single calls give what the new part gives, or refuse it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.oracle.conv_tt import conv_lstm_sequence
from tt_conv import ConvTT, TensorizedConv
from tt_conv.layers import ConvLSTM, ConvLSTMCell, ConvTTLSTM, FramePredictor
from tt_conv.layers.cell import RecurrentCell

FRAMES = (2, 4, 2, 6, 5)


class Doubling(nn.Conv2d):
    """A convolution with a forward pass of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class DoublingTensorized(TensorizedConv):
    """The same of a factorized one, which inherits its chains of kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class DoublingConvTT(ConvTT):
    """The same of a Conv-TT."""

    def forward(self, sequence: Tensor) -> Tensor:
        return 2 * super().forward(sequence)


class Shifted(nn.Conv2d):
    """A convolution with a buffer that its own forward pass adds."""

    def __init__(self, *arguments: int, **options: int) -> None:
        super().__init__(*arguments, **options)
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.shift


def _patched() -> nn.Module:
    conv = nn.Conv2d(5, 12, 3, padding=1)
    forward = conv.forward
    conv.forward = lambda x: 2 * forward(x)
    return conv


def _own_tensor() -> nn.Module:
    conv = nn.Conv2d(5, 12, 3, padding=1)
    value = conv.weight.detach().clone()
    del conv.weight
    conv.weight = value
    return conv


def _circular(factorization: str | None = None, **options: object) -> nn.Module:
    conv = nn.Conv2d(5, 12, 3, **{"padding": 1, "padding_mode": "circular", **options})
    return conv if factorization is None else TensorizedConv.from_conv(conv, factorization, rank=4)


CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "circular": _circular,
    "reflected": lambda: _circular(padding_mode="reflect"),
    "dilated": lambda: nn.Conv2d(5, 12, 3, padding=2, dilation=2),
    "of another size": lambda: nn.Conv2d(5, 12, 5, padding=2),
    "same padding": lambda: nn.Conv2d(5, 12, 3, padding="same"),
    "even": lambda: nn.Conv2d(5, 12, 2, padding=0),
    "a subclass": lambda: Doubling(5, 12, 3, padding=1),
    "patched": _patched,
    "without a bias": lambda: nn.Conv2d(5, 12, 3, padding=1, bias=False),
    "a plain tensor as its weight": _own_tensor,
    "followed by something": lambda: nn.Sequential(nn.Conv2d(5, 12, 3, padding=1), nn.Tanh()),
    "grouped after a mixing": lambda: nn.Sequential(nn.Conv2d(5, 12, 1), nn.Conv2d(12, 12, 3, padding=1, groups=4)),
    "factorized": lambda: TensorizedConv.from_conv(nn.Conv2d(5, 12, 3, padding=1), "tucker", rank=4),
    "factorized and circular": lambda: _circular("tucker"),
    "factorized and reflected": lambda: _circular("svd", padding_mode="reflect"),
    "factorized and dilated": lambda: _circular("cp", padding_mode="zeros", padding=2, dilation=2),
    "a subclass of a factorized one": lambda: DoublingTensorized(5, 12, 3, rank=2, padding=1),
}


def stepwise(cell: RecurrentCell, sequence: Tensor) -> Tensor:
    state, outputs = None, []
    for x in sequence.unbind(1):
        hidden, state = cell(x, state)
        outputs.append(hidden)
    return torch.stack(outputs, dim=1)


def by_formulas(conv: Callable[[Tensor], Tensor], sequence: Tensor) -> Tensor:
    """Return the outputs of a ConvLSTM with some convolution."""
    hidden = memory = sequence.new_zeros(len(sequence), 3, *sequence.shape[3:])
    outputs = []
    for x in sequence.unbind(1):
        i, f, o, g = conv(torch.cat([x, hidden], dim=1)).chunk(4, dim=1)
        memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(memory)
        outputs.append(hidden)
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name in CONVOLUTIONS if name != "even"])
def test_a_replaced_convolution_is_used_by_sequences_and_single_calls(name: str, training: bool) -> None:
    torch.manual_seed(0)
    layer, sequence = ConvLSTM(2, 3, 3), torch.randn(FRAMES)
    layer.cell.conv = CONVOLUTIONS[name]()
    layer.train(training)
    with torch.set_grad_enabled(training):
        expected = by_formulas(layer.cell.conv, sequence)
        for _ in range(2):
            torch.testing.assert_close(layer(sequence)[0], expected)
            torch.testing.assert_close(stepwise(layer.cell, sequence), expected)


def test_the_formulas_of_this_test_are_those_of_the_oracle() -> None:
    conv, sequence = nn.Conv2d(5, 12, 3, padding=1), torch.randn(FRAMES)
    zero = torch.zeros(2, 3, 6, 5)
    outputs, _ = conv_lstm_sequence(sequence, conv.weight, conv.bias, zero, zero)
    torch.testing.assert_close(by_formulas(conv, sequence), torch.stack(outputs, dim=1))


def test_an_attribute_of_a_kept_convolution_is_seen() -> None:
    layer, sequence = ConvLSTM(2, 3, 3).eval(), torch.randn(FRAMES)
    with torch.no_grad():
        before = stepwise(layer.cell, sequence)
        layer.cell.conv.dilation, layer.cell.conv.padding = (2, 2), (2, 2)
        expected = by_formulas(layer.cell.conv, sequence)
        torch.testing.assert_close(stepwise(layer.cell, sequence), expected)
        torch.testing.assert_close(layer(sequence)[0], expected)
    assert not torch.allclose(before, expected)


def test_convolutions_that_share_their_weights_are_told_apart() -> None:
    layer, sequence = ConvLSTM(2, 3, 3).eval(), torch.randn(FRAMES)
    other = _circular()
    other.weight, other.bias = layer.cell.conv.weight, layer.cell.conv.bias
    with torch.no_grad():
        before = stepwise(layer.cell, sequence)
        layer.cell.conv = other
        torch.testing.assert_close(stepwise(layer.cell, sequence), by_formulas(other, sequence))
    assert not torch.allclose(before, by_formulas(other, sequence).detach())


def test_a_buffer_of_a_convolution_is_seen() -> None:
    layer, sequence = ConvLSTM(2, 3, 3).eval(), torch.randn(FRAMES)
    layer.cell.conv = Shifted(5, 12, 3, padding=1)
    with torch.no_grad():
        for _ in range(2):
            layer.cell.conv.shift.add_(0.5)
            expected = by_formulas(layer.cell.conv, sequence)
            torch.testing.assert_close(stepwise(layer.cell, sequence), expected)
            torch.testing.assert_close(layer(sequence)[0], expected)


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "even": CONVOLUTIONS["even"],
    "unpadded": lambda: nn.Conv2d(5, 12, 3),
    "one pixel is left": lambda: nn.Conv2d(5, 12, (6, 5)),
    "strided": lambda: nn.Conv2d(5, 12, 3, padding=1, stride=2),
    "more gates": lambda: nn.Conv2d(5, 16, 3, padding=1),
    "fewer gates": lambda: nn.Conv2d(5, 8, 3, padding=1),
    "factorized and strided": lambda: TensorizedConv(5, 12, 3, rank=2, padding=1, stride=2),
    "factorized with more gates": lambda: TensorizedConv(5, 16, 3, rank=2, padding=1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_convolution_that_gives_no_gates_is_refused_alike(name: str) -> None:
    layer, sequence = ConvLSTM(2, 3, 3).eval(), torch.randn(FRAMES)
    layer.cell.conv = REFUSED[name]()
    for call in (lambda: layer(sequence), lambda: layer.cell(sequence[:, 0])):
        with pytest.raises(ValueError, match=r"conv must give the gates .* shape \(2, 12, 6, 5\), got \(2, "):
            call()


INPUTS: dict[str, Callable[[], nn.Module]] = {
    "with a bias": lambda: nn.Conv2d(2, 12, 3, padding=1),
    "circular": lambda: nn.Conv2d(2, 12, 3, padding=1, padding_mode="circular", bias=False),
    "circular with a bias": lambda: nn.Conv2d(2, 12, 3, padding=1, padding_mode="circular"),
    "dilated": lambda: nn.Conv2d(2, 12, 3, padding=2, dilation=2, bias=False),
    "of another size": lambda: nn.Conv2d(2, 12, 5, padding=2),
    "a subclass": lambda: Doubling(2, 12, 3, padding=1, bias=False),
    "factorized": lambda: TensorizedConv(2, 12, 3, rank=2, padding=1),
    "a Conv-TT with a bias": lambda: ConvTT(2, 12, 3, order=1, rank=2, boundary="stagewise", bias=True),
    "a Conv-TT with other borders": lambda: ConvTT(2, 12, 3, order=1, rank=2, boundary="zeros"),
    "a Conv-TT of order 2": lambda: ConvTT(2, 12, 3, order=2, rank=2, bias=False),
    "a subclass of Conv-TT": lambda: DoublingConvTT(2, 12, 3, order=1, rank=2, bias=False),
}
OPTIONS = {
    "stagewise": {},
    "zeros": {"boundary": "zeros"},
    "circular": {"boundary": "circular"},
    "fixed": {"window": "fixed"},
    "factorized": {"input_rank": 2},
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", INPUTS)
def test_a_replaced_input_is_used_by_sequences_and_single_calls(name: str, options: str, training: bool) -> None:
    torch.manual_seed(0)
    layer, sequence = ConvTTLSTM(2, 3, 3, order=2, rank=2, **OPTIONS[options]), torch.randn(FRAMES)
    conv = INPUTS[name]()
    layer.cell.input_conv = conv
    layer.train(training)

    def gates(joined: Tensor) -> Tensor:
        x = joined[:, :2]
        window.append(joined[:, 2:])
        past = torch.stack(window[-2:], dim=1)
        frame = conv(x.unsqueeze(1)).squeeze(1) if isinstance(conv, ConvTT) else conv(x)
        return frame + layer.cell.recurrent.forward_window(past)

    with torch.set_grad_enabled(training):
        window = [torch.zeros(2, 3, 6, 5)] * 2
        expected = by_formulas(gates, sequence)
        for _ in range(2):
            torch.testing.assert_close(layer(sequence)[0], expected)
            torch.testing.assert_close(stepwise(layer.cell, sequence), expected)


def test_an_input_that_gives_no_gates_is_refused_alike() -> None:
    layer, sequence = ConvTTLSTM(2, 3, 3, order=2, rank=2), torch.randn(FRAMES)
    for conv in (nn.Conv2d(2, 12, 3), nn.Conv2d(2, 16, 3, padding=1), nn.Conv2d(2, 12, (6, 5))):
        layer.cell.input_conv = conv
        for call in (lambda: layer(sequence), lambda: layer.cell(sequence[:, 0])):
            with pytest.raises(ValueError, match=r"input_conv must give the gates"):
                call()


RECURRENT: dict[str, Callable[[], nn.Module]] = {
    "other borders": lambda: ConvTT(3, 12, 3, order=2, rank=2, boundary="circular"),
    "a fixed window": lambda: ConvTT(3, 12, 3, order=2, rank=2, boundary="stagewise", window="fixed"),
    "another size": lambda: ConvTT(3, 12, 5, order=2, rank=3, boundary="stagewise"),
    "fewer steps": lambda: ConvTT(3, 12, 3, order=1, rank=2),
    "more steps": lambda: ConvTT(3, 12, 3, order=2, steps=3, rank=2),
    "a subclass": lambda: DoublingConvTT(3, 12, 3, order=2, rank=2, boundary="stagewise"),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_a_replaced_recurrence_is_used_by_sequences_and_single_calls(name: str) -> None:
    torch.manual_seed(0)
    layer, sequence = ConvTTLSTM(2, 3, 3, order=2, rank=2).eval(), torch.randn(FRAMES)
    layer.cell.recurrent = train = RECURRENT[name]()
    with torch.no_grad():
        window = [torch.zeros(2, 3, 6, 5)] * 2

        def gates(joined: Tensor) -> Tensor:
            window.append(joined[:, 2:])
            past = torch.stack(window[-2:], dim=1)
            return layer.cell.input_conv(joined[:, :2]) + train(past)[:, -1]

        expected = by_formulas(gates, sequence)
        torch.testing.assert_close(layer(sequence)[0], expected)
        torch.testing.assert_close(stepwise(layer.cell, sequence), expected)


class Halved(ConvLSTMCell):
    """A cell with a call of its own."""

    def forward(self, x: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        hidden, state = super().forward(x, state)
        return hidden / 2, state


def test_a_cell_with_a_call_of_its_own_is_called() -> None:
    layer, sequence = ConvLSTM(2, 3, 3), torch.randn(FRAMES)
    plain = layer(sequence)[0]
    halved = Halved(2, 3, 3)
    halved.load_state_dict(layer.cell.state_dict())
    layer.cell = halved
    torch.testing.assert_close(layer(sequence)[0], plain / 2)


def test_a_predictor_uses_what_was_put_into_its_cells() -> None:
    torch.manual_seed(0)
    model = FramePredictor(2, (3,), (1,), cell="conv_lstm", kernel_size=3, skip_stride=None).eval()
    model.blocks[0][0].conv = _circular()
    frames, states, predictions = torch.randn(FRAMES), None, []
    with torch.no_grad():
        for x in frames.unbind(1):
            prediction, states = model.step(x, states)
            predictions.append(prediction)
        torch.testing.assert_close(model(frames, 1), torch.stack(predictions, dim=1))
