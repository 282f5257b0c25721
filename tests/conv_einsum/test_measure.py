"""Measured paths: what is timed, what is remembered."""

import time

import pytest
import torch

from tt_conv import conv_einsum, conv_einsum_expression, conv_einsum_path
from tt_conv.conv_einsum import measure
from tt_conv.conv_einsum.cost import Usage
from tt_conv.conv_einsum.network import Network, bind
from tt_conv.conv_einsum.options import Options
from tt_conv.conv_einsum.parse import parse
from tt_conv.runtime import race

CP = "bihw,or,ir,hr,wr->bohw|hw"
SHAPES = [(2, 8, 9, 8), (8, 4), (8, 4), (3, 4), (3, 4)]


def network(equation: str = CP, shapes: list = SHAPES) -> Network:
    return bind(parse(equation), shapes, Options(padding="same") if "|" in equation else Options())


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Forget what was measured, and count the calls in each race instead of timing them; the last one wins."""
    counts: list[int] = []

    def last(runs, device):
        for run in runs:
            run()
        counts.append(len(runs))
        return len(runs) - 1

    monkeypatch.setattr(measure, "fastest", last)
    monkeypatch.setattr(measure, "_chosen", {})
    return counts


def test_candidates_are_distinct_and_start_with_the_fewest_multiply_adds() -> None:
    found = measure.candidates(network(), Usage(), None)
    assert 3 <= len(found) <= race.CONTENDERS
    assert len({frozenset(map(frozenset, steps)) for steps in found}) == len(found)
    assert measure.plan(network(), Usage(), "auto", None) == found[0]
    # The kernel is rebuilt in one of them: the feature, operand 0, comes last.
    assert any(1 in steps[-1] for steps in found)


def test_hopeless_paths_are_not_tried() -> None:
    # From left to right, x times the output factor has 10^8 elements.
    shapes = [(4, 64, 28, 28), (64, 16), (64, 16), (3, 16), (3, 16)]
    found = measure.candidates(network(CP, shapes), Usage(), None)
    assert all(steps[0] != (1, 2) for steps in found)


def test_candidates_keep_within_the_memory_limit() -> None:
    from tt_conv.conv_einsum.cost import CostModel

    limit = 2 * 8 * 9 * 8
    model = CostModel(network(), Usage())
    for steps in measure.candidates(network(), Usage(), limit):
        assert max(model.elements(left | right) for left, right in steps) <= limit


def test_the_winner_is_remembered(races: list[int]) -> None:
    operands = [torch.randn(shape) for shape in SHAPES]
    expected = conv_einsum(CP, *operands, padding="same")
    for _ in range(3):
        value = conv_einsum(CP, *operands, padding="same", optimize="measure")
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)
    assert len(races) == 1
    # Another type, memory format, need of gradients or option is another race.
    conv_einsum(CP, *(x.double() for x in operands), padding="same", optimize="measure")
    operands[0] = operands[0].to(memory_format=torch.channels_last)
    conv_einsum(CP, *operands, padding="same", optimize="measure")
    conv_einsum(CP, *operands, padding="valid", optimize="measure")
    operands[1].requires_grad_()
    conv_einsum(CP, *operands, padding="same", optimize="measure")
    assert len(races) == 5
    assert operands[1].grad is None


def test_paths_and_expressions_share_what_is_known(races: list[int]) -> None:
    operands = [torch.randn(shape) for shape in SHAPES]
    path, info = conv_einsum_path(CP, *operands, padding="same", optimize="measure")
    expression = conv_einsum_expression(CP, *SHAPES, padding="same", optimize="measure")
    assert expression.path == conv_einsum_path(CP, *SHAPES, shapes=True, padding="same")[0]
    expression(*operands)
    assert expression.path == path
    assert expression.info.opt_cost == info.opt_cost
    assert len(races) == 1
    conv_einsum_path(CP, *SHAPES, shapes=True, padding="same", optimize="measure")
    assert len(races) == 1  # the random operands are of the same kind


def test_gradients_constants_and_reuse_are_raced_with(races: list[int]) -> None:
    operands = [torch.randn(shape, requires_grad=i > 0) for i, shape in enumerate(SHAPES)]
    conv_einsum_path(CP, *operands, padding="same", optimize="measure", reuse=3)
    folded = conv_einsum_expression(
        CP, SHAPES[0], *operands[1:], constants=[1, 2, 3, 4], padding="same", optimize="measure"
    )
    assert folded(operands[0]).shape == (2, 8, 9, 8)
    bound = conv_einsum_expression(CP, *SHAPES, padding="same", optimize="measure", train=True, reuse=2)
    bound.bind({i: operands[i] for i in range(1, 5)})(operands[0]).sum().backward()
    assert operands[1].grad is not None
    assert len(races) == 2


def test_the_fastest_call_wins() -> None:
    def sleeper(seconds: float):
        return lambda: time.sleep(seconds)

    device = torch.device("cpu")
    assert race.fastest([sleeper(0.02), sleeper(0.001), sleeper(0.01)], device) == 1
    assert race.fastest([sleeper(0.001)], device) == 0


def test_one_slow_moment_does_not_decide() -> None:
    naps = iter([0.0, 0.05])  # the warm-up, and the first call that counts

    def hindered() -> None:
        time.sleep(next(naps, 0.001))

    assert race.fastest([lambda: time.sleep(0.004), hindered], torch.device("cpu")) == 1


def test_meta_tensors_are_not_timed(races: list[int]) -> None:
    operands = [torch.empty(shape, device="meta") for shape in SHAPES]
    assert conv_einsum(CP, *operands, padding="same", optimize="measure").shape == (2, 8, 9, 8)
    assert races == []


def test_a_graph_takes_what_was_measured_before(races: list[int]) -> None:
    torch.compiler.reset()
    operands = [torch.randn(shape) for shape in SHAPES]
    expression = conv_einsum_expression(CP, *SHAPES, padding="same", optimize="measure")
    expected = expression(*operands)
    compiled = torch.compile(expression, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*operands), expected, rtol=1e-4, atol=1e-4)
    assert len(races) == 1
