"""Trained ConvLSTMs as ConvTT-LSTMs, and other people's weights in ours."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tt_conv import ConvTT, TensorizedConv
from tt_conv.applications.compression import (
    higher_order_to_conv_tt_lstm,
    load_compressed,
    load_conv_lstm_weights,
    save_compressed,
    to_conv_tt_lstm,
)
from tt_conv.layers import ConvLSTM, ConvLSTMCell, ConvTTLSTM, ConvTTLSTMCell, FramePredictor


def newest_kernel(cell: ConvTTLSTMCell) -> Tensor:
    """The dense kernel of the newest level, by shifting and adding, and the older levels' part left out."""
    projection, core = cell.recurrent.projections[-1][:, :, -1], cell.recurrent.cores[-1]
    size = core.shape[-1]
    dense = projection.new_zeros(len(core), projection.shape[1], *(2 * size - 1,) * cell.dim)
    for shift in torch.cartesian_prod(*(torch.arange(size),) * cell.dim).reshape(-1, cell.dim).tolist():
        window = (slice(None), slice(None), *(slice(s, s + size) for s in shift))
        dense[window] += torch.einsum("or,ri...->oi...", core[(slice(None), slice(None), *shift)], projection)
    return dense


def truncated(model: ConvLSTMCell, cell: ConvTTLSTMCell) -> ConvLSTMCell:
    """The ConvLSTM whose recurrent kernel is the truncated one, as wide as that is."""
    recurrent = newest_kernel(cell)
    wide = (recurrent.shape[-1] - model.kernel_size[0]) // 2
    plain = ConvLSTMCell(
        model.in_channels,
        model.hidden_channels,
        tuple(recurrent.shape[2:]),
        bias=model.conv.bias is not None,
        dim=model.dim,
        dtype=torch.float64,
    )
    with torch.no_grad():
        of_input = F.pad(model.conv.weight[:, : model.in_channels], [wide] * 2 * model.dim)
        plain.conv.weight.copy_(torch.cat([of_input, recurrent], dim=1))
        if model.conv.bias is not None:
            plain.conv.bias.copy_(model.conv.bias)
    return plain


@pytest.mark.parametrize(
    ("size", "dim", "options", "kernel_size"),
    [
        (5, 2, {"rank": 3}, 3),
        (5, 2, {"rank": (2, 4, 3), "steps": 5}, 3),
        (5, 2, {"rank": 3, "order": 2, "window": "fixed", "steps": 3}, 3),
        (3, 2, {"rank": 4, "order": 1}, 3),
        (5, 1, {"rank": 3, "kernel_size": 5, "order": 2}, 5),
        (3, 3, {"rank": 2, "order": 2}, 3),
        (5, 2, {"rank": 40, "order": 2}, 3),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_the_converted_cell_begins_where_the_truncated_one_is(
    size: int, dim: int, options: dict, kernel_size: int, bias: bool
) -> None:
    torch.manual_seed(0)
    model = ConvLSTM(2, 3, size, dim=dim, bias=bias, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    converted, report = to_conv_tt_lstm(model, **options)
    assert isinstance(converted, ConvTTLSTM)
    assert converted.cell.recurrent.kernel_size[-1] == (kernel_size,) * dim
    reference = ConvLSTM(2, 3, size, dim=dim, dtype=torch.float64)
    reference.cell = truncated(model.cell, converted.cell)
    frames = torch.randn(2, 4, 2, *(6,) * dim, dtype=torch.float64)
    outputs, state = converted(frames)
    expected, (_, memory) = reference(frames)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(state[-1], memory, rtol=0, atol=1e-12)
    error = newest_kernel(converted.cell) - F.pad(
        model.cell.conv.weight[:, 2:], [(2 * kernel_size - 1 - size) // 2] * 2 * dim
    )
    assert report.layers[-1].weight_error == pytest.approx(
        float((error.norm() / model.cell.conv.weight[:, 2:].norm()).detach()), abs=1e-9
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_enough_rank_gives_the_trained_cell_itself() -> None:
    torch.manual_seed(0)
    model = ConvLSTM(2, 3, 3, dtype=torch.float64)
    converted, report = to_conv_tt_lstm(model, order=1, rank=27)
    assert report.layers[-1].weight_error < 1e-6
    frames = torch.randn(1, 4, 2, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(converted(frames)[0], model(frames)[0], rtol=0, atol=1e-5)


def test_stagewise_borders_differ_at_the_border_alone() -> None:
    torch.manual_seed(0)
    model = ConvLSTMCell(2, 3, 5, dtype=torch.float64)
    state = [torch.randn(1, 3, 12, 12, dtype=torch.float64) for _ in range(2)]
    x = torch.randn(1, 2, 12, 12, dtype=torch.float64)
    converted, _ = to_conv_tt_lstm(model, order=1, rank=3, boundary="stagewise")
    difference = (converted(x, state)[0] - truncated(model, converted)(x, state)[0]).abs()
    assert difference[..., 1:-1, 1:-1].max() < 1e-12
    assert difference.max() > 1e-4


def test_gradients_arrive_at_the_older_levels_after_two_steps() -> None:
    torch.manual_seed(0)
    model = ConvLSTM(1, 4, 3)
    converted, _ = to_conv_tt_lstm(model, order=3, steps=4, rank=2)
    train = converted.cell.recurrent
    assert not any(core.any() for core in train.cores[:-1])
    assert all(projection.any() for projection in train.projections)
    older = [*train.projections[:-1], *train.cores[:-1]]
    optimizer = torch.optim.SGD(converted.parameters(), lr=1e-3)
    frames = torch.rand(2, 6, 1, 8, 8)

    def backward() -> list[bool]:
        optimizer.zero_grad()
        (converted(frames)[0] - 1).square().sum().backward()
        return [bool(value.grad.any()) for value in older]

    assert backward() == [False, False, False, True]  # only the core before the newest level
    optimizer.step()
    backward()
    optimizer.step()
    assert all(backward())


def predictor(**options: object) -> FramePredictor:
    torch.manual_seed(0)
    return FramePredictor(
        1, (2, 3), (1, 2), cell="conv_lstm", kernel_size=5, patch_size=2, skip_stride=1, sigmoid=True, **options
    ).eval()


def test_a_whole_predictor_with_calibration(tmp_path: Path) -> None:
    model = predictor(dtype=torch.float64)
    data = [(torch.rand(2, 4, 1, 12, 12, dtype=torch.float64), 2)]
    converted, report = to_conv_tt_lstm(model, order=2, rank=2, data=data)
    assert isinstance(converted, FramePredictor)
    assert not converted.training
    plain = predictor(dtype=torch.float64)
    for block, cells in zip(plain.blocks, converted.blocks, strict=True):
        for n, cell in enumerate(cells):
            block[n] = truncated(block[n], cell)
    torch.testing.assert_close(converted(*data[0]), plain(*data[0]), rtol=0, atol=1e-12)

    error = (converted(*data[0]) - model(*data[0])).norm() / model(*data[0]).norm()
    assert report.output_error == pytest.approx(float(error.detach()), rel=1e-6)
    json.dumps(report.to_json())
    assert [row.name for row in report.layers] == [f"blocks.{name}.recurrent" for name in ("0.0", "1.0", "1.1")]
    without, _ = to_conv_tt_lstm(model, order=2, rank=2)
    assert error < (without(*data[0]) - model(*data[0])).norm() / model(*data[0]).norm()

    loaded = load_compressed(None, save_compressed(converted, tmp_path / "converted"))
    assert torch.equal(loaded(*data[0]), converted(*data[0]))


class Summed(nn.Module):
    """A network of one's own: a layer, a cell behind it, and a map of what the cell ends with."""

    def __init__(self, kernel_size: int = 3) -> None:
        super().__init__()
        self.layer = ConvLSTM(1, 4, 3)
        self.cell = ConvLSTMCell(4, 3, kernel_size)
        self.output = nn.Linear(3, 2)

    def forward(self, frames: Tensor) -> Tensor:
        hidden, _ = self.layer(frames)
        state = None
        for frame in hidden.unbind(1):
            last, state = self.cell(frame, state)
        return self.output(last.mean((-2, -1)))


def test_a_network_that_holds_cells() -> None:
    torch.manual_seed(0)
    model, frames = Summed(), torch.rand(2, 5, 1, 6, 6)
    converted, report = to_conv_tt_lstm(model, order=1, rank=36, data=[frames])
    assert isinstance(converted, Summed)
    assert isinstance(converted.layer, ConvTTLSTM)
    assert isinstance(converted.cell, ConvTTLSTMCell)
    assert isinstance(model.cell, ConvLSTMCell)
    torch.testing.assert_close(converted(frames), model(frames), rtol=0, atol=1e-4)
    assert [row.name for row in report.layers] == ["layer.cell.recurrent", "cell.recurrent"]
    with pytest.raises(ValueError, match=r"must have one size, got \(3, 3\) and \(5, 5\): convert the cells one by"):
        to_conv_tt_lstm(Summed(kernel_size=5))


def test_the_size_of_the_kernel_of_the_frame() -> None:
    torch.manual_seed(0)
    model, frames = ConvLSTM(2, 3, 3, dtype=torch.float64), torch.randn(1, 4, 2, 6, 6, dtype=torch.float64)
    options = {"order": 1, "rank": 27}
    expected, _ = to_conv_tt_lstm(model, **options)
    wider, _ = to_conv_tt_lstm(model, **options, input_kernel_size=5)
    assert wider.cell.input_conv.weight.shape == (12, 2, 5, 5)
    torch.testing.assert_close(wider(frames)[0], expected(frames)[0], rtol=0, atol=1e-12)
    factorized, _ = to_conv_tt_lstm(model, **options, input_rank=18, input_kernel_size=5)
    assert factorized.cell.input_conv.kernel_size == ((5, 5),)
    torch.testing.assert_close(factorized(frames)[0], expected(frames)[0], rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"input_kernel_size \(1, 1\) is too small for the trained kernel \(3, 3\)"):
        to_conv_tt_lstm(model, **options, input_kernel_size=1)


def test_budgets_of_all_cells_together_and_a_factorized_input() -> None:
    model = predictor()
    converted, report = to_conv_tt_lstm(model, order=2, rank=0.4, input_rank=0.3)
    for kind, budget in (("recurrent", 0.4), ("input_conv", 0.3)):
        rows = [row for row in report.layers if row.name.endswith(kind)]
        before, after = (sum(getattr(row, f"parameters_{when}") for row in rows) for when in ("before", "after"))
        assert budget * 0.5 < after / before <= budget
    assert report.parameters_after == sum(p.numel() for p in converted.parameters())
    assert converted(torch.rand(1, 3, 1, 12, 12), 2).shape == (1, 4, 1, 12, 12)


@pytest.mark.parametrize(
    ("options", "order", "steps"),
    [
        ({"rank": 2}, 3, 3),
        ({"rank": 2, "steps": 4}, 3, 4),
        ({"steps": 2}, 2, 2),
        ({"order": 2}, 2, 2),
        ({"rank": 2, "order": 4}, 4, 4),
        ({"rank": 2, "order": 1, "steps": 5}, 1, 5),
        ({"rank": (2, 3)}, 2, 2),
        ({"rank": [3], "steps": 4}, 1, 4),
        ({"rank": 2, "kernel_size": ((3, 3), (5, 5), (3, 3), (3, 3))}, 4, 4),
        # Of 4 * 3 * 3 * 25 trained numbers a rank of 1 takes 9 * (3 * order * lags + 12 + order - 1).
        ({"rank": 207 / 900}, 3, 3),
        ({"rank": 206 / 900}, 2, 2),
        ({"rank": 170 / 900}, 1, 1),
        ({"rank": 243 / 900, "steps": 5}, 1, 5),
    ],
)
def test_order_and_steps_without_data(options: dict, order: int, steps: int) -> None:
    converted, report = to_conv_tt_lstm(ConvLSTM(2, 3, 5), **options)
    train = converted.cell.recurrent
    assert (train.order, train.steps) == (order, steps)
    fewer = options.get("rank") in (206 / 900, 170 / 900, 243 / 900)
    assert list(report.notes) == ([f"order={order}, steps={steps}: the budget holds no more"] if fewer else [])


def noise(batch: int, frames: int, *, still: bool) -> Tensor:
    """Frames that have nothing to do with each other, or all the same ones."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 1 if still else frames, 2, 8, 8, generator=generator)
    return x.expand(-1, frames, -1, -1, -1).contiguous()


def forgetful() -> ConvLSTM:
    """A layer whose state is nearly a function of the newest frame."""
    torch.manual_seed(0)
    model = ConvLSTM(2, 3, 5)
    with torch.no_grad():
        model.cell.conv.weight[:, 2:] *= 0.1
        model.cell.conv.bias[3:6] = -20  # the forget gate
    return model


@pytest.mark.parametrize(
    ("options", "order", "steps"),
    [
        ({}, 1, 1),
        ({"order": 3}, 3, 3),
        ({"rank": (1, 1)}, 2, 2),
        ({"steps": 2}, 2, 2),
        ({"order": 1, "steps": 3}, 1, 3),
    ],
)
def test_states_that_tell_nothing_are_left_out(options: dict, order: int, steps: int) -> None:
    converted, report = to_conv_tt_lstm(forgetful(), **{"rank": 2, **options}, data=[noise(8, 8, still=False)])
    train = converted.cell.recurrent
    assert (train.order, train.steps) == (order, steps)
    assert len(report.notes) == ("steps" not in options)
    assert all(note.startswith(f"steps={steps}: of what the truncated kernels lose") for note in report.notes)


@pytest.mark.parametrize(("rank", "order", "steps"), [(1, 2, 2), (243 / 900, 2, 2), (150 / 900, 1, 1)])
def test_states_that_tell_everything_count(rank: float, order: int, steps: int) -> None:
    """Of still frames the second state is the first one again, and a third one adds nothing to it."""
    data = [noise(8, 10, still=True)]
    converted, report = to_conv_tt_lstm(forgetful(), rank=rank, data=data)
    train = converted.cell.recurrent
    assert (train.order, train.steps) == (order, steps)
    assert report.notes[0].startswith("steps=2: ")
    assert len(report.notes) == 1 + (order == 1)


def test_data_too_short_to_tell() -> None:
    converted, report = to_conv_tt_lstm(forgetful(), rank=2, data=[noise(4, 2, still=False)])
    assert converted.cell.recurrent.steps == 3
    assert report.notes == ("the sequences of the data are too short to tell how many past states help",)


def test_nothing_lost_is_nothing_to_explain() -> None:
    model = ConvLSTM(2, 3, 3)
    converted, report = to_conv_tt_lstm(model, rank=27, data=[noise(4, 6, still=False)])
    assert (converted.cell.recurrent.order, converted.cell.recurrent.steps) == (1, 1)
    assert report.notes == ("steps=1: the truncated kernels lose next to nothing",)


def test_the_smallest_rank_within_a_tolerance() -> None:
    torch.manual_seed(0)
    model = ConvLSTM(2, 3, 5, dtype=torch.float64)
    with torch.no_grad():
        planted = ConvTT(3, 12, 3, order=1, rank=2, dtype=torch.float64).to_tensor()
        model.cell.conv.weight[:, 2:] = planted[:, :, 0]
    converted, report = to_conv_tt_lstm(model, order=2, tol=1e-4)
    assert converted.cell.recurrent.rank == (2, 2)
    assert report.layers[-1].weight_error < 1e-4
    with pytest.raises(ValueError, match="no rank up to 1 reaches"):
        to_conv_tt_lstm(model, order=2, tol=1e-4, rank=1)


def test_dense_kernels_of_several_past_states() -> None:
    torch.manual_seed(0)
    train = ConvTT(3, 12, 3, order=2, steps=3, rank=2, dtype=torch.float64)
    dense, of_input = train.to_tensor().detach(), torch.randn(12, 2, 5, 5, dtype=torch.float64)
    bias = torch.randn(12, dtype=torch.float64)
    cell = higher_order_to_conv_tt_lstm(of_input, dense, bias, order=2, rank=2, kernel_size=3)
    assert cell.recurrent.steps == 3
    state = [torch.randn(2, 3, 6, 6, dtype=torch.float64) for _ in range(4)]
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    gates = F.conv2d(x, of_input, bias, padding=2)
    for n, hidden in enumerate(state[:-1]):
        gates = gates + F.conv2d(hidden, dense[:, :, n], padding=(dense.shape[-1] - 1) // 2)
    i, f, o, g = gates.chunk(4, 1)
    memory = f.sigmoid() * state[-1] + i.sigmoid() * g.tanh()
    hidden, new = cell(x, state)
    torch.testing.assert_close(hidden, o.sigmoid() * memory.tanh(), rtol=0, atol=1e-6)
    torch.testing.assert_close(new[-1], memory, rtol=0, atol=1e-6)


class Naive(nn.Module):
    """Someone else's cell."""

    def __init__(self, order: str, input_first: bool, bias: bool, forget_bias: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 + 3, 12, 3, padding="same", bias=bias)
        self.order, self.input_first, self.forget_bias = order, input_first, forget_bias

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([x, h] if self.input_first else [h, x], dim=1)
        gate = dict(zip(self.order, torch.split(self.conv(joined), 3, dim=1), strict=True))
        c = torch.sigmoid(gate["f"] + self.forget_bias) * c + torch.sigmoid(gate["i"]) * torch.tanh(gate["g"])
        return torch.sigmoid(gate["o"]) * torch.tanh(c), c


@pytest.mark.parametrize("order", ["ifog", "ifgo", "gfio", "oigf"])
@pytest.mark.parametrize(
    ("input_first", "bias", "forget_bias"), [(True, True, 0.0), (False, True, 1.0), (True, False, 0.0)]
)
def test_other_peoples_cells(order: str, input_first: bool, bias: bool, forget_bias: float) -> None:
    torch.manual_seed(0)
    naive = Naive(order, input_first, bias, forget_bias)
    layer = ConvLSTM(2, 3, 3)
    load_conv_lstm_weights(layer, naive.conv, gates=order, input_first=input_first, forget_bias=forget_bias)
    frames = torch.randn(2, 4, 2, 6, 6)
    h = c = torch.zeros(2, 3, 6, 6)
    outputs, (_, memory) = layer(frames)
    for t, x in enumerate(frames.unbind(1)):
        h, c = naive(x, h, c)
        torch.testing.assert_close(outputs[:, t], h)
    torch.testing.assert_close(memory, c)
    cell = ConvLSTMCell(2, 3, 3, bias=bias)
    bias_tensor = naive.conv.bias
    if forget_bias == 0:
        load_conv_lstm_weights(cell, naive.conv.weight, bias_tensor, gates=list(order), input_first=input_first)
        assert torch.equal(cell.conv.weight, layer.cell.conv.weight)


WEIGHT = torch.zeros(12, 5, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((WEIGHT,), {"gates": "ifoc"}, "letters i, f, o and g"),
        ((WEIGHT,), {"gates": "ifo"}, "letters i, f, o and g"),
        ((torch.zeros(16, 6, 3, 3),), {}, r"these are the weights of ConvLSTMCell\(2, 4, \(3, 3\)\)"),
        ((torch.zeros(12, 5, 3),), {}, r"= \(12, 5, 3, 3\)"),
        ((WEIGHT, torch.zeros(3)), {}, r"bias must be \[4 \* hidden\] = \(12,\), got \(3,\)"),
        ((nn.Conv2d(5, 12, 3),), {}, r"has padding=\(0, 0\)"),
        ((nn.Conv2d(5, 12, 3, padding=1, stride=2),), {}, r"has stride=\(2, 2\)"),
        ((nn.Conv2d(5, 12, 3, padding=1, padding_mode="circular"),), {}, "padding_mode='circular'"),
        ((nn.Conv2d(5, 12, 3, padding=1), torch.zeros(12)), {}, "brings its own"),
    ],
)
def test_weights_that_do_not_fit_are_refused(arguments: tuple, options: dict, message: str) -> None:
    cell = ConvLSTMCell(2, 3, 3)
    before = cell.conv.weight.clone()
    with pytest.raises(ValueError, match=message):
        load_conv_lstm_weights(cell, *arguments, **options)
    assert torch.equal(cell.conv.weight, before)


def test_kinds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="built with bias=False"):
        load_conv_lstm_weights(ConvLSTMCell(2, 3, 3, bias=False), WEIGHT, torch.ones(12))
    with pytest.raises(TypeError, match="got Linear"):
        load_conv_lstm_weights(nn.Linear(2, 2), WEIGHT)
    with pytest.raises(TypeError, match="got list and NoneType"):
        load_conv_lstm_weights(ConvLSTMCell(2, 3, 3), [1])
    with pytest.raises(TypeError, match="forget_bias"):
        load_conv_lstm_weights(ConvLSTMCell(2, 3, 3), WEIGHT, forget_bias="1")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"order": 3, "steps": 2}, ValueError, "steps must be at least order"),
        ({"rank": 0.01}, ValueError, "already a rank of 1 takes"),
        ({"rank": 1.5}, ValueError, r"in \(0, 1\], got 1.5"),
        ({"rank": True}, TypeError, "rank must be an int"),
        ({"order": 3, "rank": (2, 2)}, ValueError, "3 ints, one per level"),
        ({"rank": (2, 2), "kernel_size": (3, 3, (3, 3))}, ValueError, "kernel_size"),
        ({"rank": (2, 2, 2), "steps": 2}, ValueError, "steps must be at least order, got steps=2, order=3"),
        ({"rank": ()}, ValueError, "one per level"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"steps": 2.0}, TypeError, "steps must be an int"),
        ({"order": True}, TypeError, "order must be an int"),
        ({"input_rank": 0}, ValueError, "input_rank must be at least 1"),
        ({"kernel_size": 1}, ValueError, r"too small: its two kernels span \(1, 1\), and the trained kernel \(5, 5\)"),
        ({"tol": 2}, ValueError, "tol must be a relative error"),
        ({"boundary": "circular"}, ValueError, "boundary"),
        ({"rank": 2, "data": [torch.zeros(1, 2, 2, 6, 6)]}, ValueError, "no hidden state but zero"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict, error: type[Exception], message: str) -> None:
    model = ConvLSTM(2, 3, 5)
    if "data" in options:
        nn.init.zeros_(model.cell.conv.weight)
        nn.init.zeros_(model.cell.conv.bias)
    with pytest.raises(error, match=message):
        to_conv_tt_lstm(model, **options)


def test_other_networks_are_refused() -> None:
    with pytest.raises(TypeError, match="load_conv_lstm_weights"):
        to_conv_tt_lstm(nn.Conv2d(1, 1, 1))
    with pytest.raises(TypeError, match="FramePredictor of other cells"):
        to_conv_tt_lstm(FramePredictor(1, (4,), (1,), kernel_size=3, rank=2))
    layer = ConvLSTM(2, 3, 5)
    layer.cell.conv = TensorizedConv.from_conv(layer.cell.conv, "svd", rank=2)
    with pytest.raises(TypeError, match="the cell 'cell' has no ordinary convolution"):
        to_conv_tt_lstm(layer)
    with pytest.raises(ValueError, match=r"recurrent_weight must be \[4 \* hidden"):
        higher_order_to_conv_tt_lstm(torch.zeros(12, 2, 3, 3), torch.zeros(12, 4, 2, 3, 3), order=1, rank=1)
    with pytest.raises(ValueError, match=r"input_weight must be \[12"):
        higher_order_to_conv_tt_lstm(torch.zeros(8, 2, 3, 3), torch.zeros(12, 3, 2, 3, 3), order=1, rank=1)
