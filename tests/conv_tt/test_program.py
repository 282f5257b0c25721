"""Every program gives the values and gradients of the naive evaluation; the choice follows the costs."""

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.conv_tt.test_layer import CASES, SIZES, make, windows
from tests.oracle.conv_tt import conv_tt
from tests.oracle.parameters import conv_tt_parameters
from tt_conv import ConvTT
from tt_conv.conv_tt.program import ChainProgram, ProgramUsage, partitions


@pytest.mark.parametrize("window", ["sliding", "fixed"])
@pytest.mark.parametrize("boundary", ["zeros", "circular"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_program_equals_the_oracle(case: dict, boundary: str, window: str) -> None:
    layer = make(case, boundary=boundary, window=window)
    frames = windows(layer)
    expected = conv_tt(list(frames.unbind(1)), conv_tt_parameters(layer), window=window, boundary=boundary)
    weights = torch.randn_like(expected)
    sources = [frames, *layer.parameters()]
    expected_gradients = torch.autograd.grad((expected * weights).sum(), sources)
    programs = layer.programs((2, 1, 2, *SIZES[layer.dim]))
    assert len(programs) == 2 ** (layer.order - 1) + 1
    for program in programs:
        output = program.compile().bind(layer.weights())(layer.windows(frames.unbind(1)))
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)
        gradients = torch.autograd.grad((output * weights).sum(), sources)
        for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-8)


def test_stagewise_borders_leave_one_program() -> None:
    assert [p.name for p in ConvTT(2, 3, 3, boundary="stagewise").programs((1, 4, 2, 6, 6))] == ["level by level"]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_partitions_are_all_ways_to_cut_a_chain(order: int) -> None:
    expected = set()
    for cut in itertools.product([False, True], repeat=order - 1):
        edges = [0, *(i + 1 for i, here in enumerate(cut) if here), order]
        expected.add(tuple((a, b - 1) for a, b in itertools.pairwise(edges)))
    assert set(partitions(order)) == expected


def test_a_high_order_has_few_partitions() -> None:
    assert len(set(partitions(9))) == 1 + 9 * 8 // 2
    assert len(set(partitions(21))) == 1 + 20


def test_a_chain_may_be_longer_than_the_alphabet() -> None:
    layer = ConvTT(1, 2, 1, order=27, rank=1, dim=1, dtype=torch.float64)
    frames = torch.randn(1, 27, 1, 4, dtype=torch.float64)
    expected = conv_tt(list(frames.unbind(1)), conv_tt_parameters(layer), window="sliding", boundary="zeros")
    merged = ChainProgram(layer._shape(1, (4,)), ((0, 26),), ProgramUsage())
    for output in (
        layer.forward_window(frames),
        merged.compile().bind(layer.weights())(layer.windows(frames.unbind(1))),
    ):
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("boundary", ["zeros", "circular", "stagewise"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_costs_are_the_macs_that_are_run(case: dict, boundary: str) -> None:
    layer = make(case, boundary=boundary)
    frames = windows(layer).detach()
    for program in layer.programs((2, 1, 2, *SIZES[layer.dim]), train=False, frozen=True):
        bound = program.compile().bind(layer.weights())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            bound(layer.windows(frames.unbind(1)))
        assert 2 * program.cost()[0] == counter.get_total_flops()


def test_the_dense_kernel_wins_once_it_is_frozen_and_the_rank_is_high() -> None:
    layer = ConvTT(8, 32, 3, order=3, rank=64)
    names = [program.name for program in layer.programs((2, 10, 8, 64, 64), train=False, frozen=True)]
    assert names[0] == "dense kernel"
    layer = ConvTT(64, 64, 5, order=3, rank=4)
    assert layer.programs((1, 1, 64, 64, 64), train=True)[0].name != "dense kernel"


def test_data_that_moves_has_a_price() -> None:
    # The dense kernel takes a quarter more multiply-adds, but moves less than half of the data.
    layer = ConvTT(4, 64, 3, order=2, steps=4, rank=32)
    programs = layer.programs((16, 1, 4, 16, 16), train=False, frozen=True)
    assert [program.name for program in programs][:2] == ["dense kernel", "level by level"]
    assert programs[0].cost()[0] > programs[1].cost()[0]
    assert programs[0].cost()[1] < programs[1].cost()[1] / 2


def test_gradients_triple_the_cost_and_reuse_divides_that_of_weights() -> None:
    layer = ConvTT(4, 4, 3, order=2, rank=4, boundary="stagewise")
    shape = (1, 1, 4, 8, 8)
    inference, training = (layer.programs(shape, train=train)[0].cost()[0] for train in (False, True))
    assert training == 3 * inference
    assert ProgramUsage(reuse=4) != ProgramUsage()


def test_explain_prints_candidates_costs_and_the_choice(capsys: pytest.CaptureFixture) -> None:
    layer = ConvTT(4, 8, 3, order=3, rank=2)
    layer.explain((2, 5, 4, 16, 16))
    text = capsys.readouterr().out
    for program in layer.programs((2, 5, 4, 16, 16)):
        assert program.name in text
    assert text.count("<- chosen") == 1
    assert "10 windows of 3 frames, borders 'zeros', training" in text


def test_explain_refuses_a_shape_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="4 channels and 2 spatial axes, ints of at least 1, got \\(2, 5, 3, 8, 8\\)"):
        ConvTT(4, 8, 3).explain((2, 5, 3, 8, 8))


@pytest.mark.parametrize("rank", [1, 8, 64])
def test_training_is_stable_at_any_rank(rank: int) -> None:
    layer = ConvTT(3, 4, 3, order=3, rank=rank)
    teacher = ConvTT(3, 4, 3, order=3, rank=2)
    sequence = torch.randn(2, 6, 3, 8, 8)
    with torch.no_grad():
        target = teacher(sequence)
    optimizer = torch.optim.Adam(layer.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (layer(sequence) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert max(losses) <= 1.5 * losses[0]
    assert losses[-1] < 0.7 * losses[0]
