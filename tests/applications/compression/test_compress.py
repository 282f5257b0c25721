"""Compression of networks: ours, and networks of other people's kinds."""

import copy
import importlib
import json
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tt_conv.applications.compression import compress
from tt_conv.applications.compression.calibration import Calibration, relative_error
from tt_conv.applications.compression.choice import Item, choose
from tt_conv.applications.compression.low_rank_linear import LowRankLinear
from tt_conv.layers import ConvLSTM, FramePredictor

module = importlib.import_module("tt_conv.applications.compression.compress")  # the function has the same name
QUICK = ("svd", "tucker", "tt")


class OtherConvLSTM(nn.Module):
    """The usual one of other people: one Conv2d over cat([x, h]), gates i, f, o, g."""

    def __init__(self, inputs: int = 3, hidden: int = 8) -> None:
        super().__init__()
        self.hidden = hidden
        self.conv = nn.Conv2d(inputs + hidden, 4 * hidden, 3, padding=1)
        self.head = nn.Conv2d(hidden, inputs, 1)

    def forward(self, frames: Tensor) -> Tensor:
        h = c = frames.new_zeros(len(frames), self.hidden, *frames.shape[3:])
        for x in frames.unbind(1):
            i, f, o, g = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h)


class Spatiotemporal(nn.Module):
    """In the manner of PredRNN: two memories, and a convolution for each of what its cell sees."""

    def __init__(self, inputs: int = 3, hidden: int = 8) -> None:
        super().__init__()
        self.hidden = hidden
        self.x, self.h = nn.Conv2d(inputs, 7 * hidden, 5, padding=2), nn.Conv2d(hidden, 4 * hidden, 5, padding=2)
        self.m, self.o = nn.Conv2d(hidden, 3 * hidden, 5, padding=2), nn.Conv2d(2 * hidden, hidden, 5, padding=2)
        self.last, self.head = nn.Conv2d(2 * hidden, hidden, 1), nn.Conv2d(hidden, inputs, 1)

    def forward(self, frames: Tensor) -> Tensor:
        h = c = m = frames.new_zeros(len(frames), self.hidden, *frames.shape[3:])
        for x in frames.unbind(1):
            ix, fx, gx, ix2, fx2, gx2, ox = self.x(x).chunk(7, 1)
            ih, fh, gh, oh = self.h(h).chunk(4, 1)
            im, fm, gm = self.m(m).chunk(3, 1)
            c = (fx + fh + 1).sigmoid() * c + (ix + ih).sigmoid() * (gx + gh).tanh()
            m = (fx2 + fm + 1).sigmoid() * m + (ix2 + im).sigmoid() * (gx2 + gm).tanh()
            both = torch.cat([c, m], 1)
            h = (ox + oh + self.o(both)).sigmoid() * self.last(both).tanh()
        return self.head(h)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.second, self.last = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu_()
        return self.last((x + self.second(x)).relu_().mean((2, 3)))


class Classes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(-1)


class Beside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(40, 40, bias=False), nn.Linear(40, 40, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(x), self.other(x)


def low_rank(model: nn.Module, rank: int = 3) -> nn.Module:
    """Plant kernels whose channel SVD has a small rank."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear) and min(module.weight.flatten(1).shape) > rank:
            weight = module.weight.data
            left = torch.randn(len(weight), rank) @ torch.randn(rank, weight[0].numel())
            module.weight.data = (left * weight.std() / left.std()).view_as(weight)
    return model


def networks() -> list[tuple[nn.Module, Tensor]]:
    return [
        (low_rank(OtherConvLSTM()), torch.rand(2, 4, 3, 8, 8)),
        (low_rank(Residual()), torch.randn(4, 3, 16, 16)),
        (low_rank(nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 20))), torch.randn(8, 30)),
        (low_rank(nn.Sequential(nn.Conv1d(8, 16, 5), nn.Conv1d(16, 8, 3, groups=2))), torch.randn(2, 8, 20)),
        (low_rank(Spatiotemporal()), torch.rand(2, 3, 3, 6, 6)),
    ]


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("number", range(5))
def test_planted_structure_is_found_within_the_budget(number: int, with_data: bool) -> None:
    model, x = networks()[number]
    before = copy.deepcopy(model.state_dict())
    model.eval()
    budget = (0.6, 0.5, 0.35, 0.8, 0.3)[number]
    smaller, report = compress(model, budget=budget, data=[x] if with_data else None, formats=QUICK)
    parameters = sum(p.numel() for p in smaller.parameters())
    assert parameters == report.parameters_after <= budget * sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        assert relative_error([[smaller(x)]], [[model(x)]]) < 0.02
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    json.dumps(report.to_json())
    assert "parameters" in str(report)


def test_frame_predictor_by_macs_and_by_error() -> None:
    model = low_rank(FramePredictor(1, (8,), (1,), cell="conv_lstm", kernel_size=3, patch_size=2), 6)
    data = [(torch.rand(2, 3, 1, 8, 8), 2)]
    smaller, report = compress(model, budget=0.7, budget_of="macs", data=data, formats=QUICK)
    assert report.macs_after is not None
    assert report.macs_before is not None
    assert report.macs_after <= 0.7 * report.macs_before
    # 4 steps, batch 2, 4x4 positions
    assert report.macs_before == 4 * 2 * 16 * sum(
        layer.weight.numel() for layer in (model.cells()[0].conv, model.output)
    )
    assert smaller.macs((8, 8)) * 8 == report.macs_after
    smaller, report = compress(model, budget=0.02, budget_of="error", data=data, formats=QUICK)
    expected, got = model(*data[0]), smaller(*data[0])
    assert (got - expected).norm() / expected.norm() <= 0.02
    assert report.parameters_after < report.parameters_before


def test_a_budget_of_time_goes_by_what_each_candidate_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = low_rank(OtherConvLSTM()), torch.rand(2, 4, 3, 8, 8)
    smaller, report = compress(model, budget=1.0, budget_of="time", data=[x], formats=("svd",))
    assert report.budget_of == "time"
    assert smaller(x).shape == model(x).shape
    # A clock that shows multiply-adds makes it a budget of those.
    monkeypatch.setattr(module, "seconds_of_call", lambda layer, shape: module._macs_of_call(layer, shape))
    smaller, _ = compress(model, budget=0.6, budget_of="time", data=[x], formats=("svd",))
    expected, _ = compress(model, budget=0.6, budget_of="macs", data=[x], formats=("svd",))
    for a, b in zip(smaller.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match='budget_of="time" needs data'):
        compress(model, budget=0.6, budget_of="time")
    with pytest.raises(ValueError, match="of the time can't be met: the smallest that can is"):
        compress(model, budget=1e-3, budget_of="time", data=[x], formats=("svd",))


def test_layer_and_cell_agree_with_a_factorized_convolution() -> None:
    model = ConvLSTM(2, 4, 3).double()
    smaller, _ = compress(model, budget=0.8, formats=("svd",), force={"cell.conv": "svd"})
    x = torch.rand(1, 3, 2, 6, 6, dtype=torch.float64)
    outputs, state = smaller(x)
    hidden, walked = smaller.cell(x[:, 0])
    for t in (1, 2):
        hidden, walked = smaller.cell(x[:, t], walked)
    torch.testing.assert_close(outputs[:, -1], hidden)
    torch.testing.assert_close(state, walked)


def test_a_hook_on_the_convolution_of_a_cell_is_called() -> None:
    model, calls = ConvLSTM(2, 4, 3), []
    x = torch.rand(1, 3, 2, 6, 6)
    expected = model(x)[0]
    model.cell.conv.register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(model(x)[0], expected)
    assert len(calls) == 3


def test_it_is_deterministic_and_keeps_modes_and_gradients() -> None:
    model, x = Residual(), torch.randn(4, 3, 16, 16)
    model.second.requires_grad_(False)
    model.norm.eval()
    one, first = compress(model, budget=0.5, data=[x])
    two, _ = compress(model, budget=0.5, data=[x])
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not one.norm.training
    assert one.second.training
    assert not any(p.requires_grad for p in one.second.parameters())
    assert all(p.requires_grad for p in one.last.parameters())
    assert first.output_error is not None


def test_calibration_pays_where_the_input_has_little_in_most_directions() -> None:
    model = nn.Sequential(nn.Linear(40, 40, bias=False), nn.Tanh(), nn.Linear(40, 40, bias=False))
    data = [torch.randn(64, 4) @ torch.randn(4, 40) for _ in range(2)]
    blind, _ = compress(model, budget=0.4)
    aware, report = compress(model, budget=0.4, data=data)
    errors = [relative_error([[m(x)] for x in data], [[model(x)] for x in data]) for m in (aware, blind)]
    assert errors[0] < 0.2 * errors[1]
    assert report.output_error == pytest.approx(errors[0], rel=1e-3)


def test_the_choice_is_the_best_of_all_ranks_within_the_budget() -> None:
    torch.manual_seed(1)
    model = Beside()
    model.one.weight.data = torch.randn(40, 2) @ torch.randn(2, 40) / 10 + 0.01 * torch.randn(40, 40)
    x = torch.randn(50, 40)
    # Half of 2 * 40 * 40 parameters are 20 ranks of 40 + 40, to be shared by the two layers.
    errors = []
    for rank in range(1, 20):
        shared, _ = compress(model, budget=0.5, data=[x], force={"one": ("svd", rank), "other": ("svd", 20 - rank)})
        errors.append(relative_error([shared(x)], [model(x)]))
    chosen, _ = compress(model, budget=0.5, data=[x])
    error = relative_error([chosen(x)], [model(x)])
    assert error < errors[9]  # equal ranks
    assert error == pytest.approx(min(errors), rel=0.01)


def test_keep_and_force() -> None:
    model = Residual()
    smaller, report = compress(model, budget=0.9, keep=["last"], force={"*": "svd", "sec*": ("tucker", (4, 4))})
    rows = {row.name: row for row in report.layers}
    assert isinstance(smaller.last, nn.Linear)
    assert "last" in report.left_out
    assert (rows["second"].format, rows["second"].rank) == ("tucker", (4, 4, 3, 3))
    assert rows["first"].format == "svd"
    with pytest.raises(ValueError, match="matches no layer"):
        compress(model, budget=0.5, keep=["nowhere"])
    with pytest.raises(ValueError, match="matches no layer"):
        compress(model, budget=0.5, force={"nowhere": "svd"})


class Sharing(nn.Module):
    """One layer under two names, and one that holds itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other = nn.Linear(30, 30), nn.Linear(30, 30)
        self.inner = nn.ModuleDict({"second": self.first})
        self.inner["around"] = self.inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner["second"](self.other(self.first(x)))


def test_a_layer_answers_to_all_of_its_names() -> None:
    for name in ("first", "inner.second", "*.sec*"):
        _, kept = compress(Sharing(), budget=0.8, keep=[name])
        assert kept.left_out == {"first": f"kept, by {name!r}"}
        assert [row.name for row in kept.layers] == ["other"]
        forced, report = compress(Sharing(), budget=0.9, force={name: ("svd", 5)})
        assert (report.layers[0].name, report.layers[0].rank) == ("first", (5,))
        assert forced.inner["second"] is forced.first
    with pytest.raises(ValueError, match="there are 'first', 'other'"):
        compress(Sharing(), budget=0.5, keep=["inner"])
    with pytest.raises(ValueError, match="there are other"):
        compress(Sharing(), budget=0.5, keep=["first"], force={"inner.second": "svd"})


def test_no_formats() -> None:
    with pytest.raises(ValueError, match="formats is empty: name at least one of svd"):
        compress(Residual(), budget=0.5, formats=())
    _, report = compress(Residual(), budget=0.9, formats=(), force={"second": "svd"})
    assert [row.format for row in report.layers] == ["dense", "svd", "dense"]


def test_without_data_smooth_inputs_lose_less(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 5), nn.Tanh(), nn.Conv2d(16, 8, 5))
    x = F.avg_pool2d(torch.randn(8, 8, 28, 28), 5, 1)
    smaller, report = compress(model, budget=0.3, formats=QUICK)
    assert all(row.output_error is None for row in report.layers)
    monkeypatch.setattr(module, "_CORRELATION", 0.0)
    plain, _ = compress(model, budget=0.3, formats=QUICK)
    with torch.no_grad():
        errors = [relative_error([[m(x)]], [[model(x)]]) for m in (smaller, plain)]
    assert errors[0] < 0.8 * errors[1]


def test_an_error_budget_without_data_is_that_of_plain_kernels() -> None:
    model = low_rank(nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3)), 6)
    with torch.no_grad():
        for conv in model:
            conv.weight += 0.02 * torch.randn_like(conv.weight)
    smaller, report = compress(model, budget=0.3, budget_of="error", formats=("svd",))
    for row, before, after in zip(report.layers, model, smaller, strict=True):
        error = (after.to_tensor() - before.weight).norm() / before.weight.norm()
        assert row.weight_error == pytest.approx(float(error.detach()), rel=1e-3)
        values = torch.linalg.svdvals(before.weight.detach().flatten(1)).square()
        tails = (values.flip(0).cumsum(0).flip(0) / values.sum()).sqrt()
        assert row.rank == (int((tails > 0.3).sum()),)


def test_an_error_budget_without_data_is_kept_where_errors_are_estimated() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 16, 5)
    with torch.no_grad():
        left, values, right = torch.linalg.svd(conv.weight.flatten(1), full_matrices=False)
        conv.weight.copy_((left * values * torch.exp(-0.3 * torch.arange(16)) @ right).view_as(conv.weight))
    for error in (0.12, 0.2):
        smaller, report = compress(conv, budget=error, budget_of="error", formats=("conv_tt",))
        # The kernel is what an impulse gives, mirrored.
        impulse = torch.eye(6)[:, :, None, None] * F.pad(torch.ones(1, 1), [4] * 4)
        with torch.no_grad():
            off = smaller(impulse) - conv(impulse)
        assert report.layers[0].format == "conv_tt"
        assert float(off.norm() / conv.weight.detach().norm()) <= error * (1 + 1e-4)


def test_a_layer_that_sees_only_zeros_is_fitted_on_its_weights() -> None:
    model = nn.Sequential(nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    with torch.no_grad():
        model[0].bias.fill_(-1e3)
    smaller, _ = compress(model, budget=0.4, data=[torch.randn(2, 4, 8, 8)], formats=QUICK)
    assert all(p.isfinite().all() for p in smaller.parameters())
    smaller, _ = compress(model, budget=0.4, data=[torch.zeros(2, 4, 8, 8)], formats=QUICK)
    assert all(p.isfinite().all() for p in smaller.parameters())


def test_data_that_are_not_finite_name_the_layer() -> None:
    model = nn.Sequential(nn.Conv2d(4, 16, 3))
    with pytest.raises(ValueError, match=r"layer '0' hold infinite or NaN"):
        compress(model, budget=0.4, data=[torch.full((1, 4, 8, 8), torch.nan)])


def test_modules_that_read_the_weight_of_a_linear_layer_work() -> None:
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    smaller, report = compress(model, budget=0.8, data=[x])
    assert any(isinstance(m, LowRankLinear) for m in smaller.modules())
    assert "self_attn.out_proj" in report.left_out
    with torch.no_grad():
        fast = smaller(x)
    torch.testing.assert_close(fast, smaller(x).detach(), rtol=1e-4, atol=1e-5)


def test_choice_is_exact_on_hulls_and_fills_the_rest() -> None:
    layers = {
        "a": [Item(1, 9.0), Item(2, 8.5), Item(4, 0.0)],
        "b": [Item(1, 1.0), Item(4, 0.0)],
    }
    assert choose(layers, 5) == {"a": 2, "b": 0}
    assert choose(layers, 3) == {"a": 1, "b": 0}
    with pytest.raises(ValueError, match="cheapest"):
        choose(layers, 1)


class Stateful(nn.Module):
    """Keeps its states, a count and a table from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.states, self.table = nn.Conv2d(3 + 8, 32, 3, padding=1), [], None
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if not self.states:
            self.states, self.table = [x.new_zeros(len(x), 8, *x.shape[2:])] * 2, torch.linspace(0.5, 1, 8)
        self.calls += 1
        h, c = self.states
        i, f, o, g = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        self.states = [o.sigmoid() * c.tanh() * self.table.view(-1, 1, 1), c]
        return self.states[0]


def test_states_that_a_network_keeps_are_left_alone() -> None:
    model, x = Stateful(), torch.randn(2, 3, 6, 6)
    smaller, report = compress(model, budget=0.6, data=[x], formats=("svd",))
    for network in (model, smaller):
        assert network.states == []
        assert network.calls == 0
    # All passes began alike, and nothing that is kept was made without gradients.
    expected, got = model(x), smaller(x)
    assert relative_error([[got]], [[expected]]) == pytest.approx(report.output_error, rel=1e-4)
    for output in (expected, got):
        output.sum().backward()
    # After a call, the states are results, of which only the values can be copied.
    again, _ = compress(model, budget=0.6, data=[x], formats=("svd",))
    assert torch.equal(again.states[0], model.states[0])
    assert model.calls == 1


def test_kernels_that_hooks_compute_are_copied_after_a_call() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        computed = nn.utils.weight_norm(nn.Conv2d(16, 8, 3))
    model, x = nn.Sequential(nn.Conv2d(3, 16, 3), computed), torch.randn(2, 3, 8, 8)
    expected = model(x)
    smaller, report = compress(model, budget=0.9, data=[x], formats=("svd",))
    assert "computed by a hook" in report.left_out["1"]
    assert relative_error([[smaller(x)]], [[expected]]) == pytest.approx(report.output_error, rel=1e-4)


class Reading(nn.Module):
    """Reads the weight of a layer instead of calling it, and holds integers as a parameter."""

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, kernel, padding=kernel // 2)
        self.numbers = nn.Parameter(torch.arange(3), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(self.one(x), self.other.weight, self.other.bias)


@pytest.mark.parametrize("name", ["svd", "tucker", "conv_tt"])
@pytest.mark.parametrize("with_data", [False, True])
def test_networks_that_read_a_weight_work(name: str, with_data: bool) -> None:
    model, x = Reading(5), torch.randn(2, 3, 8, 8)
    data = [x] if with_data else None
    smaller, _ = compress(
        model, budget=0.9, data=data, formats=("svd",), force={"other": (name, 2 if name != "tucker" else (2, 2))}
    )
    assert not isinstance(smaller.other, nn.Conv2d)
    assert torch.equal(smaller.numbers, model.numbers)
    expected = nn.functional.conv2d(smaller.one(x), smaller.other.to_tensor(), model.other.bias)
    torch.testing.assert_close(smaller(x), expected)


def test_a_layer_that_is_never_called_is_not_spoiled_for_others() -> None:
    model, x = Reading(), torch.randn(2, 3, 8, 8)
    _, report = compress(model, budget=0.95, data=[x], formats=("svd",))
    rows = {row.name: row for row in report.layers}
    assert rows["other"].weight_error < 0.5
    assert any("never reach 'other'" in note for note in report.notes)


def test_the_time_of_a_pass_is_taken_without_hooks() -> None:
    seen = []

    class Watching(nn.Linear):
        def __call__(self, x: Tensor) -> Tensor:
            seen.append(len(self._forward_pre_hooks))
            return super().__call__(x)

    x = torch.randn(2, 9)
    module.pass_times(Watching(9, 9), Watching(9, 9), Calibration([x]))
    assert seen
    assert not any(seen)


class TestBadInput:
    def test_an_error_budget_needs_numbers_to_measure(self) -> None:
        model = nn.Sequential(nn.Linear(9, 9), Classes())
        with pytest.raises(ValueError, match="holds no floating-point numbers"):
            compress(model, budget=0.1, budget_of="error", data=[torch.randn(4, 9)])
        _, report = compress(model, budget=0.5, data=[torch.randn(4, 9)])
        assert report.output_error is None

    def test_forced_ranks(self) -> None:
        conv = nn.Conv2d(8, 8, 5)
        # A share of 8 * 8 * 25 parameters; a rank takes 2 * 8 * 9.
        _, report = compress(conv, budget=1.0, force={"": ("conv_tt", 0.3)})
        assert report.layers[0].rank == (int(0.3 * 1600 / 144),)
        with pytest.raises(ValueError, match="rank must be"):
            compress(conv, budget=1.0, force={"": ("conv_tt", 0)})
        for force in ({"": ("svd",)}, {"": None}, ["svd"]):
            with pytest.raises(TypeError, match="force"):
                compress(conv, budget=1.0, force=force)

    def test_what_cannot_be_copied_says_so(self) -> None:
        model = nn.Sequential(nn.Linear(9, 9))
        model.lock = threading.Lock()
        with pytest.raises(TypeError, match=r"this Sequential can't be copied.*lock"):
            compress(model, budget=0.5)

    def test_budget_that_cannot_be_met_says_the_smallest_that_can(self) -> None:
        model = nn.Sequential(nn.Linear(20, 20), nn.Embedding(10, 20))
        with pytest.raises(ValueError, match=r"smallest that can is 0\.\d+") as error:
            compress(model, budget=0.1)
        smallest = float(str(error.value).split("smallest that can is ")[1].split(",")[0])
        compress(model, budget=smallest)

    def test_nothing_to_compress(self) -> None:
        with pytest.raises(ValueError, match=r"nothing .* holds no nn\.Conv1d"):
            compress(nn.ReLU(), budget=0.5)
        tied = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        tied[1].weight = tied[0].weight
        with pytest.raises(ValueError, match="shares its weight"):
            compress(tied, budget=0.5)

    def test_wrong_shapes_name_the_layer(self) -> None:
        model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 8, 3))
        with pytest.raises(ValueError, match=r"batch 0.*layer '1'"):
            compress(model, budget=0.5, data=[torch.zeros(1, 4, 8, 8)])

    def test_infinite_weights_name_the_layer(self) -> None:
        model = nn.Sequential(nn.Linear(8, 8))
        model[0].weight.data[0, 0] = torch.inf
        with pytest.raises(ValueError, match=r"layer '0'.*infinite"):
            compress(model, budget=0.5)

    @pytest.mark.parametrize("budget", [0, 1.5, -1, float("nan")])
    def test_budgets_out_of_range(self, budget: float) -> None:
        with pytest.raises(ValueError, match="budget must be"):
            compress(nn.Linear(9, 9), budget=budget)

    def test_other_arguments(self) -> None:
        with pytest.raises(TypeError, match="budget must be a number"):
            compress(nn.Linear(9, 9), budget="small")
        with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
            compress("model", budget=0.5)
        with pytest.raises(ValueError, match="needs data"):
            compress(nn.Linear(9, 9), budget=0.5, budget_of="macs")
        with pytest.raises(ValueError, match="no batch"):
            compress(nn.Linear(9, 9), budget=0.5, data=[])
        with pytest.raises(TypeError, match="wrap it in a list"):
            compress(nn.Linear(9, 9), budget=0.5, data=torch.zeros(2, 9))


@pytest.mark.parametrize("batch", [torch.zeros(0, 8, 6, 6), (torch.zeros(0, 8, 6, 6),)])
def test_an_empty_batch_is_named(batch: object) -> None:
    with pytest.raises(ValueError, match=r"calibration batch 1 \(\(0, 8, 6, 6\)\) is empty"):
        compress(nn.Conv2d(8, 8, 3), budget=0.5, data=[torch.randn(1, 8, 6, 6), batch])


class InPlace(nn.Module):
    """Inference code: changes in place what the gradient needs."""

    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.one, self.two, self.change = nn.Linear(24, 24), nn.Linear(24, 24), change

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x).relu().sigmoid()
        self.change(y)
        return self.two(y)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda y: y.add_(1.0), lambda y: y + 1.0),
        (lambda y: y.mul_(2.0), lambda y: y * 2.0),
        (lambda y: y[:, :3].zero_(), lambda y: torch.cat([0 * y[:, :3], y[:, 3:]], 1)),
        (lambda y: y.clamp_(max=0.7), lambda y: y.clamp(max=0.7)),
    ],
)
def test_code_that_works_in_place_is_weighed_as_the_same_without(change: Any, same: Any) -> None:
    x, model = torch.randn(50, 24), InPlace(change)

    class Plain(InPlace):
        def forward(self, x: Tensor) -> Tensor:
            return self.two(same(self.one(x).relu().sigmoid()))

    plain = Plain(change)
    plain.load_state_dict(model.state_dict())
    found, expected = (
        Calibration([x]).sensitivities(m, {"one": m.one, "two": m.two}) for m in (model.eval(), plain.eval())
    )
    assert found == pytest.approx(expected, rel=1e-5)
    assert all(found.values())
