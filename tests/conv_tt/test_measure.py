"""``ConvTT(optimize="measure")``: what is timed, what is remembered, and that the values stay."""

import copy
import pickle
import warnings

import pytest
import torch

from tt_conv import ConvTT
from tt_conv.conv_tt import measure, program
from tt_conv.layers import ConvTTLSTMCell


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Forget what was measured, and count the programs in each race instead of timing them; the last one wins."""
    counts: list[int] = []

    def last(runs, device):
        for run in runs:
            run()
        counts.append(len(runs))
        return len(runs) - 1

    monkeypatch.setattr(measure, "fastest", last)
    monkeypatch.setattr(measure, "_measured", {})
    program.winners.clear()
    return counts


def pair(**options) -> tuple[ConvTT, ConvTT]:
    """A layer that measures, and one with the same parameters that does not."""
    arguments = {"kernel_size": 3, "order": 2, "steps": 3, "rank": 2, "dtype": torch.float64} | options
    layer = ConvTT(2, 3, **arguments, optimize="measure")
    plain = ConvTT(2, 3, **arguments)
    plain.load_state_dict(layer.state_dict())
    return layer, plain


def sequence(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("window", ["sliding", "fixed"])
@pytest.mark.parametrize("boundary", ["zeros", "circular"])
@pytest.mark.parametrize("training", [True, False])
def test_values_and_gradients_are_those_of_the_other_programs(races, training, boundary, window) -> None:
    layer, plain = (x.train(training) for x in pair(boundary=boundary, window=window, core_bias=True))
    frames = sequence(2, 4, 2, 5, 6).requires_grad_()
    outputs = [x(frames) for x in (layer, plain)]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
    gradients = [
        torch.autograd.grad(y.square().sum(), [frames, *x.parameters()])
        for x, y in zip((layer, plain), outputs, strict=True)
    ]
    for measured, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(measured, expected, rtol=1e-10, atol=1e-10)
    assert races == [3]
    with torch.no_grad():
        torch.testing.assert_close(layer(frames), plain(frames), rtol=0, atol=1e-12)


def test_the_winner_is_remembered_for_each_kind_of_frames(races) -> None:
    layer, _ = pair()
    frames = sequence(1, 4, 2, 6, 6)
    for _ in range(3):
        layer(frames)
    assert races == [3]
    # Layers of the same sizes share it; another batch, image, type, use or memory format is another race.
    pair()[0](frames)
    assert len(races) == 1
    layer(sequence(2, 4, 2, 6, 6))
    layer(sequence(1, 4, 2, 6, 7))
    layer(frames.clone().requires_grad_())
    with torch.no_grad():
        layer(frames)
        layer.eval()(frames)
    layer.float().train()(frames.float())
    assert len(races) == 7


def test_measuring_leaves_gradients_and_random_numbers_alone(races) -> None:
    layer, _ = pair()
    state = torch.get_rng_state()
    hooks = [parameter.register_hook(lambda gradient: gradient * torch.nan) for parameter in layer.parameters()]
    layer(sequence(1, 4, 2, 6, 6).mul(0))
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert hooks
    torch.testing.assert_close(torch.get_rng_state(), _after_one_draw(state, (1, 4, 2, 6, 6)))


def _after_one_draw(state: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator()
    generator.set_state(state)
    torch.randn(shape, dtype=torch.float64, generator=generator)
    return generator.get_state()


def test_what_is_run_comes_first_and_is_marked(races, capsys) -> None:
    layer, plain = pair()
    names = [p.name for p in plain.programs((1, 4, 2, 6, 6), train=True)]
    measured = [p.name for p in layer.programs((1, 4, 2, 6, 6), train=True)]
    assert measured == [names[-1], *names[:-1]]
    layer.explain((1, 4, 2, 6, 6), train=True)
    marked = [line for line in capsys.readouterr().out.splitlines() if "<- chosen" in line]
    assert [line.startswith(names[-1]) for line in marked] == [True]
    layer(sequence(1, 4, 2, 6, 6))
    assert races == [3]


def test_stagewise_borders_leave_nothing_to_measure(races) -> None:
    cell = ConvTTLSTMCell(1, 2, 3, order=2)
    cell.recurrent.optimize = "measure"
    cell(torch.zeros(1, 1, 6, 6))
    assert races == []


def test_a_cell_can_measure_too(races) -> None:
    cell = ConvTTLSTMCell(1, 2, 3, order=2, boundary="zeros").double()
    x, state = sequence(1, 1, 6, 6), tuple(sequence(1, 2, 6, 6) for _ in range(3))
    expected, _ = cell(x, state)
    cell.recurrent.optimize = "measure"
    hidden, _ = cell(x, state)
    torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-12)
    assert races == [3]


def test_hopeless_programs_are_not_timed(races) -> None:
    # The dense convolution of 48 channels and 17 x 17 taps takes 100 times the multiply-adds.
    ConvTT(48, 192, 5, order=3, rank=8, optimize="measure").programs((2, 1, 48, 32, 32), train=False)
    assert races == [4]


def test_graphs_hold_the_winner_of_an_earlier_call(races) -> None:
    layer, plain = pair()
    frames = sequence(1, 4, 2, 6, 6)
    eager = layer(frames)
    graph = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(graph(frames), eager, rtol=0, atol=1e-12)
    other = sequence(1, 5, 2, 6, 6)
    torch.testing.assert_close(graph(other), plain(other), rtol=0, atol=1e-12)
    assert races == [3]


def test_transformed_and_traced_calls_are_not_timed(races) -> None:
    layer, plain = pair()
    parameters = {name: value.detach() for name, value in layer.named_parameters()}

    def loss(module, values, frames):
        return torch.func.functional_call(module, values, (frames,)).square().sum()

    frames = sequence(3, 1, 4, 2, 6, 6)
    gradients = [
        torch.func.vmap(torch.func.grad(loss, argnums=1), in_dims=(None, None, 0))(module, parameters, frames)
        for module in (layer, plain)
    ]
    for name in parameters:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=1e-10, atol=1e-10)
    with warnings.catch_warnings():
        # Tracing is deprecated, and says so at every check of a size.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layer, (frames[0],), check_trace=False)
    torch.testing.assert_close(traced(frames[1]), plain(frames[1]), rtol=0, atol=1e-12)
    assert races == []


def test_meta_tensors_and_other_precisions(races) -> None:
    assert ConvTT(2, 3, 3, optimize="measure", device="meta")(torch.empty(1, 4, 2, 6, 6, device="meta")).is_meta
    assert races == []
    layer = ConvTT(2, 3, 3, optimize="measure")
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(1, 4, 2, 6, 6)).dtype == torch.bfloat16
        assert layer.eval().requires_grad_(False)(torch.randn(1, 4, 2, 6, 6)).dtype == torch.bfloat16
    assert layer(torch.randn(1, 4, 2, 6, 6)).dtype == torch.float32


def test_the_real_race_ends(monkeypatch) -> None:
    monkeypatch.setattr(measure, "_measured", {})
    layer, plain = pair()
    frames = sequence(1, 4, 2, 6, 6)
    torch.testing.assert_close(layer(frames), plain(frames), rtol=0, atol=1e-12)


def test_copies_and_pickles_measure_as_well() -> None:
    layer, _ = pair()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.optimize == "measure"


def test_other_values_are_refused() -> None:
    with pytest.raises(ValueError, match="optimize must be one of 'auto', 'measure', got 'greedy'"):
        ConvTT(2, 3, 3, optimize="greedy")
